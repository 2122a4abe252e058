import numpy as np
import pytest
from conftest import tiny_split

from flaxrnn.data import ragged


@pytest.fixture
def split():
    return tiny_split(np.random.default_rng(1), n=23, classes=3)


def test_clip_limits_words_and_keeps_the_last_tokens(split):
    clipped = split.clip(num_words=8, maxlen=5)
    for whole, cut in zip(split.texts(), clipped.texts(), strict=True):
        np.testing.assert_array_equal(np.where(whole < 8, whole, 2)[-5:], cut)
    assert clipped.ids.dtype == np.int32


def test_take_and_add_give_the_texts_asked_for(split):
    rows = np.array([4, 22, 4, 0])
    part = split.take(rows) + split.take(rows[:0]) + split.take(rows[1:2])
    wanted = [*rows, 22]
    assert len(part) == 5
    for got, row in zip(part.texts(), wanted, strict=True):
        np.testing.assert_array_equal(got, split.texts()[row])
    np.testing.assert_array_equal(part.labels, split.labels[wanted])
    assert part.ids.dtype == np.int32


@pytest.mark.parametrize("padding", ["post", "pre"])
def test_padded_holds_every_text_as_it_is(split, padding):
    arrays = split.padded(30, padding)
    assert {k: (v.shape, str(v.dtype)) for k, v in arrays.items()} == {
        "tokens": ((23, 30), "int32"),
        "lengths": ((23,), "int32"),
        "labels": ((23,), "int32"),
    }
    for row, length, want in zip(arrays["tokens"], arrays["lengths"], split.texts(), strict=True):
        if padding == "post":
            assert length == len(want)
            np.testing.assert_array_equal(row, np.pad(want, (0, 30 - len(want))))
        else:
            assert length == 30
            np.testing.assert_array_equal(row, np.pad(want, (30 - len(want), 0)))


def test_clip_of_a_text_without_a_token():
    empty = ragged.RaggedTexts(
        np.array([7, 8], np.int32), np.array([0, 0, 2, 2]), np.zeros(3, np.int32)
    )
    np.testing.assert_array_equal(empty.clip(100, 1).offsets, [0, 0, 1, 1])
    np.testing.assert_array_equal(empty.clip(100, 1).ids, [8])

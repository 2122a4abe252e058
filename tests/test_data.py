import numpy as np
import pytest
from conftest import tiny_split

import flaxrnn
from flaxrnn import data, datasets
from flaxrnn.errors import ConfigError


@pytest.fixture
def split():
    return tiny_split(np.random.default_rng(1), n=23, classes=3)


def test_clip_limits_words_and_keeps_the_last_tokens(split):
    clipped = split.clip(num_words=8, maxlen=5)
    for whole, cut in zip(split.texts(), clipped.texts(), strict=True):
        np.testing.assert_array_equal(np.where(whole < 8, whole, 2)[-5:], cut)
    assert clipped.ids.dtype == np.int32


def test_slice_is_a_range_of_texts(split):
    part = split.slice(4, 9)
    assert len(part) == 5
    for got, want in zip(part.texts(), split.texts()[4:9], strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(part.labels, split.labels[4:9])


@pytest.mark.parametrize("padding", ["post", "pre"])
def test_padded_holds_every_text_as_it_is(split, padding):
    arrays = split.padded(30, padding)
    assert {k: (v.shape, str(v.dtype)) for k, v in arrays.items()} == {
        "tokens": ((23, 30), "uint16"),
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


def test_padded_holds_large_ids():
    big = data.Split(np.array([1, 70_000], np.int32), np.array([0, 2]), np.array([0], np.int32))
    assert big.padded(3, "post")["tokens"].tolist() == [[1, 70_000, 0]]


@pytest.mark.parametrize(
    ("n", "batch", "steps", "multiple"), [(23, 4, 2, 1), (24, 4, 3, 8), (1, 5, 16, 2)]
)
def test_chunks_visit_every_row_once_in_order(n, batch, steps, multiple):
    order = data.epoch_order(n, seed=3, epoch=2)
    visited = []
    for rows, weights, count in data.chunks(order, batch, steps, multiple):
        assert rows.shape == weights.shape == (steps, -(-batch // multiple) * multiple)
        assert not weights[count:].any()
        assert (weights[:count].sum(axis=1) >= 1).all()
        assert (weights.sum(axis=1) <= batch).all()
        visited.extend(rows[weights == 1])
    np.testing.assert_array_equal(visited, order)


def test_order_is_a_pure_function_of_seed_and_epoch():
    first = data.epoch_order(100, seed=0, epoch=1)
    np.testing.assert_array_equal(first, data.epoch_order(100, seed=0, epoch=1))
    np.testing.assert_array_equal(np.sort(first), np.arange(100))
    assert (first != data.epoch_order(100, seed=0, epoch=2)).any()
    assert (first != data.epoch_order(100, seed=1, epoch=1)).any()


def test_second_load_reads_no_text(data_dir, monkeypatch):
    first = data.load_corpus("reuters", "synthetic", data_dir)
    monkeypatch.setattr(data.text, "tokenize", lambda _: pytest.fail("a text was read"))
    again = data.load_corpus("reuters", "synthetic", data_dir)
    np.testing.assert_array_equal(first.train.ids, again.train.ids)
    assert first.vocabulary.words == again.vocabulary.words


def test_damaged_cache_is_made_anew(data_dir):
    first = data.load_corpus("reuters", "synthetic", data_dir)
    builder = datasets.prepare(datasets.TASKS["reuters"], "synthetic", data_dir)
    (cache,) = builder.data_path.glob("encoded-*.npz")
    content = bytearray(cache.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (bytes(content), content[:1000], b""):
        cache.write_bytes(damaged)
        again = data.load_corpus("reuters", "synthetic", data_dir)
        np.testing.assert_array_equal(first.train.ids, again.train.ids)


def test_load_data_gives_what_keras_users_know(data_dir):
    options = {"source": "synthetic", "data_dir": data_dir}
    (x_train, y_train), (x_test, y_test) = flaxrnn.load_data("reuters", num_words=500, **options)
    assert len(x_train) == len(y_train) == 8_982
    assert len(x_test) == len(y_test) == 2_246
    assert isinstance(x_train, list)
    assert max(row.max() for row in x_train) == 499
    assert all(row[0] == 1 for row in x_train)
    (padded, _), _ = flaxrnn.load_data("reuters", num_words=500, maxlen=40, **options)
    assert padded.shape == (8_982, 40)
    row = x_train[0][-40:]
    np.testing.assert_array_equal(padded[0, 40 - len(row) :], row)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "mnist"}, "task: 'mnist' is not one of reuters"),
        ({"task": "imdb", "source": "web"}, "data.source: 'web' is not one of auto"),
        ({"task": "imdb", "num_words": 3}, "num_words: 3"),
        ({"task": "imdb", "maxlen": 0}, "maxlen: 0"),
    ],
)
def test_load_data_refuses_the_impossible(arguments, message):
    with pytest.raises(ConfigError, match=message):
        flaxrnn.load_data(**arguments)

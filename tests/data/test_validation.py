"""The stratified validation split."""

import numpy as np
import pytest

from flaxrnn.data import ragged, validation


def texts(rows, labels, per_token=False):
    offsets = np.cumsum([0, *map(len, rows)])
    ids = np.concatenate(rows).astype(np.int32)
    return ragged.RaggedTexts(ids, offsets, np.array(labels, np.int32), per_token)


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5])
def test_fraction_of_each_class_and_at_least_one(fraction):
    labels = np.repeat([0, 1, 2, 3], [100, 37, 2, 1])
    numbered = texts([[i, i + 1] for i in range(140)], labels)
    train, val = validation.stratified_split(numbered, fraction, seed=0)
    assert sorted([*train, *val]) == [*range(140)]
    counts = np.bincount(labels[val], minlength=4)
    expected = [max(1, round(n * fraction)) for n in (100, 37)]
    assert counts.tolist() == [*expected, 1, 0]
    again = validation.stratified_split(numbered, fraction, seed=0)[1]
    other = validation.stratified_split(numbered, fraction, seed=1)[1]
    assert again.tolist() == val.tolist() != other.tolist()


@pytest.mark.parametrize("seed", range(10))
def test_equal_texts_are_on_one_side_whatever_their_labels(seed):
    rng = np.random.default_rng(seed)
    rows = [[i] * (1 + i % 3) for i in rng.integers(0, 40, 200)]
    labels = rng.integers(0, 3, 200)
    train, val = validation.stratified_split(texts(rows, labels), 0.2, seed)
    assert not {tuple(rows[i]) for i in train} & {tuple(rows[i]) for i in val}
    assert set(labels[train]) == set(labels[val]) == {0, 1, 2}
    assert 20 <= len(val) <= 40


def test_class_of_few_different_texts():
    """Twice one and three times another: the smaller group, though it is more than a tenth."""
    rows, labels = [[1], [1], [2], [2], [2], [7], [7], [8]], [0] * 5 + [1] * 2 + [2]
    train, val = validation.stratified_split(texts(rows, labels), 0.1, seed=0)
    assert val.tolist() == [0, 1]
    assert train.tolist() == [2, 3, 4, 5, 6, 7]  # class 1 has one text, class 2 one row


def test_with_a_label_per_token_all_texts_are_of_one_class():
    tagged = texts([[i, i] for i in range(20)], [0, 1] * 20, per_token=True)
    train, val = validation.stratified_split(tagged, 0.25, seed=0)
    assert (len(train), len(val)) == (15, 5)

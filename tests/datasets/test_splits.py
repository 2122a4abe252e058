from collections import Counter

import numpy as np
import pytest
from helpers import everything, load_custom, write_csv

from flaxrnn.data import batching
from flaxrnn.datasets import splits
from flaxrnn.datasets.parsing import Example
from flaxrnn.errors import DataError


def test_test_and_validation_are_stratified_by_the_seed_alone(tmp_path):
    rng = np.random.default_rng(0)
    sizes = {"a": 300, "b": 90, "c": 30}
    rows = [(f"{label} {i}", label) for label in sizes for i in range(sizes[label])]
    path = write_csv(tmp_path / "a.csv", rows)  # sorted by class
    corpus = load_custom(path, tmp_path, test_fraction=0.2)
    training_data = batching.prepare_data(
        corpus,
        num_words=500,
        maxlen=5,
        padding="post",
        max_padding=1.0,
        validation="train",
        validation_fraction=0.25,
    )
    parts = {name: training_data.texts.take(rows) for name, rows in training_data.rows.items()}
    for split, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        counts = np.bincount(parts[split].labels)
        assert sum(counts) == 420 * share
        np.testing.assert_allclose(counts, np.array([300, 90, 30]) * share, atol=1)

    def test_texts(seed):
        corpus = load_custom(path, tmp_path, seed=seed)
        return everything(corpus), [*corpus.train.ids], Counter(corpus.test.labels.tolist())

    first = test_texts(3)
    (tmp_path / "data").rename(tmp_path / "elsewhere")  # not from the cache
    assert test_texts(3) == first
    assert test_texts(4)[1] != first[1]
    assert test_texts(4)[2] == first[2]
    order = splits.stratified_order([label for _, label in rows], int(rng.integers(100)))
    assert sorted(order) == list(range(420))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("up up", "data.path: a.csv: texts of two classes are needed; all have the same, 'up'"),
        ("", "data.path: a.csv: texts of two classes are needed; none is left"),
        ("up up down", "data.path: a.csv: the class 'down' has a single text, not two"),
        ("up up down down", "data.test_fraction: 0.1 of 4 texts leaves no test text"),
        ("up:train up:train down:train down:train", "a.csv: no text is in the split test"),
        ("up:train up:train down:test down:test", "the class 'down' has no text in train"),
        ("up:train up down down", "data.path: a.csv: some texts are in a split, others in none"),
    ],
)
def test_what_cannot_be_split_is_named(rows, message):
    examples = [Example("x", *row.partition(":")[::2]) for row in rows.split()]
    with pytest.raises(DataError) as caught:
        splits.train_test_split(examples, "a.csv", 0.1, seed=0)
    assert message in str(caught.value)

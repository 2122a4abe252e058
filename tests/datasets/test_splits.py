from collections import Counter

import numpy as np
import pytest
from helpers import ROWS, everything, load_custom, texts_of, write_csv

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


def split(rows, fraction=0.1, seed=0):
    """The splits of examples like "text:label:split"; the text is the key, too."""
    examples = [Example(*f"{row}::".split(":")[:3]) for row in rows]
    keys = [example.text for example in examples]
    return splits.split_examples(examples, keys, "a.csv", fraction, seed)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a:up b:up", "data.path: a.csv: texts of two classes are needed; all have the same, 'up'"),
        ("", "data.path: a.csv: texts of two classes are needed; none is left"),
        ("a:up b:up c:down d:down", "data.test_fraction: 0.1 of 4 texts leaves no test text"),
        ("a:up a:down", "data.path: a.csv: all texts are equal, so none can be"),
        ("a:up:test b:down:test", "data.path: a.csv: no text is in the split train"),
        ("a:up:train b:up:train c:x:test d:down:test", "data.rare_classes: a.csv: without a text in"
         " train: down, x; drop leaves"),
        ("a:up:train b:up c:down", "data.path: a.csv: some texts are in a split, others in none"),
        ("a", "data.path: a.csv: there is a single text, not two"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_named(rows, message):
    with pytest.raises(DataError) as caught:
        split(rows.split())
    assert message in str(caught.value)


def test_equal_texts_are_on_one_side():
    rng = np.random.default_rng(0)
    rows = [f"{i % 400}:{rng.choice(['up', 'down', 'x'])}" for i in rng.permutation(600)]
    for seed in range(20):
        found = split(rows, 0.2, seed)
        texts = [{rows[i].partition(":")[0] for i in part} for part in (found.train, found.test)]
        assert not texts[0] & texts[1]
        assert sorted([*found.train, *found.test]) == list(range(600))
        assert abs(len(found.test) - 120) <= 1
        of_class = Counter(rows[i].partition(":")[2] for i in found.test)
        assert min(of_class.values()) > 25


def test_lines_without_a_class_may_repeat():
    found = split(["a"] * 50 + ["b"] * 50)
    assert (len(found.train), len(found.test)) == (90, 10)


def test_no_class_is_for_testing_only():
    rows = ["same:x"] * 12 + [f"{i}:{'up' if i % 2 else 'down'}" for i in range(20)] + ["one:y"]
    for seed in range(20):
        found = split(rows, 0.3, seed)
        assert {rows[i].partition(":")[2] for i in found.train} == {"x", "y", "up", "down"}


def test_given_splits_are_kept():
    rows = ["a:up:train", "b:down:train", "c:up:validation", "d:down:test", "a:up:test"]
    found = split(rows)
    assert sorted(found.train) == [0, 1]
    assert found.validation.tolist() == [2]
    assert found.test.tolist() == [3, 4]
    rows = [f"{i}:{'up' if i % 2 else 'down'}:train" for i in range(20)]
    found = split([*rows, "x:up:validation"])  # the test texts are drawn from train
    assert found.validation.tolist() == [20]
    assert (len(found.train), len(found.test)) == (18, 2)
    assert split(rows).test.tolist() == found.test.tolist()


def test_rare_classes():
    rows = ["a:up", "b:up", "c:x", "d:w"]
    examples = [Example(*row.split(":"), "") for row in rows]
    with pytest.raises(DataError) as caught:
        splits.rare_classes(examples, "a.csv", "error")
    message = str(caught.value)
    assert message.startswith("data.rare_classes: a.csv: with a single text: w, x; drop leaves")
    assert message.endswith("; to merge them, give them the same label")
    assert splits.rare_classes(examples, "a.csv", "drop") == {"w", "x"}
    assert splits.rare_classes(examples, "a.csv", "keep") == set()
    given = [Example("a", "up", "train"), Example("b", "up", "test")]
    given += [Example("c", "x", "test"), Example("d", "x", "test")]
    assert splits.rare_classes(given, "a.csv", "drop") == {"x"}


def test_rare_classes_of_a_file(tmp_path, capsys):
    rows = [*ROWS, ("film", "rare"), ("plot", "rarer")]
    path = write_csv(tmp_path / "a.csv", rows)
    with pytest.raises(DataError, match=r"data\.rare_classes: a\.csv: with a single text: rare, "):
        load_custom(path, tmp_path)
    corpus = load_custom(path, tmp_path, rare_classes="drop")
    assert everything(corpus) == everything(
        load_custom(write_csv(tmp_path / "b.csv", ROWS), tmp_path)
    )
    assert "; left out 2 of rare classes\n" in capsys.readouterr().err
    for seed in range(5):
        corpus = load_custom(path, tmp_path, rare_classes="keep", seed=seed, test_fraction=0.7)
        assert {"film", "plot"} <= set(texts_of(corpus.train, corpus))
        assert corpus.label_names == ["down", "rare", "rarer", "up"]

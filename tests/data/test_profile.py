"""The figures of a corpus, by hand."""

import dataclasses

import numpy as np
from helpers import PROFILE, load_custom, write_csv

from flaxrnn.data.profile import profile

ROWS = [
    ("one two one", "up", "train"),
    ("하나 one", "down", "train"),
    ("one", "down", "train"),
    ("one two three four", "up", "test"),
    ("five", "down", "test"),
]


def profile_of(tmp_path, **options):
    corpus = load_custom(write_csv(tmp_path / "a.csv", ROWS, ("text", "label", "split")), tmp_path)
    rows = {"train": np.arange(2), "val": np.arange(2, 3), "test": np.arange(3, 5)}
    settings = {"num_words": 6, "maxlen": 2, "labelled": True, **options}
    return profile(corpus, rows, **settings)


def test_figures(tmp_path):
    found = profile_of(tmp_path)
    assert found.texts == {"train": 2, "val": 1, "test": 2}
    assert found.classes == {"down": 3, "up": 2}
    assert list(found.classes) == ["down", "up"]
    assert (found.median_length, found.longest) == (2, 4)
    assert found.cut == 2 / 5  # 3 and 4 words; 2 fit without the token that starts a text
    # The vocabulary is "one" and whichever of "two" and "하나" came first.
    assert found.unknown == {"train": 1 / 6, "test": 3 / 5} or found.unknown["test"] == 4 / 5
    assert found.scripts == {"Latin": 15 / 17, "Hangul": 2 / 17}


def test_a_larger_vocabulary_leaves_the_words_that_only_the_test_has(tmp_path):
    assert profile_of(tmp_path, num_words=100).unknown == {"train": 0, "test": 3 / 5}


def test_without_labels_there_are_no_classes(tmp_path):
    found = profile_of(tmp_path, labelled=False)
    assert found.classes is None
    assert "classes" not in found.describe()


def test_in_words():
    shown = PROFILE.describe()
    assert shown["texts"] == "1,234 to train on, 137 to validate on, 150 to test"
    assert shown["length"] == (
        "12 words in the median, 4,321 at most; 6.2% of the texts are cut to their last 256"
        " (data.maxlen)"
    )
    assert shown["unknown"] == (
        "1.0% of the words of training texts, 12.5% of those of test texts (data.num_words=8,000)"
    )
    assert shown["scripts"] == "Hangul 90%, Latin 10%"


def test_of_many_classes_the_largest_and_the_smallest_are_named():
    many = dataclasses.replace(PROFILE, classes={f"c{i}": 50 - i for i in range(40)})
    assert many.describe()["classes"] == (
        "40: c0 (50), c1 (49), c2 (48), c3 (47), c4 (46), c5 (45), …, c34 (16), c35 (15), c36 (14),"
        " c37 (13), c38 (12), c39 (11)"
    )

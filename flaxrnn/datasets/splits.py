"""Splits custom texts into training and test texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from flaxrnn.datasets.parsing import Example
from flaxrnn.errors import DataError


def train_test_split(
    examples: Sequence[Example], name: str, test_fraction: float, seed: int
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Finds the classes, and splits the examples into train and test.

    Where the examples do not say which split they are in, `test_fraction` of each class is the
    test split. The order within train spreads every class evenly, so that any last part of it is
    stratified as well.

    Args:
        examples: None of them empty.
        name: Name of their source, for errors.
        test_fraction: Share of the texts.
        seed: Seed of the shuffling.

    Returns:
        The classes, sorted (without classes there is one, ""), and the rows of train and of test,
        int [N].

    Raises:
        DataError: There are fewer than two classes, or too few texts in one.
    """
    labels = [example.label for example in examples]
    _check_classes(Counter(labels), name)
    if any(example.split for example in examples):
        train, test = _given_split([example.split for example in examples], name)
        train = train[stratified_order([labels[row] for row in train], seed)]
    else:
        order = stratified_order(labels, seed)
        cut = len(order) - round(len(order) * test_fraction)
        train, test = order[:cut], order[cut:]
        if not len(test):
            raise DataError(
                f"data.test_fraction: {test_fraction} of {len(labels):,} texts leaves no test text"
            )
    if missing := set(labels) - {labels[row] for row in train}:
        raise DataError(f"data.path: {name}: the class {min(missing)!r} has no text in train")
    return sorted(set(labels)), train, test


def stratified_order(labels: Sequence[str], seed: int) -> np.ndarray:
    """A random order of all rows in which the texts of every class are evenly spaced."""
    order = np.random.default_rng(seed).permutation(len(labels))
    classes = np.unique(labels, return_inverse=True)[1][order]
    position = np.empty(len(labels))
    for label in np.unique(classes):
        rows = np.flatnonzero(classes == label)
        position[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return order[np.argsort(position, kind="stable")]


def _check_classes(counts: Counter[str], name: str) -> None:
    if len(counts) < 2 and "" not in counts:
        found = f"all have the same, {min(counts)!r}" if counts else "none is left"
        raise DataError(f"data.path: {name}: texts of two classes are needed; {found}")
    for label, count in counts.items():
        if count == 1:
            of_class = f"the class {label!r} has" if label else "there is"
            raise DataError(f"data.path: {name}: {of_class} a single text, not two")


def _given_split(splits: Sequence[str], name: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose split is "train", and those whose split is "test"."""
    train, test = (np.flatnonzero([s == split for s in splits]) for split in ("train", "test"))
    if len(train) + len(test) < len(splits):
        raise DataError(f"data.path: {name}: some texts are in a split, others in none")
    if not len(test):
        raise DataError(f"data.path: {name}: no text is in the split test")
    return train, test

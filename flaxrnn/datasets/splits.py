"""Splits custom texts into training, validation and test texts."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flaxrnn.datasets.parsing import Example
from flaxrnn.datasets.rows import abbreviated
from flaxrnn.errors import DataError


class Splits(NamedTuple):
    """The rows of each split, int [n]."""

    train: np.ndarray
    validation: np.ndarray  # empty: the source has none of its own
    test: np.ndarray


def split_examples(
    examples: Sequence[Example],
    keys: Sequence[str],
    name: str,
    test_fraction: float,
    seed: int,
) -> Splits:
    """Splits the examples as they say, or draws a test split from them.

    Where no example is in the split test, `test_fraction` of each class is drawn; equal texts are
    all on one side, so the fraction is not exact where there are many of them. (Not so without
    classes: the lines that a language model learns from repeat in any text.) The order within
    train spreads every class evenly, so that any last part of it is stratified as well.

    Args:
        examples: None of them empty.
        keys: Of each example; equal texts have the same.
        name: Name of their source, for errors.
        test_fraction: Share of the texts.
        seed: Seed of the shuffling.

    Raises:
        DataError: There are fewer than two classes, or too few texts in one.
    """
    labels = [example.names for example in examples]
    _check_number(Counter(itertools.chain(*labels)), name)
    strata = rarest(labels)
    given = np.array([example.split for example in examples])
    if (given == "").any() and (given != "").any():
        raise DataError(f"data.path: {name}: some texts are in a split, others in none")
    train, validation, test = (
        np.flatnonzero(np.isin(given, names)) for names in (("train", ""), ["validation"], ["test"])
    )
    if not len(train):
        raise DataError(f"data.path: {name}: no text is in the split train")
    if len(test):
        train = train[stratified_order([strata[row] for row in train], seed)]
    else:
        train, test = _draw(train, labels, keys, name, test_fraction, seed)
    several = examples[0].labels is not None  # of which one may well be untrained
    missing = sorted(set(strata) - {strata[row] for row in train})
    if missing and not several:
        raise DataError(
            f"data.rare_classes: {name}: without a text in train: {abbreviated(missing)}; drop"
            " leaves these classes out"
        )
    return Splits(train, validation, test)


def rarest(labels: Sequence[tuple[str, ...]]) -> list[str]:
    """The rarest of the labels of each text, "" of none: the class that it is drawn by."""
    counts = Counter(itertools.chain(*labels))
    return [min(names, key=lambda name: (counts[name], name), default="") for names in labels]


def stratified_order(labels: Sequence[str], seed: int) -> np.ndarray:
    """A random order of all rows in which the texts of every class are evenly spaced."""
    order = np.random.default_rng(seed).permutation(len(labels))
    classes = np.unique(labels, return_inverse=True)[1][order]
    position = np.empty(len(labels))
    for label in np.unique(classes):
        rows = np.flatnonzero(classes == label)
        position[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return order[np.argsort(position, kind="stable")]


def rare_classes(examples: Sequence[Example], name: str, policy: str) -> set[str]:
    """The classes to leave out.

    Args:
        examples: With their labels.
        name: Name of their source, for errors.
        policy: What to do with a class that has a single text: "error", which is "keep" where a
            text may have several labels; "drop", also a class that has no text in train; or "keep":
            it is trained on, and never drawn for testing.

    Raises:
        DataError: There are such classes, and the policy is "error"; or fewer than two classes.
    """
    counts = Counter(name for example in examples for name in example.names)
    _check_number(counts, name)
    several = any(example.labels is not None for example in examples)
    single = {label for label, count in counts.items() if count == 1 and label}
    if policy == "drop":
        trained = {n for each in examples if each.split in ("train", "") for n in each.names}
        return set(counts) - trained | single
    if single and policy == "error" and not several:
        raise DataError(
            f"data.rare_classes: {name}: with a single text: {abbreviated(sorted(single))}; drop"
            " leaves such classes out, keep trains on them without testing them; to merge them,"
            " give them the same label"
        )
    return set()


def _check_number(counts: Counter[str], name: str) -> None:
    if len(counts) < 2 and "" not in counts:
        found = f"all have the same, {min(counts)!r}" if counts else "none is left"
        raise DataError(f"data.path: {name}: texts of two classes are needed; {found}")
    if counts[""] == 1:
        raise DataError(f"data.path: {name}: there is a single text, not two")


def _draw(
    rows: np.ndarray,
    labels: Sequence[tuple[str, ...]],
    keys: Sequence[str],
    name: str,
    fraction: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Divides rows into train and a fraction of each class for test, with equal texts together."""
    by_key: dict[str | int, list[int]] = {}
    for row in rows.tolist():
        by_key.setdefault(row if labels[row] == ("",) else keys[row], []).append(row)
    equal = list(by_key.values())
    strata = rarest(labels)
    order = stratified_order([strata[group[0]] for group in equal], seed)
    ends = np.cumsum([len(equal[i]) for i in order])
    wanted = len(rows) - round(len(rows) * fraction)
    if len(equal) == 1:
        raise DataError(
            f"data.path: {name}: all texts are equal, so none can be held out for testing"
        )
    cut = len(order) if wanted == len(rows) else int(np.abs(ends[:-1] - wanted).argmin()) + 1
    train = [row for i in order[:cut] for row in equal[i]]
    known = {name for row in train for name in labels[row]}
    test: list[int] = []
    needed: list[int] = []  # of classes that have no other text
    for i in order[cut:]:
        is_needed = any(not known.issuperset(labels[row]) for row in equal[i])
        (needed if is_needed else test).extend(equal[i])
    if not test:
        raise DataError(
            f"data.test_fraction: {fraction} of {len(rows):,} texts leaves no test text"
        )
    return np.array(needed + train), np.array(test)

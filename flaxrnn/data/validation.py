"""A stratified validation split, in which no text has an equal among the training texts."""

from __future__ import annotations

from collections import Counter

import numpy as np

from flaxrnn.data.ragged import RaggedTexts


def stratified_split(
    texts: RaggedTexts, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a fraction of each class, and at least one text of every class that can spare one.

    Equal texts, whatever their labels, are all on one side. So the fraction is not exact where
    there are many of them, and a class of equal texts is for training only. With a label per
    token, all texts are of one class; of several labels, the rarest is the class of a text.

    Args:
        texts: The training texts, as the model reads them.
        fraction: Of the texts of each class, rounded.
        seed: Seed of the draw.

    Returns:
        The rows to train on and those to validate on, ascending, int [n].
    """
    labels = np.zeros(len(texts), int) if texts.per_token else texts.labels
    if labels.ndim == 2:
        labels = _rarest(labels)
    left = Counter(labels.tolist())  # to train on
    wanted = {c: min(n - 1, max(1, round(n * fraction))) for c, n in left.items()}
    groups = _equal_texts(texts)
    groups = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    classes = [Counter(labels[rows].tolist()) for rows in groups]
    chosen: set[int] = set()

    def choose(i: int) -> None:
        chosen.add(i)
        wanted.update({c: wanted[c] - n for c, n in classes[i].items()})
        left.subtract(classes[i])

    for i, counts in enumerate(classes):
        if all(n <= wanted[c] for c, n in counts.items()):
            choose(i)
    # Classes whose equal texts are all more than is wanted: the fewest of those that leave some.
    drawn = {c for i in chosen for c in classes[i]}
    for i in sorted(range(len(groups)), key=lambda i: len(groups[i])):
        counts = classes[i]
        if any(c not in drawn for c in counts) and all(n < left[c] for c, n in counts.items()):
            choose(i)
            drawn |= counts.keys()
    in_validation = np.zeros(len(texts), bool)
    in_validation[[row for i in chosen for row in groups[i]]] = True
    return np.flatnonzero(~in_validation), np.flatnonzero(in_validation)


def _rarest(labels: np.ndarray) -> np.ndarray:
    """The rarest of the labels of each text, int [N], -1 of none; `labels` are [N, C]."""
    counts = np.where(labels, labels.sum(axis=0, dtype=int), len(labels) + 1)
    return np.where(labels.any(axis=1), counts.argmin(axis=1), -1)


def _equal_texts(texts: RaggedTexts) -> list[list[int]]:
    """The rows of each different text."""
    rows: dict[bytes, list[int]] = {}
    for row, ids in enumerate(texts.texts()):
        rows.setdefault(ids.tobytes(), []).append(row)
    return list(rows.values())

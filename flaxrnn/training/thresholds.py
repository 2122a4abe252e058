"""Thresholds: the probability above which a text gets a label, where it may have several.

A half suits the loss, but not F1: the probability of a rare label seldom reaches it. The validation
texts therefore choose one for each label (SCut; Yang, 2001, "A Study of Thresholding Strategies for
Text Categorization"). Labels that too few of these texts have keep a half.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flaxrnn.training import metrics

FEWEST = 5  # validation texts with a label that choose its threshold
_MARGIN = 1e-6  # of thresholds from 0 and 1


def choose(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The score of each label above which its F1 is highest, of several such the nearest to 0.

    Args:
        scores: Of N texts that were not trained on, [N, C]; a label is likelier than not above 0.
        labels: Whether they have each label, 0 or 1, [N, C].

    Returns:
        float64 [C]; 0 where fewer than `FEWEST` texts have the label, or a score is not finite.
    """
    chosen = np.zeros(scores.shape[1])
    if np.isfinite(scores).all():
        for c in np.flatnonzero(labels.sum(axis=0, dtype=int) >= FEWEST):
            chosen[c] = _best(scores[:, c].astype(np.float64), labels[:, c])
    return chosen


def _best(scores: np.ndarray, labels: np.ndarray) -> float:
    """`choose` for a single label, [N]."""
    order = np.argsort(-scores, kind="stable")
    highest = scores[order]
    following = np.append(highest[1:], min(highest[-1], 0) - 1)
    hits, number = np.cumsum(labels[order], dtype=int), np.arange(1, len(order) + 1)
    f1 = np.where(highest > following, 2 * hits / (number + labels.sum(dtype=int)), -1)
    between = (highest + following) / 2
    between[(following <= 0) & (highest > 0)] = 0
    best = np.flatnonzero(f1 == f1.max())
    return float(between[best[np.abs(between[best]).argmin()]])


def from_scores(chosen: np.ndarray, temperature: float) -> list[float]:
    """The thresholds of probabilities, for logits that are divided by a temperature."""
    return sigmoid(chosen / temperature).clip(_MARGIN, 1 - _MARGIN).tolist()


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities, without an overflow."""
    return np.exp(-np.logaddexp(0, -logits.astype(np.float64)))


def rescore(
    sums: metrics.Sums, logits: np.ndarray, labels: np.ndarray, thresholds: Sequence[float]
) -> metrics.Sums:
    """The sums of an evaluation, as `Trainer.evaluate` returns them, at other thresholds than 0.5.

    Args:
        sums: Over N texts.
        logits: Of the texts, [N, C].
        labels: Of the texts, 0 or 1, [N, C].
        thresholds: The probability of each label above which a text gets it.
    """
    limits = np.array(thresholds)
    predicted = logits > np.log(limits / (1 - limits))
    correct = (predicted == (labels > 0)).all(axis=1)
    totals = metrics.class_totals(labels, predicted, labels.shape[1])
    return {**sums, "accuracy": np.float64(correct.sum()), "class_counts": totals}

"""Confidence intervals: what scores of so few texts say about all texts of their kind.

Imports no JAX, so that commands that only read finished runs start quickly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from flaxrnn.training import metrics

_Z = 1.959964  # standard deviations on either side of a 95% interval
_WORK = 20_000_000  # texts that are drawn at most


def of_share(correct: int, count: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson, 1927), which is right for few texts, too."""
    share, spread = correct / count, _Z**2 / count
    centre = share + spread / 2
    reach = _Z * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return (centre - reach) / (1 + spread), (centre + reach) / (1 + spread)


def of_macro_f1(labels: np.ndarray, predicted: np.ndarray, classes: int) -> tuple[float, float]:
    """The 95% interval of macro-F1: that of N texts, plus and minus 1.96 standard errors.

    The standard error is that of macro-F1 over 100 to 1,000 draws of N texts with replacement, the
    same ones every time (the bootstrap of Efron, 1979). The interval reaches as far as that of the
    accuracy at least: of few texts that are all right, so is every draw.

    Args:
        labels: Their classes, int [N].
        predicted: Those that were predicted, int [N].
        classes: How many there are.
    """
    rng, count = np.random.default_rng(0), len(labels)
    found = []
    for _ in range(min(1_000, max(100, _WORK // count))):
        drawn = rng.integers(count, size=count)
        totals = metrics.class_totals(labels[drawn], predicted[drawn], classes)
        found.append(metrics.macro_f1(metrics.class_scores(*totals)))
    scores = metrics.class_scores(*metrics.class_totals(labels, predicted, classes))
    centre, reach = metrics.macro_f1(scores), _Z * float(np.std(found))
    correct = int((labels == predicted).sum())
    low, high = of_share(correct, count)
    below, above = max(reach, correct / count - low), max(reach, high - correct / count)
    return max(0.0, centre - below), min(1.0, centre + above)


def show(interval: Sequence[float]) -> str:
    """An interval as text."""
    return "{:.4f} to {:.4f}".format(*interval)

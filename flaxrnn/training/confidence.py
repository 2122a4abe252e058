"""How far the probabilities of a classifier can be trusted.

Imports no JAX, so that commands that only read finished runs start quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BINS = 10  # of equal width, from 0 to 1


class Bin(NamedTuple):
    """The texts whose probability is in an interval."""

    texts: int
    probability: float  # mean
    accuracy: float


class Coverage(NamedTuple):
    """What remains if every label whose probability is below a threshold is withheld."""

    threshold: float
    share: float  # of the texts that get a label
    accuracy: float  # of those; NaN if there are none


@dataclass(frozen=True)
class Confidence:
    """The labels that were predicted for N texts.

    Attributes:
        probability: That of the predicted label, float [N].
        correct: Whether it is right, bool [N].
    """

    probability: np.ndarray
    correct: np.ndarray

    def bins(self) -> list[Bin]:
        """The intervals that hold a text, ascending."""
        number = np.minimum((self.probability * BINS).astype(int), BINS - 1)
        return [
            Bin(
                int(inside.sum()),
                float(self.probability[inside].mean()),
                float(self.correct[inside].mean()),
            )
            for inside in (number == i for i in range(BINS))
            if inside.any()
        ]

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: the mean distance of probability and accuracy, by interval.

        Naeini et al. (2015); 0: of the texts labelled with a probability of 0.8, 80% are right.
        """
        gaps = [each.texts * abs(each.probability - each.accuracy) for each in self.bins()]
        return sum(gaps) / len(self.probability)

    def above(self, threshold: float) -> Coverage:
        """What is left at a threshold."""
        kept = self.correct[self.probability >= threshold]
        accuracy = float(kept.mean()) if len(kept) else float("nan")
        return Coverage(threshold, len(kept) / len(self.correct), accuracy)

    def curve(self, points: int = 100) -> list[Coverage]:
        """Coverage and accuracy at thresholds that keep all texts, then ever fewer of them."""
        ordered = np.sort(self.probability)
        at = np.unique(np.linspace(0, len(ordered) - 1, points).astype(int))
        return [self.above(float(threshold)) for threshold in np.unique(ordered[at])]

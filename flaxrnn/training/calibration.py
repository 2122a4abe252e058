"""Weights of several classifiers: those whose sum of scores makes the best logits."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import scipy.optimize
import scipy.special

from flaxrnn.data.batching import TrainingData
from flaxrnn.runtime import distributed

_NGRAMS_ALONE = np.array([0.0, 1.0])
_PULL = 3.0  # towards them, in nats; chosen on samples of 300 to 800 texts from six data sets


def blend(logits: np.ndarray, data: TrainingData) -> dict[str, np.ndarray]:
    """The weights of the network's logits and the n-gram classifier's scores that suit validation.

    All training texts have calibrated the scores, by cross-validation. The few validation texts of
    a small data set say less than that, and leave the weights near 0 and 1.

    Args:
        logits: Of the validation texts, float32 [n, C].
        data: The texts, with scores.

    Returns:
        The parameters of `flaxrnn.nn.layers.Blend`.
    """
    rows = data.rows["val"]
    assert data.texts.scores is not None
    scores = np.stack([logits, data.texts.scores[rows]])
    chosen = calibrate(scores, data.texts.labels[rows], _NGRAMS_ALONE)
    return {"weights": np.array(distributed.broadcast(chosen.tolist()), np.float32)}


def calibrate(
    scores: np.ndarray, labels: np.ndarray, expected: np.ndarray | None = None
) -> np.ndarray:
    """The weights, none negative, of scores whose weighted sum has the least cross-entropy.

    Args:
        scores: float [V, N, C] of V classifiers; C is 1 for two classes.
        labels: int [N]; or of several per text, 0 or 1, [N, C].
        expected: Weights to stay near the more, the fewer labels there are, float [V]; the
            squared distance from them, `_PULL` times, is added to the cross-entropy of all labels.

    Returns:
        float64 [V].
    """
    pull = 0.0 if expected is None else _PULL / labels.size
    start = np.ones(len(scores)) if expected is None else expected
    if labels.ndim == 2:
        return _minimize(functools.partial(_binary_loss, scores, labels), start, pull)
    if scores.shape[2] == 1:  # two logits that differ by the score
        scores = np.concatenate([-scores / 2, scores / 2], axis=2)
    targets = np.arange(scores.shape[2]) == labels[:, None]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        likelihood = scipy.special.log_softmax(np.tensordot(weights, scores, 1), axis=1)
        slope = np.exp(likelihood) - targets
        return -likelihood[targets].mean(), (slope * scores).sum(axis=(1, 2)) / len(labels)

    return _minimize(loss, start, pull)


def _binary_loss(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[float, np.ndarray]:
    """The mean cross-entropy of labels that are decided one by one, and its slope, [V]."""
    logits = np.tensordot(weights, scores, 1)
    slope = scipy.special.expit(logits) - labels
    loss = np.logaddexp(0, logits) - labels * logits
    return loss.mean(), np.tensordot(scores, slope, 2) / labels.size


def _minimize(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray, pull: float
) -> np.ndarray:
    """The weights with the least loss, and `pull` times their squared distance from the start."""

    def total(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = loss(weights)
        moved = weights - start
        return value + pull * moved @ moved, slope + 2 * pull * moved

    found = scipy.optimize.minimize(
        total,
        start,
        method="L-BFGS-B",
        jac=True,
        bounds=[(0, 100)] * len(start),  # where scores separate the labels, more is always better
    )
    return found.x

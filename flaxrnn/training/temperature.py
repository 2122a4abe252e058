"""Calibrated probabilities: logits divided by the temperature that suits the validation texts.

Guo et al. (2017), "On Calibration of Modern Neural Networks". A temperature changes no label: it
only says how sure the model is. It becomes part of the weights of the last layer, so that whatever
computes probabilities from them has it.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

MOST_CLASSES = 1_000  # of more, the logits of all validation texts would take too much memory
_HOTTEST = 20.0  # temperatures are between its reciprocal and it
_STEPS = 30  # halvings of that interval


def fit(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least cross-entropy on texts that were not trained on.

    As in Platt (1999), none of N labels is taken to be more certain than (N + 1) / (N + 2): where
    all of a few texts are right, probabilities do not become 1.

    Args:
        logits: float [N, C]; C is 1 for two classes.
        labels: int [N]; or of several per text, 0 or 1, [N, C], each of which is a decision between
            two classes.

    Returns:
        The temperature; 1 if a logit is not finite.
    """
    if not np.isfinite(logits).all():
        return 1.0
    if labels.ndim == 2:
        logits, labels = logits.reshape(-1, 1), labels.ravel()
    x = logits.astype(np.float64)
    if x.shape[1] == 1:
        x = np.concatenate([-x / 2, x / 2], axis=1)
    doubt = 1 / (len(labels) + 2)
    wanted = (1 - doubt) * x[np.arange(len(labels)), labels] + doubt * x.mean(axis=1)
    low, high = 1 / _HOTTEST, _HOTTEST  # the loss is convex in the reciprocal of the temperature
    for _ in range(_STEPS):
        middle = np.sqrt(low * high)
        p = np.exp(middle * (x - x.max(axis=1, keepdims=True)))
        expected = (p * x).sum(axis=1) / p.sum(axis=1)
        low, high = (low, middle) if (expected - wanted).mean() > 0 else (middle, high)
    return float(1 / np.sqrt(low * high))


def divide_logits(params: Any, temperature: float) -> Any:
    """The parameters of a `TextModel` whose logits are those of `params` over a temperature."""
    if temperature == 1:
        return params
    last = "blend" if "blend" in params else "dense"
    return {**params, last: jax.tree.map(lambda leaf: leaf / temperature, params[last])}

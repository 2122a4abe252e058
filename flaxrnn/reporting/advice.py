"""What is doubtful about a finished run, in words: what was measured, and what to try."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from flaxrnn.training.thresholds import FEWEST

_ENOUGH_TEXTS, _ENOUGH_PER_CLASS = 100, 5  # to validate on
_SURE = 0.005  # standard error of the accuracy; of thousands of classes, it is small nevertheless
_OVERFIT = 0.15  # accuracy in training above that in validation


def warnings(
    result: Mapping[str, Any], train_accuracy: float, class_counts: np.ndarray
) -> Iterator[str]:
    """Yields a sentence for each thing that is doubtful.

    Args:
        result: `val_accuracy` and `refit`, as in result.json.
        train_accuracy: Training accuracy of the same epoch.
        class_counts: Validation texts of each class, int [C].
    """
    accuracy, texts = result["val_accuracy"], int(class_counts.sum())
    per_class = texts / len(class_counts)
    smoothed = (accuracy * texts + 1) / (texts + 2)  # not sure even where all are right
    error = _standard_error(smoothed, texts)
    few = texts < _ENOUGH_TEXTS or per_class < _ENOUGH_PER_CLASS
    if few and error >= _SURE:
        regain = "" if result["refit"] else "; train.refit=True trains on these texts in the end"
        yield (
            f"With {texts:,} texts to validate on, {per_class:.1f} per class, the validation"
            f" accuracy is uncertain by {100 * error:.1f} points either way: validate on more"
            f" (data.validation_fraction, if they are drawn){regain}."
        )
    largest = class_counts.max() / texts
    if accuracy <= largest + _standard_error(largest, texts):
        yield (
            f"Nothing was learned: the validation accuracy, {accuracy:.1%}, is not clearly above"
            f" {largest:.1%}, that of always answering with the largest class; try more"
            " train.epochs and train.patience, train.batch_size=0, another train.learning_rate or"
            " another data.tokenizer."
        )
    if train_accuracy - accuracy > _OVERFIT:
        yield (
            f"Training is far ahead of validation, with an accuracy of {train_accuracy:.1%} against"
            f" {accuracy:.1%}: try more model.dropout or model.output_dropout, a smaller"
            " model.hidden_size, or more texts."
        )


def of_labels(result: Mapping[str, Any], labels: np.ndarray) -> Iterator[str]:
    """Like `warnings`, where a text may have several labels; of validation, 0 or 1, [n, C]."""
    few = int((labels.sum(axis=0, dtype=int) < FEWEST).sum())
    if few:
        yield (
            f"With {len(labels):,} texts to validate on, {few:,} of {labels.shape[1]:,} labels are"
            f" those of fewer than {FEWEST}, too few to choose a threshold, which is 0.5: validate"
            " on more (data.validation_fraction, if they are drawn)."
        )
    if not result["val_micro_f1"]:
        yield (
            "Nothing was learned: no label that was predicted in validation is right; try more"
            " train.epochs and train.patience, or another train.learning_rate."
        )


def _standard_error(share: float, count: int) -> float:
    return math.sqrt(share * (1 - share) / count)

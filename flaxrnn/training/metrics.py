"""The figures of merit: one registry, which every computation and every report iterates.

A metric is the mean of a sum over examples, or a score of the classes. Sums are added up over
batches and divided once, at the end. To add a metric, add it to `METRICS`.

Imports no JAX, so that commands that only read finished runs start quickly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Sums = dict[str, Any]  # arrays or floats; "count" is the weight of the examples
ClassScores = dict[str, np.ndarray]


@dataclass(frozen=True)
class Metric:
    """A figure of merit. Either `batch_sum` or `class_score` computes it.

    Attributes:
        name: Its values are `train_NAME`, `val_NAME` and `test_NAME` in metrics.jsonl and
            result.json, and `train/NAME` and `val/NAME` in TensorBoard.
        title: What people read.
        batch_sum: (head, logits [N, C], labels [N], weights [N]) → the weighted sum over the
            examples of a batch, a scalar array; see `flaxrnn.nn.heads.Head`.
        class_score: `class_scores` of the validation or test split → the score.
        several: Whether it is only one of runs whose texts may have several labels.
        detail: Its unit, or what it is a mean over; shown after the title.
        format: How a value is shown, as `format` takes it.
    """

    name: str
    title: str
    batch_sum: Callable[[Any, Any, Any, Any], Any] | None = None
    class_score: Callable[[ClassScores], float] | None = None
    several: bool = False
    detail: str = ""
    format: str = ".4f"

    @property
    def per_epoch(self) -> bool:
        """Whether it is computed for train as well, in every epoch; else for val and test only."""
        return self.batch_sum is not None

    @property
    def label(self) -> str:
        """The title with its detail, for the axis of a plot."""
        return f"{self.title} ({self.detail})" if self.detail else self.title

    def value(self, record: Mapping[str, Any], split: str) -> float:
        """Its value for a split in a record; NaN if it was not finite or the record is older.

        Args:
            record: A line of metrics.jsonl, or result.json.
            split: "train", "val" or "test".
        """
        value = record.get(f"{split}_{self.name}")
        return math.nan if value is None else float(value)

    def show(self, record: Mapping[str, Any], split: str) -> str:
        """Its value as text; see `value`."""
        return format(self.value(record, split), self.format)


def macro_f1(classes: ClassScores) -> float:
    """Unweighted mean of the F1 of every class that is true or predicted somewhere.

    Equals `sklearn.metrics.f1_score(average="macro")`.
    """
    seen = classes["support"] + classes["predicted"] > 0
    return float(classes["f1"][seen].mean()) if seen.any() else 0.0


def micro_f1(classes: ClassScores) -> float:
    """F1 of all decisions about a label together; that of one label per text is the accuracy.

    Equals `sklearn.metrics.f1_score(average="micro")`, with `zero_division=0`.
    """
    correct = classes["precision"] * np.maximum(classes["predicted"], 1)
    total = classes["support"].sum() + classes["predicted"].sum()
    return float(2 * correct.sum() / max(total, 1))


# In the order in which reports show them.
METRICS = {
    metric.name: metric
    for metric in (
        Metric("loss", "loss", lambda head, x, y, w: w @ head.losses(x, y), detail="nats"),
        Metric("accuracy", "accuracy", lambda head, x, y, w: w @ head.correct(x, y)),
        Metric("micro_f1", "micro-F1", class_score=micro_f1, several=True, detail="all labels"),
        Metric("macro_f1", "macro-F1", class_score=macro_f1, detail="mean over classes"),
    )
}


def recorded(record: Mapping[str, Any], split: str) -> list[Metric]:
    """The metrics that a record may have for a split; see `Metric.value`."""
    return [m for m in METRICS.values() if not m.several or f"{split}_{m.name}" in record]


def headline(record: Mapping[str, Any]) -> Metric:
    """What a run is ranked by; see `headline_of`."""
    return headline_of("test_micro_f1" in record)


def headline_of(several: bool) -> Metric:
    """What runs are ranked by: the accuracy; of several labels per text micro-F1, its equal."""
    return METRICS["micro_f1" if several else "accuracy"]


def per_epoch() -> list[Metric]:
    """The metrics that are computed in every epoch."""
    return [metric for metric in METRICS.values() if metric.per_epoch]


def validated(record: Mapping[str, Any], monitor: str) -> list[Metric]:
    """The metrics of validation that are shown: those of every epoch, and the monitored one."""
    return [m for m in recorded(record, "val") if m.per_epoch or m.several or m.name == monitor]


def headline_first(record: Mapping[str, Any]) -> list[Metric]:
    """The metrics of a result in the order of summaries: `headline`, then the others."""
    first = headline(record)
    return sorted(recorded(record, "test"), key=lambda metric: metric is not first)


def batch_sums(head: Any, logits: Any, labels: Any, weights: Any) -> Sums:
    """The sums of every metric over a batch of examples, and their "count"."""
    sums = {
        name: metric.batch_sum(head, logits, labels, weights)
        for name, metric in METRICS.items()
        if metric.batch_sum
    }
    return {**sums, "count": weights.sum()}


def add(total: Sums, sums: Sums) -> Sums:
    """`total` and the sums of a program, NumPy arrays, in float64.

    Sums are added in the order of the calls: the same calls give the same bits.
    """
    return {name: np.float64(value) + total.get(name, 0) for name, value in sums.items()}


def means(total: Sums) -> dict[str, float]:
    """The metrics of all examples whose sums were added up."""
    return {metric.name: float(total[metric.name] / total["count"]) for metric in per_epoch()}


def scores(total: Sums, classes: ClassScores, several: bool = False) -> dict[str, float]:
    """`means`, and the scores of the classes, of which a text may have several."""
    return {**means(total), **_of_classes(classes, several)}


def _of_classes(classes: ClassScores, several: bool) -> dict[str, float]:
    return {
        name: metric.class_score(classes)
        for name, metric in METRICS.items()
        if metric.class_score and several >= metric.several
    }


def of_predictions(labels: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, float]:
    """Accuracy and F1 by the names of their metrics; see `class_totals`."""
    scores = class_scores(*class_totals(labels, predicted, classes))
    several = labels.ndim == 2
    correct = (predicted == labels).all(axis=1) if several else predicted == labels
    return {"accuracy": float(correct.mean()), **_of_classes(scores, several)}


def class_totals(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Correct, true and predicted examples of each class, [3, C].

    Args:
        labels: True classes, int [N]; or of several per example, 0 or 1, [N, C].
        predicted: Predicted classes, likewise.
        classes: C.
    """
    if labels.ndim == 2:
        hits = (labels > 0) & (predicted > 0)
        return np.stack([each.sum(axis=0, dtype=int) for each in (hits, labels, predicted)])
    of_each = (labels[labels == predicted], labels, predicted)
    return np.stack([np.bincount(found, minlength=classes) for found in of_each])


def confusion(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The pairs of classes that occur, of classes both int [N].

    Not a matrix: that of 10,000 classes would take 800 MB.

    Returns:
        True class, predicted class and number of examples, int [P, 3].
    """
    width = int(max(labels.max(initial=0), predicted.max(initial=0))) + 1
    pairs, counts = np.unique(labels.astype(np.int64) * width + predicted, return_counts=True)
    return np.stack([*np.divmod(pairs, width), counts], axis=1)


def class_scores(correct: np.ndarray, support: np.ndarray, predicted: np.ndarray) -> ClassScores:
    """How well each class is recognized.

    Args:
        correct: Examples of each class that were predicted as it, [C].
        support: Examples of each class, [C].
        predicted: Examples that were predicted as each class, [C].

    Returns:
        precision, recall and f1 in [0, 1], equal to scikit-learn's with `zero_division=0`; support
        and predicted. All float [C].
    """
    return {
        "precision": correct / np.maximum(predicted, 1),
        "recall": correct / np.maximum(support, 1),
        "f1": 2 * correct / np.maximum(support + predicted, 1),
        "support": support,
        "predicted": predicted,
    }

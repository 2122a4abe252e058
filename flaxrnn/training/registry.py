"""The registry of metrics: what each one is called and how its values are shown.

Imports no JAX, so that commands which only read finished runs start quickly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """A metric, as all reports show it.

    Attributes:
        name: Its values are `train_NAME`, `val_NAME` and `test_NAME` in metrics.jsonl and
            result.json, and `train/NAME` and `val/NAME` in TensorBoard.
        title: What people read.
        detail: Its unit, or what it is a mean over; shown after the title.
        format: How a value is shown, as `format` takes it.
        per_epoch: Whether it is computed in every epoch, for training and validation, and not only
            on the test split.
    """

    name: str
    title: str
    detail: str = ""
    format: str = ".4f"
    per_epoch: bool = True

    @property
    def label(self) -> str:
        """The title with its detail, for the axis of a plot."""
        return f"{self.title} ({self.detail})" if self.detail else self.title

    def value(self, record: Mapping[str, Any], split: str) -> float:
        """Its value for a split in a record; NaN if the record is older than the metric.

        Args:
            record: A line of metrics.jsonl, or result.json.
            split: "train", "val" or "test".
        """
        return float(record.get(f"{split}_{self.name}", math.nan))

    def show(self, record: Mapping[str, Any], split: str) -> str:
        """Its value as text, see `value`."""
        return format(self.value(record, split), self.format)


# In the order in which reports show them.
METRICS = {
    metric.name: metric
    for metric in (
        Metric("loss", "loss", "nats"),
        Metric("accuracy", "accuracy"),
        Metric("macro_f1", "macro-F1", "mean over classes", per_epoch=False),
    )
}
MONITOR = "loss"  # the best epoch has its lowest validation value
HEADLINE = "accuracy"  # runs are ranked by its test value


def per_epoch() -> list[Metric]:
    """The metrics that are computed in every epoch."""
    return [metric for metric in METRICS.values() if metric.per_epoch]


def headline_first() -> list[Metric]:
    """All metrics in the order of summaries: `HEADLINE`, then the others."""
    return sorted(METRICS.values(), key=lambda metric: metric.name != HEADLINE)

"""The progress of a run: what a checkpoint holds in addition to the training state."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flaxrnn.config import TrainConfig
from flaxrnn.data.ragged import RaggedTexts

# Keys of earlier versions, whose checkpoints are still read.
_RENAMED = {"done": "batches_done", "seconds_in_epoch": "epoch_seconds"}
_RENAMED_SUMS = {"hits": "accuracy", "weight": "count", "bad": "nonfinite_steps"}

History = list[dict[str, Any]]  # one row of metrics per epoch, as metrics.jsonl holds it


@dataclass
class Progress:
    """The progress of a run.

    Attributes:
        fingerprint: Fingerprint of config and texts, which must be the same to resume.
        history: The finished epochs that were validated.
        refit: The finished epochs of the refit, which are not; None: it has not begun.
        batches_done: Batches of the current epoch that are done.
        sums: Metric sums of the current epoch so far; see `MetricAccumulator.read`.
        epoch_seconds: Duration of the current epoch so far.
        diverged_at: The training step whose non-finite loss stopped the run; None: none did.
        temperature: What the logits of the weights to keep were divided by; see `temperature`.
        thresholds: Of the probability of each label; None: texts have one label, or none was kept.
        seconds: Duration of each phase so far, over all starts of the run; None: not yet saved.
        seal: Checksums of the files that the weights belong to; see `training.seal`.
    """

    fingerprint: str
    history: History = field(default_factory=list)
    refit: History | None = None
    batches_done: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    epoch_seconds: float = 0.0
    diverged_at: int | None = None
    temperature: float = 1.0
    thresholds: list[float] | None = None
    seconds: dict[str, float] | None = None
    seal: dict[str, str] = field(default_factory=dict)

    @property
    def epochs(self) -> History:
        """The finished epochs of the current fit: the refit if it has begun, else the first one."""
        return self.history if self.refit is None else self.refit

    def earlier_steps(self, num_batches: int) -> int:
        """The training steps of the first fit, `num_batches` per epoch, if the refit has begun."""
        return 0 if self.refit is None else num_batches * len(self.history)

    def end_epoch(self, row: dict[str, Any]) -> None:
        """Appends the row of the current epoch and begins the next one."""
        self.epochs.append(row)
        self.batches_done, self.sums, self.epoch_seconds = 0, {}, 0.0

    def finished(self, config: TrainConfig, num_batches: int) -> bool:
        """Whether the last validated epoch is done: no more, or no improvement for too many.

        Args:
            config: The train group of the run's config.
            num_batches: Training steps per epoch.
        """
        if self.refit is not None:
            return True
        if not self.history:
            return False
        since_best = len(self.history) - best_epoch(self.history, config.monitor)
        patience = patience_in_epochs(config, num_batches)
        out_of_patience = patience is not None and since_best >= patience
        return len(self.history) >= config.epochs or out_of_patience

    def to_json(self) -> dict[str, Any]:
        """The progress in JSON's types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Progress:
        """Reads what `to_json` of this or an earlier version returned."""
        values = {_RENAMED.get(name, name): value for name, value in content.items()}
        sums = values["sums"].items()
        return cls(**{**values, "sums": {_RENAMED_SUMS.get(k, k): v for k, v in sums}})


def patience_in_epochs(config: TrainConfig, num_batches: int) -> int | None:
    """Epochs without improvement that end a run of `num_batches` steps per epoch; None: none do."""
    if config.schedule == "warmup_cosine":  # run to its end: its last steps are the best ones
        return None
    return max(config.patience, math.ceil(config.patience_steps / num_batches))


def kept_epoch(history: History, config: TrainConfig) -> int:
    """The epoch whose weights are kept, and which a refit repeats: the best one or the last one."""
    return best_epoch(history, config.monitor) if config.restore_best else len(history)


def best_epoch(history: History, monitor: str) -> int:
    """The epoch with the lowest validation loss, or the highest value of another metric, from 1.

    Of several with the same value, it is the one with the lowest loss, else the first.
    """

    def badness(row: dict[str, Any]) -> tuple[float, float]:
        loss = row["val_loss"]
        value = loss if monitor == "loss" else -row[f"val_{monitor}"]
        return _nan_to_inf(value), _nan_to_inf(loss)

    return min(history, key=badness)["epoch"]


def _nan_to_inf(value: float) -> float:
    return math.inf if math.isnan(value) else value


def text_checksums(texts: RaggedTexts) -> list[int]:
    """CRC-32 of the ids, offsets and labels of texts."""
    arrays = (texts.ids, texts.offsets, texts.labels)
    return [zlib.crc32(np.ascontiguousarray(array).data) for array in arrays]


def fingerprint(config: Mapping[str, Any], checksums: list[int]) -> str:
    """SHA-256 of all that determines the course of a run: its config.json and its texts.

    Args:
        config: As config.json holds it.
        checksums: `text_checksums` of the texts.
    """
    content = json.dumps([config, checksums], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()

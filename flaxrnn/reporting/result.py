"""result.json: what a finished run amounts to."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from flaxrnn.config import Config
from flaxrnn.data.batching import TrainingData
from flaxrnn.reporting import provenance
from flaxrnn.runtime import devices
from flaxrnn.training import metrics
from flaxrnn.training.progress import History, best_epoch


def build(
    *,
    config: Config,
    corpus: dict[str, str],
    history: History,
    sums: metrics.Sums,
    class_scores: metrics.ClassScores,
    seconds: dict[str, float],
    params: Any,
    training_data: TrainingData,
    resident: bool,
) -> dict[str, Any]:
    """The content of result.json.

    Args:
        config: The run's config.
        corpus: Its "dataset" and "data_source".
        history: Its epochs.
        sums: Over the test split.
        class_scores: Class scores of the test split.
        seconds: By part of the run.
        params: The weights that were kept.
        training_data: Its texts.
        resident: Whether all texts were on the devices.
    """
    best, train = best_epoch(history, config.train.monitor), training_data.rows["train"]
    kept = history[best - 1 if config.train.restore_best else -1]
    epochs, tokens = len(history), int(training_data.texts.lengths[train].sum())
    return {
        "task": config.task,
        **corpus,
        "seed": config.seed,
        "parameters": sum(np.size(leaf) for leaf in jax.tree.leaves(params)),
        "epochs": epochs,
        "best_epoch": best,
        **{f"val_{metric.name}": metric.value(kept, "val") for metric in metrics.METRICS.values()},
        **{f"test_{name}": score for name, score in metrics.scores(sums, class_scores).items()},
        "test_examples": int(sums["count"]),
        "skipped_steps": sum(row["skipped_steps"] for row in history),
        "seconds": seconds,
        "train_examples_per_second": len(train) * epochs / seconds["train"],
        "train_tokens_per_second": tokens * epochs / seconds["train"],
        "buckets": list(training_data.buckets),
        "resident": resident,
        "memory": devices.peak_memory(),
        **provenance.collect(),
    }

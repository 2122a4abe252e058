"""result.json: what a finished run amounts to."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from flaxrnn.config import Config
from flaxrnn.data.batching import TrainingData
from flaxrnn.reporting import advice, provenance
from flaxrnn.runtime import devices
from flaxrnn.training import metrics
from flaxrnn.training.progress import Progress, best_epoch, kept_epoch


def build(
    *,
    config: Config,
    corpus: dict[str, str],
    progress: Progress,
    sums: metrics.Sums,
    class_scores: metrics.ClassScores,
    seconds: dict[str, float],
    params: Any,
    training_data: TrainingData,
    labelled: bool,
    resident: bool,
) -> dict[str, Any]:
    """The content of result.json.

    Args:
        config: The run's config.
        corpus: Its "dataset" and "data_source".
        progress: Its epochs.
        sums: Over the test split.
        class_scores: Class scores of the test split.
        seconds: By part of the run.
        params: The weights that were kept.
        training_data: Its texts.
        labelled: Whether the classes are the labels of the texts, which there is advice on.
        resident: Whether all texts were on the devices.
    """
    history, refit = progress.history, progress.refit or []
    kept = history[kept_epoch(history, config.train) - 1]
    trained_on = _trained_on(training_data, len(history))
    if refit:
        trained_on += _trained_on(training_data.with_validation(), len(refit))
    examples, tokens = map(int, trained_on)
    result = {
        "task": config.task,
        **corpus,
        "seed": config.seed,
        "parameters": sum(np.size(leaf) for leaf in jax.tree.leaves(params)),
        "epochs": len(history),
        "best_epoch": best_epoch(history, config.train.monitor),
        "refit": bool(refit),
        **{f"val_{metric.name}": metric.value(kept, "val") for metric in metrics.METRICS.values()},
        **{f"test_{name}": score for name, score in metrics.scores(sums, class_scores).items()},
        "test_examples": int(sums["count"]),
        "skipped_steps": sum(row["skipped_steps"] for row in [*history, *refit]),
        "seconds": seconds,
        "train_examples_per_second": examples / seconds["train"],
        "train_tokens_per_second": tokens / seconds["train"],
        "buckets": list(training_data.buckets),
        "resident": resident,
        "memory": devices.peak_memory(),
        **provenance.collect(),
        "warnings": [],
    }
    if labelled:
        labels = training_data.texts.labels[training_data.rows["val"]]
        counts = np.bincount(labels, minlength=len(class_scores["support"]))
        accuracy = metrics.METRICS["accuracy"].value(kept, "train")
        result["warnings"] = list(advice.warnings(result, accuracy, counts))
    return result


def _trained_on(data: TrainingData, epochs: int) -> np.ndarray:
    """Texts and tokens of that many epochs, [2]."""
    rows = data.rows["train"]
    return epochs * np.array([len(rows), data.texts.lengths[rows].sum()])

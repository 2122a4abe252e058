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
        config: The config.
        corpus: Its "dataset" and "data_source".
        progress: Its epochs.
        sums: Of the test split.
        class_scores: Likewise.
        seconds: By part of the run.
        params: The weights that were kept.
        training_data: Its texts.
        labelled: Whether the classes are the labels of the texts, which there is advice on.
        resident: Whether all texts were on the devices.
    """
    history, refit = progress.history, progress.refit or []
    kept = history[kept_epoch(history, config.train) - 1]
    examples, tokens = _trained_on(training_data, len(history), len(refit))
    result: dict[str, Any] = {
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
    }
    result["warnings"] = []
    if labelled:
        result["warnings"] = _warnings(result, kept, training_data, len(class_scores["support"]))
    return result


def _warnings(
    result: dict[str, Any], kept: dict[str, Any], data: TrainingData, num_labels: int
) -> list[str]:
    counts = np.bincount(data.texts.labels[data.rows["val"]], minlength=num_labels)
    accuracy = metrics.METRICS["accuracy"].value(kept, "train")
    return list(advice.warnings(result, accuracy, counts))


def _trained_on(data: TrainingData, epochs: int, refit_epochs: int) -> tuple[int, int]:
    """Texts and tokens of all epochs, those of a refit included."""
    texts = tokens = 0
    for each, count in ((data, epochs), (data.with_validation(), refit_epochs)):
        rows = each.rows["train"]
        texts += count * len(rows)
        tokens += count * int(each.texts.lengths[rows].sum())
    return texts, tokens

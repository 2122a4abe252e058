"""result.json: what a finished run amounts to."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxrnn.config import Config
from flaxrnn.data.batching import TrainingData
from flaxrnn.errors import DivergedError
from flaxrnn.reporting import advice, provenance
from flaxrnn.runtime import devices
from flaxrnn.training import intervals, metrics
from flaxrnn.training.confidence import Confidence
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
    confidence: Confidence | None,
    predicted: np.ndarray | None,
    training_data: TrainingData,
    findings: tuple[str, ...],
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
        confidence: Of the labels of the test split; None: its tokens have the labels.
        predicted: The classes that were predicted for it, int [N]; None: likewise, or a text may
            have several.
        training_data: Its texts.
        findings: What is suspicious about them, in sentences.
        labelled: Whether the classes are the labels of the texts, which there is advice on.
        resident: Whether all texts were on the devices.
    """
    history, refit = progress.history, progress.refit or []
    kept = history[kept_epoch(history, config.train) - 1]
    several = progress.thresholds is not None
    found = metrics.scores(sums, class_scores, several)
    result = {
        "task": config.task,
        **corpus,
        "seed": config.seed,
        "parameters": sum(np.size(leaf) for leaf in jax.tree.leaves(params)),
        "epochs": len(history),
        "best_epoch": best_epoch(history, config.train.monitor),
        "refit": bool(refit),
        **{f"val_{m.name}": m.value(kept, "val") for m in metrics.recorded(kept, "val")},
        **{f"test_{name}": score for name, score in found.items()},
        **_of_test_texts(training_data, predicted, len(class_scores["support"])),
        "test_examples": int(sums["count"]),
        "temperature": progress.temperature,
        "test_calibration_error": confidence and confidence.calibration_error,
        "skipped_steps": sum(row["skipped_steps"] for row in [*history, *refit]),
        "seconds": seconds,
        **_speed(training_data, len(history), len(refit), seconds["train"]),
        "buckets": list(training_data.buckets),
        "resident": resident,
        "memory": devices.peak_memory(),
        **provenance.collect(),
    }
    doubts = _doubts(result, kept, training_data, class_scores) if labelled else []
    result["warnings"] = [*findings, *doubts]
    return result


def _of_test_texts(
    data: TrainingData, predicted: np.ndarray | None, classes: int
) -> dict[str, Any]:
    """Intervals, and what the largest class alone reaches; None where tokens have the labels."""
    found: dict[str, Any] = {"test_accuracy_interval": None, "test_macro_f1_interval": None}
    found["largest_class_accuracy"] = None
    if predicted is None:
        return found
    labels = data.texts.labels[data.rows["test"]]
    largest = np.bincount(data.texts.labels[data.rows["train"]]).argmax()
    correct = int((predicted == labels).sum())
    found["test_accuracy_interval"] = [*intervals.of_share(correct, len(labels))]
    found["test_macro_f1_interval"] = [*intervals.of_macro_f1(labels, predicted, classes)]
    found["largest_class_accuracy"] = float((labels == largest).mean())
    return found


def check_finite(result: dict[str, Any], workdir: Path) -> None:
    """Checks that a run ended with a result.

    Raises:
        DivergedError: Its loss on validation or test is not finite.
    """
    for split in ("val", "test"):
        if not math.isfinite(loss := result[f"{split}_loss"]):
            raise DivergedError(
                f"the {split}_loss of {workdir} is {loss}: the run diverged and has no result;"
                " start a new run with a lower train.learning_rate"
            )


def _doubts(
    result: dict[str, Any],
    kept: dict[str, Any],
    data: TrainingData,
    class_scores: metrics.ClassScores,
) -> list[str]:
    labels = data.texts.labels[data.rows["val"]]
    if labels.ndim == 2:
        return list(advice.of_labels(result, labels))
    counts = np.bincount(labels, minlength=len(class_scores["support"]))
    accuracy = metrics.METRICS["accuracy"].value(kept, "train")
    return list(advice.warnings(result, accuracy, counts))


def _speed(data: TrainingData, epochs: int, refit_epochs: int, seconds: float) -> dict[str, float]:
    """Texts and tokens per second of training, of the first fit and the refit together."""
    trained_on = _trained_on(data, epochs)
    if refit_epochs:
        trained_on += _trained_on(data.with_validation(), refit_epochs)
    texts, tokens = map(int, trained_on)
    return {
        "train_examples_per_second": texts / seconds,
        "train_tokens_per_second": tokens / seconds,
    }


def _trained_on(data: TrainingData, epochs: int) -> np.ndarray:
    """Texts and tokens of that many epochs, [2]."""
    rows = data.fitted_to
    return epochs * np.array([len(rows), data.texts.lengths[rows].sum()])

"""The content of result.json."""

import math

import numpy as np
import pytest
from helpers import RESULT, finished_run

from configs import reuters
from flaxrnn.config import parse
from flaxrnn.data import batching, ragged
from flaxrnn.reporting import result
from flaxrnn.training import metrics
from flaxrnn.training.confidence import Confidence
from flaxrnn.training.progress import Progress


def build(history, restore_best=True, refit=None, labelled=True):
    config = reuters.get_config()
    config.train.restore_best = restore_best
    ids, offsets = np.ones(11, np.int32), np.array([0, 2, 5, 8, 11])
    texts = ragged.RaggedTexts(ids, offsets, np.array([0, 1, 0, 1], np.int32))
    rows = {"train": np.array([0, 1]), "val": np.array([3]), "test": np.array([2, 3])}
    return result.build(
        config=parse(config),
        corpus={"dataset": "reuters/1.0.0", "data_source": "real"},
        progress=Progress("", history, refit),
        sums={"loss": 3.0, "accuracy": 1.0, "top3": 2.0, "count": 2.0},
        class_scores=metrics.class_scores(*np.array([[1, 0], [1, 1], [2, 0]])),
        seconds={"train": 7.0, "total": 9.0},
        confidence=Confidence(np.array([0.75, 0.75]), np.array([True, False])),
        predicted=np.array([0, 0]) if labelled else None,
        params={"kernel": np.zeros((2, 3)), "bias": np.zeros(3)},
        training_data=batching.TrainingData(texts, texts.lengths, "post", (3,), rows),
        findings=("Copies.",),
        labelled=labelled,
        resident=True,
    )


def test_metrics_speed_and_size():
    _, history, _ = finished_run(epochs=7)
    found = build(history)
    assert set(found) == RESULT
    assert (found["epochs"], found["best_epoch"]) == (7, 4)
    assert found["val_loss"] == history[3]["val_loss"]
    assert found["val_accuracy"] == history[3]["val_accuracy"]
    assert (found["test_loss"], found["test_accuracy"]) == (1.5, 0.5)
    assert found["test_macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert (found["test_examples"], found["parameters"]) == (2, 9)
    assert found["test_accuracy_interval"] == pytest.approx([0.0945, 0.9055], abs=1e-4)
    low, high = found["test_macro_f1_interval"]
    assert 0 <= low < found["test_macro_f1"] < high <= 1
    assert found["largest_class_accuracy"] == 0.5
    assert (found["temperature"], found["test_calibration_error"]) == (1.0, 0.25)
    assert found["train_examples_per_second"] == 2 * 7 / 7.0
    assert found["train_tokens_per_second"] == 5 * 7 / 7.0


def test_validation_is_that_of_the_kept_weights():
    _, history, _ = finished_run(epochs=7)
    assert build(history, restore_best=False)["val_loss"] == history[6]["val_loss"]


def test_refit_counts_as_training_but_has_no_validation():
    _, history, _ = finished_run(epochs=7)
    found = build(history, refit=[{"skipped_steps": 2}] * 4)
    assert found["refit"]
    assert found["val_loss"] == history[3]["val_loss"]
    assert (found["epochs"], found["best_epoch"], found["skipped_steps"]) == (7, 4, 8)
    assert found["train_examples_per_second"] == (2 * 7 + 3 * 4) / 7.0
    assert found["train_tokens_per_second"] == (5 * 7 + 8 * 4) / 7.0


def test_warnings_are_for_classes_only():
    _, history, _ = finished_run(epochs=7)
    finding, few, *others = build(history)["warnings"]
    assert finding == "Copies."
    assert few.startswith("With 1 texts to validate on, 0.5 per class")
    assert others[0].startswith("Nothing was learned")
    of_tokens = build(history, labelled=False)
    assert of_tokens["warnings"] == ["Copies."]
    assert of_tokens["test_accuracy_interval"] is of_tokens["largest_class_accuracy"] is None


def test_run_begun_before_a_metric_was_added_can_be_finished(monkeypatch):
    top3 = metrics.Metric("top3", "top-3 accuracy", lambda *_: 0)
    monkeypatch.setitem(metrics.METRICS, "top3", top3)
    _, history, _ = finished_run(epochs=7)
    found = build(history)
    assert math.isnan(found["val_top3"])
    assert found["test_top3"] == 1.0

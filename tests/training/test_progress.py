"""How far a run is."""

import math

import pytest

from flaxrnn.config import TrainConfig
from flaxrnn.training import progress


def test_best_epoch_is_the_first_of_the_lowest_loss():
    losses = [math.nan, 3.0, 2.0, 2.0, math.inf]
    history = [{"epoch": i + 1, "val_loss": loss} for i, loss in enumerate(losses)]
    assert progress.best_epoch(history, "loss") == 3
    assert progress.best_epoch(history[:1], "loss") == 1


def test_best_epoch_of_another_metric_is_the_highest_and_loss_decides_between_equals():
    scores = [(math.nan, 0.1), (0.5, 0.9), (0.7, 0.8), (0.7, 0.6), (0.7, 0.6), (0.6, 0.2)]
    history = [
        {"epoch": i + 1, "val_macro_f1": score, "val_loss": loss}
        for i, (score, loss) in enumerate(scores)
    ]
    assert progress.best_epoch(history, "macro_f1") == 4
    assert progress.best_epoch(history, "loss") == 1


@pytest.mark.parametrize(
    ("patience", "patience_steps", "num_batches", "expected"),
    [(3, 0, 7, 3), (3, 21, 7, 3), (3, 22, 7, 4), (3, 100, 7, 15), (3, 100, 1_000, 3)],
)
def test_run_ends_when_both_patiences_are_over(patience, patience_steps, num_batches, expected):
    config = TrainConfig(epochs=20, patience=patience, patience_steps=patience_steps)
    run = progress.Progress("")
    run.history = [{"epoch": 1, "val_loss": 1.0}]
    while not run.finished(config, num_batches):
        run.history.append({"epoch": len(run.history) + 1, "val_loss": 2.0})
    assert len(run.history) == 1 + expected
    assert progress.patience_in_epochs(config, num_batches) == expected


def test_patience_does_not_end_a_cosine():
    config = TrainConfig(epochs=9, patience=1, schedule="warmup_cosine")
    assert progress.patience_in_epochs(config, 5) is None
    history = [{"epoch": i + 1, "val_loss": float(i)} for i in range(9)]
    assert not progress.Progress("", history[:8]).finished(config, 5)
    assert progress.Progress("", history).finished(config, 5)

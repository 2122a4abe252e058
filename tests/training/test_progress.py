"""How far a run is."""

import math

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

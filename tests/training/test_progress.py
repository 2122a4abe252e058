"""How far a run is."""

import math

from flaxrnn.training import progress


def test_best_epoch_is_the_first_of_the_lowest_loss():
    losses = [math.nan, 3.0, 2.0, 2.0, math.inf]
    history = [{"epoch": i + 1, "val_loss": loss} for i, loss in enumerate(losses)]
    assert progress.best_epoch(history) == 3
    assert progress.best_epoch(history[:1]) == 1

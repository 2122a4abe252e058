"""The optimizer and its learning rate."""

from __future__ import annotations

import optax

SCHEDULES = ("constant", "one_cycle")


def adam(learning_rate: float, schedule: str, steps: int) -> optax.GradientTransformation:
    """Adam (Kingma & Ba, 2015) with Keras' epsilon.

    Args:
        learning_rate: The highest.
        schedule: "constant", or "one_cycle": linearly up over the first tenth of the steps and down
            to zero over the others (Smith & Topin, 2019).
        steps: Of the whole training.
    """
    rate: float | optax.Schedule = learning_rate
    if schedule == "one_cycle":
        up = max(1, steps // 10)
        rate = optax.join_schedules(
            [
                optax.linear_schedule(learning_rate / up, learning_rate, up),
                optax.linear_schedule(learning_rate, 0.0, steps - up),
            ],
            [up],
        )
    return optax.adam(rate, eps=1e-7)

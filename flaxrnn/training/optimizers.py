"""Optimizers and learning-rate schedules, by the names that configs use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optax

from flaxrnn.errors import ConfigError
from flaxrnn.runtime import plugins

Rate = Any  # float | optax.Schedule, which is not typed


def adam(learning_rate: Rate) -> optax.GradientTransformation:
    """Adam (Kingma & Ba, 2015) with Keras's epsilon."""
    return optax.adam(learning_rate, eps=1e-7)


def constant(peak: float, steps: int) -> Rate:
    """The same learning rate at every step."""
    del steps
    return peak


def warmup_linear(peak: float, steps: int) -> Rate:
    """Linearly up over the first tenth of the steps, then down to zero (Smith & Topin, 2019)."""
    up = max(1, steps // 10)
    return optax.join_schedules(
        [optax.linear_schedule(peak / up, peak, up), optax.linear_schedule(peak, 0.0, steps - up)],
        [up],
    )


OPTIMIZERS: dict[str, Callable[[Rate], optax.GradientTransformation]] = {"adam": adam}
SCHEDULES = {"constant": constant, "warmup_linear": warmup_linear}


def build(
    optimizer: str, learning_rate: float, schedule: str, steps: int
) -> optax.GradientTransformation:
    """The optimizer of a config.

    Args:
        optimizer: A name in `OPTIMIZERS`, or "module:function": a function from a learning rate,
            a float or a schedule, to an Optax gradient transformation.
        learning_rate: Its peak.
        schedule: A name in `SCHEDULES`.
        steps: Of the whole training.

    Raises:
        ConfigError: The module cannot be imported, or its function gives no optimizer.
    """
    rate = SCHEDULES[schedule](learning_rate, steps)
    make = OPTIMIZERS.get(optimizer) or plugins.load("train.optimizer", optimizer)
    built = make(rate)
    if not isinstance(built, optax.GradientTransformation):
        raise ConfigError(
            f"train.optimizer: {optimizer} must return an optax.GradientTransformation"
        )
    return built

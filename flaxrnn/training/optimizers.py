"""Optimizers and learning-rate schedules, by the names that configs use."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

from flaxrnn.config import TrainConfig
from flaxrnn.errors import ConfigError
from flaxrnn.runtime import plugins

Rate = Any  # float | optax.Schedule, which is not typed


def adam(learning_rate: Rate, weight_decay: float = 0.0) -> optax.GradientTransformation:
    """Adam (Kingma & Ba, 2015) with Keras's epsilon; without weight decay."""
    del weight_decay
    return optax.adam(learning_rate, eps=1e-7)


def adamw(learning_rate: Rate, weight_decay: float = 0.0) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019) of the kernels."""
    return optax.adamw(learning_rate, eps=1e-7, weight_decay=weight_decay, mask=_is_kernel)


def _is_kernel(params: Any) -> Any:
    """Which parameters decay: kernels, but neither biases nor embeddings."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: str(path[-1].key).endswith("kernel"), params
    )


def constant(peak: float, steps: int) -> Rate:
    """The same learning rate at every step."""
    del steps
    return peak


def warmup_linear(peak: float, steps: int) -> Rate:
    """Linear warm-up over a tenth of the steps, then linear decay to 0 (Smith & Topin, 2019)."""
    up = max(1, steps // 10)
    return optax.join_schedules(
        [optax.linear_schedule(peak / up, peak, up), optax.linear_schedule(peak, 0.0, steps - up)],
        [up],
    )


def warmup_cosine(peak: float, steps: int) -> Rate:
    """Linear warm-up over a tenth of the steps, then cosine decay to 0."""
    up = max(1, steps // 10)
    return optax.warmup_cosine_decay_schedule(peak / up, peak, up, max(steps, up + 1))


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {"adam": adam, "adamw": adamw}
SCHEDULES = {
    "constant": constant,
    "warmup_linear": warmup_linear,
    "warmup_cosine": warmup_cosine,
}


def build(
    config: TrainConfig, steps: int, train_embedding: bool = True
) -> optax.GradientTransformation:
    """The optimizer of a config's train group.

    Args:
        config: Its `optimizer` is a name in `OPTIMIZERS`, or "module:function": a function from a
            learning rate, a float or a schedule, to an Optax gradient transformation.
        steps: Number of training steps.
        train_embedding: Whether the embedding is trained; if not, its gradient, which must be zero,
            is left as it is.

    Raises:
        ConfigError: The module cannot be imported, or its function returns no optimizer.
    """
    make = OPTIMIZERS.get(config.optimizer) or plugins.load("train.optimizer", config.optimizer)
    return _build(make, SCHEDULES[config.schedule], config, steps, train_embedding)


@functools.lru_cache(maxsize=16)  # two of equal settings are the same, so that programs are, too
def _build(
    make: Callable[..., optax.GradientTransformation],
    schedule: Callable[[float, int], Rate],
    config: TrainConfig,
    steps: int,
    train_embedding: bool,
) -> optax.GradientTransformation:
    rate = schedule(config.learning_rate, steps)
    if config.optimizer in OPTIMIZERS:
        built = make(rate, config.weight_decay)
    else:
        try:
            built = make(rate)
        except Exception as error:  # whatever the function's code raises
            reason = plugins.reason(error)
            raise ConfigError(f"train.optimizer: {config.optimizer} fails: {reason}") from None
    if not isinstance(built, optax.GradientTransformation):
        raise ConfigError(
            f"train.optimizer: {config.optimizer} must return an optax.GradientTransformation"
        )
    if config.clip_norm:
        built = optax.chain(optax.clip_by_global_norm(config.clip_norm), built)
    return built if train_embedding else optax.masked(built, _is_trained)


def _is_trained(params: Any) -> Any:
    """Which parameters a model with a fixed embedding trains: a prefix of their tree."""
    return {name: name != "embed" for name in params}

"""One training step and one evaluation step: pure functions, to be compiled by the caller."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from flaxrnn import metrics, models

Params = Any
Arrays = dict[str, jax.Array]


class TrainState(struct.PyTreeNode):
    """All that a training step reads and changes."""

    step: jax.Array  # int32, steps done
    key: jax.Array  # uint32 [2], of the run
    params: Params
    opt_state: optax.OptState
    average: Params  # of the parameters over the latest steps: what is evaluated and kept


def init_state(
    model: models.TextClassifier, optimizer: optax.GradientTransformation, seed: int
) -> TrainState:
    """The state before the first step; a pure function of the seed."""
    init_key, key = jax.random.split(jax.random.PRNGKey(seed))
    params = models.init_params(model, init_key)
    return TrainState(jnp.int32(0), key, params, optimizer.init(params), params)


def train_step(
    state: TrainState,
    batch: Arrays,
    model: models.TextClassifier,
    optimizer: optax.GradientTransformation,
    averaging: bool,
) -> tuple[TrainState, Arrays]:
    """One update on the mean loss of the batch's real rows.

    A step whose loss or gradient is not finite leaves parameters and optimizer as they were.

    Args:
        state: As the step before left it.
        batch: As `data.batches` yields it.
        model: The classifier.
        optimizer: Of the state.
        averaging: Whether `average` is the polynomial-decay average of the parameters (Shamir &
            Zhang, 2013, eta = 8: about the last ninth of the steps), else the parameters.

    Returns:
        The next state, and sums over the batch: "loss", "hits", "weight", and "finite".
    """

    def mean_loss(params: Params) -> tuple[jax.Array, metrics.Sums]:
        dropout_key = jax.random.fold_in(state.key, state.step)
        logits = models.logits(model, params, batch["tokens"], batch["lengths"], dropout_key)
        sums = metrics.sums(logits, batch["labels"], batch["weights"])
        return sums["loss"] / sums["weight"], sums

    (loss, sums), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))

    def keep(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

    step = state.step + 1
    params = keep(optax.apply_updates(state.params, updates), state.params)
    average = (
        optax.incremental_update(params, state.average, 9 / (step + 8)) if averaging else params
    )
    state = TrainState(step, state.key, params, keep(opt_state, state.opt_state), average)
    return state, {**sums, "finite": finite}


def eval_step(params: Params, batch: Arrays, model: models.TextClassifier) -> metrics.Sums:
    """Sums over the batch's real rows, see `metrics.sums`, and their "confusion" matrix."""
    logits = models.logits(model, params, batch["tokens"], batch["lengths"])
    rows = (logits, batch["labels"], batch["weights"])
    return {**metrics.sums(*rows), "confusion": metrics.confusion(*rows)}

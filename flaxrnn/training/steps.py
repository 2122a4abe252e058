"""Training and evaluation steps: pure functions of a state, the texts, and the rows to use.

`train_step` is one update. `train_steps` and `evaluate` run many batches in one program, over texts
that are already on the devices. `parallel` compiles them for a mesh of devices, each of which
computes its share of every batch. On CPU, each core is a device.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

from flaxrnn.config import ModelConfig
from flaxrnn.data import batching
from flaxrnn.nn import models
from flaxrnn.training import metrics, shards, temperature
from flaxrnn.training.objective import Objective, with_teacher

Params = Any
Arrays = dict[str, jax.Array]

NO_STEP = 2**31 - 1  # "first_nonfinite_step" if there was none
_HEADS_LOSS = Objective()


class TrainState(struct.PyTreeNode):
    """Everything that a training step reads and updates."""

    step: jax.Array  # int32, steps done
    key: jax.Array  # uint32 [2], the random key of the run
    params: Params
    opt_state: optax.OptState
    average: Params  # averaged parameters, which are evaluated and kept


@functools.partial(jax.jit, static_argnums=(0, 1))
def init_state(
    model: models.TextModel, optimizer: optax.GradientTransformation, seed: int
) -> TrainState:
    """The state before the first step; a pure function of the seed."""
    init_key, key = jax.random.split(jax.random.PRNGKey(seed))
    params = models.init_params(model, init_key)
    return TrainState(jnp.int32(0), key, params, optimizer.init(params), params)


def train_step(
    state: TrainState,
    batch: Arrays,
    bucket: jax.Array | int = 0,
    *,
    model: models.TextModel,
    optimizer: optax.GradientTransformation,
    averaging: bool,
    buckets: tuple[int, ...],
    objective: Objective = _HEADS_LOSS,
    axis: str | None = None,
    num_shards: int = 0,
) -> tuple[TrainState, metrics.Sums, jax.Array]:
    """One update on the objective of the batch's examples.

    A step with a non-finite loss or gradient leaves the parameters and the optimizer unchanged.

    Args:
        state: State after the previous step.
        batch: See `Head.targets_and_weights`; rows of weight 0 are padding.
        bucket: Index of the length in `buckets` to cut the texts to, int32.
        model: The model to train.
        optimizer: The optimizer of the state.
        averaging: Whether `state.average` is the polynomial-decay average of the parameters (Shamir
            & Zhang, 2013, eta = 8: about the last ninth of the steps) or simply the parameters.
        buckets: Lengths, each at most T and at least as long as the texts that are cut to it.
        objective: What is minimized, divided by the number of examples.
        axis: Mesh axis that the rows of the batch are sharded over; None: not sharded.
        num_shards: Shards of these rows to compute one by one; 0: all at once. See `shards`.

    Returns:
        The next state; `metrics.batch_sums`, all zero if the step was not finite; and whether it
        was.
    """
    key = jax.random.fold_in(state.key, state.step)

    def gradient(batch: Arrays, first_row: jax.Array | int) -> tuple[Params, metrics.Sums]:
        numbers = first_row + jnp.arange(len(batch["weights"]))
        keys = models.DropoutKeys(
            texts=jax.vmap(functools.partial(jax.random.fold_in, key))(numbers),
            step=jax.random.fold_in(key, NO_STEP),  # no row has this number
        )
        targets = None
        if objective.self_training:
            batch, targets = with_teacher(model.head, batch)

        def loss(params: Params, length: int) -> tuple[jax.Array, metrics.Sums]:
            if not model.config.train_embedding:
                params = {**params, "embed": jax.lax.stop_gradient(params["embed"])}
            tokens, features = _cut(batch, length)
            logits = models.logits(model, params, tokens, batch["lengths"], keys, features=features)
            examples = model.head.targets_and_weights(logits, batch)
            sums = metrics.batch_sums(model.head, *examples)
            if objective == _HEADS_LOSS:
                return sums["loss"], sums
            return objective(model.head, *examples, targets), sums

        of_length = jax.grad(loss, has_aux=True)
        branches = [lambda params, n=n: of_length(params, n) for n in buckets]
        return jax.lax.switch(bucket, branches, state.params)

    first_row = 0 if axis is None else len(batch["weights"]) * jax.lax.axis_index(axis)
    if num_shards:
        grads, sums = shards.total(shards.apply(gradient, batch, first_row, num_shards), axis)
    else:
        grads, sums = all_reduce(gradient(batch, first_row), axis)
    grads = jax.tree.map(lambda g: g / sums["count"], grads)
    finite = jnp.isfinite(sums["loss"]) & jnp.isfinite(optax.tree.norm(grads))
    update = functools.partial(
        _update, grads=grads, optimizer=optimizer, averaging=averaging, config=model.config
    )
    # Unlike `jnp.where`, a branch does not copy the state.
    state = jax.lax.cond(finite, update, lambda s: s.replace(step=s.step + 1), state)
    return state, jax.tree.map(lambda s: jnp.where(finite, s, 0), sums), finite


def _update(
    state: TrainState,
    grads: Params,
    optimizer: optax.GradientTransformation,
    averaging: bool,
    config: ModelConfig,
) -> TrainState:
    """The next state, for gradients that are finite."""
    step = state.step + 1
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    # Without the barrier, XLA would compute the parameters a second time for the average.
    params = jax.lax.optimization_barrier(optax.apply_updates(state.params, updates))
    average = params
    if averaging:
        average = optax.incremental_update(params, state.average, 9 / (step + 8))
        if not config.train_embedding:  # the average of equal numbers is not always equal to them
            average = {**average, "embed": params["embed"]}
    return TrainState(step, state.key, params, opt_state, average)


def train_steps(
    state: TrainState,
    texts: Arrays,
    group: batching.BatchGroup,
    stop: jax.Array,
    *,
    axis: str | None = None,
    **settings: Any,
) -> tuple[TrainState, metrics.Sums]:
    """Runs the training steps of a group of batches, in one program.

    Args:
        state: State after the previous step.
        texts: Arrays, as returned by `RaggedTexts.padded`.
        group: The rows of `texts` that each step sees.
        stop: Number of the signal that asks each process to stop, int32 [1] per device; 0: none.
        axis: See `train_step`.
        **settings: The other arguments of `train_step`.

    Returns:
        The state after the last step, and the sums of `train_step` over all steps, together with
        "nonfinite_steps", how many steps were not finite, "first_nonfinite_step", the number of the
        first of them or `NO_STEP`, and "stop", the maximum over all devices.
    """

    def body(i: jax.Array, carry: tuple[TrainState, metrics.Sums, jax.Array]) -> Any:
        state, total, first = carry
        batch = gather_batch(texts, group.rows[i], group.weights[i])
        state, sums, finite = train_step(state, batch, group.buckets[i], axis=axis, **settings)
        first = jnp.minimum(first, jnp.where(finite, NO_STEP, state.step))
        sums = {**sums, "nonfinite_steps": jnp.int32(~finite)}
        return state, jax.tree.map(jnp.add, total, sums), first

    total = {**_zero_sums(), "nonfinite_steps": jnp.int32(0)}
    state, total, first = jax.lax.fori_loop(0, group.used, body, (state, total, jnp.int32(NO_STEP)))
    # After the loop, on which it thus depends: on CPU, XLA may start both at once and exchange the
    # signal of one device for the gradients of another, which crashes.
    signal = jnp.where(first >= 0, stop.max(), 0)
    signal = signal if axis is None else jax.lax.pmax(signal, axis)
    return state, {**total, "first_nonfinite_step": first, "stop": signal}


def evaluate(
    params: Params,
    texts: Arrays,
    group: batching.BatchGroup,
    *,
    model: models.TextModel,
    buckets: tuple[int, ...],
    axis: str | None = None,
    num_shards: int = 0,
) -> tuple[metrics.Sums, Arrays]:
    """Evaluates the batches of a group; see `train_steps` and `train_step` for the arguments.

    Returns:
        `metrics.batch_sums` over all examples, together with the "class_counts" of the head; and
        for each of the [S, B] texts the most likely class, "predicted", int32, and its
        "probability", float32, and of not too many classes, its "logits", float32 [S, B, C]. Where
        a text may have several labels, only its logits; if the head has one example per token, only
        the sums.
    """
    of_batch = functools.partial(_evaluate_batch, model, params, buckets)

    def body(i: jax.Array, carry: tuple[metrics.Sums, Arrays]) -> tuple[metrics.Sums, Arrays]:
        total, per_text = carry
        batch = gather_batch(texts, group.rows[i], group.weights[i])
        if num_shards:
            of_shard = lambda part, _: of_batch(part, group.buckets[i])  # noqa: E731
            sums, found = shards.apply(of_shard, batch, 0, num_shards)
            found = {name: x.reshape(-1, *x.shape[2:]) for name, x in found.items()}
        else:
            sums, found = of_batch(batch, group.buckets[i])
        total = jax.tree.map(jnp.add, total, sums)
        return total, {name: of_all.at[i].set(found[name]) for name, of_all in per_text.items()}

    total = {**_zero_sums(), "class_counts": model.head.empty_counts(model.num_outputs)}
    if num_shards:  # sums of each
        total = jax.tree.map(lambda x: jnp.stack([x] * num_shards), total)
    per_text = _empty_per_text(model, group.rows.shape)
    total, per_text = jax.lax.fori_loop(0, group.used, body, (total, per_text))
    if axis is not None:  # every process gets all rows
        per_text = jax.lax.all_gather(per_text, axis, axis=1, tiled=True)
    return shards.total(total, axis) if num_shards else all_reduce(total, axis), per_text


def _evaluate_batch(
    model: models.TextModel,
    params: Params,
    buckets: tuple[int, ...],
    batch: Arrays,
    bucket: jax.Array,
) -> tuple[metrics.Sums, Arrays]:
    head = model.head

    def logits(params: Params, length: int) -> jax.Array:
        (tokens, features), scores = _cut(batch, length), batch.get("scores")
        out = models.logits(
            model, params, tokens, batch["lengths"], scores=scores, features=features
        )
        if not head.per_token:
            return out
        return jnp.pad(out, ((0, 0), (0, buckets[-1] - length), (0, 0)))  # one shape

    branches = [functools.partial(logits, length=n) for n in buckets]
    out = jax.lax.switch(bucket, branches, params)
    examples = head.targets_and_weights(out, batch)
    sums = metrics.batch_sums(head, *examples)
    sums = {**sums, "class_counts": head.class_counts(*examples)}
    if head.per_token:
        return sums, {}
    if head.several:
        return sums, {"logits": out}
    probability = head.probabilities(out).max(axis=-1)
    return sums, {"predicted": head.predictions(out), "probability": probability, "logits": out}


def _empty_per_text(model: models.TextModel, shape: tuple[int, ...]) -> Arrays:
    if model.head.per_token:
        return {}
    if model.head.several:
        return {"logits": jnp.zeros((*shape, model.num_outputs))}
    arrays = {"predicted": jnp.zeros(shape, jnp.int32), "probability": jnp.zeros(shape)}
    if model.num_outputs <= temperature.MOST_CLASSES:
        arrays["logits"] = jnp.zeros((*shape, model.num_outputs))
    return arrays


def _zero_sums() -> metrics.Sums:
    names = [name for name, metric in metrics.METRICS.items() if metric.per_epoch]
    return dict.fromkeys((*names, "count"), jnp.float32(0))


def gather_batch(texts: Arrays, rows: jax.Array, weights: jax.Array) -> Arrays:
    """The texts at `rows`, int [B], as a batch with `weights`, float [B]."""
    batch = {name: array[rows] for name, array in texts.items()}
    return {**batch, "tokens": batch["tokens"].astype(jnp.int32), "weights": weights}


def _cut(batch: Arrays, length: int) -> tuple[jax.Array, jax.Array | None]:
    """The tokens of a batch, and their features if they have any, up to a length."""
    features = batch.get("features")
    return batch["tokens"][:, :length], None if features is None else features[:, :length]


def all_reduce(tree: Any, axis: str | None) -> Any:
    """Sums a tree over a mesh axis in a single all-reduce, since each one has a fixed cost."""
    if axis is None:
        return tree
    vector, unravel = ravel_pytree(tree)
    return unravel(jax.lax.psum(vector, axis))

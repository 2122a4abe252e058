"""Training and evaluation steps: pure functions of a state, texts and the rows to look at.

What is judged are the texts of a batch, or, where the model has outputs per token, their tokens.

`train_step` is one update. `train_steps` and `evaluate` run many batches in one program over texts
that lie on the device, and `in_parallel` compiles them for a mesh of devices that share each
batch's rows: on CPU, where a core is a device, and on accelerators alike.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec

from flaxrnn.data import batching
from flaxrnn.data.vocabulary import PAD
from flaxrnn.nn import models
from flaxrnn.training import metrics

Params = Any
Arrays = dict[str, jax.Array]

NO_STEP = 2**31 - 1


class TrainState(struct.PyTreeNode):
    """All that a training step reads and changes."""

    step: jax.Array  # int32, steps done
    key: jax.Array  # uint32 [2], of the run
    params: Params
    opt_state: optax.OptState
    average: Params  # of the parameters over the latest steps: what is evaluated and kept


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
    axis: str | None = None,
) -> tuple[TrainState, metrics.Sums, jax.Array]:
    """One update on the mean loss of the batch's real rows, or of their tokens.

    A step whose loss or gradient is not finite leaves parameters and optimizer as they were.

    Args:
        state: As the step before left it.
        batch: tokens int32 [B, T], lengths int32 [B], labels int32 [B], of tags [B, T], weights
            float32 [B].
        bucket: Which of `buckets` the texts are cut to, int32.
        model: The classifier.
        optimizer: Of the state.
        averaging: Whether `average` is the polynomial-decay average of the parameters (Shamir &
            Zhang, 2013, eta = 8: about the last ninth of the steps), else the parameters.
        buckets: Lengths, each at most T and at least as long as the texts that are cut to it.
        axis: Mesh axis over which the rows of the batch are spread; None: they are all here.

    Returns:
        The next state, sums over the batch, see `metrics.sums`, zeros where the step was not
        finite, and whether it was.
    """
    rows = len(batch["weights"])
    first = 0 if axis is None else rows * jax.lax.axis_index(axis)
    key = jax.random.fold_in(state.key, state.step)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(first + jnp.arange(rows))

    def loss(params: Params, length: int) -> tuple[jax.Array, metrics.Sums]:
        tokens = batch["tokens"][:, :length]
        logits = models.logits(model, params, tokens, batch["lengths"], keys)
        sums = metrics.sums(*targets_and_weights(model, logits, batch))
        return sums["loss"], sums

    gradient = jax.grad(loss, has_aux=True)
    branches = [lambda params, n=n: gradient(params, n) for n in buckets]
    grads, sums = all_reduce(jax.lax.switch(bucket, branches, state.params), axis)
    grads = jax.tree.map(lambda g: g / sums["weight"], grads)
    finite = jnp.isfinite(sums["loss"]) & jnp.isfinite(optax.tree.norm(grads))
    step = state.step + 1

    def update(state: TrainState) -> TrainState:
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        # Kept so: else the average would compute them a second time.
        params = jax.lax.optimization_barrier(optax.apply_updates(state.params, updates))
        average = params
        if averaging:
            average = optax.incremental_update(params, state.average, 9 / (step + 8))
        return TrainState(step, state.key, params, opt_state, average)

    # Unlike a choice among results, a branch leaves the state where it lies.
    state = jax.lax.cond(finite, update, lambda state: state.replace(step=step), state)
    return state, jax.tree.map(lambda s: jnp.where(finite, s, 0), sums), finite


def train_steps(
    state: TrainState,
    texts: Arrays,
    chunk: batching.BatchGroup,
    *,
    axis: str | None = None,
    **settings: Any,
) -> tuple[TrainState, metrics.Sums]:
    """The training steps of a chunk, in one program.

    Args:
        state: As the step before left it.
        texts: As `ragged.RaggedTexts.padded` gives them.
        chunk: Which of them each step sees.
        axis: Mesh axis.
        **settings: Of `train_step`.

    Returns:
        The next state, the sums of `train_step` over the steps, and among them "bad", how many were
        not finite, "first_bad", the number of the first of them, else `NO_STEP`, and "stop", the
        highest of the chunk.
    """

    def body(i: jax.Array, carry: tuple[TrainState, metrics.Sums]) -> Any:
        state, total = carry
        batch = _take(texts, chunk.rows[i], chunk.weights[i])
        state, sums, finite = train_step(state, batch, chunk.buckets[i], axis=axis, **settings)
        first_bad = jnp.where(finite, NO_STEP, state.step)
        first_bad = jnp.minimum(total.pop("first_bad"), first_bad)
        total = jax.tree.map(jnp.add, total, {**sums, "bad": jnp.int32(~finite)})
        return state, {**total, "first_bad": first_bad}

    zeros = dict.fromkeys(("loss", "hits", "weight"), jnp.float32(0))
    total = {**zeros, "bad": jnp.int32(0), "first_bad": jnp.int32(NO_STEP)}
    state, total = jax.lax.fori_loop(0, chunk.used, body, (state, total))
    stop = chunk.stop.max()
    return state, {**total, "stop": stop if axis is None else jax.lax.pmax(stop, axis)}


def evaluate(
    params: Params,
    texts: Arrays,
    chunk: batching.BatchGroup,
    *,
    model: models.TextModel,
    buckets: tuple[int, ...],
    axis: str | None = None,
) -> tuple[metrics.Sums, Arrays]:
    """Evaluates the batches of a chunk; the arguments are those of `train_steps`.

    Returns:
        Sums over the rows, `metrics.sums` and the "confusion" matrix, or the "counts" where words
        are the classes; and of each text the likeliest class, "predicted", int32 [S, B], and its
        "probability", float32 [S, B]. Of outputs per token, the sums alone.
    """
    classes = max(2, model.outputs)
    name, count, size = "confusion", metrics.confusion, classes
    if model.target == "next":  # words are the classes: a matrix of them would be too large
        name, count, size = "counts", metrics.counts, 3

    def body(i: jax.Array, carry: tuple[metrics.Sums, Arrays]) -> tuple[metrics.Sums, Arrays]:
        total, found = carry
        batch = _take(texts, chunk.rows[i], chunk.weights[i])

        def logits(params: Params, length: int) -> jax.Array:
            out = models.logits(model, params, batch["tokens"][:, :length], batch["lengths"])
            if model.target == "label":
                return out
            return jnp.pad(out, ((0, 0), (0, buckets[-1] - length), (0, 0)))  # of one shape

        branches = [functools.partial(logits, length=n) for n in buckets]
        out = jax.lax.switch(chunk.buckets[i], branches, params)
        seen = targets_and_weights(model, out, batch)
        sums = {**metrics.sums(*seen), name: count(*seen)}
        if model.target == "label":
            best = metrics.probabilities(out).max(axis=-1)
            found = {
                "predicted": found["predicted"].at[i].set(metrics.predictions(out)),
                "probability": found["probability"].at[i].set(best),
            }
        return jax.tree.map(jnp.add, total, sums), found

    zeros = dict.fromkeys(("loss", "hits", "weight"), jnp.float32(0))
    sums = {**zeros, name: jnp.zeros((size, classes))}
    found: Arrays = {}
    if model.target == "label":
        shape = chunk.rows.shape
        found = {"predicted": jnp.zeros(shape, jnp.int32), "probability": jnp.zeros(shape)}
    sums, found = jax.lax.fori_loop(0, chunk.used, body, (sums, found))
    if axis is not None:  # every process gets the rows of all
        found = jax.lax.all_gather(found, axis, axis=1, tiled=True)
    return all_reduce(sums, axis), found


# How chunks lie on the devices of a mesh, along its axis "data": each has its rows of each batch.
CHUNK = batching.BatchGroup(
    rows=PartitionSpec(None, "data"),
    weights=PartitionSpec(None, "data"),
    buckets=PartitionSpec(),
    used=PartitionSpec(),
    stop=PartitionSpec("data"),
)


def in_parallel(
    function: Callable, mesh: Mesh, texts: PartitionSpec, donate: bool
) -> jax.stages.Wrapped:
    """Compiles `train_steps` or `evaluate` for the devices of `mesh`.

    Args:
        function: Of parameters or a state, which are on all devices, texts and a chunk.
        mesh: Its axis is "data".
        texts: How the texts lie on the devices.
        donate: Whether the first argument's memory is used for the result.
    """
    spread = jax.shard_map(
        functools.partial(function, axis="data"),
        mesh=mesh,
        in_specs=(PartitionSpec(), texts, CHUNK),
        out_specs=PartitionSpec(),
        check_vma=False,  # gradients and sums are added up by hand, once
    )
    return jax.jit(spread, donate_argnums=(0,) if donate else ())


def _take(texts: Arrays, rows: jax.Array, weights: jax.Array) -> Arrays:
    batch = {name: array[rows] for name, array in texts.items()}
    return {**batch, "tokens": batch["tokens"].astype(jnp.int32), "weights": weights}


def targets_and_weights(model: models.TextModel, logits: jax.Array, batch: Arrays) -> tuple:
    """Logits, labels and weights of what is judged: the texts of a batch, or all their tokens.

    Tokens in a row, [B·T]; those past the end of a text weigh nothing.
    """
    if model.target == "label":
        return logits, batch["labels"], batch["weights"]
    B, T, C = logits.shape
    if model.target == "next":  # after the last token comes padding, which is learned as the end
        labels = jnp.pad(batch["tokens"][:, 1:], ((0, 0), (0, 1)), constant_values=PAD)
    else:
        labels = batch["labels"]
    inside = jnp.arange(T)[None, :] < batch["lengths"][:, None]
    weights = batch["weights"][:, None] * inside
    return logits.reshape(B * T, C), labels[:, :T].reshape(B * T), weights.reshape(B * T)


def all_reduce(tree: Any, axis: str | None) -> Any:
    """Adds up over the devices of a mesh axis, as one vector: each exchange has its price."""
    if axis is None:
        return tree
    vector, unravel = ravel_pytree(tree)
    return unravel(jax.lax.psum(vector, axis))

"""The compiled programs of inference: probabilities, attributions, and generation.

Each is sharded over the rows of a batch: the batch size B must be a multiple of the number of
devices in the mesh.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from flaxrnn.data.vocabulary import FIRST_WORD, PAD
from flaxrnn.inference.folding import Folded
from flaxrnn.nn import models
from flaxrnn.runtime import devices

Params = Any


@functools.lru_cache(maxsize=8)
def predict_program(model: models.TextModel, mesh: Mesh) -> jax.stages.Wrapped:
    """A program that computes probabilities.

    Returns:
        (`Folded`, tokens int32 [B, T], lengths int32 [B]) → probabilities of the classes, float32
        [B, C], or [B, T, C] of a model with outputs per token. The model's `extras` are given after
        the lengths.
    """

    def predict(
        variables: Folded, tokens: jax.Array, lengths: jax.Array, *extras: jax.Array
    ) -> jax.Array:
        params, folded = variables
        named: dict[str, Any] = dict(zip(model.extras, extras, strict=True))
        logits = models.logits(model, params, tokens, lengths, folded=folded, **named)
        return model.head.probabilities(logits)

    return _jit_over_rows(predict, mesh, num_arrays=2 + len(model.extras))


@functools.lru_cache(maxsize=8)
def explain_program(model: models.TextModel, mesh: Mesh) -> jax.stages.Wrapped:
    """A program that attributes a class to the tokens.

    Returns:
        (params, tokens int32 [B, T], lengths int32 [B], labels int32 [B]) → attributions float32
        [B, T], see `models.attributions`. The model's `extras` are given after the labels.
    """

    def explain(
        params: Params, tokens: jax.Array, lengths: jax.Array, labels: jax.Array, *extras: jax.Array
    ) -> jax.Array:
        features = dict(zip(model.extras, extras, strict=True)).get("features")
        return models.attributions(model, params, tokens, lengths, labels, features)

    return _jit_over_rows(explain, mesh, num_arrays=3 + len(model.extras))


@functools.lru_cache(maxsize=8)
def generate_program(model: models.TextModel, mesh: Mesh, length: int) -> jax.stages.Wrapped:
    """A program that samples how texts continue.

    The prompt is read once; from there on, each step feeds one token and the carry of the last.

    Args:
        model: Its target is the next token.
        mesh: Devices.
        length: Tokens to generate.

    Returns:
        (params, prompts int32 [B, T], their lengths int32 [B], random keys uint32 [B, 2],
        temperatures float32 [B]) → ids int32 [B, length]. After the end of a text, which is a
        `PAD`, all ids are PAD. Temperature 0 chooses the likeliest token; otherwise logits are
        divided by it before sampling.
    """
    ids = jnp.arange(model.vocab_size)
    allowed = (ids == PAD) | (ids >= FIRST_WORD)  # words, and the end of the text

    def generate(
        params: Params,
        prompts: jax.Array,
        lengths: jax.Array,
        keys: jax.Array,
        temperatures: jax.Array,
    ) -> jax.Array:
        def step(loop_carry: tuple, i: jax.Array) -> tuple[tuple, jax.Array]:
            logits, carries, token = loop_carry
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
            logits = jnp.where(allowed, logits, -jnp.inf)
            token = jnp.where(token == PAD, PAD, jax.vmap(_sample)(logits, step_keys, temperatures))
            one = jnp.ones_like(lengths)
            logits, carries = models.apply_with_carry(model, params, token[:, None], one, carries)
            return (logits[:, 0], carries, token), token

        logits, carries = models.apply_with_carry(model, params, prompts, lengths)
        last = jnp.take_along_axis(logits, (lengths - 1)[:, None, None], axis=1)[:, 0]
        _, generated = jax.lax.scan(step, (last, carries, prompts[:, 0]), jnp.arange(length))
        return generated.swapaxes(0, 1)

    return _jit_over_rows(generate, mesh, num_arrays=4)


def _sample(logits: jax.Array, key: jax.Array, temperature: jax.Array) -> jax.Array:
    """One id, int32, from logits [V]; the likeliest where the temperature is 0."""
    scaled = (logits - logits.max()) / jnp.where(temperature > 0, temperature, 1)
    sampled = jax.random.categorical(key, scaled)
    return jnp.where(temperature > 0, sampled, logits.argmax()).astype(jnp.int32)


def _jit_over_rows(function: Callable, mesh: Mesh, num_arrays: int) -> jax.stages.Wrapped:
    """Compiles a function of replicated parameters and `num_arrays` arrays sharded by row."""
    rows = PartitionSpec("data")
    return jax.jit(
        jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(PartitionSpec(), *(rows,) * num_arrays),
            out_specs=rows,
            check_vma=False,
        ),
        # Alone, XLA's own products are faster than those of YNNPACK for the sizes that occur here.
        compiler_options=devices.compiler_options(mesh, ynnpack=False),
    )

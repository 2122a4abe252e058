"""The compiled programs of inference."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from flaxrnn.data.vocabulary import FIRST_WORD, PAD
from flaxrnn.nn import models

Params = Any


def predictor(model: models.TextModel, mesh: Mesh) -> jax.stages.Wrapped:
    """Compiles (params, tokens [B, T], lengths [B]) → probabilities [B, C] for a mesh's devices.

    B is a multiple of their number; each takes its share of the rows.
    """

    def probabilities(params: Params, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
        return model.head.probabilities(models.logits(model, params, tokens, lengths))

    return _by_rows(probabilities, mesh)


def explainer(model: models.TextModel, mesh: Mesh) -> jax.stages.Wrapped:
    """As `predictor`, with the weights of the tokens [B, T] behind, see `models.attributions`."""

    def explain(params: Params, tokens: jax.Array, lengths: jax.Array) -> Any:
        logits, weights = models.attributions(model, params, tokens, lengths)
        return model.head.probabilities(logits), weights

    return _by_rows(explain, mesh)


@functools.cache
def generator(model: models.TextModel, mesh: Mesh, words: int, length: int) -> jax.stages.Wrapped:
    """Compiles what continues texts, for a mesh's devices.

    It is given params, tokens [B, T], lengths [B], a random key a text, uint32 [B, 2], and
    temperatures [B]: 0 chooses the likeliest token, else logits are divided by it and a token is
    drawn. It gives ids int32 [B, length]; behind the end of a text, itself `PAD`, all are PAD.
    The text is read once, what follows a token at a time from the carries before it.

    Args:
        model: Of the next token.
        mesh: B is a multiple of its devices.
        words: In the vocabulary; nothing but they and the end is chosen.
        length: Tokens to add.
    """
    ids = jnp.arange(model.vocab_size)
    possible = (ids == PAD) | ((ids >= FIRST_WORD) & (ids < FIRST_WORD + words))

    def choose(logits: jax.Array, key: jax.Array, temperature: jax.Array) -> jax.Array:
        logits = jnp.where(possible, logits, -jnp.inf)
        scaled = (logits - logits.max()) / jnp.where(temperature > 0, temperature, 1)
        drawn = jax.random.categorical(key, scaled)
        return jnp.where(temperature > 0, drawn, logits.argmax()).astype(jnp.int32)

    def generate(
        params: Params,
        tokens: jax.Array,
        lengths: jax.Array,
        keys: jax.Array,
        temperatures: jax.Array,
    ) -> jax.Array:
        def step(before: tuple, i: jax.Array) -> tuple[tuple, jax.Array]:
            logits, carries, token = before
            keys_now = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
            chosen = jax.vmap(choose)(logits, keys_now, temperatures)
            token = jnp.where(token == PAD, PAD, chosen)
            one = jnp.ones_like(lengths)
            logits, carries = models.apply_with_carry(model, params, token[:, None], one, carries)
            return (logits[:, 0], carries, token), token

        logits, carries = models.apply_with_carry(model, params, tokens, lengths)
        last = jnp.take_along_axis(logits, (lengths - 1)[:, None, None], axis=1)[:, 0]
        _, found = jax.lax.scan(step, (last, carries, tokens[:, 0]), jnp.arange(length))
        return found.swapaxes(0, 1)

    return _by_rows(generate, mesh, arrays=4)


def _by_rows(function: Callable, mesh: Mesh, arrays: int = 2) -> jax.stages.Wrapped:
    rows = PartitionSpec("data")
    return jax.jit(
        jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(PartitionSpec(), *(rows,) * arrays),
            out_specs=rows,
            check_vma=False,
        )
    )

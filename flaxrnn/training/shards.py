"""Sums over the rows of a batch that have the same bits on however many devices.

A sum of floats depends on its order, and a matrix product on its shape. So a batch is cut into a
fixed number of shards; each is computed by itself, in one shape, and their sums are added in pairs,
like the leaves of a binary tree, of which each device has a branch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree


def apply(
    function: Callable[[Any, jax.Array], Any],
    batch: dict[str, jax.Array],
    first_row: jax.Array | int,
    shards: int,
) -> Any:
    """Applies a function to each shard of a batch.

    Args:
        function: Of the rows of a shard, and the number of the first one.
        batch: Arrays [B, ...].
        first_row: The number of the batch's first row.
        shards: S, a divisor of B.

    Returns:
        What the function returns, stacked: arrays [S, ...].
    """
    size = len(batch["weights"]) // shards
    parts = {name: x.reshape(shards, size, *x.shape[1:]) for name, x in batch.items()}

    def isolated(part: Any) -> Any:  # or XLA could fuse it with what comes before and after
        return jax.lax.optimization_barrier(function(*jax.lax.optimization_barrier(part)))

    return jax.lax.map(isolated, (parts, first_row + size * jnp.arange(shards)))


def total(stacked: Any, axis: str | None) -> Any:
    """Sums arrays [S, ...] over S, a power of two, and over the devices of a mesh axis."""
    _, unravel = ravel_pytree(jax.tree.map(lambda x: x[0], stacked))
    vector = _pairwise(jax.vmap(lambda tree: ravel_pytree(tree)[0])(stacked))
    if axis is not None:
        vector = _pairwise(jax.lax.all_gather(vector, axis))
    return unravel(vector)


def _pairwise(vectors: jax.Array) -> jax.Array:
    while len(vectors) > 1:
        vectors = jax.lax.optimization_barrier(vectors[0::2] + vectors[1::2])
    return vectors[0]

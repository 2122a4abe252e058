"""Training and evaluation steps, compiled for a mesh of devices."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
from jax.sharding import Mesh, PartitionSpec

from flaxrnn.data import batching
from flaxrnn.runtime import devices

# How the arrays of a group are sharded over a mesh with the axis "data": each device has its share
# of the rows of every batch.
GROUP_SPEC = batching.BatchGroup(
    rows=PartitionSpec(None, "data"),
    weights=PartitionSpec(None, "data"),
    buckets=PartitionSpec(),
    used=PartitionSpec(),
)
STOP_SPEC = PartitionSpec("data")


def in_parallel(
    function: Callable,
    mesh: Mesh,
    texts: PartitionSpec,
    *others: PartitionSpec,
    donate: bool,
    ynnpack: bool = True,
) -> jax.stages.Wrapped:
    """Compiles `train_steps` or `evaluate` for the devices of a mesh.

    Args:
        function: Its arguments are parameters or a state, replicated on every device; texts; a
            group; and any others.
        mesh: A mesh with the axis "data".
        texts: How the texts are sharded.
        *others: How the arguments after the group are sharded.
        donate: Whether the result reuses the first argument's memory.
        ynnpack: See `devices.compiler_options`.
    """
    sharded = jax.shard_map(
        functools.partial(function, axis="data"),
        mesh=mesh,
        in_specs=(PartitionSpec(), texts, GROUP_SPEC, *others),
        out_specs=PartitionSpec(),
        check_vma=False,  # gradients and sums are all-reduced explicitly, once
    )
    return jax.jit(
        sharded,
        donate_argnums=(0,) if donate else (),
        compiler_options=devices.compiler_options(mesh, ynnpack),
    )

"""A table of a model's layers, like Keras's `model.summary()`."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxrnn.nn.models import TextModel


def summary(model: TextModel, batch_size: int, maxlen: int) -> str:
    """Layers, output shapes and parameters, as lines of text."""
    rows = _layers(model, batch_size, maxlen)
    cells = [
        ("Layer (type)", "Output shape", "Parameters"),
        *((name, str((None, *shape[1:])), f"{count:,}") for name, shape, count in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    header, *lines = [
        f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {count:>{widths[2]}}"
        for name, shape, count in cells
    ]
    rule = "─" * len(header)
    total = sum(count for _, _, count in rows)
    footer = f"Total parameters: {total:,} ({total * 4 / 2**20:.2f} MiB)"
    return "\n".join([rule, header, rule, *lines, rule, footer])


def _layers(
    model: TextModel, batch_size: int, maxlen: int
) -> list[tuple[str, tuple[int, ...], int]]:
    """Name, output shape and number of parameters of each layer."""
    rows = []

    def record(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = next_call(*args, **kwargs)
        module = context.module
        if isinstance(module.parent, TextModel) and context.method_name == "__call__":
            shape = (out if hasattr(out, "shape") else out[0]).shape
            count = sum(
                math.prod(p.shape) for p in jax.tree.leaves(module.variables.get("params", {}))
            )
            rows.append((f"{module.name} ({type(module).__name__})", shape, count))
        return out

    tokens = jax.ShapeDtypeStruct((batch_size, maxlen), jnp.int32)
    lengths = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    features = None
    if model.num_features:
        features = jax.ShapeDtypeStruct((batch_size, maxlen, model.num_features), jnp.float32)
    with nn.intercept_methods(record):
        jax.eval_shape(model.init, jax.random.key(0), tokens, lengths, features=features)
    return rows

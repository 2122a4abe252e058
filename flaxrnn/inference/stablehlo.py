"""The classifier as one program for any number of texts of any length, on any device."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict

from flaxrnn.data.vocabulary import PAD
from flaxrnn.nn import models

PLATFORMS = ("cpu", "cuda", "tpu")


def lower(
    model: models.TextModel, params: dict[str, Any], maxlen: int, padding: str
) -> jax.export.Exported:
    """Lowers a classifier to StableHLO.

    Args:
        model: The classifier.
        params: Its parameters by their paths, "dense/kernel".
        maxlen: Tokens that are read of a text, the last ones.
        padding: "post" or "pre", see `data.Split.padded`.

    Returns:
        (params, tokens int32 [B, T], lengths int32 [B]) → probabilities, float32 [B, C]. Tokens
        stand on the left, also with `padding` "pre"; B, T and lengths are at least 1.
    """
    # Recomputing is for the backward pass.
    model = model.clone(config=dataclasses.replace(model.config, recompute=0))
    shortest = models.shortest_text(model.config)
    B, T, read = jax.export.symbolic_shape(f"batch, length, max({shortest}, min(length, {maxlen}))")
    read = maxlen if padding == "pre" else read

    def probabilities(params: Any, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
        kept = jnp.minimum(lengths, maxlen)
        place = jnp.arange(read)[None, :]  # in what the model reads
        if padding == "pre":
            place -= maxlen - kept[:, None]
        inside = (place >= 0) & (place < kept[:, None])
        source = jnp.where(inside, place + (lengths - kept)[:, None], 0)
        tokens = jnp.where(inside, jnp.take_along_axis(tokens, source, axis=1), PAD)
        kept = jnp.full_like(kept, maxlen) if padding == "pre" else kept
        logits = models.logits(model, unflatten_dict(params, sep="/"), tokens, kept)
        return model.head.probabilities(logits)

    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in params.items()}
    tokens = jax.ShapeDtypeStruct((B, T), jnp.int32)
    lengths = jax.ShapeDtypeStruct((B,), jnp.int32)
    return jax.export.export(jax.jit(probabilities), platforms=PLATFORMS)(shapes, tokens, lengths)

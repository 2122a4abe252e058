"""A classifier as one StableHLO program for any number of texts of any length, on any device.

An ensemble is one program, too: its parameters are those of its members, stacked.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from flaxrnn.data.vocabulary import PAD
from flaxrnn.inference.saved import SavedModel
from flaxrnn.nn import models
from flaxrnn.runtime import devices

PLATFORMS = ("cpu", "cuda", "tpu")


def parameters(saved: SavedModel) -> dict[str, np.ndarray]:
    """The parameters by path, such as "dense/kernel"; of an ensemble of M runs, [M, …]."""
    members = [flatten_dict(params, sep="/") for params in saved.members]
    if len(members) == 1:
        return members[0]
    return {name: np.stack([member[name] for member in members]) for name in members[0]}


def lower(saved: SavedModel) -> jax.export.Exported:
    """Lowers a classifier to StableHLO.

    Returns:
        (`parameters`, tokens int32 [B, T], lengths int32 [B]) → probabilities, float32 [B, C]; of
        an ensemble, the mean. Tokens are padded on the right whatever `data.padding` is; B, T and
        the lengths are at least 1. A model with scores takes them, float32 [B, outputs], after the
        lengths.
    """
    # Recomputing only concerns the backward pass.
    model = saved.model.clone(config=dataclasses.replace(saved.model.config, recompute=0))
    maxlen, padding = saved.config.data.maxlen, saved.config.data.padding
    shortest = models.shortest_text(model.config)
    B, T, width = jax.export.symbolic_shape(
        f"batch, length, max({shortest}, min(length, {maxlen}))"
    )
    width = maxlen if padding == "pre" else width  # of the tokens that the model is given

    def classify(
        params: Any, tokens: jax.Array, lengths: jax.Array, *scores: jax.Array
    ) -> jax.Array:
        kept = jnp.minimum(lengths, maxlen)
        position = jnp.arange(width)[None, :]  # in the text that is kept
        if padding == "pre":
            position -= maxlen - kept[:, None]
        mask = (position >= 0) & (position < kept[:, None])
        source = jnp.where(mask, position + (lengths - kept)[:, None], 0)
        tokens = jnp.where(mask, jnp.take_along_axis(tokens, source, axis=1), PAD)
        kept = jnp.full_like(kept, maxlen) if padding == "pre" else kept

        def probabilities(params: Any) -> jax.Array:
            nested = unflatten_dict(params, sep="/")
            logits = models.logits(model, nested, tokens, kept, None, *scores)
            return model.head.probabilities(logits)

        if len(saved.members) == 1:
            return probabilities(params)
        return jax.lax.map(probabilities, params).mean(axis=0)

    shapes = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for name, leaf in parameters(saved).items()
    }
    tokens = jax.ShapeDtypeStruct((B, T), jnp.int32)
    inputs = [tokens, jax.ShapeDtypeStruct((B,), jnp.int32)]
    if model.has_scores:
        inputs.append(jax.ShapeDtypeStruct((B, model.num_outputs), jnp.float32))
    with devices.matmul_precision(saved.config.train.precision):
        return jax.export.export(jax.jit(classify), platforms=PLATFORMS)(shapes, *inputs)

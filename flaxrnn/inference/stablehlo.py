"""A classifier as one StableHLO program for any number of texts of any length, on any device."""

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
        params: Its parameters by path, such as "dense/kernel".
        maxlen: Number of tokens the model reads of a text, the last ones.
        padding: "post" or "pre", as the model was trained, see `ragged.RaggedTexts.padded`.

    Returns:
        (params, tokens int32 [B, T], lengths int32 [B]) → probabilities, float32 [B, C]. Tokens are
        padded on the right whatever `padding` is; B, T and the lengths are at least 1. A model with
        scores takes them, float32 [B, outputs], after the lengths.
    """
    # Recomputing only concerns the backward pass.
    model = model.clone(config=dataclasses.replace(model.config, recompute=0))
    shortest = models.shortest_text(model.config)
    B, T, width = jax.export.symbolic_shape(
        f"batch, length, max({shortest}, min(length, {maxlen}))"
    )
    width = maxlen if padding == "pre" else width  # of the tokens that the model is given

    def probabilities(
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
        nested = unflatten_dict(params, sep="/")
        logits = models.logits(model, nested, tokens, kept, None, *scores)
        return model.head.probabilities(logits)

    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in params.items()}
    tokens = jax.ShapeDtypeStruct((B, T), jnp.int32)
    inputs = [tokens, jax.ShapeDtypeStruct((B,), jnp.int32)]
    if model.has_scores:
        inputs.append(jax.ShapeDtypeStruct((B, model.num_outputs), jnp.float32))
    return jax.export.export(jax.jit(probabilities), platforms=PLATFORMS)(shapes, *inputs)

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
from flaxrnn.inference import folding
from flaxrnn.inference.saved import SavedModel
from flaxrnn.nn import models
from flaxrnn.nn.fused import FOLDED
from flaxrnn.runtime import devices

PLATFORMS = ("cpu", "cuda", "tpu")


def parameters(saved: SavedModel) -> dict[str, np.ndarray]:
    """The parameters by path, such as "dense/kernel"; of an ensemble of M runs, [M, …].

    What `folding` makes of them is below "folded", in place of those that are then unused.
    """
    members = []
    for params in saved.members:
        variables = folding.fold(saved.model, params, folding.MAX_BYTES // len(saved.members))
        flat = flatten_dict({**params, FOLDED: variables.folded}, sep="/")
        unused = folding.unused(saved.model, variables)
        members.append({name: leaf for name, leaf in flat.items() if name not in unused})
    if len(members) == 1:
        return members[0]
    return {name: np.stack([member[name] for member in members]) for name in members[0]}


def lower(saved: SavedModel) -> jax.export.Exported:
    """Lowers a classifier to StableHLO.

    Returns:
        (`parameters`, tokens int32 [B, T], lengths int32 [B]) → probabilities, float32 [B, C]; of
        an ensemble, the mean. Tokens are padded on the right whatever `data.padding` is; B, T and
        the lengths are at least 1. The model's `extras` are given after the lengths: scores float32
        [B, outputs], features float32 [B, T, F].
    """
    # Recomputing only concerns the backward pass.
    model = saved.model.clone(config=dataclasses.replace(saved.model.config, recompute=0))
    maxlen, padding = saved.config.data.maxlen, saved.config.data.padding
    shortest = models.shortest_text(model.config)
    B, T, width = jax.export.symbolic_shape(
        f"batch, length, max({shortest}, min(length, {maxlen}))"
    )
    width = maxlen if padding == "pre" else width  # of the tokens that the model is given

    # The model declares them, but only reads what they were folded into.
    absent = {
        name: jnp.zeros(leaf.shape)
        for name, leaf in flatten_dict(saved.members[0], sep="/").items()
    }

    def classify(
        params: Any, tokens: jax.Array, lengths: jax.Array, *extras: jax.Array
    ) -> jax.Array:
        named: dict[str, Any] = dict(zip(model.extras, extras, strict=True))
        kept = jnp.minimum(lengths, maxlen)
        position = jnp.arange(width)[None, :]  # in the text that is kept
        if padding == "pre":
            position -= maxlen - kept[:, None]
        mask = (position >= 0) & (position < kept[:, None])
        source = jnp.where(mask, position + (lengths - kept)[:, None], 0)
        tokens = jnp.where(mask, jnp.take_along_axis(tokens, source, axis=1), PAD)
        if "features" in named:
            features = jnp.take_along_axis(named["features"], source[:, :, None], axis=1)
            named["features"] = jnp.where(mask[:, :, None], features, 0)
        kept = jnp.full_like(kept, maxlen) if padding == "pre" else kept

        def probabilities(params: Any) -> jax.Array:
            nested = unflatten_dict({**absent, **params}, sep="/")
            folded = nested.pop(FOLDED, None)
            logits = models.logits(model, nested, tokens, kept, folded=folded, **named)
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
    of_extras = {"scores": (B, model.num_outputs), "features": (B, T, model.num_features)}
    inputs += [jax.ShapeDtypeStruct(of_extras[name], jnp.float32) for name in model.extras]
    with devices.matmul_precision(saved.config.train.precision):
        return jax.export.export(jax.jit(classify), platforms=PLATFORMS)(shapes, *inputs)

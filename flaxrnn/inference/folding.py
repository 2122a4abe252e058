"""Parameters that do not change, folded before any text is read.

All that the first layer does with the embedding of a token, before it looks at another token, is a
matrix product: the input projection of a recurrence, or one product per place in the kernel of a
convolution. A table of these products has it ready for every token of the vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from flaxrnn.nn import models
from flaxrnn.nn.cells import CELLS

MAX_BYTES = 16 << 20  # of the tables on each device; an embedding itself is 4 to 8 times smaller


class Folded(NamedTuple):
    """The variables of a model for inference."""

    params: Any
    folded: Any  # the tables, by layer, as `models.logits` takes them; {}: there are none


def fold(model: models.TextModel, params: Any, max_bytes: int = MAX_BYTES) -> Folded:
    """Folds the embedding into the layer that reads it, unless the table would be too large."""
    config, table = model.config, np.asarray(params["embed"]["embedding"])
    if model.num_features or config.dtype != "float32":  # features are read, too
        return Folded(params, {})
    name = "conv" if config.conv_filters else f"{config.cell}_0"
    if name not in ("conv", *(f"{cell}_0" for cell in CELLS)):
        return Folded(params, {})  # a cell of the user's own may use its weights otherwise
    layer = params[name]
    directions = ("forward", "backward") if config.bidirectional and name != "conv" else ()
    kernels = [layer[d]["kernel"] for d in directions] or [layer["kernel"]]
    if len(table) * sum(kernel[..., 0, :].nbytes for kernel in kernels) > max_bytes:
        return Folded(params, {})
    if name == "conv":
        folded: Any = {"table": table[None] @ np.asarray(layer["kernel"])}
    elif directions:
        folded = {d: {"table": _projected(table, layer[d])} for d in directions}
    else:
        folded = {"table": _projected(table, layer)}
    return Folded(params, {name: folded})


def unused(model: models.TextModel, variables: Folded) -> set[str]:
    """The paths of the parameters that nothing reads any more."""
    if not variables.folded or model.config.conv_filters:  # an accelerator convolves
        return set()
    (name,) = variables.folded
    layers = [f"{name}/{d}" for d in ("forward", "backward")]
    layers = layers if model.config.bidirectional else [name]
    return {"embed/embedding", *(f"{layer}/{p}" for layer in layers for p in ("kernel", "bias"))}


def _projected(table: np.ndarray, layer: Any) -> np.ndarray:
    """The input pre-activations of every token, [V, G·H]."""
    return table @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])

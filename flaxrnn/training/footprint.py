"""The least memory that a config needs, estimated before any of it is used."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from flaxrnn.config import Config
from flaxrnn.data.batching import TrainingData
from flaxrnn.nn import models
from flaxrnn.runtime import memory

_BYTES = 4  # float32, int32
_COPIES = 4  # of the parameters: themselves, their average, and two moments of Adam
_SIZES = ("hidden_size", "embedding_size", "conv_filters")


def check(config: Config, model: models.TextModel, data: TrainingData) -> None:
    """Refuses parameters and batches that cannot fit in memory.

    Raises:
        OutOfMemoryError: They need more than there is; the message names the field to lower.
    """
    shapes = jax.eval_shape(lambda: models.init_params(model, jax.random.key(0)))
    needed = _COPIES * _BYTES * sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    largest = max(_SIZES, key=lambda name: getattr(config.model, name))
    memory.check(needed, f"out of memory for the parameters; lower model.{largest}")
    longest = data.buckets[-1]
    features = max(config.model.hidden_size, config.model.embedding_size)
    for name in ("batch_size", "eval_batch_size"):
        rows = getattr(config.train, name)
        # An evaluation need not keep the outputs of every step.
        stored = features if name == "batch_size" and not config.model.recompute else 0
        memory.check(
            rows * longest * (_BYTES + stored * jnp.dtype(config.model.dtype).itemsize),
            f"out of memory for a batch of {rows:,} texts of {longest:,} tokens; lower"
            f" train.{name}, data.maxlen or model.hidden_size",
        )

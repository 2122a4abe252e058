"""The least memory that a config needs, estimated before any of it is used."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from flaxrnn.config import Config
from flaxrnn.data.batching import TrainingData
from flaxrnn.runtime import memory

_ID = 4  # bytes of a token, int32
_SIZES = ("hidden_size", "embedding_size", "conv_filters")


def check(config: Config, state: Any, data: TrainingData) -> None:
    """Refuses parameters and batches that cannot fit in memory.

    Args:
        config: The run's config.
        state: Shapes and dtypes of the training state.
        data: The texts.

    Raises:
        OutOfMemoryError: They need more than there is; the message names the field to lower.
    """
    needed = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
    largest = max(_SIZES, key=lambda name: getattr(config.model, name))
    memory.check(needed, f"out of memory for the parameters; lower model.{largest}")
    longest = data.buckets[-1]
    features = max(config.model.hidden_size, config.model.embedding_size)
    for name in ("batch_size", "eval_batch_size"):
        rows = getattr(config.train, name)
        # An evaluation need not keep the outputs of every step.
        stored = features if name == "batch_size" and not config.model.recompute else 0
        memory.check(
            rows * longest * (_ID + stored * jnp.dtype(config.model.dtype).itemsize),
            f"out of memory for a batch of {rows:,} texts of {longest:,} tokens; lower"
            f" train.{name}, data.maxlen or model.hidden_size",
        )

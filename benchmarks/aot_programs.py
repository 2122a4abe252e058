"""The programs of the shipped configs, with abstract arguments: to compile, not to run."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flaxrnn.config import Config, parse
from flaxrnn.data import batching
from flaxrnn.inference import programs
from flaxrnn.inference.folding import Folded
from flaxrnn.nn import models
from flaxrnn.training import optimizers, parallel, steps
from flaxrnn.training.objective import Objective
from flaxrnn.training.trainer import STEPS_PER_DISPATCH

CONFIGS = ("reuters", "imdb", "reuters:best", "imdb:best")
PROGRAMS = ("train", "evaluate", "predict")
CLASSES = {"reuters": 46, "imdb": 2}
TEXTS = {"reuters": 11_228, "imdb": 50_000}  # of all splits: they are resident on every device


def load(name: str, **changes: Any) -> Config:
    """A shipped config such as "imdb:best", with fields changed: `train={"batch_size": 128}`."""
    module, _, variant = name.partition(":")
    config = importlib.import_module(f"configs.{module}").get_config(variant)
    for group, fields in changes.items():
        config[group].update(fields)
    return parse(config)


def build(
    config: Config, program: str, mesh: Mesh, lengths: tuple[int, ...] = ()
) -> tuple[jax.stages.Wrapped, tuple]:
    """A program as a run or a predictor has it, for texts of these lengths; unset: `data.maxlen`.

    Returns:
        The jitted function, and its arguments, `jax.ShapeDtypeStruct`s that are placed on the mesh.
    """
    lengths = lengths or (config.data.maxlen,)
    classes = CLASSES[config.task]
    model = models.build(config.model, config.data.num_words, classes)
    optimizer = optimizers.build(config.train, steps=1_000)
    replicated = PartitionSpec()
    state = _placed(jax.eval_shape(lambda: steps.init_state(model, optimizer, 0)), mesh, replicated)
    if program == "predict":
        rows = -(-config.train.eval_batch_size // mesh.size) * mesh.size
        inputs = _texts(rows, lengths[-1], model, np.int32)
        del inputs["labels"]
        arguments = _placed(tuple(inputs.values()), mesh, PartitionSpec("data"))
        params = Folded(state.params, {})  # as where the table would be too large
        return programs.predict_program(model, mesh), (params, *arguments)
    texts = _placed(_texts(TEXTS[config.task], lengths[-1], model, np.uint16), mesh, replicated)
    settings: dict[str, Any] = {"model": model, "buckets": lengths}
    if program == "evaluate":
        evaluate = functools.partial(steps.evaluate, **settings)
        jitted = parallel.in_parallel(evaluate, mesh, replicated, donate=False)
        return jitted, (state.params, texts, _group(config.train.eval_batch_size, mesh))
    train = functools.partial(
        steps.train_steps,
        optimizer=optimizer,
        averaging=config.train.averaging,
        objective=Objective(config.train.loss, config.train.label_smoothing),
        **settings,
    )
    jitted = parallel.in_parallel(train, mesh, replicated, parallel.STOP_SPEC, donate=True)
    stop = _placed(np.zeros(mesh.size, np.int32), mesh, parallel.STOP_SPEC)
    return jitted, (state, texts, _group(config.train.batch_size, mesh), stop)


def _texts(
    count: int, length: int, model: models.TextModel, token_type: Any
) -> dict[str, jax.ShapeDtypeStruct]:
    """What `ragged.RaggedTexts.padded` returns."""
    arrays = {
        "tokens": jax.ShapeDtypeStruct((count, length), token_type),
        "lengths": jax.ShapeDtypeStruct((count,), np.int32),
        "labels": jax.ShapeDtypeStruct((count,), np.int32),
    }
    if model.has_scores:
        arrays["scores"] = jax.ShapeDtypeStruct((count, model.num_outputs), np.float32)
    if model.num_features:
        shape = (count, length, model.num_features)
        arrays["features"] = jax.ShapeDtypeStruct(shape, np.float16)
    return arrays


def _group(batch_size: int, mesh: Mesh) -> batching.BatchGroup:
    batches = [batching.Batch(0, np.zeros(batch_size, int))] * STEPS_PER_DISPATCH
    (group,) = batching.group_batches(batches, batch_size, STEPS_PER_DISPATCH, mesh.size)
    parts = [
        _placed(part, mesh, spec) for part, spec in zip(group, parallel.GROUP_SPEC, strict=True)
    ]
    return batching.BatchGroup(*parts)


def _placed(tree: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

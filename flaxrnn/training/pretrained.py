"""Initial parameters that are not all random: from word vectors or from another run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flaxrnn.config import Config
from flaxrnn.data import vectors
from flaxrnn.errors import ConfigError, WorkdirError
from flaxrnn.nn import models
from flaxrnn.runtime import distributed, files
from flaxrnn.training import checkpoint, trained, transfer
from flaxrnn.training.steps import Params, TrainState
from flaxrnn.training.texts import Texts
from flaxrnn.training.workdir import CHECKPOINTS, INITIAL


def find_source(config: Config, folder: Path) -> trained.Trained | None:
    """The run that a new run starts from, checked before anything else is computed.

    Args:
        config: The config of the new run.
        folder: Its workdir.

    Returns:
        None: the config names no run, the run has begun and has its parameters, or this is not the
        primary process, which reads for all.

    Raises:
        ConfigError: The folder holds several runs, or a model with other layers or tokens.
        WorkdirError: It holds no trained model.
    """
    named = config.train.init_from
    has_begun = checkpoint.exists(folder / CHECKPOINTS)
    if named is None or has_begun or not distributed.is_primary():
        return None
    path = files.expand(named, "train.init_from")
    members = [] if (path / "config.json").exists() else sorted(path.glob("seed-*/config.json"))
    if members:
        raise ConfigError(
            f"train.init_from: {path} holds several runs; name one of them, like"
            f" {members[0].parent}"
        )
    try:
        source = trained.read(path)
    except WorkdirError as error:
        reason = str(error).removeprefix("--workdir: ")
        raise WorkdirError(f"train.init_from: {reason}") from None
    transfer.check(config, source)
    return source


def start(
    config: Config,
    texts: Texts,
    model: models.TextModel,
    state: TrainState,
    folder: Path,
    source: trained.Trained | None,
) -> TrainState:
    """The state of a new run, with word vectors or the parameters of another run if it names any.

    The primary process reads them, for all, and prints how many words they cover.

    Args:
        config: The run's config.
        texts: Its texts.
        model: Its model.
        state: State before the first step.
        folder: Its workdir, where the parameters are written if there will be a refit.
        source: See `find_source`.

    Raises:
        ConfigError, DataError: See `vectors.read`.
        DataError, WorkdirError: See `transfer.carry_over`.
    """
    if not _is_used(config):
        return state
    params = state.params
    if distributed.is_primary():
        words, data = texts.vocabulary, texts.training_data
        tokens = data.texts.take(data.rows["train"]).ids
        if source is None:
            params, ids = _with_vectors(params, str(config.data.vectors), texts)
            print(vectors.describe_coverage("vectors", ids, words, tokens))
        else:
            params, ids, same_outputs = transfer.carry_over(
                params, model, words, texts.label_names, source
            )
            outputs = "the same" if same_outputs else "a new"
            print(
                f"{vectors.describe_coverage('train.init_from', ids, words, tokens)}, {outputs}"
                " output layer"
            )
        if config.train.refit:
            checkpoint.write_weights(folder / INITIAL, params)
    return _with_params(state, params)


def start_again(config: Config, state: TrainState, folder: Path) -> TrainState:
    """The state of a refit: like `start`, with the parameters that it wrote.

    Raises:
        WorkdirError: They are missing or damaged.
    """
    if not _is_used(config):
        return state
    params = state.params
    if distributed.is_primary():
        written = checkpoint.latest(folder / INITIAL, weights=params)
        if written is None:
            raise WorkdirError(f"--workdir: {folder / INITIAL} is missing or damaged; name another")
        params = written["weights"]
    return _with_params(state, params)


def _is_used(config: Config) -> bool:
    return config.data.vectors is not None or config.train.init_from is not None


def _with_vectors(params: Params, path: str, texts: Texts) -> tuple[Params, np.ndarray]:
    """The parameters with the vectors in a file, and the ids of their words."""
    table = np.array(params["embed"]["embedding"])
    ids, found = vectors.read(path, texts.vocabulary, table.shape[1])
    table[ids] = found
    return {**params, "embed": {"embedding": table}}, ids


def _with_params(state: TrainState, params: Params) -> TrainState:
    params = distributed.broadcast_arrays(params)
    return state.replace(params=params, average=params)

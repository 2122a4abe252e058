"""Initial embeddings from word vectors, for a new run and for its refit."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from flaxrnn.data import vectors
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.runtime import distributed, files
from flaxrnn.training.steps import TrainState
from flaxrnn.training.workdir import INITIAL_EMBEDDING


def start_with_vectors(
    state: TrainState, path: str, vocabulary: Vocabulary, tokens: np.ndarray, workdir: Path | None
) -> TrainState:
    """The state of a new run, with word vectors in the rows of the embedding that have one.

    The primary process reads them, for all.

    Args:
        state: State before the first step.
        path: See `vectors.read`.
        vocabulary: Words of the rows.
        tokens: Ids of the training texts, int [n]; for the coverage, which is printed.
        workdir: Where the embedding is written for `start_again`; None: nowhere.

    Raises:
        ConfigError, DataError: See `vectors.read`.
    """
    table = np.array(state.params["embed"]["embedding"])
    if distributed.is_primary():
        ids, found = vectors.read(path, vocabulary, table.shape[1])
        table[ids] = found
        print(vectors.describe_coverage(ids, vocabulary, tokens))
        if workdir is not None:
            content = io.BytesIO()
            np.save(content, table)
            files.write_atomically(workdir / INITIAL_EMBEDDING, content.getvalue())
    return _with_embedding(state, table)


def start_again(state: TrainState, workdir: Path) -> TrainState:
    """Like `start_with_vectors`, with the embedding that it wrote.

    Raises:
        OSError: It cannot be read.
    """
    table = np.array(state.params["embed"]["embedding"])
    if distributed.is_primary():
        table = np.load(workdir / INITIAL_EMBEDDING)
    return _with_embedding(state, table)


def _with_embedding(state: TrainState, table: np.ndarray) -> TrainState:
    params = {**state.params, "embed": {"embedding": distributed.broadcast_arrays(table)}}
    return state.replace(params=params, average=params)

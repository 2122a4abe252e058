"""Transfer: the parameters of a trained model in a new one, its words' rows carried over by word.

What the new model alone has, such as another output layer, keeps its random values.
"""

from __future__ import annotations

import jax
import numpy as np

from flaxrnn.config import Config
from flaxrnn.data.vocabulary import FIRST_WORD, UNKNOWN, Vocabulary
from flaxrnn.errors import ConfigError, DataError, WorkdirError
from flaxrnn.nn import models
from flaxrnn.training import checkpoint
from flaxrnn.training.steps import Params
from flaxrnn.training.trained import Trained

_FIELD = "train.init_from"
_SIZES = ("cell", "embedding_size", "hidden_size", "layers", "conv_filters", "ratio_ngrams")


def check(config: Config, source: Trained) -> None:
    """Checks that the layers and tokens of a new run are those of the one it starts from.

    Raises:
        ConfigError: A field differs; the message has both values.
    """
    old, new = source.config.model, config.model
    tokenizer = source.vocabulary.tokenizer.choice
    needed = [(f"model.{name}", getattr(old, name), getattr(new, name)) for name in _SIZES]
    if new.conv_filters:
        needed.append(("model.conv_width", old.conv_width, new.conv_width))
    if old.bidirectional or new.layers > 1:  # else the backward direction can be added
        needed.append(("model.bidirectional", old.bidirectional, new.bidirectional))
    if config.data.tokenizer != "auto":
        needed.append(("data.tokenizer", tokenizer, config.data.tokenizer))
    for name, expected, value in needed:
        if value != expected:
            raise ConfigError(
                f"{name}: must be {expected}, not {value}: that of {_FIELD}={source.workdir}"
            )


def carry_over(
    params: Params,
    model: models.TextModel,
    vocabulary: Vocabulary,
    label_names: list[str],
    source: Trained,
) -> tuple[Params, np.ndarray, bool]:
    """The parameters of a new model with those that the source's model has in common with it.

    Args:
        params: Initial parameters.
        model: The new model; see `check`.
        vocabulary: Its words.
        label_names: Its classes.
        source: The trained model.

    Returns:
        The parameters, on the host; the ids of the words that the source has, int [N]; and whether
        the output layer is the source's: only with the same target, classes and inputs.

    Raises:
        DataError: No word is in both vocabularies.
        WorkdirError: The source's weights are not those of its config, or not finite.
    """
    old, config = source.config.model, model.config
    arrays, found = checkpoint.flatten_by_path(params), checkpoint.read_weights(source.checkpoint)
    rows, source_rows = _shared_rows(vocabulary, source)
    same_inputs = (old.pooling, old.bidirectional) == (config.pooling, config.bidirectional)
    same_outputs = same_inputs and old.target == config.target
    axes = {"embed": 0}  # layer → the axis of its arrays that has one entry per word
    if model.head.uses_labels:
        same_outputs &= label_names == source.label_names
    elif model.num_outputs == model.vocab_size:
        axes["dense"] = -1
    for path, array in arrays.items():
        layer, source_path = path.partition("/")[0], path
        if layer == "blend" or (layer == "dense" and not same_outputs):
            continue
        if layer == "pool" and not (same_inputs and path in found):
            continue
        if config.bidirectional and not old.bidirectional:
            if "/backward/" in path:
                continue
            source_path = path.replace("/forward/", "/", 1)
        if layer in axes:
            entries = np.moveaxis(array, axes[layer], 0)
            shape = list(array.shape)
            shape[axes[layer]] = source.vocabulary.num_words
            taken = _checked(found, source_path, tuple(shape), source)
            entries[rows] = np.moveaxis(taken, axes[layer], 0)[source_rows]
        else:
            array[...] = _checked(found, source_path, array.shape, source)
    carried = jax.tree.unflatten(jax.tree.structure(params), list(arrays.values()))
    return carried, rows[FIRST_WORD:], same_outputs


def _shared_rows(vocabulary: Vocabulary, source: Trained) -> tuple[np.ndarray, np.ndarray]:
    """The ids of the special tokens and the shared words, in the vocabulary and in the source's."""
    known = np.array(source.vocabulary.encode(vocabulary.words)[1:])
    shared = np.flatnonzero(known != UNKNOWN)
    if not len(shared):
        raise DataError(f"{_FIELD}: {source.workdir} has none of the {len(vocabulary):,} words")
    special = np.arange(FIRST_WORD)
    return np.append(special, FIRST_WORD + shared), np.append(special, known[shared])


def _checked(
    found: dict[str, np.ndarray], path: str, shape: tuple[int, ...], source: Trained
) -> np.ndarray:
    """An array of the source, of the expected shape."""
    array = found.get(path, np.zeros(0))
    if (array.shape, array.dtype) != (shape, np.float32):
        raise WorkdirError(
            f"{_FIELD}: {source.checkpoint}: {path} is {array.dtype}{list(array.shape)}, not"
            f" float32{list(shape)}"
        )
    if not np.isfinite(array).all():
        raise WorkdirError(f"{_FIELD}: the weights of {source.workdir} are not finite")
    return array

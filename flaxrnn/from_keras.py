"""Converts weights that Keras has trained to a workdir that can predict.

python -m flaxrnn.from_keras reuters.keras --config configs/reuters.py:keras --workdir runs/keras
python -m flaxrnn.from_keras imdb.h5 --config configs/imdb.py:keras --workdir runs/keras

A file of `model.save` describes its layers, which are checked; one of `model.save_weights` only has
shapes. The word ids are those of `keras.datasets` where its word index is found, see
`flaxrnn.data.word_index`.
"""

from __future__ import annotations

import importlib.util
import json
import operator
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from flaxrnn.config import Config, modules, parse
from flaxrnn.config import flags as flag_parser
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.errors import ConfigError, DataError, WorkdirError
from flaxrnn.runtime import files, plugins, terminal

# What the models that Keras' files are read as have in common.
REQUIRED: dict[str, tuple[Any, ...]] = {
    "data.tokenizer": ("words",),
    "model.target": ("label",),
    "model.cell": ("lstm", "gru", "simple"),
    "model.layers": (1,),
    "model.pooling": ("last",),
    "model.word_ngrams": (0,),
    "model.character_ngrams": (0,),
}

Shapes = dict[str, tuple[int, ...]]


def main(argv: list[str]) -> None:
    """Converts the file that the parsed command line names."""
    if flags.FLAGS.workdir is None:
        raise ConfigError("--workdir: missing; name a new folder")
    convert(argv[1], flags.FLAGS.config, flags.FLAGS.workdir, flags.FLAGS.word_index)


def convert(
    weights: str | Path, config: ConfigDict, workdir: str | Path, word_index: str | None = None
) -> None:
    """Writes a workdir with the weights of a Keras model.

    Args:
        weights: A `.keras`, `.weights.h5` or `.h5` file.
        config: Describes the same model and its corpus, see docs/howto/keras.md.
        workdir: A new folder.
        word_index: Whose ids the model was trained on; see `flaxrnn.load_data`.

    Raises:
        ConfigError: A field is invalid, or says what no Keras file is read as.
        DataError: The file cannot be read or holds another model, or the corpus is unavailable.
        WorkdirError: The workdir already holds a run, or cannot be written.
    """
    weights = files.expand(weights, "WEIGHTS")
    workdir = files.expand(workdir, "--workdir")
    checked = parse(config)
    plugins.allow(modules(checked))
    _check_required(checked)
    if checked.task == "text":
        raise ConfigError("task: text has no Keras script; it must be reuters or imdb")
    if any((workdir / name).exists() for name in ("config.json", "checkpoints")):
        raise WorkdirError(f"--workdir: {workdir} already holds a run; name a new folder")
    # These import JAX: only once the arguments are valid.
    import jax
    from flax.traverse_util import flatten_dict

    from flaxrnn.data import corpora
    from flaxrnn.data import word_index as word_indices
    from flaxrnn.nn import models

    data = checked.data
    source = "real" if data.source == "auto" else data.source
    corpus = corpora.load_corpus(checked.task, source, data.data_dir, data.manual_dir)
    model = models.build(checked.model, data.num_words, len(corpus.label_names))
    template = jax.eval_shape(lambda: models.init_params(model, jax.random.key(0)))
    shapes = {name: leaf.shape for name, leaf in flatten_dict(template, sep="/").items()}
    masked = data.padding == "post"
    params = read_weights(weights, shapes, checked.model.conv_pool, masked)
    vocabulary = word_indices.vocabulary(checked.task, corpus, word_index).limit(data.num_words)
    # Keras has rows for words that the corpus, if it is small, does not have.
    params["embed/embedding"] = params["embed/embedding"][: vocabulary.num_words]
    _write_workdir(workdir, checked, vocabulary, corpus.label_names, params)
    print(f"{workdir}: {sum(array.size for array in params.values()):,} parameters from {weights}")


def _check_required(config: Config) -> None:
    for name, allowed in REQUIRED.items():
        if (value := operator.attrgetter(name)(config)) not in allowed:
            listed = " or ".join(map(repr, allowed))
            raise ConfigError(f"{name}: {value!r} must be {listed} for a Keras model")
    if config.model.conv_filters and config.data.padding != "pre":
        raise ConfigError(
            "data.padding: 'post' must be 'pre' with a convolution, through which Keras carries no"
            " mask"
        )


def _write_workdir(
    workdir: Path,
    config: Config,
    vocabulary: Vocabulary,
    label_names: list[str],
    params: dict[str, np.ndarray],
) -> None:
    from flax.traverse_util import unflatten_dict

    from flaxrnn.training import checkpoint, seal

    try:
        workdir.mkdir(parents=True, exist_ok=True)
        vocabulary.save(workdir / "vocabulary.json")
        files.write_atomically(workdir / "labels.json", json.dumps(label_names))
        text = json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"
        files.write_atomically(workdir / "config.json", text)
        progress = {"seal": seal.take(workdir)}
        checkpoint.write_weights(workdir / "checkpoints", unflatten_dict(params, sep="/"), progress)
    except OSError as error:
        raise WorkdirError(f"--workdir: {workdir} cannot be written ({error.strerror})") from None


def read_weights(
    path: Path, shapes: Shapes, conv_pool: int, masked: bool = False
) -> dict[str, np.ndarray]:
    """Reads the parameters of a model from a Keras file.

    Args:
        path: A `.keras`, `.weights.h5` or `.h5` file.
        shapes: Expected shapes by parameter path, such as "dense/kernel".
        conv_pool: Expected size of the pooling windows, in a model with a convolution.
        masked: Whether padding is expected to be masked, Keras' `mask_zero`.

    Returns:
        The parameters by path, float32.

    Raises:
        ConfigError: h5py is not installed.
        DataError: The file cannot be read, or holds another model.
    """
    if importlib.util.find_spec("h5py") is None:
        raise ConfigError("WEIGHTS: needs h5py; pip install 'flaxrnn[keras]'")
    from flaxrnn.data import keras_weights

    if not path.is_file():
        kind = "regular file" if path.exists() else "file"
        raise DataError(f"WEIGHTS: there is no {kind} {path}")
    try:
        return keras_weights.read(path, shapes, conv_pool, masked)
    except DataError:
        raise
    except Exception as error:  # zipfile and h5py raise all kinds of errors for a damaged file
        raise DataError(
            f"{path}: not a .keras, .weights.h5 or .h5 file of Keras"
            f" ({' '.join(str(error).split())})"
        ) from None


if __name__ == "__main__":
    config_flags.DEFINE_config_file(
        "config", None, "Config of the same model, FILE or FILE:VARIANT."
    )
    flags.DEFINE_string("workdir", None, "Folder to write, which must be new.")
    flags.DEFINE_string(
        "word_index",
        None,
        "Keras' reuters_word_index.json or imdb_word_index.json; unset: where Keras keeps it;"
        " corpus: ids by the counts of the corpus alone.",
    )
    terminal.run(
        lambda: app.run(main, flags_parser=lambda argv: flag_parser.parse(argv, ("WEIGHTS",)))
    )

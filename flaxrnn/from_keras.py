"""Converts weights trained by the chapter's Keras scripts to a workdir that can predict.

python -m flaxrnn.from_keras reuters.keras --config configs/reuters.py:keras --workdir runs/keras
python -m flaxrnn.from_keras imdb.weights.h5 --config configs/imdb.py:keras --workdir runs/keras

A `.keras` file describes its layers, which are checked; a `.weights.h5` file only has shapes. The
word ids are assumed to be those of `flaxrnn.load_data`. They differ from those of `keras.datasets`
for a few words, because it orders words of equal frequency differently.
"""

from __future__ import annotations

import importlib.util
import json
import math
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

# What the configs of the chapter's models have in common.
REQUIRED = {
    "data.padding": "pre",
    "data.tokenizer": "words",
    "model.cell": "lstm",
    "model.layers": 1,
    "model.bidirectional": False,
    "model.pooling": "last",
}
# Layer → where Keras stores its variables, and their names here in Keras's order. Its LSTM has the
# same order of gates as ours, and also a single bias.
VARIABLES = {
    "embed": ("embedding/vars", ("embedding",)),
    "conv": ("conv1d/vars", ("kernel", "bias")),
    "lstm_0": ("lstm/cell/vars", ("kernel", "recurrent_kernel", "bias")),
    "dense": ("dense/vars", ("kernel", "bias")),
}

Shapes = dict[str, tuple[int, ...]]


def main(argv: list[str]) -> None:
    """Converts the file that the parsed command line names."""
    if flags.FLAGS.workdir is None:
        raise ConfigError("--workdir: missing; name a new folder")
    convert(argv[1], flags.FLAGS.config, flags.FLAGS.workdir)


def convert(weights: str | Path, config: ConfigDict, workdir: str | Path) -> None:
    """Writes a workdir with the weights of a Keras model.

    Args:
        weights: A `.keras` or `.weights.h5` file.
        config: Describes the same model and its corpus, see docs/config.md.
        workdir: A new folder.

    Raises:
        ConfigError: A field is invalid, or differs from what the chapter's models need.
        DataError: The file cannot be read or holds another model, or the corpus is unavailable.
        WorkdirError: The workdir already holds a run, or cannot be written.
    """
    weights = files.expand(weights, "WEIGHTS")
    workdir = files.expand(workdir, "--workdir")
    checked = parse(config)
    plugins.allow(modules(checked))
    for name, required in REQUIRED.items():
        if (value := operator.attrgetter(name)(checked)) != required:
            raise ConfigError(f"{name}: {value!r} must be {required!r}, as in the chapter")
    if checked.task == "text":
        raise ConfigError("task: text has no Keras script; it must be reuters or imdb")
    if any((workdir / name).exists() for name in ("config.json", "checkpoints")):
        raise WorkdirError(f"--workdir: {workdir} already holds a run; name a new folder")
    # These import JAX: only once the arguments are valid.
    import jax
    from flax.traverse_util import flatten_dict

    from flaxrnn.data import corpora
    from flaxrnn.nn import models

    data = checked.data
    source = "real" if data.source == "auto" else data.source
    corpus = corpora.load_corpus(checked.task, source, data.data_dir, data.manual_dir)
    model = models.build(checked.model, checked.data.num_words, len(corpus.label_names))
    template = jax.eval_shape(lambda: models.init_params(model, jax.random.key(0)))
    shapes = {name: leaf.shape for name, leaf in flatten_dict(template, sep="/").items()}
    params = read_weights(weights, shapes, checked.model.conv_pool)
    vocabulary = corpus.vocabulary.limit(checked.data.num_words)
    # Keras has rows for words that the corpus, if it is small, does not have.
    params["embed/embedding"] = params["embed/embedding"][: vocabulary.num_words]
    _write_workdir(workdir, checked, vocabulary, corpus.label_names, params)
    print(f"{workdir}: {sum(array.size for array in params.values()):,} parameters from {weights}")


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


def read_weights(path: Path, shapes: Shapes, conv_pool: int) -> dict[str, np.ndarray]:
    """Reads the parameters of a model from a Keras file.

    Args:
        path: A `.keras` or `.weights.h5` file.
        shapes: Expected shapes by parameter path, such as "dense/kernel".
        conv_pool: Expected size of the pooling windows, in a model with a convolution.

    Returns:
        The parameters by path, float32.

    Raises:
        ConfigError: h5py is not installed.
        DataError: The file cannot be read, or holds another model.
    """
    if importlib.util.find_spec("h5py") is None:
        raise ConfigError("WEIGHTS: needs h5py; pip install 'flaxrnn[keras]'")
    from flaxrnn.data import keras_file

    if not path.is_file():
        kind = "regular file" if path.exists() else "file"
        raise DataError(f"WEIGHTS: there is no {kind} {path}")
    # Beside the parameters the file holds an optimizer's state, mostly of twice their size.
    max_mib = 64 + 16 * sum(map(math.prod, shapes.values())) // 2**20
    try:
        with keras_file.open_file(path, max_mib) as (architecture, variables):
            if architecture is not None:
                _check_architecture(path, architecture, shapes, conv_pool)
            return {
                name: keras_file.values(path, name, dataset)
                for name, dataset in _to_params(path, variables, shapes).items()
            }
    except DataError:
        raise
    except Exception as error:  # zipfile and h5py raise all kinds of errors for a damaged file
        raise DataError(
            f"{path}: not a .keras or .weights.h5 file of Keras 3 ({' '.join(str(error).split())})"
        ) from None


def _to_params(path: Path, variables: dict[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Renames the variables of a file to parameters, and checks their number and shapes."""
    locations: dict[str, str] = {}
    for layer, (group, names) in VARIABLES.items():
        locations |= {f"{layer}/{name}": f"{group}/{i}" for i, name in enumerate(names)}
    for location in sorted(variables.keys() - {locations[name] for name in shapes}):
        layer, found = location.split("/")[0], list(variables[location].shape)
        raise DataError(
            f"{path}: the file has a layer {layer}, {found}, that the config does not have"
        )
    params = {}
    for name in filter(shapes.__contains__, locations):
        shape, layer, variable = shapes[name], locations[name].split("/")[0], name.split("/")[1]
        if locations[name] not in variables:
            raise DataError(f"{path}: the file lacks the {variable} {list(shape)} of layer {layer}")
        array = variables[locations[name]]
        if array.shape != shape:
            raise DataError(
                f"{path}: the {variable} of layer {layer} is {list(array.shape)},"
                f" not {list(shape)} as in the config"
            )
        params[name] = array
    return params


def _check_architecture(path: Path, architecture: Any, shapes: Shapes, conv_pool: int) -> None:
    """Checks what the shapes do not reveal: the order of the layers and their settings."""
    outputs = shapes["dense/bias"][0]
    expected: dict[str, dict[str, Any]] = {
        "Embedding": {"mask_zero": False},
        "Conv1D": {"activation": "relu", "padding": "valid", "strides": [1], "dilation_rate": [1]},
        "MaxPooling1D": {"pool_size": [conv_pool], "strides": [conv_pool], "padding": "valid"},
        "LSTM": {"activation": "tanh", "recurrent_activation": "sigmoid", "go_backwards": False},
        "Dense": {"activation": "sigmoid" if outputs == 1 else "softmax"},
    }
    if "conv/kernel" not in shapes:
        del expected["Conv1D"], expected["MaxPooling1D"]
    layers = [
        (layer["class_name"], layer["config"])
        for layer in architecture["config"]["layers"]
        if layer["class_name"] not in ("InputLayer", "Dropout")  # no effect on predictions
    ]
    if (kinds := [kind for kind, _ in layers]) != list(expected):
        found, wanted = ", ".join(kinds), ", ".join(expected)
        raise DataError(f"{path}: its layers are {found}, not {wanted} as in the config")
    for kind, settings in layers:
        for name, value in expected[kind].items():
            if settings[name] != value:
                raise DataError(
                    f"{path}: {name} of layer {kind} is {settings[name]!r}, not {value!r}"
                )


if __name__ == "__main__":
    config_flags.DEFINE_config_file(
        "config", None, "Config of the same model, FILE or FILE:VARIANT."
    )
    flags.DEFINE_string("workdir", None, "Folder to write, which must be new.")
    terminal.run(
        lambda: app.run(main, flags_parser=lambda argv: flag_parser.parse(argv, ("WEIGHTS",)))
    )

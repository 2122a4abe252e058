"""Weights that the chapter's Keras scripts have trained → a workdir to predict with.

python -m flaxrnn.from_keras reuters.keras --config configs/reuters.py:keras --workdir runs/keras
python -m flaxrnn.from_keras imdb.weights.h5 --config configs/imdb.py:keras --workdir runs/keras

A `.keras` file says how its layers were set up, which is checked; a `.weights.h5` file has shapes
alone. The word ids are taken to be those of `flaxrnn.load_data`. They differ in a few words from
those of `keras.datasets`, which ranks words that are as frequent as each other in another order.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from flaxrnn import config as config_lib
from flaxrnn.config import flags as flags_lib
from flaxrnn.errors import ConfigError, DataError, WorkdirError
from flaxrnn.runtime import files, terminal

# What the config of the chapter's models has in common.
REQUIRED = {
    "data.padding": "pre",
    "data.tokenizer": "words",
    "model.cell": "lstm",
    "model.layers": 1,
    "model.bidirectional": False,
    "model.pooling": "last",
}
# Layer → where Keras keeps its variables, and their names here in Keras' order. The gates of its
# LSTM are in the order of ours, and it has one bias, too.
VARIABLES = {
    "embed": ("embedding/vars", ("embedding",)),
    "conv": ("conv1d/vars", ("kernel", "bias")),
    "lstm_0": ("lstm/cell/vars", ("kernel", "recurrent_kernel", "bias")),
    "dense": ("dense/vars", ("kernel", "bias")),
}


def main(argv: list[str]) -> None:
    """Converts with the parsed flags."""
    given = flags.FLAGS
    if given.workdir is None:
        raise ConfigError("--workdir: missing; name a new folder")
    convert(argv[1], given.config, given.workdir)


def convert(weights: str | Path, config: ConfigDict, workdir: str | Path) -> None:
    """Writes a workdir with the weights of a Keras model.

    Args:
        weights: A `.keras` or `.weights.h5` file.
        config: Of the same model, with its corpus, as `configs/default.py` describes.
        workdir: A new folder.

    Raises:
        ConfigError: A field is impossible, or another than the chapter's models need.
        DataError: The file cannot be read or holds another model, or the corpus cannot be had.
        WorkdirError: The workdir holds a run, or cannot be written.
    """
    weights, workdir = Path(weights).expanduser(), Path(workdir).expanduser()
    checked = config_lib.parse(config)
    fields = config_lib.flatten(checked.to_dict())
    for name, needed in REQUIRED.items():
        if fields[name] != needed:
            raise ConfigError(f"{name}: {fields[name]!r} must be {needed!r}, as in the chapter")
    if checked.task == "text":
        raise ConfigError("task: text has no Keras script; it must be reuters or imdb")
    if any((workdir / name).exists() for name in ("config.json", "checkpoints")):
        raise WorkdirError(f"--workdir: {workdir} holds a run; name a new folder")
    import jax  # takes a while: what is mistaken above is answered before that
    from flax.traverse_util import flatten_dict, unflatten_dict

    from flaxrnn.data import corpora
    from flaxrnn.nn import models
    from flaxrnn.training import checkpoint

    source = "real" if checked.data.source == "auto" else checked.data.source
    corpus = corpora.load_corpus(
        checked.task, source, checked.data.data_dir, checked.data.manual_dir
    )
    model = models.build(checked.model, checked.data.num_words, len(corpus.label_names))
    shapes = jax.eval_shape(lambda: models.init_params(model, jax.random.key(0)))
    shapes = {name: leaf.shape for name, leaf in flatten_dict(shapes, sep="/").items()}
    params = read(weights, shapes, checked.model.conv_pool)
    vocabulary = corpus.vocabulary.limit(checked.data.num_words)
    params["embed/embedding"] = params["embed/embedding"][: vocabulary.num_words]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        vocabulary.save(workdir / "vocabulary.json")
        files.write_atomically(workdir / "labels.json", json.dumps(corpus.label_names))
        settings = json.dumps(checked.to_dict(), indent=2, sort_keys=True) + "\n"
        files.write_atomically(workdir / "config.json", settings)
        checkpoint.write_weights(workdir / "checkpoints", unflatten_dict(params, sep="/"))
    except OSError as error:
        raise WorkdirError(f"--workdir: {workdir} cannot be written ({error.strerror})") from None
    print(f"{workdir}: {sum(leaf.size for leaf in params.values()):,} parameters of {weights}")


def read(path: Path, shapes: dict[str, tuple[int, ...]], pool: int) -> dict[str, np.ndarray]:
    """The parameters in a file of Keras.

    Args:
        path: A `.keras` or `.weights.h5` file.
        shapes: Of the parameters to expect, by their paths, "dense/kernel".
        pool: Convolution outputs that one step of the recurrence sees, where there is one.

    Returns:
        The parameters by their paths, float32.

    Raises:
        ConfigError: h5py is not installed.
        DataError: The file cannot be read, or holds another model.
    """
    try:
        import h5py
    except ModuleNotFoundError:
        raise ConfigError("WEIGHTS: needs h5py; pip install 'flaxrnn[keras]'") from None
    if not path.is_file():
        raise DataError(f"WEIGHTS: there is no file {path}")
    try:
        file: Any = path
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                architecture = json.loads(archive.read("config.json"))
                file = io.BytesIO(archive.read("model.weights.h5"))
            _check_architecture(path, architecture, shapes, pool)
        with h5py.File(file) as opened:
            found: dict[str, Any] = {}

            def visit(name: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset) and "seed_generator" not in name:
                    found[name] = item

            opened["layers"].visititems(visit)
            return _take(path, found, shapes)
    except DataError:
        raise
    except Exception as error:  # whatever zipfile and h5py raise of a damaged file
        raise DataError(
            f"{path}: no .keras or .weights.h5 file of Keras 3 ({' '.join(str(error).split())})"
        ) from None


def _take(
    path: Path, found: dict[str, Any], shapes: dict[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """The variables of a file as parameters of these shapes."""
    places: dict[str, str] = {}
    for layer, (group, names) in VARIABLES.items():
        places |= {f"{layer}/{name}": f"{group}/{i}" for i, name in enumerate(names)}
    for place in sorted(found.keys() - {places[name] for name in shapes}):
        layer, size = place.split("/")[0], list(found[place].shape)
        raise DataError(f"{path}: there is a layer {layer}, {size}, that the config has not")
    params = {}
    for name in filter(shapes.__contains__, places):
        shape, layer, variable = shapes[name], places[name].split("/")[0], name.split("/")[1]
        if places[name] not in found:
            raise DataError(f"{path}: there is no {variable} {list(shape)} of a layer {layer}")
        array = found[places[name]]
        if array.shape != shape:
            raise DataError(
                f"{path}: the {variable} of layer {layer} is {list(array.shape)},"
                f" not {list(shape)} as the config says"
            )
        params[name] = np.asarray(array, np.float32)
    return params


def _check_architecture(
    path: Path, architecture: Any, shapes: dict[str, tuple[int, ...]], pool: int
) -> None:
    """Checks what the shapes do not say: the layers' order and settings."""
    outputs = shapes["dense/bias"][0]
    expected: dict[str, dict[str, Any]] = {
        "Embedding": {"mask_zero": False},
        "Conv1D": {"activation": "relu", "padding": "valid", "strides": [1], "dilation_rate": [1]},
        "MaxPooling1D": {"pool_size": [pool], "strides": [pool], "padding": "valid"},
        "LSTM": {"activation": "tanh", "recurrent_activation": "sigmoid", "go_backwards": False},
        "Dense": {"activation": "sigmoid" if outputs == 1 else "softmax"},
    }
    if "conv/kernel" not in shapes:
        del expected["Conv1D"], expected["MaxPooling1D"]
    layers = [
        (layer["class_name"], layer["config"])
        for layer in architecture["config"]["layers"]
        if layer["class_name"] not in ("InputLayer", "Dropout")  # they do nothing in prediction
    ]
    if (kinds := [kind for kind, _ in layers]) != list(expected):
        there, wanted = ", ".join(kinds), ", ".join(expected)
        raise DataError(f"{path}: its layers are {there}, not {wanted} as the config says")
    for kind, settings in layers:
        for name, value in expected[kind].items():
            if settings[name] != value:
                raise DataError(
                    f"{path}: {name} of layer {kind} is {settings[name]!r}, not {value!r}"
                )


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "Of the same model: FILE or FILE:VARIANT.")
    flags.DEFINE_string("workdir", None, "Where it is written, a new folder.")
    terminal.run(
        lambda: app.run(main, flags_parser=lambda argv: flags_lib.parse(argv, ("WEIGHTS",)))
    )

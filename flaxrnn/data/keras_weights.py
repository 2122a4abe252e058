"""The weights of a Keras model as parameters of ours.

The models are alike layer by layer; what differs is noted in `_to_ours`.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flaxrnn.data import keras_file
from flaxrnn.errors import DataError
from flaxrnn.runtime import terminal

CELLS = {"lstm": "LSTM", "gru": "GRU", "simple": "SimpleRNN"}  # model.cell → Keras' class

# Layers that have no effect on predictions.
_INERT = (
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "InputLayer",
    "SpatialDropout1D",
)
# Keras' name of a layer → what it is in our models.
_ROLES = {
    "embedding": "embed",
    "conv1d": "conv",
    "dense": "dense",
    **dict.fromkeys(("lstm", "gru", "simple_rnn", "bidirectional"), "recurrent"),
}
_RECURRENT = {
    "activation": "tanh",
    "return_sequences": False,
    "return_state": False,
    "stateful": False,
    "time_major": False,
}
_GATES: dict[str, dict[str, Any]] = {
    "LSTM": {"recurrent_activation": "sigmoid"},
    "GRU": {"recurrent_activation": "sigmoid", "reset_after": True},
    "SimpleRNN": {},
}

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


def read(path: Path, shapes: Shapes, conv_pool: int, masked: bool) -> dict[str, np.ndarray]:
    """Reads the parameters of a model; see `flaxrnn.from_keras.read_weights`.

    Raises:
        DataError: The file holds another model, or something that Keras does not write.
        Exception: Whatever zipfile, h5py and a wrong description of layers raise.
    """
    # Beside the parameters the file holds an optimizer's state, mostly of twice their size.
    max_mib = 64 + 16 * sum(map(math.prod, shapes.values())) // 2**20
    with keras_file.open_file(path, max_mib) as (architecture, layers):
        if architecture is None:
            taken = f"they are the config's, mask_zero={masked}"
            note = f"note: {path} says no settings of layers: {taken}"
            print(terminal.escaped(note), file=sys.stderr)
        else:
            _check_architecture(path, architecture, shapes, conv_pool, masked)
        found = {
            name: keras_file.values(path, name, dataset)
            for name, dataset in _find_variables(path, layers, shapes).items()
        }
    return {name: _to_ours(name, shape, found) for name, shape in shapes.items()}


def _keras_name(name: str) -> str:
    """Where a parameter of ours is in a Keras model: "lstm_0/kernel" → "recurrent/kernel"."""
    layer, _, variable = name.partition("/")
    if layer == "embed":
        return "embed/embeddings"
    role = layer if layer in ("conv", "dense") else "recurrent"
    return f"{role}/{variable}".replace("recurrent_bias", "bias")


def _keras_shapes(shapes: Shapes) -> dict[str, dict[str, Shape]]:
    """What a layer is → its variables in a Keras model → their shapes."""
    expected: dict[str, dict[str, Shape]] = {}
    for name, shape in shapes.items():
        role, _, variable = _keras_name(name).partition("/")
        if name.endswith("/recurrent_bias"):
            shape = (2, 3 * shape[0])
        elif name.startswith("gru_") and name.endswith("/bias"):
            shape = (2, *shape)
        expected.setdefault(role, {})[variable] = shape
    return expected


def _role(name: str, variables: Mapping[str, Any]) -> str:
    """What a layer is: by its name, or by its variables if its name is the user's."""
    kind = re.sub(r"_\d+$", "", name)
    if kind in _ROLES:
        return _ROLES[kind]
    if "embeddings" in variables:
        return "embed"
    if any(variable.endswith("recurrent_kernel") for variable in variables):
        return "recurrent"
    return "conv" if "kernel" in variables and variables["kernel"].ndim == 3 else "dense"


def _find_variables(path: Path, layers: keras_file.Layers, shapes: Shapes) -> dict[str, Any]:
    """The variables that the parameters are in, once their number and shapes are checked."""
    expected = _keras_shapes(shapes)
    names: dict[str, str] = {}
    for name, variables in sorted(layers.items()):
        role = _role(name, variables)
        for variable, array in variables.items():
            if role in names or variable not in expected.get(role, {}):
                raise DataError(
                    f"{path}: the file has a layer {name}, {list(array.shape)}, that the config"
                    " does not have"
                )
        names[role] = name
    _allow_softmax(expected, layers.get(names.get("dense", ""), {}))
    ours = {role: name for name, role in _ROLES.items()}
    ours["recurrent"] = next((n.split("_")[0] for n in shapes if "recurrent_kernel" in n), "")
    found = {}
    for role, wanted in expected.items():
        layer = names.get(role, ours[role])
        for variable, shape in wanted.items():
            array = layers.get(layer, {}).get(variable)
            if array is None:
                raise DataError(
                    f"{path}: the file lacks the {variable} {list(shape)} of layer {layer}"
                )
            if array.shape != shape:
                why = ""
                if role == "recurrent" and len(shape) == 2 and array.shape == shape[1:]:
                    why = "; that is reset_after=False, which our GRU does not compute"
                raise DataError(
                    f"{path}: the {variable} of layer {layer} is {list(array.shape)},"
                    f" not {list(shape)} as in the config{why}"
                )
            found[f"{role}/{variable}"] = array
    return found


def _allow_softmax(expected: dict[str, dict[str, Shape]], dense: Mapping[str, Any]) -> None:
    """Expects a softmax over two outputs in place of a sigmoid, if that is what the file has."""
    inputs, outputs = expected["dense"]["kernel"]
    if outputs == 1 and "kernel" in dense and dense["kernel"].shape == (inputs, 2):
        expected["dense"] = {"kernel": (inputs, 2), "bias": (2,)}


def _to_ours(name: str, shape: Shape, found: Mapping[str, np.ndarray]) -> np.ndarray:
    """A parameter of ours.

    A softmax over two classes is a sigmoid of the difference of their logits. Keras' GRU has its
    update gate first and two biases for each gate, which only matters for the candidate; our LSTM
    and SimpleRNN are those of Keras.
    """
    array = found[_keras_name(name)]
    if name.startswith("dense/") and array.shape != shape:
        return array[..., 1:] - array[..., :1]
    if not name.startswith("gru_"):
        return array
    update, reset, new = np.split(array, 3, axis=-1)
    if name.endswith("/recurrent_bias"):
        return new[1]
    if name.endswith("/bias"):
        return np.concatenate([reset.sum(axis=0), update.sum(axis=0), new[0]])
    return np.concatenate([reset, update, new], axis=-1)


def _check_architecture(
    path: Path, architecture: Any, shapes: Shapes, conv_pool: int, masked: bool
) -> None:
    """Checks what the shapes do not reveal: the order of the layers and their settings."""
    described = architecture["config"]
    listed = described if isinstance(described, list) else described["layers"]  # a list: Keras 2.1
    layers = list(_in_order(listed))
    expected = _expected_layers(shapes, conv_pool, masked)
    if (kinds := [kind for kind, _ in layers]) != list(expected):
        found, wanted = ", ".join(map(str, kinds)), ", ".join(expected)
        raise DataError(f"{path}: its layers are {found}, not {wanted} as in the config")
    for kind, settings in layers:
        wanted_settings = expected[kind]
        if kind == "Dense" and settings.get("units") == 2 and shapes["dense/bias"] == (1,):
            wanted_settings = {"activation": "softmax"}
        _check_settings(path, kind, settings, wanted_settings)
        if kind == "Bidirectional" and settings.get("backward_layer"):
            backward = settings["backward_layer"]
            cell = kinds[kinds.index(kind) + 1]
            if backward["class_name"] != cell:
                raise DataError(f"{path}: its backward layer is not {cell}, as the forward one is")
            turned = {**expected[cell], "go_backwards": True}
            _check_settings(path, f"backward {cell}", backward["config"], turned)


def _in_order(layers: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The class and the settings of each layer; the cell follows its `Bidirectional`."""
    for layer in layers:
        kind, settings = layer["class_name"], layer["config"]
        if kind not in _INERT:
            yield kind, settings
        if kind == "Bidirectional":
            yield settings["layer"]["class_name"], settings["layer"]["config"]


def _expected_layers(shapes: Shapes, conv_pool: int, masked: bool) -> dict[str, dict[str, Any]]:
    """Keras' class of each layer, in order → the settings that it must have."""
    sizes = {"pool_size": [conv_pool], "strides": [conv_pool]}
    in_order = {"padding": "valid", "data_format": "channels_last"}
    steps = {"strides": [1], "dilation_rate": [1], "groups": 1}
    expected: dict[str, dict[str, Any]] = {"Embedding": {"mask_zero": masked}}
    if "conv/kernel" in shapes:  # through which Keras carries no mask
        expected["Embedding"] = {}
        expected["Conv1D"] = {"activation": "relu", **in_order, **steps}
        expected["MaxPooling1D"] = {**in_order, **sizes}
    recurrent = next((name for name in shapes if name.endswith("/recurrent_kernel")), "")
    if recurrent.count("/") == 2:
        expected["Bidirectional"] = {"merge_mode": "concat"}
    cell = CELLS[recurrent.split("_")[0]]
    expected[cell] = {**_RECURRENT, **_GATES[cell], "go_backwards": False}
    one_output = shapes["dense/bias"] == (1,)
    expected["Dense"] = {"activation": "sigmoid" if one_output else "softmax"}
    return expected


def _check_settings(path: Path, kind: str, settings: Any, expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        found = settings.get(name, value)
        if isinstance(value, list) and not isinstance(found, list):
            found = [found]  # of one dimension
        if found != value:
            hint = ""
            if name == "mask_zero":
                hint = f"; that is data.padding={'post' if found else 'pre'}"
            raise DataError(f"{path}: {name} of layer {kind} is {found!r}, not {value!r}{hint}")

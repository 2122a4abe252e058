"""Files of Keras models, read without trusting them.

An HDF5 file can refer to other files of the machine and describe arrays that fill the memory, and a
zip file can unpack to a thousand times its size; Keras writes none of that.
"""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from flaxrnn.errors import DataError
from flaxrnn.runtime import records

_MAX_DEPTH = 8  # groups within groups
_MAX_VARIABLES = 10_000
_MAX_ARCHITECTURE = 16  # MiB
# What Keras 3 and the first releases of that format call the group of all layers.
_LAYER_GROUPS = ("layers", "_layer_checkpoint_dependencies")
_PLACE = re.compile(r"(?:(forward|backward)_layer/)?(cell/)?vars/(\d)")  # of a variable in a layer

Layers = dict[str, dict[str, h5py.Dataset]]


class KerasFile(NamedTuple):
    """An open file."""

    architecture: dict[str, Any] | None  # of its layers; None: a file of weights has none
    # Layer → variable → numbers. A variable is "embeddings", "kernel", "recurrent_kernel" or
    # "bias", after "forward/" or "backward/" in a bidirectional layer; else its path there.
    layers: Layers


@contextlib.contextmanager
def open_file(path: Path, max_mib: int) -> Iterator[KerasFile]:
    """Opens what `model.save` or `model.save_weights` wrote.

    Args:
        path: A regular file: .keras, .weights.h5, or the older .h5 and .hdf5.
        max_mib: Most MiB that the file may have, or weights in a `.keras` file may unpack to.

    Raises:
        DataError: It refers to other files, is too large or is compressed.
        Exception: Whatever zipfile and h5py raise for a damaged file.
    """
    architecture: dict[str, Any] | None = None
    source: Any = path
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            content = _unpack(path, archive, "config.json", _MAX_ARCHITECTURE)
            architecture = records.parse(content, dict)
            source = io.BytesIO(_unpack(path, archive, "model.weights.h5", max_mib))
    elif path.stat().st_size > max_mib * 2**20:
        raise DataError(f"{path}: has more than {max_mib:,} MiB; refused")
    with h5py.File(source) as file:
        variables: dict[str, h5py.Dataset] = {}
        if _has(file, "model_weights"):  # model.save("m.h5")
            architecture = records.parse(_text(path, file, "model_config"), dict)
            root, to_name = _follow(path, file, "model_weights"), _name_in_path
        elif "layer_names" in file.attrs:  # model.save_weights("m.h5") of Keras 2
            root, to_name = file, _name_in_path
        else:
            known = [name for name in _LAYER_GROUPS if _has(file, name)] or _LAYER_GROUPS
            root, to_name = _follow(path, file, known[0]), _name_by_number
        if not isinstance(root, h5py.Group):
            raise TypeError("its layers are no group")
        _collect(path, root, "", variables)
        layers: Layers = {}
        for place, dataset in variables.items():
            layer, _, rest = place.partition("/")
            found = layers.setdefault(layer, {})
            name = to_name(layer, rest)
            found[rest if name in found else name] = dataset
        yield KerasFile(architecture, layers)


def values(path: Path, name: str, dataset: h5py.Dataset) -> np.ndarray:
    """The numbers of a variable whose shape has been checked, float32.

    Raises:
        DataError: They are stored elsewhere or compressed, or not all are finite numbers.
    """
    problem = None
    if dataset.external or dataset.is_virtual:
        problem = "is stored in another file"
    elif dataset.id.get_create_plist().get_nfilters():  # it may inflate without bounds
        problem = "is compressed or filtered, which Keras does not do"
    elif dataset.dtype.kind != "f" or dataset.dtype.itemsize > 8:
        problem = f"holds {dataset.dtype}, not floating-point numbers"
    elif dataset.chunks is not None and np.prod(dataset.chunks) > dataset.size:
        problem = f"is stored in chunks of {list(dataset.chunks)}, larger than itself"
    if problem is None:
        with np.errstate(over="ignore"):
            array = np.asarray(dataset, np.float32)
        if np.isfinite(array).all():
            return array
        problem = "has numbers that are not finite in float32"
    raise DataError(f"{path}: {name} {problem}; refused")


def _name_by_number(layer: str, place: str) -> str:
    """The name of a variable that Keras 3 numbers, such as that of "cell/vars/1"."""
    found = _PLACE.fullmatch(place)
    if found is None:
        return place
    names = ["kernel", "bias"]
    if found[2]:
        names = ["kernel", "recurrent_kernel", "bias"]
    elif layer.startswith("embedding"):
        names = ["embeddings"]
    number = int(found[3])
    direction = f"{found[1]}/" if found[1] else ""
    return f"{direction}{names[number]}" if number < len(names) else place


def _name_in_path(layer: str, place: str) -> str:
    """The name of a variable of an older file, such as that of "lstm/lstm_cell/kernel:0"."""
    *folders, name = place.split("/")
    directions = [re.match("(forward|backward)_", folder) for folder in folders]
    direction = next((f"{found[1]}/" for found in directions if found), "")
    return direction + name.partition(":")[0]


def _text(path: Path, file: h5py.File, name: str) -> bytes:
    """An attribute that is a single text, of a size that Keras' descriptions of layers have."""
    attribute = file.attrs.get_id(name)
    if h5py.check_string_dtype(attribute.dtype) is None or attribute.shape != ():
        raise DataError(f"{path}: its {name} is not a single text; refused")
    text = file.attrs[name]  # not larger than the file
    content = text.encode() if isinstance(text, str) else bytes(text)
    if len(content) > _MAX_ARCHITECTURE * 2**20:
        raise DataError(f"{path}: its {name} has more than {_MAX_ARCHITECTURE} MiB; refused")
    return content


def _unpack(path: Path, archive: zipfile.ZipFile, name: str, max_mib: int) -> bytes:
    """The content of a member, whose size is known before it is unpacked."""
    with archive.open(name) as member:
        content = member.read(max_mib * 2**20 + 1)
    if len(content) > max_mib * 2**20:
        raise DataError(f"{path}: {name} unpacks to more than {max_mib:,} MiB; refused")
    return content


def _collect(path: Path, group: Any, prefix: str, found: dict[str, h5py.Dataset]) -> None:
    """Adds all variables in a group by their paths."""
    for name in group:
        item = _follow(path, group, name)
        if isinstance(item, h5py.Group):
            if prefix.count("/") >= _MAX_DEPTH:
                raise DataError(f"{path}: its groups are nested too deeply; refused")
            _collect(path, item, f"{prefix}{name}/", found)
        elif isinstance(item, h5py.Dataset) and "seed_generator" not in prefix + name:
            found[prefix + name] = item
        if len(found) > _MAX_VARIABLES:
            raise DataError(f"{path}: it has more than {_MAX_VARIABLES:,} variables; refused")


def _has(group: Any, name: str) -> bool:
    """Whether a group has that name, without following a link."""
    return group.get(name, getlink=True) is not None


def _follow(path: Path, group: Any, name: str) -> Any:
    """What a group has under a name, if it is in the file itself."""
    link = group.get(name, getlink=True)
    if link is not None and not isinstance(link, h5py.HardLink):
        raise DataError(f"{path}: {name} is a link, perhaps to another file; refused")
    return group[name]

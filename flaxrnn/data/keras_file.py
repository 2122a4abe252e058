"""Files of Keras models, read without trusting them.

An HDF5 file can refer to other files of the machine and describe arrays that fill the memory, and a
zip file can unpack to a thousand times its size; Keras writes none of that.
"""

from __future__ import annotations

import contextlib
import io
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


class KerasFile(NamedTuple):
    """An open file."""

    architecture: dict[str, Any] | None  # of its layers; None: a .weights.h5 file has none
    variables: dict[str, h5py.Dataset]  # by path below layers/, such as "dense/vars/0"


@contextlib.contextmanager
def open_file(path: Path, max_mib: int) -> Iterator[KerasFile]:
    """Opens a `.keras` or `.weights.h5` file.

    Args:
        path: A regular file.
        max_mib: Most MiB that weights in a `.keras` file may unpack to.

    Raises:
        DataError: It refers to other files, is too large or is compressed.
        Exception: Whatever zipfile and h5py raise for a damaged file.
    """
    architecture: dict[str, Any] | None = None
    source: Any = path
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            architecture = records.parse(_unpack(path, archive, "config.json", 16), dict)
            source = io.BytesIO(_unpack(path, archive, "model.weights.h5", max_mib))
    with h5py.File(source) as file:
        variables: dict[str, h5py.Dataset] = {}
        layers = _follow(path, file, "layers")
        if not isinstance(layers, h5py.Group):
            raise TypeError("layers is no group")
        _collect(path, layers, "", variables)
        yield KerasFile(architecture, variables)


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


def _follow(path: Path, group: Any, name: str) -> Any:
    """What a group has under a name, if it is in the file itself."""
    link = group.get(name, getlink=True)
    if link is not None and not isinstance(link, h5py.HardLink):
        raise DataError(f"{path}: {name} is a link, perhaps to another file; refused")
    return group[name]

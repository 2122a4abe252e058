"""Corpora as encoded arrays on disk, so that a second start reads no text."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

from flaxrnn.runtime import files

_VERSION = 4  # of the tokenizers and of the arrays
_FILE = "arrays.safetensors"


def cached(
    root: Path, name: str, make: Callable[[], Mapping[str, np.ndarray]]
) -> Mapping[str, np.ndarray]:
    """The arrays `name` of the cache, made if they are absent or damaged.

    Args:
        root: Where prepared datasets are kept; the cache is a folder next to them.
        name: Whatever the arrays depend on must be part of it.
        make: Computes the arrays.
    """
    folder = root / "encoded" / f"{name}-{_VERSION}"
    with contextlib.suppress(OSError):  # another process may be replacing it
        if not files.find_corruption(folder):
            return safetensors.numpy.load_file(folder / _FILE)
    arrays = make()
    with contextlib.suppress(OSError):  # a read-only or full disk costs time, not the run
        files.write_folder(folder, {_FILE: safetensors.numpy.save(dict(arrays))})
    return arrays

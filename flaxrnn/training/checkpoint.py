"""Checkpoints on disk: the training state, the weights to keep and the progress, all verified.

A checkpoint is a folder named after its step: `state.safetensors`, `weights.safetensors`,
`progress.json`, and the checksums of all three. A background thread writes it under a temporary
name and renames it only when all of it is on disk, so a checkpoint is complete or absent whatever
stops the process. The newest two are kept: should one turn out corrupt, the other takes its place.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import safetensors.numpy
from jax.tree_util import keystr, tree_leaves_with_path
from safetensors import SafetensorError

from flaxrnn.errors import WorkdirError
from flaxrnn.runtime import files, records

_NUM_KEPT = 2

if TYPE_CHECKING:
    from flaxrnn.training.steps import Params, TrainState


class Checkpoints:
    """The checkpoints of a run.

    Each holds the training state, the parameters that the run would end with if it ended now
    ("weights"), and the progress as JSON: history of epochs, position in the data, seconds spent.
    """

    def __init__(self, folder: Path):
        """Opens or creates `folder`.

        Raises:
            WorkdirError: It cannot be created.
        """
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for unfinished in folder.glob("*.part"):
                shutil.rmtree(unfinished)
        except OSError as error:
            raise WorkdirError(f"{folder} cannot be written ({error.strerror})") from None
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[str | None] | None = None

    def save(
        self,
        state: TrainState,
        weights: Params,
        progress: dict[str, Any],
        wait: bool = False,
        earlier_steps: int = 0,
    ) -> str | None:
        """Writes a checkpoint in the background; does nothing while an earlier write is pending.

        If writing fails, a warning is printed and the previous checkpoint is kept.

        Args:
            state: Training state, copied before this returns.
            weights: Parameters to keep, copied as well.
            progress: JSON-serializable.
            wait: Finish any earlier write, then write this checkpoint before returning.
            earlier_steps: Training steps before those that the state counts.

        Returns:
            With `wait`, the reason if the checkpoint could not be written.
        """
        if self._pending is not None and not self._pending.done() and not wait:
            return None
        contents = {
            "state.safetensors": safetensors.numpy.save(flatten_by_path(state)),
            "weights.safetensors": safetensors.numpy.save(flatten_by_path(weights)),
            "progress.json": json.dumps(progress).encode(),
        }
        step = earlier_steps + int(state.step)
        self._pending = self._writer.submit(self._write, step, contents)
        return self._pending.result() if wait else None

    def _write(self, step: int, contents: dict[str, bytes]) -> str | None:
        """Writes a checkpoint and removes old ones; returns the reason if that fails."""
        folder = self._folder / str(step)
        try:
            if not folder.exists():  # a resumed run may reach a step a second time
                files.write_folder(folder, contents)
            for old in _steps(self._folder)[_NUM_KEPT:]:
                shutil.rmtree(self._folder / str(old))
        except OSError as error:
            failure = f"the checkpoint of step {step} cannot be written ({error.strerror})"
            kept = _steps(self._folder)
            remaining = f"that of step {kept[0]} is kept" if kept else "there is no earlier one"
            print(f"warning: {failure}; {remaining}", file=sys.stderr, flush=True)
            return failure
        return None

    def restore(self, **templates: Any) -> dict[str, Any] | None:
        """Reads the newest intact checkpoint; None if there is none at all.

        Corrupt ones are set aside as `STEP.damaged`, with a warning.

        Args:
            **templates: "state", "weights" or both: trees of arrays of the expected shapes and
                dtypes.

        Returns:
            Trees of NumPy arrays under the same names, and "progress".

        Raises:
            WorkdirError: Every checkpoint is corrupt, or the newest intact one does not match the
                templates.
        """
        problem = None
        for step in _steps(self._folder):
            folder = self._folder / str(step)
            problem = files.find_corruption(folder)
            if problem is None:
                return read(folder, **templates)
            damaged = self._folder / f"{step}.damaged"
            print(f"warning: {folder}: {problem}; renamed to {damaged.name}", file=sys.stderr)
            shutil.rmtree(damaged, ignore_errors=True)
            folder.rename(damaged)
        if problem or any(self._folder.glob("*.damaged")):
            raise WorkdirError(
                f"{self._folder}: every checkpoint is corrupt; to start over, delete the workdir or"
                " name another one"
            )
        return None

    def close(self) -> None:
        """Waits for a pending write."""
        self._writer.shutdown()


def latest(folder: Path, **templates: Any) -> dict[str, Any] | None:
    """Reads the newest intact checkpoint like `Checkpoints.restore`, but changes nothing on disk.

    The run may still be in progress.

    Returns:
        What `restore` does; None if no checkpoint is intact.

    Raises:
        WorkdirError: The newest intact checkpoint does not match the templates.
    """
    newest = find_intact(folder)
    return None if newest is None else read(newest, **templates)


def find_intact(folder: Path) -> Path | None:
    """The newest intact checkpoint; corrupt ones are named in a warning. None: there is none."""
    for step in _steps(folder) if folder.is_dir() else []:
        if (problem := files.find_corruption(folder / str(step))) is None:
            return folder / str(step)
        print(f"warning: {folder / str(step)}: {problem}; not used", file=sys.stderr)
    return None


def exists(folder: Path) -> bool:
    """Whether there is a checkpoint in a folder, intact or not."""
    return folder.is_dir() and bool(_steps(folder))


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """The parameters to keep of an intact checkpoint by path, whatever their shapes.

    Raises:
        WorkdirError: They cannot be read.
    """
    return _read_arrays(folder / "weights.safetensors")


def write_weights(folder: Path, weights: Params, progress: Mapping[str, Any] | None = None) -> None:
    """Writes a checkpoint of step 0 without a training state, which only `latest` can read."""
    contents = {
        "weights.safetensors": safetensors.numpy.save(flatten_by_path(weights)),
        "progress.json": json.dumps(progress or {}).encode(),
    }
    files.write_folder(folder / "0", contents)


def flatten_by_path(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree by path, such as "params/dense/kernel", as copies on the host."""
    return {_name(path): np.array(leaf) for path, leaf in tree_leaves_with_path(tree)}


def _name(path: Any) -> str:
    return keystr(path, simple=True, separator="/")


def _steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, newest first."""
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def read(folder: Path, **templates: Any) -> dict[str, Any]:
    """Reads an intact checkpoint; see `Checkpoints.restore`.

    Raises:
        WorkdirError: It does not match the templates, or its progress is no JSON object.
    """
    path = folder / "progress.json"
    try:
        items: dict[str, Any] = {"progress": records.read(path, dict, max_mib=256)}
    except (OSError, ValueError) as error:
        raise WorkdirError(f"{path}: {error}") from None
    for name, template in templates.items():
        items[name] = _read_tree(folder / f"{name}.safetensors", template)
    return items


def _read_tree(path: Path, template: Any) -> Any:
    """Reads arrays that must match the names, shapes and dtypes of a template tree."""
    if not path.exists():
        raise WorkdirError(f"{path.parent} holds only weights; training cannot resume from it")
    arrays = _read_arrays(path)
    expected = {_name(path): leaf for path, leaf in tree_leaves_with_path(template)}
    if mismatched := sorted(arrays.keys() ^ expected.keys()):
        kind = "unknown array" if mismatched[0] in arrays else "missing array"
        raise WorkdirError(f"{path}: {kind} {mismatched[0]}")
    for name, array in expected.items():
        found = arrays[name]
        if (found.shape, found.dtype) != (array.shape, array.dtype):
            raise WorkdirError(
                f"{path}: {name} is {found.dtype}{list(found.shape)}, not"
                f" {array.dtype}{list(array.shape)}"
            )
    return jax.tree.unflatten(jax.tree.structure(template), [arrays[name] for name in expected])


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, SafetensorError) as error:
        raise WorkdirError(f"{path}: cannot be read ({error})") from None

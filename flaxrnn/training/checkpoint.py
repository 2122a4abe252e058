"""Checkpoints: {state, the weights to keep, progress} on disk, verified before they are used.

A checkpoint is a folder named by its step: `state.safetensors`, `weights.safetensors`,
`progress.json`, and the checksums of all three. A thread writes it under another name; it gets its
own only when all of it is on the disk, so whatever stops the process leaves it whole or not there.
The newest two are kept: should one turn out damaged, the other takes its place.
"""

from __future__ import annotations

import json
import shutil
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from flaxrnn.errors import WorkdirError
from flaxrnn.runtime import files
from flaxrnn.training.steps import Params, TrainState

_KEPT = 2


class Checkpoints:
    """The checkpoints of a run.

    A checkpoint holds the training state, the parameters the run would end with now ("weights"),
    and its progress as JSON: history of epochs, place in the data, seconds spent.
    """

    def __init__(self, folder: Path):
        """Opens or makes `folder`.

        Raises:
            WorkdirError: It cannot be made.
        """
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for unfinished in folder.glob("*.part"):
                shutil.rmtree(unfinished)
        except OSError as error:
            raise WorkdirError(f"{folder} cannot be written ({error.strerror})") from None
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._under_way: Future[str | None] | None = None

    def save(
        self, state: TrainState, weights: Params, progress: dict[str, Any], wait: bool = False
    ) -> str | None:
        """Writes a checkpoint in the background, unless the one before is still being written.

        One that cannot be written costs a warning: the one before stays.

        Args:
            state: Copied before this returns.
            weights: Copied, too.
            progress: As JSON.
            wait: Until it is written.

        Returns:
            With `wait`, why it could not be written, if so.
        """
        if self._under_way is not None and not self._under_way.done() and not wait:
            return None
        contents = {
            "state.safetensors": safetensors.numpy.save(_named(state)),
            "weights.safetensors": safetensors.numpy.save(_named(weights)),
            "progress.json": json.dumps(progress).encode(),
        }
        self._under_way = self._writer.submit(self._write, int(state.step), contents)
        return self._under_way.result() if wait else None

    def _write(self, step: int, contents: dict[str, bytes]) -> str | None:
        """Writes a checkpoint and removes old ones; what failed, if anything."""
        folder = self._folder / str(step)
        try:
            if not folder.exists():  # else the run has been here before
                files.write_folder(folder, contents)
            for old in self._steps()[_KEPT:]:
                shutil.rmtree(self._folder / str(old))
        except OSError as error:
            failure = f"the checkpoint of step {step} cannot be written ({error.strerror})"
            kept = self._steps()
            stays = f"that of step {kept[0]} stays" if kept else "there is none before it"
            print(f"warning: {failure}; {stays}", file=sys.stderr, flush=True)
            return failure
        return None

    def restore(self, **like: Any) -> dict[str, Any] | None:
        """The newest checkpoint that is whole, or None where there is none.

        Damaged ones are set aside, with a warning.

        Args:
            **like: What to read, "state" or "weights": arrays of the shapes and dtypes to expect.

        Returns:
            Those, as NumPy arrays, and "progress".

        Raises:
            WorkdirError: There are checkpoints, but none that is whole and fits `like`.
        """
        problem = None
        for step in self._steps():
            folder = self._folder / str(step)
            problem = files.find_corruption(folder)
            if problem is None:
                return _read(folder, like)
            aside = self._folder / f"{step}.damaged"
            print(f"warning: {folder}: {problem}; set aside as {aside.name}", file=sys.stderr)
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
        if problem or any(self._folder.glob("*.damaged")):
            raise WorkdirError(
                f"{self._folder}: no checkpoint is whole; delete the folder's run, or name another"
                " workdir, to start anew"
            )
        return None

    def close(self) -> None:
        """Waits for what is being written."""
        self._writer.shutdown()

    def _steps(self) -> list[int]:
        return _steps(self._folder)


def latest(folder: Path, **like: Any) -> dict[str, Any] | None:
    """As `Checkpoints.restore`, of a run that may be under way: nothing in `folder` changes.

    Returns:
        What `restore` does; None where no checkpoint is whole.

    Raises:
        WorkdirError: The newest whole one does not fit `like`.
    """
    for step in _steps(folder) if folder.is_dir() else []:
        if (problem := files.find_corruption(folder / str(step))) is None:
            return _read(folder / str(step), like)
        print(f"warning: {folder / str(step)}: {problem}; not used", file=sys.stderr)
    return None


def write_weights(folder: Path, weights: Params) -> None:
    """Writes a checkpoint, of step 0, for `latest` alone: without a state to go on from."""
    content = safetensors.numpy.save(_named(weights))
    files.write_folder(folder / "0", {"weights.safetensors": content, "progress.json": b"{}"})


def _steps(folder: Path) -> list[int]:
    """Of the checkpoints, the newest first."""
    found = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted((int(name) for name in found if name.isdecimal()), reverse=True)


def _read(folder: Path, like: dict[str, Any]) -> dict[str, Any]:
    items: dict[str, Any] = {"progress": json.loads((folder / "progress.json").read_bytes())}
    for item, tree in like.items():
        path = folder / f"{item}.safetensors"
        if not path.exists():
            raise WorkdirError(f"{path.parent}: no training can go on from weights alone")
        try:
            arrays = safetensors.numpy.load_file(path)
        except SafetensorError as error:
            raise WorkdirError(f"{path}: cannot be read ({error})") from None
        expected = _named(tree)
        if wrong := sorted(arrays.keys() ^ expected.keys()):
            kind = "unknown array" if wrong[0] in arrays else "there is no array"
            raise WorkdirError(f"{path}: {kind} {wrong[0]}")
        for name, array in expected.items():
            got = arrays[name]
            if (got.shape, got.dtype) != (array.shape, array.dtype):
                raise WorkdirError(
                    f"{path}: {name} is {got.dtype}{list(got.shape)}, not"
                    f" {array.dtype}{list(array.shape)}"
                )
        treedef = jax.tree.structure(tree)
        items[item] = jax.tree.unflatten(treedef, [arrays[name] for name in expected])
    return items


def _named(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree by their paths, as copies on the host."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    keystr = jax.tree_util.keystr
    return {keystr(path, simple=True, separator="/"): np.array(leaf) for path, leaf in leaves}

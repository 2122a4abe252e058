"""A run's workdir: locked while the run writes to it, and tied to the config of its first start."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock
import safetensors.numpy

from flaxrnn import config as config_lib
from flaxrnn.errors import ConfigError, LostWorkdirError, WorkdirError
from flaxrnn.runtime import files, records

_CONFIG, _LOCK = "config.json", ".lock"
CHECKPOINTS = "checkpoints"
NGRAMS = "ngrams"  # folder of the n-gram classifier
RATIOS = "ratios"  # folder of the table of log-count ratios
TEACHER = "teacher"  # folder of what the teacher says of the texts without labels
INITIAL = "initial"  # folder of parameters that are not random, for a refit
# What a run writes until its first checkpoint.
_WRITTEN = (
    CHECKPOINTS,
    NGRAMS,
    RATIOS,
    TEACHER,
    INITIAL,
    "vocabulary.json",
    "labels.json",
    "events.out.tfevents.*",
    "*.part",
    _CONFIG,
    _LOCK,
)


def fresh_workdir(config: config_lib.Config) -> Path:
    """A new folder under runs/, named after the task and the current time."""
    task = config.task.replace(":", ".")  # module:Builder
    return Path("runs") / f"{task}-{datetime.now():%Y%m%d-%H%M%S-%f}"


def find_kept(folder: Path, names: Sequence[str], key: str) -> dict[str, Any] | None:
    """Arrays that an earlier start of the run, or another one of several seeds, has kept.

    Args:
        folder: Of the run's workdir; what is found in that of another run is copied to it.
        names: The files in the folder, of which the last has the arrays, and their "key" as bytes.
        key: Fingerprint of all that they depend on.

    Returns:
        None: none are kept, or they are damaged, or depend on something else.
    """
    others = sorted(folder.parent.parent.glob(f"seed-*/{folder.name}"))
    for kept in (folder, *others):
        if files.find_corruption(kept):
            continue
        arrays = safetensors.numpy.load_file(kept / names[-1])
        if bytes(arrays["key"]).decode() == key:
            if kept != folder:
                files.write_folder(folder, {name: (kept / name).read_bytes() for name in names})
            return arrays
    return None


@contextlib.contextmanager
def open_workdir(path: Path, config: dict[str, Any]) -> Iterator[Callable[[], None]]:
    """Creates or reopens a workdir, and keeps other runs out of it until the block ends.

    If the block ends before the run's first checkpoint, all that was created for it is removed
    again. An OSError in the block is reported as a failure to write to the workdir.

    Args:
        path: Where the run writes everything.
        config: Its config as nested dicts, which `config.json` records. A workdir in which training
            has begun must have been created with an equal config; a field that was unknown at the
            time counts as today's default, and an automatic value is equal to any.

    Yields:
        A function that removes it now, unless there is a checkpoint.

    Raises:
        WorkdirError: The workdir cannot be written, belongs to another config, or is locked by
            another run.
        LostWorkdirError: The workdir was deleted during the block.
    """
    try:
        created = [folder for folder in (path, *path.parents) if not folder.exists()]
        earlier = {found.name for found in path.glob("*")}
    except OSError as error:
        raise WorkdirError(f"--workdir: {path} cannot be used ({error.strerror})") from None

    def discard() -> None:
        begun = any(found.name.isdecimal() for found in (path / CHECKPOINTS).glob("*"))
        if not begun and _CONFIG not in earlier:
            _remove(path, created, earlier)

    with _lock(path):
        try:
            _check_or_write_config(path, config)
            yield discard
            check_exists(path)
        except BrokenPipeError:  # of standard output
            raise
        except OSError as error:
            check_exists(path)
            raise WorkdirError(f"--workdir: {path} cannot be written ({error})") from None
        finally:
            discard()


def check_exists(path: Path) -> None:
    """Checks that the workdir of a run in progress is still there.

    Raises:
        LostWorkdirError: It was deleted.
    """
    if not (path / _CONFIG).exists():
        raise LostWorkdirError(f"--workdir: {path} was deleted while the run was in progress")


def read_config(path: Path) -> dict[str, Any]:
    """The config that a workdir records, exactly as in its `config.json`.

    Raises:
        WorkdirError: The file is not a JSON object.
        OSError: It cannot be read.
    """
    file = path / _CONFIG
    try:
        return records.read(file, dict)
    except records.RecordError as error:
        raise WorkdirError(f"--workdir: {path}/{error}") from None


def load_config(path: Path) -> config_lib.Config:
    """The config of the run in a workdir, checked.

    Raises:
        WorkdirError: The workdir holds no run.
    """
    try:
        recorded = records.read(path / _CONFIG, dict)
        return config_lib.parse(config_lib.with_defaults(recorded))
    except (OSError, ValueError) as error:
        reason = f"{_CONFIG}: {error}" if isinstance(error, ConfigError) else error
        raise WorkdirError(f"--workdir: no trained model in {path} ({reason})") from None


def write_config(path: Path, config: dict[str, Any]) -> None:
    """Records the config of a workdir, nested dicts, in its `config.json`.

    Raises:
        OSError: It cannot be written.
    """
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    files.write_atomically(path / _CONFIG, text)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Creates the folder and holds its lock."""
    lock = filelock.FileLock(path / _LOCK, blocking=False)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise WorkdirError(f"--workdir: another run is writing to {path}") from None
    except OSError as error:
        raise WorkdirError(f"--workdir: {path} cannot be written ({error.strerror})") from None
    try:
        yield
    finally:
        lock.release()


def _check_or_write_config(path: Path, config: dict[str, Any]) -> None:
    """Compares the config with that of a run that has begun, else writes it."""
    begun = [name for name in (CHECKPOINTS, "metrics.jsonl") if (path / name).exists()]
    if (path / _CONFIG).exists():
        recorded = read_config(path)
        if begun:  # else nothing was trained, and a mistaken config can be corrected in place
            _check_same_config(path, recorded, config)
            return
    elif CHECKPOINTS in begun:
        raise WorkdirError(f"--workdir: {path} contains checkpoints but no {_CONFIG}")
    write_config(path, config)


def _check_same_config(path: Path, recorded: dict[str, Any], config: dict[str, Any]) -> None:
    old = config_lib.flatten(config_lib.with_defaults(recorded))
    new = config_lib.flatten(config)
    for name in sorted(old.keys() | new.keys()):
        automatic = name in new and new[name] == config_lib.AUTOMATIC.get(name)
        if old.get(name) != new.get(name) and not automatic:
            hint = "name another workdir, or use the same config"
            if name.startswith("train."):
                hint += (
                    "; to train its weights further, name another workdir and add"
                    f" --config.train.init_from={path}"
                )
            raise WorkdirError(
                f"--workdir: {path} was created with {name}={old.get(name)!r}, not"
                f" {new.get(name)!r}; {hint}"
            )


def _remove(path: Path, created: list[Path], earlier: set[str]) -> None:
    """Removes what a run wrote that never began; other files, and the folders they are in, stay."""
    with contextlib.suppress(OSError):
        for pattern in _WRITTEN:
            for found in path.glob(pattern):
                if found.name not in earlier:
                    shutil.rmtree(found) if found.is_dir() else found.unlink()
        for folder in filter(Path.exists, created):
            folder.rmdir()

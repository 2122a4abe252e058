"""Atomic writes of files and folders, and folders with checksums that reveal any corruption."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from flaxrnn.errors import ConfigError
from flaxrnn.runtime import records

CHECKSUMS = "checksums.json"


def expand(path: str | os.PathLike[str], field: str) -> Path:
    """A path with the home folder in place of `~` or `~user`.

    Raises:
        ConfigError: There is no such user; the message begins with the field.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"{field}: {path}: there is no such user, or it has no home") from None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file that is never seen half-written, not even after a power loss."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes a folder of files with their checksums, atomically.

    Args:
        folder: Replaced if it exists.
        contents: File name → content.
    """
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        for name, content in contents.items():
            (part / name).write_bytes(content)
        write_checksums(part)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_checksums(folder: Path) -> None:
    """Adds a file with the SHA-256 of every file in a folder, and flushes all of them to disk."""
    sums = {}
    for path in _files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            sums[path.relative_to(folder).as_posix()] = _sha256(path)
    write_atomically(folder / CHECKSUMS, json.dumps({"files": sums, "all": _digest(sums)}))
    sync(folder)


def sync(folder: Path) -> None:
    """Flushes a folder's entries to disk."""
    if os.name == "posix":  # Windows cannot open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def find_corruption(folder: Path) -> str | None:
    """What differs from a folder's checksums, naming the file; None: nothing."""
    try:
        recorded = records.read(folder / CHECKSUMS, dict)
        sums = recorded["files"]
        if recorded["all"] != _digest(sums):
            return f"{CHECKSUMS} is damaged"
        found = {path.relative_to(folder).as_posix() for path in _files(folder)}
        for name, expected in sums.items():
            if name not in found:
                return f"{name} is missing"
            if _sha256(folder / name) != expected:
                return f"{name} is damaged"
        if extra := found - sums.keys():
            return f"{min(extra)} does not belong there"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"{CHECKSUMS} is damaged"
    return None


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if path.relative_to(folder).as_posix() != CHECKSUMS)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(sums: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()

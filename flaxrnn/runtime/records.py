"""JSON that the package writes and reads: always valid, and bounded in size and depth.

What is read may come from anybody: a file that is no regular file, too large or too deep costs an
error, not the memory or the time of the process.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

_MAX_DEPTH = 20  # the deepest file, config.json, has 3
_KINDS: dict[type, str] = {dict: "a JSON object", list: "a JSON list"}


class RecordError(ValueError):
    """A file or text is not the JSON that was expected."""


def to_text(value: Any, **options: Any) -> str:
    """A value as JSON, with null for numbers that are not finite, which JSON does not have.

    Args:
        value: Of JSON's types.
        **options: For `json.dumps`.
    """
    return json.dumps(_without_nonfinite(value), allow_nan=False, **options)


def read(path: Path, kind: type, max_mib: int = 16) -> Any:
    """Reads a JSON file whose content is a list or an object.

    Raises:
        RecordError: It is something else.
        OSError: It cannot be read, is no regular file or has more than `max_mib` MiB.
    """
    try:
        return parse(read_bytes(path, max_mib), kind)
    except RecordError as error:
        raise RecordError(f"{path.name} {error}") from None


def read_lines(path: Path, max_mib: int = 256) -> list[dict[str, Any]]:
    """Reads a file with one JSON object per line; see `read`."""
    rows = []
    for number, line in enumerate(read_bytes(path, max_mib).splitlines(), 1):
        try:
            rows += [parse(line, dict)] if line.strip() else []
        except RecordError as error:
            raise RecordError(f"{path.name}: line {number} {error}") from None
    return rows


def read_bytes(path: Path, max_mib: int) -> bytes:
    """The content of a regular file of at most `max_mib` MiB.

    A named pipe, which would block, and a device, which may have no end, are not read.

    Raises:
        OSError: It is something else, or cannot be read; `strerror` says why.
    """
    most = max_mib * 2**20
    with open(path, "rb", opener=_open_at_once) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if found.st_size <= most:
            content = file.read(most + 1)  # it may be growing
            if len(content) <= most:
                return content
    raise OSError(errno.EFBIG, f"it has more than {max_mib:,} MiB", str(path))


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has no named pipes


def parse(content: bytes, kind: type) -> Any:
    """Parses JSON whose content is a list or an object.

    Raises:
        RecordError: It is something else.
    """
    try:
        value = json.loads(content)
    except RecursionError:
        raise RecordError("is nested too deeply") from None
    except ValueError as error:
        raise RecordError(f"is not valid JSON ({error})") from None
    if not isinstance(value, kind):
        raise RecordError(f"is not {_KINDS[kind]}")
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            raise RecordError("is nested too deeply")
        level = [inner for outer in level for inner in _children(outer)]
    return value


def _children(value: Any) -> list[Any]:
    """The lists and objects in a list or an object."""
    inner = value.values() if isinstance(value, dict) else value
    return [each for each in inner if isinstance(each, dict | list)]


def _without_nonfinite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _without_nonfinite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nonfinite(inner) for inner in value]
    return value

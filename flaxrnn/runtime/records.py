"""JSON that the package writes and reads: always valid, and bounded in size and depth.

What is read may come from anybody: a file that is no regular file, too large or too deep costs an
error, not the memory or the time of the process.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from flaxrnn.runtime import files

_MAX_DEPTH = 20  # the deepest file, config.json, has 3
_KINDS: dict[type, str] = {dict: "an object", list: "a list"}


class RecordError(ValueError):
    """A file or text is not the JSON that was expected; the message does not name the file."""


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
    return parse(files.read_regular(path, max_mib), kind)


def read_lines(path: Path, max_mib: int = 256) -> list[dict[str, Any]]:
    """Reads a file with one JSON object per line; see `read`."""
    content = files.read_regular(path, max_mib)
    return [parse(line, dict) for line in content.splitlines() if line.strip()]


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

"""Rows of files whose values have names: JSON, and Parquet."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

from flaxrnn.datasets.rows import Fields, Row, check_unique, clean, missing_field
from flaxrnn.errors import DataError

_SPACE = re.compile(r"\s*")


def read_json(name: str, decoded: str, fields: Fields) -> Iterator[Row]:
    """The objects of a JSON array, or of JSON Lines.

    Args:
        name: The name of the file, for errors.
        decoded: Its content.
        fields: Keys of every object.

    Raises:
        DataError: It is no JSON, or something in it is no object with these keys.
    """
    is_array = decoded.lstrip().startswith("[")
    wanted = fields.wanted()
    for line, value in (_array if is_array else _lines)(name, decoded):
        where = f"{name}: line {line}"
        if not isinstance(value, dict):
            raise DataError(f"data.path: {where}: must be an object with keys, like {{...}}")
        named = {clean(key): of_key for key, of_key in value.items()}
        for kind, field in wanted:
            if len(named) < len(value):
                check_unique(where, map(clean, value), field)
            if field not in named and kind != "split":
                raise missing_field(f"{where} has no key", kind, field, named)
        values = {kind: named.get(field) for kind, field in wanted}
        yield Row(where, values["text"], values.get("label"), values["split"])


def read_parquet(name: str, content: bytes, fields: Fields) -> Iterator[Row]:
    """The rows of a Parquet file.

    Args:
        name: The name of the file, for errors.
        content: The file.
        fields: Columns.

    Raises:
        DataError: It is something else, lacks a column, or pyarrow is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f"data.path: {name}: .parquet needs pyarrow, which is not installed; install"
            " flaxrnn[parquet], or save the texts as .csv"
        ) from None
    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        stored = {clean(column): column for column in file.schema_arrow.names}
        values: dict[str, list[Any]] = {}
        for kind, field in fields.wanted():
            check_unique(name, map(clean, file.schema_arrow.names), field)
            if field in stored:
                values[kind] = file.read(columns=[stored[field]]).column(0).to_pylist()
            elif kind != "split":
                raise missing_field(f"{name} has no column", kind, field, stored)
        absent = [None] * len(values["text"])
        columns = (values.get(kind, absent) for kind in ("text", "label", "split"))
        rows = list(zip(*columns, strict=True))
    except DataError:
        raise
    except Exception as error:  # a corrupt file may break pyarrow anywhere
        reason = " ".join(str(error).split())
        raise DataError(f"data.path: {name} is not a Parquet file ({reason})") from None
    for number, (text, label, split) in enumerate(rows, 1):
        yield Row(f"{name}: row {number}", text, label, split)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object that names no key twice, of which the first value would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _lines(name: str, decoded: str) -> Iterator[tuple[int, Any]]:
    for line, content in enumerate(decoded.split("\n"), 1):
        if content.strip():
            try:
                yield line, _DECODER.decode(content)
            except (ValueError, RecursionError) as error:
                raise _invalid(name, line, error) from None


def _array(name: str, decoded: str) -> Iterator[tuple[int, Any]]:
    """The elements of an array, and the line that each begins in."""
    begin, line, separator = 0, 1, "["
    while True:
        at = _after(decoded, begin)
        closes = decoded.startswith("]", at) and begin > 0
        line += decoded.count("\n", begin, at)
        if closes:
            break
        try:
            if not decoded.startswith(separator, at):
                raise ValueError(f"Expecting {separator!r}")
            start = _after(decoded, at + 1)
            line += decoded.count("\n", at, start)
            if separator == "[" and decoded.startswith("]", start):
                at = start
                break
            value, begin = _DECODER.raw_decode(decoded, start)
        except (ValueError, RecursionError) as error:
            raise _invalid(name, line, error) from None
        yield line, value
        line += decoded.count("\n", start, begin)
        separator = ","
    if decoded[at + 1 :].strip():
        raise _invalid(name, line, ValueError("more after the array"))


def _after(decoded: str, begin: int) -> int:
    """Where the white space from `begin` on ends."""
    space = _SPACE.match(decoded, begin)
    assert space  # it matches nothing, too
    return space.end()


def _invalid(name: str, line: int, error: Exception) -> DataError:
    reason = getattr(error, "msg", error)  # without the place within the decoded part
    return DataError(f"data.path: {name}: line {line}: invalid JSON ({reason})")

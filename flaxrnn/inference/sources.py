"""Texts to predict for, from arguments, a file or stdin, read one by one as they are needed."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from flaxrnn.errors import DataError


class Record(NamedTuple):
    """One text of the input."""

    text: str
    note: str | None = None  # why the text is empty although the record is not


def from_stdin() -> Iterator[Record]:
    """One text per line; on a terminal, asks for them."""
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    if sys.stdin.isatty():
        print("Enter one text per line; Ctrl-D ends.", file=sys.stderr)
    return _lines(sys.stdin)


@contextlib.contextmanager
def open_file(path: str, field: str | None) -> Iterator[Iterator[Record]]:
    """Opens a file in UTF-8: one text per line, or the records of a format in `WITH_FIELDS`.

    The first record is read at once, so that a wrong file is noticed early.

    Args:
        path: File; its suffix names the format.
        field: Field that contains the text, in a format with fields.

    Raises:
        DataError: The file cannot be read, or its first record does not have the field.
    """
    suffix = Path(path).suffix
    newline = "" if suffix == ".csv" else "\n"
    try:  # a byte that is not UTF-8 costs a word, not the text
        file = open(path, encoding="utf-8-sig", errors="replace", newline=newline)  # noqa: SIM115
    except OSError as error:
        raise DataError(f"--file: {path} cannot be read ({error.strerror})") from None
    with file:
        if suffix in WITH_FIELDS:
            records = WITH_FIELDS[suffix](file, path, field or "")
        else:
            records = _lines(file)
        first = list(itertools.islice(records, 1))
        yield itertools.chain(first, records)


def _lines(file: TextIO) -> Iterator[Record]:
    return (Record(line.rstrip("\r\n")) for line in file)


def _json_lines(file: TextIO, path: str, field: str) -> Iterator[Record]:
    """A field of the object on each line; the first object must have it."""
    for i, line in enumerate(file):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield Record("", "invalid JSON")
            continue
        fields = value if isinstance(value, dict) else {}
        if i == 0 and field not in fields:
            raise _missing_field(path, field, fields)
        yield _record(fields.get(field), field)


def _csv(file: TextIO, path: str, field: str) -> Iterator[Record]:
    """A column of the rows below the header."""
    csv.field_size_limit(2**31 - 1)
    rows = csv.DictReader(file)
    if field not in (rows.fieldnames or []):
        raise _missing_field(path, field, rows.fieldnames or [])
    for row in rows:
        yield _record(row[field], field)


def _record(value: object, field: str) -> Record:
    return Record(value) if isinstance(value, str) else Record("", f"no text in {field!r}")


def _missing_field(path: str, field: str, fields: Iterable[str]) -> DataError:
    known = ", ".join(map(str, fields)) or "none"
    return DataError(f"--field: the first line of {path} has no field {field!r}; it has {known}")


WITH_FIELDS = {".jsonl": _json_lines, ".csv": _csv}

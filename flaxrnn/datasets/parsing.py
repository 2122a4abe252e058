"""Parses custom files into examples; errors name the file, the line and what is wrong."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from flaxrnn.errors import DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SPLIT = "split"  # the column that may assign each text to train or test
_MAX_FIELD = 2**31 - 1  # characters; csv's own limit is 128 KiB


class Example(NamedTuple):
    """A text and its class."""

    text: str
    label: str  # "": no classes are wanted
    split: str  # train | test | "": the source does not say


class Fields(NamedTuple):
    """The columns, keys or features that an example is read from."""

    text: str
    label: str | None  # None: no classes are wanted


def parse(path: Path, content: bytes, fields: Fields) -> list[Example]:
    """The examples of a .csv, .tsv, .jsonl or, without classes, .txt file.

    Raises:
        DataError: The file has no example, or a mistake.
    """
    kind = path.suffix.lower()
    decoded = decode(path, content)
    if not decoded.strip():
        raise DataError(f"data.path: {path} is empty")
    if kind == ".txt":
        found = [Example(line, "", "") for line in decoded.splitlines() if line.strip()]
    elif kind == ".jsonl":
        found = list(_parse_lines(path, decoded, fields))
    else:
        found = list(_parse_table(path, decoded, DELIMITERS[kind], fields))
    if not found:
        raise DataError(f"data.path: {path} has a header, but no row below it")
    return found


def decode(path: Path, content: bytes) -> str:
    """The content of a text file in UTF-8.

    Raises:
        DataError: It is something else.
    """
    try:
        decoded = content.removeprefix(codecs.BOM_UTF8).decode()
        at = content.find(0)
        problem = "is NUL, which no text contains"
    except UnicodeDecodeError as error:
        decoded = ""
        at = error.start + len(content) - len(error.object)
        problem = f"(0x{content[at]:02x}) is not UTF-8"
    if at < 0:
        return decoded
    line = content.count(b"\n", 0, at) + 1
    raise DataError(f"data.path: {path}: line {line}: byte {at} {problem}; save it as UTF-8")


def make_example(where: str, text: str, fields: Fields, label: str, split: Any = None) -> Example:
    """An example from the values of its fields.

    Args:
        where: Its place in the source, for errors.
        text: The text.
        fields: `fields.label` is named in errors; None: no label is wanted.
        label: The name of the class, white space around it is dropped; "" where none is wanted.
        split: "train" or "test"; None: the source does not say.

    Raises:
        DataError: A value is impossible.
    """
    label = unicodedata.normalize("NFC", label.strip())
    if fields.label is not None and not label:
        raise DataError(f"data.path: {where}: {fields.label} is empty")
    if split is not None and split not in ("train", "test"):
        raise DataError(f"data.path: {where}: {_SPLIT} must be train or test, not {split!r}")
    if re.search("[\ud800-\udfff]", text + label):
        raise DataError(f"data.path: {where}: unpaired surrogate, which no text contains")
    return Example(text, label, split or "")


def check_fields(has_no: str, names: Iterable[str], fields: Fields) -> None:
    """Raises a DataError that begins with `has_no` where a field is not among `names`."""
    for field, value in fields._asdict().items():
        if value is not None and value not in names:
            raise DataError(f"data.{field}_field: {has_no} {value!r}; it has {abbreviated(names)}")


def abbreviated(names: Iterable[str]) -> str:
    """The names, the first twenty of them, each cut to 40 characters."""
    shown = [name if len(name) <= 40 else f"{name[:39]}…" for name in names]
    more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
    return ", ".join(shown[:20]) + more


def _parse_table(path: Path, decoded: str, delimiter: str, fields: Fields) -> Iterator[Example]:
    names: list[str] = []
    for line, row in _rows(path, decoded, delimiter):
        if not names:
            names = [name.strip() for name in row]
            check_fields(f"{path} has no column", names, fields)
            continue
        if len(row) != len(names):
            raise DataError(
                f"data.path: {path}: line {line}: {len(row)} fields, but the header has"
                f" {len(names)}"
            )
        values = dict(zip(names, row, strict=True))
        label = "" if fields.label is None else values[fields.label]
        yield make_example(
            f"{path}: line {line}", values[fields.text], fields, label, values.get(_SPLIT)
        )


def _rows(path: Path, decoded: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table that are not blank, and the line that each begins in."""
    csv.field_size_limit(_MAX_FIELD)
    reader = csv.reader(
        io.StringIO(decoded, newline=""),
        delimiter=delimiter,
        # TSV has no quotes: a quotation mark is a part of the text.
        quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
        strict=True,
    )
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        reason = str(error)
        if reason == "unexpected end of data":
            reason = "a quotation mark opens a field that does not end"
        raise DataError(f"data.path: {path}: line {line}: {reason}") from None


def _parse_lines(path: Path, decoded: str, fields: Fields) -> Iterator[Example]:
    for number, line in enumerate(decoded.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"data.path: {where}: invalid JSON ({error})") from None
        if not isinstance(values, dict):
            raise DataError(f"data.path: {where}: must be an object with keys, like {{...}}")
        check_fields(f"{where} has no key", values, fields)
        text, label = values[fields.text], "" if fields.label is None else values[fields.label]
        if type(text) is not str:
            raise DataError(f"data.path: {where}: {fields.text} must be a string, not {text!r}")
        if type(label) not in (str, int):
            raise DataError(
                f"data.path: {where}: {fields.label} must be a string or a whole number,"
                f" not {label!r}"
            )
        yield make_example(where, text, fields, str(label), values.get(_SPLIT))

"""The one reader of custom files, for training, prediction and evaluation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flaxrnn.datasets import decoding, records, tables
from flaxrnn.datasets.rows import Fields, Row
from flaxrnn.errors import DataError

_KINDS = {
    ".csv": "table", ".tsv": "table", ".tab": "table",
    ".json": "json", ".jsonl": "json", ".ndjson": "json",
    ".parquet": "parquet",
    ".txt": "lines", ".train": "lines", ".valid": "lines", ".test": "lines",  # fastText's names
}  # fmt: skip
_TABLES = (".data", "")  # suffixes of tables whose delimiter is known
_LABELS = re.compile(r"\s*((?:__label__\S+(?:\s+|$))+)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Format:
    """How files are read, as far as their names do not say; see docs/config.md."""

    encoding: str = "utf-8"
    delimiter: str | None = None
    header: bool = True


def read_rows(path: Path, content: bytes, fields: Fields, file_format: Format) -> list[Row]:
    """The rows of a file.

    Args:
        path: Its suffix names the format, in any case: .csv, .tsv, .json, .jsonl, .txt or .parquet,
            also with .gz. A .txt file has one text per line, after its class where it begins with
            __label__, as for fastText.
        content: What the file holds.
        fields: What to read. Without a label, any column of labels is left alone.
        file_format: How to read it.

    Raises:
        DataError: The file has another format, is empty, or has a mistake.
    """
    name, kind = str(path), _kind(path, file_format)
    content = decoding.unzip(path, content)
    if kind == "parquet":
        rows = records.read_parquet(name, content, fields)
    else:
        decoded = decoding.decode(name, content, file_format.encoding)
        if not decoded.strip():
            raise DataError(f"data.path: {path} is empty")
        if kind == "json":
            rows = records.read_json(name, decoded, fields)
        elif kind == "lines":
            rows = _read_lines(name, decoded, fields)
        else:
            delimiter = _delimiter(path, file_format)
            rows = tables.read_table(name, decoded, delimiter, file_format.header, fields)
    found = [_checked(row, fields) for row in rows]
    if not found:
        raise DataError(f"data.path: {path} has no row of data")
    return found


def has_fields(path: Path, file_format: Format) -> bool:
    """Whether a file has columns or keys, not just one text per line."""
    return _kind(path, file_format) != "lines"


def _kind(path: Path, file_format: Format) -> str:
    suffix = decoding.suffix_of(path)
    kind = _KINDS.get(suffix)
    if file_format.delimiter and (kind == "lines" or suffix in _TABLES):
        return "table"
    if kind is None:
        or_else = "; or set data.delimiter if it is a table" if suffix in _TABLES else ""
        raise DataError(
            f"data.path: {path} must end in .csv, .tsv, .json, .jsonl, .txt or .parquet, each also"
            f" with .gz{or_else}"
        )
    return kind


def _delimiter(path: Path, file_format: Format) -> str:
    if not file_format.delimiter:
        return "," if decoding.suffix_of(path) == ".csv" else "\t"
    delimiter = {"tab": "\t", r"\t": "\t"}.get(file_format.delimiter, file_format.delimiter)
    if len(delimiter) > 1 or delimiter in '"\r\n':
        raise DataError(f"data.delimiter: {delimiter!r} must be a single character, or tab")
    return delimiter


def without_labels(line: str) -> str:
    """A line without the labels that it begins with, as for fastText."""
    labelled = _LABELS.fullmatch(line)
    return labelled[2] if labelled else line


def _read_lines(name: str, decoded: str, fields: Fields) -> Iterator[Row]:
    """One text per line; several labels of a text are a list, or are joined by commas."""
    if "\n" not in decoded:  # as Macs once wrote lines
        decoded = decoded.replace("\r", "\n")
    lines = decoded.removesuffix("\n").split("\n")
    is_labelled = any(_LABELS.fullmatch(line) for line in lines)
    for number, line in enumerate(lines, 1):
        where, line = f"{name}: line {number}", line.removesuffix("\r")
        labelled = _LABELS.fullmatch(line)
        if not line.strip():
            yield Row(where, "", None if fields.label is None else "", None)
        elif is_labelled and labelled:
            names = labelled[1].replace("__label__", "").split()
            label = names if fields.several else ",".join(names)
            yield Row(where, labelled[2], None if fields.label is None else label, None)
        elif is_labelled and fields.several:
            yield Row(where, line, [], None)
        elif is_labelled or fields.label is not None:
            raise DataError(
                f"data.path: {where}: has no class; write __label__CLASS before each text, or set"
                " data.delimiter if the file is a table"
            )
        else:
            yield Row(where, line, None, None)


def _checked(row: Row, fields: Fields) -> Row:
    """The row, whose text is a text."""
    if type(row.text) is not str:
        raise DataError(f"data.path: {row.where}: {fields.text} must be a string, not {row.text!r}")
    if re.search("[\ud800-\udfff]", row.text):
        raise DataError(f"data.path: {row.where}: unpaired surrogate, which no text contains")
    return row

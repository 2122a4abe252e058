"""Rows of custom files → examples; errors name the file, the line and what is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from flaxrnn.datasets import reading
from flaxrnn.datasets.reading import Format
from flaxrnn.datasets.rows import Fields, Row, clean
from flaxrnn.errors import DataError

# What the splits of a source may be called → the split.
SPLITS = {
    "train": "train",
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    "test": "test",
}


class Example(NamedTuple):
    """A text and its class."""

    text: str
    label: str  # "": no classes are wanted
    split: str  # train | validation | test | "": the source does not say


def parse(path: Path, content: bytes, fields: Fields, file_format: Format) -> list[Example]:
    """The examples of a file; see `reading.read_rows`.

    Raises:
        DataError: The file has a mistake.
    """
    rows = reading.read_rows(path, content, fields, file_format)
    if not reading.has_fields(path, file_format):
        rows = [row for row in rows if row.text or row.label]  # not the blank lines
    return [make_example(row, fields) for row in rows]


def make_example(row: Row, fields: Fields) -> Example:
    """An example from the values of its row.

    Raises:
        DataError: A value is impossible.
    """
    label, split = row.label, row.split
    where = f"data.path: {row.where}"
    if fields.label is None:
        label = ""
    elif type(label) is float and label.is_integer():
        label = str(int(label))
    elif type(label) not in (str, int):
        raise DataError(
            f"{where}: {fields.label} must be a string or a whole number, not {label!r}"
        )
    label = class_name(str(label))
    if fields.label is not None and not label:
        raise DataError(f"{where}: {fields.label} is empty")
    if split is not None:
        split = SPLITS.get(str(split).strip().lower())
        if split is None:
            raise DataError(f"{where}: split must be one of {', '.join(SPLITS)}, not {row.split!r}")
    if re.search("[\ud800-\udfff]", label):
        raise DataError(f"{where}: unpaired surrogate, which no text contains")
    return Example(row.text, label, split or "")


def class_name(label: str) -> str:
    """The class that a label names, NFC: without white space around it; 1.0 is 1."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", clean(label))

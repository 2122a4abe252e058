"""Rows of custom files → examples; errors name the file, the line and what is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

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
    """A text and its class, or its labels."""

    text: str
    label: str  # "": no classes are wanted, or it has no label
    split: str  # train | validation | test | "": the source does not say
    labels: tuple[str, ...] | None = None  # all, sorted, where `label` may stand for several

    @property
    def names(self) -> tuple[str, ...]:
        """The classes of the text."""
        return (self.label,) if self.labels is None else self.labels

    def with_labels(self, labels: tuple[str, ...]) -> Example:
        """The same text with any number of labels, sorted."""
        return self._replace(label=", ".join(labels), labels=labels)


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
    split = row.split
    where = f"data.path: {row.where}"
    labels, label = None, ""
    if fields.several:
        labels = _labels(row.label, where, fields)
    elif fields.label is not None:
        label = _label(row.label, where, fields.label)
        if not label:
            raise DataError(f"{where}: {fields.label} is empty")
    if split is not None:
        split = SPLITS.get(str(split).strip().lower())
        if split is None:
            raise DataError(f"{where}: split must be one of {', '.join(SPLITS)}, not {row.split!r}")
    if re.search("[\ud800-\udfff]", "".join(labels or label)):
        raise DataError(f"{where}: unpaired surrogate, which no text contains")
    example = Example(row.text, label, split or "")
    return example if labels is None else example.with_labels(labels)


def _label(value: Any, where: str, field: str) -> str:
    """The class that a value names."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) not in (str, int):
        hint = ""
        if isinstance(value, list):
            hint = "; set model.target=labels if a text may have several labels"
        raise DataError(f"{where}: {field} must be a string or a whole number, not {value!r}{hint}")
    return class_name(str(value))


def _labels(value: Any, where: str, fields: Fields) -> tuple[str, ...]:
    """The classes that a list names, or a string with separators; an empty one names none."""
    field = str(fields.label)
    if not isinstance(value, list):
        label = _label(value, where, field)
        value = label.split(fields.separator) if fields.separator else [label]
    names = {_label(name, where, f"each of {field}") for name in value}
    return tuple(sorted(names - {""}))


def class_name(label: str) -> str:
    """The class that a label names, NFC: without white space around it; 1.0 is 1."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", clean(label))

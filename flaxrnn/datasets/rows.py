"""What every file format is read into: a row has a text, and may have a label and a split."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from flaxrnn.errors import DataError
from flaxrnn.runtime.terminal import printable

_SPLIT = "split"  # the column that may assign each text to a split


class Row(NamedTuple):
    """The values of a row, as the file has them."""

    where: str  # its place, for errors
    text: Any
    label: Any  # None: no label is wanted
    split: Any  # None: the file does not say


class Fields(NamedTuple):
    """The columns, keys or features that an example is read from."""

    text: str
    label: str | None  # None: no classes are wanted
    several: bool = False  # whether a text may have any number of labels: a list, or
    separator: str | None = None  # a string in which this separates them

    def wanted(self) -> list[tuple[str, str]]:
        """("text", its name), the same for the label if it is wanted, and for the split."""
        wanted = (("text", self.text), ("label", self.label), (_SPLIT, _SPLIT))
        return [(kind, clean(name)) for kind, name in wanted if name is not None]


def clean(name: str) -> str:
    """A name of a column or class: NFC, without white space around it."""
    return unicodedata.normalize("NFC", name.strip())


def check_unique(where: str, names: Iterable[str], field: str) -> None:
    """Raises a DataError where a name that is to be read is there twice."""
    if Counter(names)[field] > 1:
        raise DataError(f"data.path: {where} has {field!r} twice; rename or remove one of them")


def missing_field(
    has_no: str, kind: str, field: str, names: Iterable[str], hint: str = ""
) -> DataError:
    """The error, beginning with `has_no`, that a field is not among the names."""
    names = list(names)
    shown = abbreviated(names) or "none"
    if same := [name for name in names if name.casefold() == field.casefold()]:
        hint = f"; set data.{kind}_field={same[0]!r}"
    return DataError(f"data.{kind}_field: {has_no} {field!r}; it has {shown}{hint}")


def abbreviated(names: Iterable[str]) -> str:
    """The names in a line, the first twenty of them, each cut to 40 characters."""
    names = list(map(printable, names))
    shown = [name if len(name) <= 40 else f"{name[:39]}…" for name in names]
    more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
    return ", ".join(shown[:20]) + more

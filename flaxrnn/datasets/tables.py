"""Rows of tables whose columns a delimiter separates."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator

from flaxrnn.datasets.rows import Fields, Row, check_unique, clean, missing_field
from flaxrnn.errors import DataError

_MAX_FIELD = 2**31 - 1  # characters; csv's own limit is 128 KiB

_Line = tuple[int, list[str]]  # the line that a row begins in, and its cells


def read_table(
    name: str, decoded: str, delimiter: str, header: bool, fields: Fields
) -> Iterator[Row]:
    """The rows of a table.

    In tab-separated tables, quotation marks are part of a cell, unless the header is quoted or only
    quotes make all rows as long as the header.

    Args:
        name: The name of the file, for errors.
        decoded: Its content.
        delimiter: The character that separates cells.
        header: Whether the first row has the names of the columns; else they are 1, 2, 3, …
        fields: Columns.

    Raises:
        DataError: A column is missing, or a row is not as long as the first one.
    """
    lines = _lines(name, decoded, delimiter)
    start = next(lines)  # a wrong delimiter shows here, and may break what follows
    first = start[1]
    names = [clean(cell) for cell in first] if header else [str(i + 1) for i in range(len(first))]
    columns = _columns(name, names, fields, header, decoded, delimiter)
    for line, cells in lines if header else itertools.chain([start], lines):
        where = f"{name}: line {line}"
        if len(cells) != len(first):
            than = "the header" if header else "the first line"
            raise DataError(f"data.path: {where}: {len(cells)} fields, but {than} has {len(first)}")
        text, label, split = (None if column is None else cells[column] for column in columns)
        yield Row(where, text, label, split)


def _columns(
    name: str, names: list[str], fields: Fields, header: bool, decoded: str, delimiter: str
) -> list[int | None]:
    """The indices of the columns of text, label and split; None: it is not wanted, or absent."""
    found: list[int | None] = []
    for kind, field in fields.wanted():
        check_unique(name, names, field)
        if field in names:
            found.append(names.index(field))
        elif kind == "split":
            found.append(None)
        else:
            first_line = decoded.lstrip().partition("\n")[0]
            others = [d for d in ",;\t|" if d != delimiter]
            fits = [d for d in others if field in map(clean, first_line.split(d))]
            fits = fits or [d for d in others if len(names) == 1 and d in first_line]
            hint = f"; set data.delimiter={fits[0]!r}" if fits else ""
            if header and not fits:
                hint = "; of a file without a header, set data.header=False and columns by number"
            raise missing_field(f"{name} has no column", kind, field, names, hint)
    return found if fields.label is not None else [found[0], None, found[1]]


def _lines(name: str, decoded: str, delimiter: str) -> Iterator[_Line]:
    """The rows that are not blank; see `read_table` for quotes."""
    if delimiter != "\t":
        return _parse(name, decoded, delimiter, quoted=True)
    plain = list(_parse(name, decoded, delimiter, quoted=False))
    width = len(plain[0][1])
    if all(len(cells) == width for _, cells in plain) and not _is_quoted(plain[0][1]):
        return iter(plain)
    try:
        quoted = list(_parse(name, decoded, delimiter, quoted=True))
    except DataError:
        return iter(plain)
    return iter(quoted if all(len(cells) == len(quoted[0][1]) for _, cells in quoted) else plain)


def _is_quoted(cells: list[str]) -> bool:
    return all(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells)


def _parse(name: str, decoded: str, delimiter: str, quoted: bool) -> Iterator[_Line]:
    csv.field_size_limit(_MAX_FIELD)
    reader = csv.reader(
        io.StringIO(decoded, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
    )
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        reason = str(error)
        if reason == "unexpected end of data":
            reason = "a quotation mark opens a field that does not end"
        raise DataError(f"data.path: {name}: line {line}: {reason}") from None

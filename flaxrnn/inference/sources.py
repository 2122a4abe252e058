"""Texts to predict for, from a file, from stdin or from Python."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from flaxrnn.config import DataConfig
from flaxrnn.datasets import decoding, reading
from flaxrnn.datasets.reading import Format
from flaxrnn.datasets.rows import Fields
from flaxrnn.errors import ConfigError, DataError

# What an error of the reader names, and what a command calls it.
FLAGS = {
    "data.path": "--file",
    "data.text_field": "--field",
    "data.label_field": "--label_field",
    "data.label_separator": "--label_separator",
    "data.encoding": "--encoding",
    "data.delimiter": "--delimiter",
    "data.header=False": "--no-header",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that name a file and say how to read it."""
    parser.add_argument(
        "--file",
        help="one text per line in a .txt file; or .csv, .tsv, .json, .jsonl, .parquet, also .gz",
    )
    parser.add_argument("--field", help="its column or key of the texts; default: the model's own")
    parser.add_argument(
        "--encoding", default="utf-8", help="of the file or stdin, such as cp949; default: utf-8"
    )
    parser.add_argument(
        "--delimiter",
        help="what separates its columns; default: as in training, for the same suffix",
    )
    parser.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether its first row names the columns; default: likewise",
    )


def format_of(flags: argparse.Namespace, data: DataConfig) -> Format:
    """How to read the file: as the flags say, else as the model's own texts if those end so, too.

    The encoding is that of the flags alone: a file in another one might be misread without notice.
    """
    suffixes = {decoding.suffix_of(Path(path)) for path in (flags.file, data.path or "")}
    own = Format(delimiter=data.delimiter, header=data.header) if len(suffixes) == 1 else Format()
    return Format(
        flags.encoding,
        own.delimiter if flags.delimiter is None else flags.delimiter,
        own.header if flags.header is None else flags.header,
    )


def from_file(flags: argparse.Namespace, data: DataConfig, several: bool = False) -> list[str]:
    """All texts of `--file`, as training reads them.

    Args:
        flags: Those of `add_flags`.
        data: What the model's config says about its own texts.
        several: Whether its texts may have several labels, or none.

    Raises:
        ConfigError: `--field` names a column of a file that has none.
        DataError: The file cannot be read, or lacks the field.
    """
    path, file_format = Path(flags.file).expanduser(), format_of(flags, data)
    if flags.field and not reading.has_fields(path, file_format):
        raise ConfigError(f"--field: {path} has one text per line, without fields")
    fields = Fields(flags.field or data.text_field, None, several)
    with named_as_flags():
        return [row.text for row in reading.read_rows(path, read_bytes(path), fields, file_format)]


def read_bytes(path: Path) -> bytes:
    """The content of `--file`.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"--file: {path} cannot be read ({error.strerror})") from None


@contextlib.contextmanager
def named_as_flags() -> Iterator[None]:
    """In errors of the reader, names the flags of a command where training names config fields."""
    try:
        yield
    except DataError as error:
        message = str(error)
        for field, flag in FLAGS.items():
            message = message.replace(field, flag)
        raise DataError(message) from None


def from_stdin(encoding: str) -> Iterator[str]:
    """One text per line, read as it is needed; on a terminal, asks for them.

    Raises:
        DataError: A line is not in this encoding.
    """
    if sys.stdin.isatty():
        print("Enter one text per line; Ctrl-D ends.", file=sys.stderr)
    with named_as_flags():
        by_line = True
        with contextlib.suppress(LookupError):  # `decode` reports it
            by_line = "\n".encode(encoding) == b"\n"
        content = sys.stdin.buffer if by_line else [sys.stdin.buffer.read()]
        for number, line in enumerate(content, 1):
            decoded = decoding.decode("stdin", line, encoding, number)
            for text in decoded.removesuffix("\n").split("\n"):
                yield reading.without_labels(text.removesuffix("\r"))


def as_list(texts: str | Iterable[str]) -> list[str]:
    """The texts, of which a single string is one.

    Raises:
        DataError: Something else than a string is among them.
    """
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        raise DataError(f"texts: {texts!r:.40} is neither a string nor a list of strings")
    found = list(texts)
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise DataError(f"text {i} is not a string but {type(text).__name__}: {text!r:.40}")
    return found

"""What the commands share: flags and errors in one line, and text in columns."""

from __future__ import annotations

import argparse
import itertools
import os
import re
import signal
import sys
import unicodedata
from collections.abc import Callable
from typing import NoReturn

from flaxrnn.errors import ConfigError, FlaxrnnError

_COLOUR = re.compile("\x1b\\[[0-9;]*m")


class Parser(argparse.ArgumentParser):
    """A parser of flags whose errors are those of the package."""

    def error(self, message: str) -> NoReturn:
        """Raises a ConfigError."""
        raise ConfigError(message.removeprefix("argument "))


def run(main: Callable[[], None]) -> None:
    """Runs a command: its errors are one line, Ctrl-C and a closed pipe end it without a word."""
    for name in ("SIGINT", "SIGPIPE"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        main()
        sys.stdout.flush()
    except FlaxrnnError as error:
        sys.stdout.flush()
        sys.exit(_print_error(str(error), error.exit_code))
    except OSError as error:
        # Without another try to write what is left of the output.
        os._exit(_print_error(f"reading or writing failed ({error.strerror})", 1))


def _print_error(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return code


def width(text: str) -> int:
    """Columns that a text takes on a terminal; colours take none."""
    return sum(map(_columns, _COLOUR.sub("", text)))


def printable(text: str, instead: str = " ") -> str:
    """A text without what a terminal would obey, white space and controls."""
    return "".join(c if c.isprintable() else instead for c in text)


def fit(text: str, columns: int) -> str:
    """The beginning of a text, in one line of so many columns at most."""
    clean = " ".join(printable(text[: 4 * columns]).split())  # a text may have a million characters
    if width(clean) <= columns and len(text) <= 4 * columns:
        return clean
    ends = itertools.accumulate(map(_columns, clean))
    return clean[: sum(end < columns for end in ends)] + "…"


def wrap(text: str, columns: int, indent: int) -> list[str]:
    """Lines of so many columns, if no word is longer; colours take none."""
    lines: list[list[str]] = []
    left = 0
    for word in text.split():
        if width(word) > left:
            lines.append([])
            left = columns - indent
        lines[-1].append(word)
        left -= width(word) + 1
    return [" " * indent + " ".join(line) for line in lines]


def table(rows: list[list[str]]) -> str:
    """Rows of cells, the header first, in columns: the first on the left, the others right."""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        gaps = [" " * (w - width(cell)) for cell, w in zip(row, widths, strict=True)]
        rest = [gap + cell for cell, gap in zip(row[1:], gaps[1:], strict=True)]
        lines.append("  ".join([row[0] + gaps[0], *rest]).rstrip())
    return "\n".join(lines)


def _columns(c: str) -> int:
    if unicodedata.combining(c):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1

"""What the commands share: flags, one-line errors, and text in columns."""

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
    """A flag parser that raises the package's errors instead of exiting."""

    def error(self, message: str) -> NoReturn:
        """Raises a ConfigError with argparse's message."""
        raise ConfigError(message.removeprefix("argument "))


def add_allow_module(parser: argparse.ArgumentParser) -> None:
    """Adds the flag of the commands that load a workdir."""
    parser.add_argument(
        "--allow-module",
        action="append",
        default=[],
        metavar="MODULE",
        help="module of your own cell or head that the workdir names and that may be run",
    )


def run(main: Callable[[], None]) -> None:
    """Runs a command: its errors are one line, Ctrl-C and a closed pipe end it silently."""
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
        # sys.exit would try once more to flush the output, and fail again.
        os._exit(_print_error(f"reading or writing failed ({error.strerror})", 1))


def _print_error(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return code


def width(text: str) -> int:
    """Columns that a text occupies on a terminal, not counting colour codes."""
    return sum(map(_columns, _COLOUR.sub("", text)))


def printable(text: str, replacement: str = " ") -> str:
    """A text with control characters and all white space but the space replaced."""
    return "".join(c if c.isprintable() else replacement for c in text)


def fit(text: str, columns: int) -> str:
    """The beginning of a text as one line of at most `columns` columns."""
    clean = " ".join(printable(text[: 4 * columns]).split())  # a text may have a million characters
    if width(clean) <= columns and len(text) <= 4 * columns:
        return clean
    ends = itertools.accumulate(map(_columns, clean))
    return clean[: sum(end < columns for end in ends)] + "…"


def wrap(text: str, columns: int, indent: int) -> list[str]:
    """Indented lines of at most `columns` columns, except where a single word is longer."""
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
    """Aligns rows of cells, header included: the first column left, the others right."""
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

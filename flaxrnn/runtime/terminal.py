"""What the commands share: flags, one-line errors, and text in columns."""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import re
import shlex
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from flaxrnn.errors import ConfigError, FlaxrnnError, OutputError

_COLOUR = re.compile("\x1b\\[[0-9;]*m")


class Parser(argparse.ArgumentParser):
    """A flag parser that raises the package's errors instead of exiting.

    A flag is given by its whole name, so that new ones change the meaning of no command.
    """

    def __init__(self, prog: str, description: str | None = None):
        """A parser of a command's flags."""
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raises a ConfigError with argparse's message."""
        raise ConfigError(message.removeprefix("argument "))


def probability(value: str) -> float:
    """The value of a flag that is a number from 0 to 1."""
    with contextlib.suppress(ValueError):
        if 0 <= (number := float(value)) <= 1:
            return number
    raise argparse.ArgumentTypeError(f"{value} must be a number from 0 to 1")


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
    """Runs a command: its errors are one line, Ctrl-C and a closed pipe end it silently.

    A Ctrl-C that is ignored, as in the background of a script, stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "SIGPIPE"):  # which Python itself ignores
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        check_streams()
        main()
        sys.stdout.flush()
    except OutputError as error:
        # sys.exit would try once more to flush the output, and fail again.
        exit_with(error_line(str(error)), error.exit_code)
    except FlaxrnnError as error:
        with contextlib.suppress(OSError, OutputError):  # the error is what counts
            sys.stdout.flush()
        sys.exit(_print_error(str(error), error.exit_code))
    except OSError as error:
        report_os_error(error)


def check_streams() -> None:
    """Makes sure that the process can print any text.

    Raises:
        OutputError: Standard output is closed.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (as long as the process)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        raise OutputError("standard output is closed")
    out: Any = sys.stdout
    if type(out) is io.TextIOWrapper:
        encoding, lines = out.encoding, out.line_buffering
        sys.stdout = _Output(out.detach(), encoding, "backslashreplace", None, lines)


class _Output(io.TextIOWrapper):
    """Standard output; a failure to write it cannot be taken for that of another file.

    Raises:
        BrokenPipeError: Its reader has gone.
        OutputError: It cannot be written, for example because the disk is full.
    """

    def write(self, text: str) -> int:
        with _as_output_error():
            return super().write(text)

    def flush(self) -> None:
        with _as_output_error():
            super().flush()


@contextlib.contextmanager
def _as_output_error() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output cannot be written ({error.strerror})") from None


def exit_with(line: str, code: int) -> NoReturn:
    """Prints a last line and ends the process at once, without waiting for others or for XLA."""
    with contextlib.suppress(OSError, OutputError):
        sys.stdout.flush()
    print(line, file=sys.stderr, flush=True)
    os._exit(code)


def report_os_error(error: OSError) -> NoReturn:
    """Ends the process with what could not be read or written, and why."""
    reason = error.strerror or error
    if error.filename is not None:  # a path that the user named
        exit_with(error_line(f"{error.filename} cannot be read or written ({reason})"), 2)
    exit_with(error_line(f"reading or writing failed ({reason})"), 1)


def error_line(message: str) -> str:
    """The line that reports an error: at most 500 characters, of which the end says what to do."""
    line = escaped(f"error: {message}")
    return line if len(line) <= 500 else f"{line[:300]} … {line[-197:]}"


def _print_error(message: str, code: int) -> int:
    print(error_line(message), file=sys.stderr, flush=True)
    return code


def escaped(text: str) -> str:
    """A text whose control characters, which a terminal would obey, are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def quoted(arguments: Iterable[str]) -> str:
    """A command line that a shell reads as these arguments, in printable characters."""
    return " ".join(map(_quote, arguments))


def _quote(argument: str) -> str:
    if argument.isprintable():
        return shlex.quote(argument)
    parts = []
    for c in argument:
        if c.isprintable():
            parts.append(f"\\{c}" if c in "\\'" else c)
        else:
            # Half a surrogate pair stands for a byte of the command line that is not UTF-8.
            errors = "surrogateescape" if "\udc80" <= c <= "\udcff" else "surrogatepass"
            parts += [f"\\x{byte:02x}" for byte in c.encode("utf-8", errors)]
    return f"$'{''.join(parts)}'"  # as Bash, zsh and POSIX 2024 have it


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
    rows = [[escaped(cell) for cell in row] for row in rows]
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

import io
import os
import shlex
import subprocess
import sys

import pytest
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st

from flaxrnn.errors import ConfigError, OutOfMemoryError, WorkdirError
from flaxrnn.runtime import terminal

COLOURED = "\x1b[1maa\x1b[0m"


def test_width_counts_columns_and_not_characters():
    assert [terminal.width(text) for text in ("abc", "很", "é", "e\u0301", COLOURED)] == [
        3, 2, 1, 1, 2,
    ]  # fmt: skip


def test_fit_cuts_by_columns_and_removes_controls():
    assert terminal.fit("a\n b\x1b", 5) == "a b"
    assert terminal.fit("很很很", 5) == "很很…"
    assert terminal.fit("x" * 1_000_000, 5) == "xxxx…"


@given(st.text(max_size=100), st.integers(2, 40))
def test_any_text_fits_on_one_line(text, columns):
    shown = terminal.fit(text, columns)
    assert terminal.width(shown) <= columns
    assert shown.isprintable()


def test_wrap_indents_and_ignores_colours():
    assert terminal.wrap(f"{COLOURED} bb cc", 7, 2) == [f"  {COLOURED} bb", "  cc"]
    assert terminal.wrap("a longer-than-the-line b", 8, 2) == [
        "  a",
        "  longer-than-the-line",
        "  b",
    ]


@pytest.mark.parametrize(
    ("encoding", "shown"), [("cp1252", "é \\uae0d\\uc815 \\u2500"), ("cp949", "\\xe9 긍정 ─")]
)
def test_what_the_encoding_of_stdout_lacks_is_escaped(encoding, shown, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    terminal.run(lambda: print("é 긍정 ─", end=""))
    assert written.getvalue().decode(encoding) == shown


def test_table_aligns_wide_characters():
    assert terminal.table([["a", "b"], ["很", "100"]]) == "a     b\n很  100"


CONTROLS = ["\x1b[2J", "\x9b31m", "a\nb", "\u202egnp.exe", "\u2066", "\ud800", "\x00", "\x7f", "\r"]


@pytest.mark.parametrize("text", CONTROLS)
def test_what_a_terminal_would_obey_is_shown(text):
    shown = terminal.escaped(text)
    assert shown.isprintable()
    assert shown.encode().decode("unicode_escape").encode("utf-16", "surrogatepass") == text.encode(
        "utf-16", "surrogatepass"
    )
    assert terminal.escaped("a naïve 긍정 label") == "a naïve 긍정 label"
    table = terminal.table([["run", "value"], [text, "1"]])
    assert table.count("\n") == 1
    assert table.replace("\n", "").isprintable()


@given(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=9), max_size=4))
def test_a_quoted_command_is_read_back_by_a_shell(arguments):
    arguments = [a.encode("utf-8", "replace").decode() for a in arguments]
    line = terminal.quoted(arguments)
    assert line.isprintable()
    if "$'" not in line:
        assert shlex.split(line) == arguments


def test_a_shell_reads_the_quoted_arguments():
    arguments = ["a b", "$(id)", "it's", "x\ny", "\x1b[2J", "\\\n'", "é\t", "`", "", "\udcff"]
    assert terminal.quoted(["\ud800"]).isprintable()
    script = f"printf '%s\\0' {terminal.quoted(arguments)}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(a) for a in arguments]


def test_an_error_has_at_most_500_printable_characters():
    line = terminal.error_line("train.x: " + "y\x1b" * 5_000 + " must be 1")
    assert len(line) <= 500
    assert line.isprintable()
    assert line.startswith("error: train.x: y")
    assert line.endswith(" must be 1")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_closed_stream_is_named_or_does_without(name):
    number = {"stdout": 1, "stderr": 2}[name]
    command = f"exec {sys.executable} -m flaxrnn.predict --workdir nowhere --top 0 x {number}>&-"
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    shown = {"stdout": "error: standard output is closed\n", "stderr": ""}[name]
    assert (done.returncode, done.stderr) == ({"stdout": 1, "stderr": 2}[name], shown)


def test_a_path_that_cannot_be_read_is_named():
    done = subprocess.run(
        [sys.executable, "-c", "from flaxrnn.runtime import terminal\n"
         "terminal.run(lambda: open('x' * 300))"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    expected = f"error: {'x' * 300} cannot be read or written (File name too long)\n"
    assert done.stderr == terminal.error_line(expected[7:-1]) + "\n"


def test_parser_raises_instead_of_exiting():
    parser = terminal.Parser(prog="command")
    parser.add_argument("--count", type=int)
    with pytest.raises(ConfigError, match=r"^--count: invalid int value: 'x'$"):
        parser.parse_args(["--count", "x"])


@pytest.mark.parametrize("error", [WorkdirError("a: b"), OutOfMemoryError("a: b")])
def test_an_error_is_one_line_with_its_exit_code(error, capsys, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def main():
        raise error

    with pytest.raises(SystemExit) as exited:
        terminal.run(main)
    assert exited.value.code == error.exit_code
    assert capsys.readouterr() == ("", "error: a: b\n")

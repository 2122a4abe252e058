import io

import pytest
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


@pytest.mark.parametrize(("encoding", "shown"), [("cp1252", "é ?? ?"), ("cp949", "? 긍정 ─")])
def test_what_the_encoding_of_stdout_lacks_is_a_question_mark(encoding, shown, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    terminal.run(lambda: print("é 긍정 ─", end=""))
    assert written.getvalue().decode(encoding) == shown


def test_table_aligns_wide_characters():
    assert terminal.table([["a", "b"], ["很", "100"]]) == "a     b\n很  100"


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

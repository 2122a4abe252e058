"""What a run prints."""

import io
import sys
import time
from pathlib import Path

from helpers import ATTACK, finished_run

from flaxrnn.reporting import console


def test_the_banner_names_what_was_looked_for():
    banner = console.synthetic_banner("synthetic_imdb/1.0.0", "no a.tar.gz in /b and http://c …")
    assert "EMBEDDED SYNTHETIC CORPUS: synthetic_imdb/1.0.0\n" in banner
    assert "**  no a.tar.gz in /b and http://c ….\n" in banner
    assert "archive" not in console.synthetic_banner("synthetic_imdb/1.0.0", None)


def test_line_of_an_epoch():
    _, history, _ = finished_run()
    assert console.epoch_line(history[3], best_epoch=4, epochs=200, patience=5) == (
        "epoch   4/200 | train loss 0.5000 accuracy 0.8750 | validation loss 0.9500 accuracy 0.7250"
        " | 4.2 s, 5,419 texts/s | best so far"
    )
    row = {**history[5], "skipped_steps": 7}
    line = console.epoch_line(row, best_epoch=4, epochs=200, patience=5)
    assert line.endswith(" | best 2 of 5 epochs ago | 7 steps skipped")
    line = console.epoch_line(row, best_epoch=4, epochs=200, patience=None)
    assert line.endswith(" | best 2 epochs ago | 7 steps skipped")
    row["val_macro_f1"] = 0.25
    assert "macro-F1 0.2500" in console.epoch_line(row, 4, 200, 5, monitor="macro_f1")


def test_refit():
    result, history, _ = finished_run()
    assert console.refit_line(history[1], epochs=5) == (
        "refit epoch 2/5 | train loss 1.0000 accuracy 0.7500 | 4.2 s, 5,419 texts/s"
    )
    lines = console.outcome({**result, "refit": True}, Path("report.html")).splitlines()
    assert lines[-1] == "  report      report.html"
    assert lines[2] == "  validation  loss 0.9500  accuracy 0.7250 (before the refit)"


def test_outcome():
    result, _, _ = finished_run()
    assert console.outcome(result, Path("runs/a/report.html")).splitlines() == [
        "",
        "reuters_topics/keras/1.0.0 (real corpus), seed 3: 7 epochs, the best was 4",
        "  validation  loss 0.9500  accuracy 0.7250",
        "  test        loss 1.0647  accuracy 0.7386  macro-F1 0.2801",
        "  95%         accuracy 0.7201 to 0.7563  macro-F1 0.2510 to 0.3092",
        "  largest     accuracy 0.3619  (always the largest class)",
        "  seconds     startup 1.0, ngrams 0.0, compile 2.0, train 30.0, input 0.5, eval 2.0,"
        " test 1.0, total 36.2",
        "  speed       5,419 texts/s, 528,022 tokens/s in training",
        "  report      runs/a/report.html",
    ]


def test_outcome_ends_with_the_warnings():
    result, _, _ = finished_run(warnings=["One thing.", "Another."])
    lines = console.outcome(result, Path("report.html")).splitlines()
    assert lines[-2:] == ["  warning     One thing.", "  warning     Another."]


def test_closing_shows_mistakes_and_the_command():
    _, _, details = finished_run()
    names, folder = details.label_names, Path("runs/a b")
    first, second, command = console.closing(details.mistakes, names, folder).splitlines()
    assert first.startswith(f"  mistakes    unseen (0.99), not {ATTACK}: {ATTACK} and so on")
    assert first.endswith("…")
    assert second == f"              {ATTACK} (0.50), not unseen: short"
    assert command == ("  predict     python -m flaxrnn.predict --workdir 'runs/a b' 'A new text.'")
    lines = console.closing(details.mistakes * 3, names, folder).splitlines()
    assert len(lines) == 4
    assert console.closing([], names, folder).startswith(
        "  mistakes    none among the test texts\n"
    )


def test_an_installed_command_is_named_as_such(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/flaxrnn", "train"])
    assert "  predict     flaxrnn predict --workdir a " in console.closing([], [], Path("a"))


def test_waiting_is_a_line_in_a_pipe(capsys):
    with console.waiting("compiling"):
        pass
    assert capsys.readouterr() == ("compiling…\n", "")


def test_waiting_counts_the_seconds_on_a_terminal(monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    try:
        with console.waiting("compiling"):
            time.sleep(1.2)
            raise KeyError
    except KeyError:
        pass
    shown = sys.stderr.getvalue()
    assert shown.startswith("\rcompiling… 0 s\rcompiling… 1 s")
    assert shown.endswith(f"\r{' ' * 14}\r")  # and leaves an empty line
    assert capsys.readouterr().out == ""

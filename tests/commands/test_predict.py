"""`python -m flaxrnn.predict` as a user runs it, on tiny models."""

import gzip
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, loaded, python

from flaxrnn import predict
from flaxrnn.data import splitting
from flaxrnn.inference import formats
from flaxrnn.runtime import terminal

MAXLEN = 20


def rows(capsys, *arguments):
    predict.main(list(map(str, arguments)))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def start(*arguments, **keywords):
    command = [*python(), "-m", "flaxrnn.predict", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, **keywords)


def test_texts_as_arguments(imdb_workdir, capsys):
    long = "good " * 30
    texts = ["Good film", " .,", "平 never", long]
    found = rows(capsys, "--workdir", imdb_workdir, *texts, "--top", "2")
    assert [row["index"] for row in found] == [0, 1, 2, 3]
    assert [row["unknown"] for row in found] == [0, None, 1, 0]
    assert [row["words"] for row in found] == [2, 0, 2, 30]
    assert [row["words_read"] for row in found] == [2, 0, 2, MAXLEN]
    assert [row["note"] for row in found] == [
        None, "no words", "every word is unknown", "the last 20 of 30 words were read"
    ]  # fmt: skip
    assert (found[1]["label"], found[1]["probability"], found[1]["top"]) == (None, None, [])
    labels, probabilities = loaded(imdb_workdir).predict([texts[0], texts[2], long])
    for row, label, expected in zip(found[:1] + found[2:], labels, probabilities, strict=True):
        assert row["label"] == label
        assert row["top"][0] == {"label": label, "probability": row["probability"]}
        shown = [entry["probability"] for entry in row["top"]]
        assert shown == pytest.approx(sorted(expected, reverse=True), abs=1e-5)


def test_explanations_name_the_words_as_spelled(imdb_workdir, capsys):
    texts = ["A GOOD, well-made Film!", "", "x " * 25]
    found = rows(capsys, "--workdir", imdb_workdir, "--explain", *texts)
    words = [entry["word"] for entry in found[0]["explanation"]]
    assert words == ["A", "GOOD", "well", "made", "Film"]
    assert found[1]["explanation"] == []
    assert len(found[2]["explanation"]) == MAXLEN
    model = loaded(imdb_workdir)
    (weights,) = model.explain([model.encode(texts[0])])[1]
    shown = [entry["weight"] for entry in found[0]["explanation"]]
    assert shown == pytest.approx(list(weights), abs=1e-4)


# Without the time, since it is in the name of a test, which all processes must agree on.
GZIPPED = gzip.compress("good film\n.\n".encode("utf-16"), mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "flags"),
    [
        ("a.txt", "good film\n.\n", []),
        ("a.csv", "id,body\n1,good film\n2,\n", ["--field", "body"]),
        ("a.jsonl", '{"body": "good film"}\n{"body": ""}\n', ["--field", "body"]),
        ("a.csv", "label,text\nbad,good film\nbad,?\n", []),
        ("a.txt.gz", GZIPPED, ["--encoding", "utf-16"]),
    ],
)
def test_files_and_stdin(name, content, flags, imdb_workdir, tmp_path, capsys, monkeypatch):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = rows(capsys, "--workdir", imdb_workdir, "--file", tmp_path / name, *flags)
    assert [row["words"] for row in found] == [2, 0]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"good film\n")))
    assert rows(capsys, "--workdir", imdb_workdir) == found[:1]


def test_more_texts_than_a_chunk(imdb_workdir, monkeypatch, capsys):
    lines = "".join(f"good {i}\n" for i in range(40))
    monkeypatch.setattr(predict, "CHUNK_SIZE", 16)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    found = rows(capsys, "--workdir", imdb_workdir)
    assert [row["index"] for row in found] == list(range(40))


def test_below_a_threshold_there_is_no_label(imdb_workdir, capsys, monkeypatch):
    texts = ["good film", "oil", "good " * 30]
    labels, probabilities = loaded(imdb_workdir).predict(texts)
    best = probabilities.max(axis=1)
    threshold = float(np.sort(best)[1])  # not below itself
    arguments = ["--workdir", imdb_workdir, "--threshold", threshold, "--top", 2, *texts]
    found = rows(capsys, *arguments)
    lowest = int(best.argmin())
    for i, row in enumerate(found):
        assert row["label"] == (None if i == lowest else labels[i])
        assert row["probability"] == pytest.approx(best[i], abs=1e-5)
        assert row["top"][0]["label"] == labels[i]
        assert (row["note"] or "").startswith("unsure: below ") == (i == lowest)
    predict.main([*map(str, arguments), "--format", "table"])
    shown = capsys.readouterr().out.splitlines()[1 + 2 * lowest]
    assert shown.split()[:2] == [str(lowest), "?"]
    assert "(unsure: below " in shown
    assert rows(capsys, *arguments, "--threshold", 1)[0]["label"] is None


def test_table(imdb_workdir, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    arguments = ["--workdir", str(imdb_workdir), "--format", "table", "--top", "2", "--explain"]
    predict.main([*arguments, "Good, not BAD film", "?!"])
    out = capsys.readouterr().out
    header, *lines = out.splitlines()
    assert header.split()[:4] == ["index", "label", "probability", "unknown"]
    assert all(terminal.width(line) <= 70 for line in lines)
    column = header.index("label")
    assert {line[column : column + 3] for line in lines[:2]} == {"neg", "pos"}
    assert re.search(r"(Good|not|BAD|film)\([+-]\d\.\d\d\)", lines[2])
    assert lines[-1].split() == ["1", "-", "-", "-", "(no", "words)"]
    assert "\x1b" not in out


def in_a_terminal(arguments, **env):
    """What the command shows on a terminal."""
    ours, theirs = pty.openpty()
    started = start(*arguments, stdout=theirs, stdin=theirs, env={**os.environ, **env})
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 1024):
            shown += part
    except OSError:  # how Linux reports that the other end is closed
        pass
    os.close(ours)
    assert started.communicate()[1] == ""
    assert started.returncode == 0
    return shown.decode()


def test_a_terminal_gets_a_table_in_colour(imdb_workdir):
    text = "good film, bad plot, of a very oil"
    arguments = ["--workdir", imdb_workdir, "--explain", text]
    shown = in_a_terminal(arguments, TERM="xterm", NO_COLOR="")
    assert " index  label  probability  unknown  green: for the label, red: against" in shown
    coloured = re.findall("\x1b\\[30;48;5;(\\d+)m(\\w+)\x1b\\[0m", shown)
    model = loaded(imdb_workdir)
    (weights,) = model.explain([model.encode(text)])[1]
    supports = {w: weight > 0 for w, weight in zip(splitting.tokenize(text), weights, strict=True)}
    assert {int(shade) in formats.GREENS for shade, _ in coloured} == {True, False}
    assert all((int(shade) in formats.GREENS) == supports[word] for shade, word in coloured)
    assert "\x1b" not in in_a_terminal(arguments, TERM="xterm", NO_COLOR="1")


def test_a_typed_line_is_answered_at_once(imdb_workdir):
    ours, theirs = pty.openpty()
    started = start("--workdir", imdb_workdir, stdin=theirs, stdout=subprocess.PIPE)
    os.close(theirs)
    os.write(ours, b"good film\n")
    ready, _, _ = select.select([started.stdout], [], [], 120)
    os.write(ours, b"\x04")
    out, err = started.communicate()
    os.close(ours)
    assert ready
    assert json.loads(out)["words"] == 2
    assert err == "Enter one text per line; Ctrl-D ends.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x"], "--workdir"),
        (["--workdir", "{w}", "--top", "0", "x"], "--top: 0 must be a whole number of at least 1"),
        (["--workdir", "{w}", "--top", "x", "x"], "--top: invalid int value: 'x'"),
        (["--workdir", "{w}", "--top", "3", "x"], "--top: 3 must be at most 2, the number of lab"),
        (["--workdir", "{w}", "--threshold", "x", "x"], "--threshold: x must be a number from 0"),
        (["--workdir", "{w}", "--format", "csv", "x"], "--format: invalid choice: 'csv'"),
        (["--workdir", "{w}", "--topp", "3"], "--topp"),
        (["--workdir", "{w}", "--file", "x", "text"], "--file: cannot be combined with texts"),
        (["--workdir", "{w}", "--file", "{w}"], "cannot be read (Is a directory)"),
        (["--workdir", "{w}", "--file", "nope"], "nope cannot be read (No such file"),
        (["--workdir", "{w}", "--file", "{t}/a.csv"], "no column 'text'; it has x, y"),
        (["--workdir", "{w}", "--field", "a"], "--field: only a --file has fields"),
        (["--workdir", "{w}", "--file", "{t}/a.csv", "--field", "b"], "no column 'b'; it has x, y"),
        (["--workdir", "/nope", "x"], "--workdir: no trained model in /nope"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments, message, imdb_workdir, tmp_path, capsys, monkeypatch
):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    arguments = [argument.format(w=imdb_workdir, t=tmp_path) for argument in arguments]
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        terminal.run(lambda: predict.main(arguments))
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_closed_pipe_and_ctrl_c_end_it_silently(imdb_workdir, tmp_path):
    path = tmp_path / "many.txt"
    path.write_text("good film\n" * 20_000)
    reading = start("--workdir", imdb_workdir, "--file", path, stdout=subprocess.PIPE)
    assert json.loads(reading.stdout.readline())["index"] == 0
    reading.stdout.close()
    assert reading.stderr.read() == ""
    assert reading.wait() == -signal.SIGPIPE
    reading.stderr.close()

    waiting = start("--workdir", imdb_workdir, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    time.sleep(0.7)
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait() == -signal.SIGINT  # although there may be more to read
    assert waiting.communicate() == ("", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(imdb_workdir):
    with open("/dev/full", "w") as full:
        started = start("--workdir", imdb_workdir, "good", stdout=full)
        _, error = started.communicate()
    assert error == "error: standard output cannot be written (No space left on device)\n"
    assert started.returncode == 1

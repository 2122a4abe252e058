"""`python -m flaxrnn.predict` as a user runs it, and the classifier under it, on a tiny model."""

import functools
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

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

import flaxrnn
from configs import imdb, reuters
from flaxrnn import predict
from flaxrnn.data import tokenizers
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.errors import WorkdirError
from flaxrnn.inference import predictor
from flaxrnn.nn import models
from flaxrnn.runtime import files, terminal
from flaxrnn.training import checkpoint, steps

WORDS = ["the", "a", "of", "and", "good", "bad", "not", "very", "film", "plot", "oil", "grain"]
MAXLEN = 20
NONE = "no text in 'body'"


def make_workdir(folder, config, labels):
    """What a run leaves for predictions, with initial parameters that are far from even."""
    config.data.maxlen = MAXLEN
    config.data.num_words = 16
    config.model.update({"embedding_size": 6, "hidden_size": 5})
    config.model.conv_filters = min(config.model.conv_filters, 4)
    config.train.update({"batch_size": 6, "eval_batch_size": 17})
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    (folder / "labels.json").write_text(json.dumps(labels))
    Vocabulary(WORDS).save(folder / "vocabulary.json")
    model = models.build(config.model, config.data.num_words, len(labels))
    params = models.init_params(model, jax.random.key(0))
    params = jax.tree.map(lambda leaf: 3 * leaf, params)
    params["embed"]["embedding"] *= 10
    checkpoints = checkpoint.Checkpoints(folder / "checkpoints")
    state = steps.TrainState(np.int32(7), np.zeros(2, np.uint32), params, (), params)
    checkpoints.save(state, params, {}, wait=True)
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict") / "imdb"
    return make_workdir(folder, imdb.get_config(), ["neg", "pos"])


@pytest.fixture(scope="module")
def topics(tmp_path_factory):
    """Three classes, and padding that is read as text."""
    folder = tmp_path_factory.mktemp("predict") / "reuters"
    return make_workdir(folder, reuters.get_config("keras"), ["earn", "acq", "grain"])


@functools.cache
def loaded(folder):
    return predictor.load(folder)


def run(capsys, *arguments):
    predict.main(list(map(str, arguments)))
    return capsys.readouterr().out


def rows(capsys, *arguments):
    return [json.loads(line) for line in run(capsys, *arguments).splitlines()]


def start(*arguments, **keywords):
    command = [sys.executable, "-m", "flaxrnn.predict", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, **keywords)


# Up to 10,000 characters of any kind, without the time to draw each of them.
anything = st.text(max_size=60) | st.builds(
    lambda piece, times: (piece * times)[:10_000],
    st.text(min_size=1, max_size=40) | st.sampled_from([f"{word} " for word in WORDS]),
    st.integers(1, 10_000),
)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(anything, max_size=40))
def test_any_text_is_classified_as_it_is_alone(workdir, topics, texts):
    for folder in (workdir, topics):
        model = loaded(folder)
        texts = [raw for raw in texts if tokenizers.tokenize(raw)]
        labels, probabilities = model.predict(texts)
        assert len(labels) == len(texts)
        np.testing.assert_allclose(probabilities.sum(axis=1), np.ones(len(texts)), rtol=1e-5)
        for i, raw in enumerate(texts[:3]):
            np.testing.assert_allclose(model.predict([raw])[1][0], probabilities[i], atol=1e-5)
        back = model.predict(texts[::-1])[1][::-1]
        np.testing.assert_allclose(back, probabilities, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(anything, max_size=20))
def test_any_text_has_its_row(workdir, texts):
    records = map(predict.Record, texts)
    found = list(predict._classify(loaded(workdir), records, 7, top=2, explain=True))
    assert [row.place for row in found] == list(range(len(texts)))
    for raw, row in zip(texts, found, strict=True):
        count = len(tokenizers.tokenize(raw))
        assert row.reading.words == count
        assert len(row.reading.spans) == min(count, MAXLEN)
        assert bool(row.top) == bool(count)
        assert (row.note is None) == (0 < count <= MAXLEN)
        if count:
            assert len(row.weights) == len(row.reading.spans)
            assert row.top[0][1] >= row.top[1][1]
            assert 0 <= row.reading.unknown <= 1
            shown = terminal.wrap("".join(predict._marked(row, True, 80)), 80, 8)
            assert all(c.isprintable() or c == "\x1b" for c in "".join(shown))


@given(raw=anything)
def test_spans_are_the_words_as_they_are_spelled(raw):
    words = [raw[begin:end] for begin, end in tokenizers.KERAS.locate(raw)[1]]
    assert len(words) == len(tokenizers.tokenize(raw))
    assert [word.lower() for word in words] == tokenizers.tokenize(raw) or "Σ" in raw


def test_a_weight_is_what_the_logit_would_lose(workdir, topics):
    """The slope of the logit as the embedding of one word shrinks, on either side."""
    for folder, sentence in ((workdir, "not A very Good film"), (topics, "oil, grain of bad plot")):
        model = loaded(folder)
        (reading,) = [model.read(sentence)]
        (probabilities,), (weights,) = model.explain([reading])
        np.testing.assert_allclose(probabilities, model.predict([sentence])[1][0], atol=1e-6)
        params = jax.device_get(model._params)
        size, label = len(model.label_names), probabilities.argmax()
        logits = functools.partial(models.logits, models.build(model._settings.model, 16, size))
        post = model._settings.data.padding == "post"
        tokens = reading.ids if post else np.pad(reading.ids, (MAXLEN - len(reading.ids), 0))

        @jax.jit
        def logit(word, factor, params=params, tokens=tokens, logits=logits, label=label):
            table = jnp.array(params["embed"]["embedding"]).at[word].multiply(factor)
            changed = {**params, "embed": {"embedding": table}}
            out = logits(changed, tokens[None], jnp.array([len(tokens)]))[0]
            return out[label] if len(out) > 1 else (2 * label - 1) * out[0]

        want = [(logit(word, 1.01) - logit(word, 0.99)) / 0.02 for word in reading.ids[1:]]
        assert max(map(abs, want)) > 0.01
        np.testing.assert_allclose(weights, want, rtol=0.05, atol=1e-3)


def test_rows_of_texts_of_all_kinds(workdir, capsys):
    long = "good " * 30
    found = rows(capsys, "--workdir", workdir, "Good film", " .,", "平 never", long, "--top", "2")
    assert [row["index"] for row in found] == [0, 1, 2, 3]
    assert [row["unknown"] for row in found] == [0, None, 1, 0]
    assert [row["words"] for row in found] == [2, 0, 2, 30]
    assert [row["words_read"] for row in found] == [2, 0, 2, MAXLEN]
    assert [row["note"] for row in found] == [
        None, "no words", None, "the last 20 of 30 words were read"
    ]  # fmt: skip
    assert (found[1]["label"], found[1]["probability"], found[1]["top"]) == (None, None, [])
    labels, probabilities = loaded(workdir).predict(["Good film"])
    assert found[0]["label"] == labels[0]
    np.testing.assert_allclose(found[0]["probability"], probabilities[0].max(), atol=1e-6)
    best = found[0]["top"]
    assert best[0] == {"label": found[0]["label"], "probability": found[0]["probability"]}
    np.testing.assert_allclose(best[0]["probability"] + best[1]["probability"], 1, atol=2e-6)


def test_explanation_has_the_words_read_as_they_are_spelled(workdir, capsys):
    found = rows(
        capsys, "--workdir", workdir, "--explain", "A GOOD, well-made Film!", "", "x " * 25
    )
    words = [item["word"] for item in found[0]["explanation"]]
    assert words == ["A", "GOOD", "well", "made", "Film"]
    assert found[1]["explanation"] == []
    assert len(found[2]["explanation"]) == MAXLEN


@pytest.mark.parametrize(
    ("name", "content", "notes"),
    [
        ("a.txt", "good film\n\nbad\r\nnot\rvery", [None, "no words", None, None]),
        ("a.txt", b"\xef\xbb\xbfgood\nbad \xff\n", [None, None]),
        ("a.txt", "", []),
        (
            "a.csv",
            'id,body\n1,"good\nfilm, very"\n2\n3,\n',
            [None, NONE, "no words"],
        ),
        ("a.csv", "id,body\n1," + "bad" * 100_000 + "\n", [None]),
        (
            "a.jsonl",
            '{"body": "good"}\n{"body": 7}\n{\n[]\n{"id": 1}\n' + "[" * 100_000 + '\n{"body": "a"}',
            [None, NONE, "the line is no JSON", NONE, NONE, "the line is no JSON", None],
        ),
    ],
)
def test_files(name, content, notes, workdir, tmp_path, capsys):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    field = [] if name == "a.txt" else ["--field", "body"]
    found = rows(capsys, "--workdir", workdir, "--file", path, *field)
    assert [row["note"] for row in found] == notes
    assert [row["index"] for row in found] == list(range(len(notes)))
    if found:
        assert found[0]["unknown"] == ("bad" * 100 in str(content))


def test_only_some_texts_are_held_at_a_time(workdir, monkeypatch, capsys):
    drawn = []

    def lines():
        for i in range(40):
            drawn.append(i)
            yield f"good {i}\n"

    monkeypatch.setattr(predict, "TEXTS_AT_ONCE", 16)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("".join(lines()).encode())))
    assert [row["index"] for row in rows(capsys, "--workdir", workdir)] == list(range(40))
    drawn.clear()
    found = predict._classify(loaded(workdir), map(predict.Record, lines()), 16, 1, False)
    assert next(found).place == 0
    assert len(drawn) == 16


def test_table(workdir, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    texts = ["Good \x1b[2J film " + "很" * 80, "?!", "a " * 30]
    out = run(capsys, "--workdir", workdir, "--format", "table", "--top", "2", *texts)
    header, *lines = out.splitlines()
    assert header.split() == ["index", "label", "probability", "unknown", "text"]
    assert len(lines) == 5
    assert all(terminal.width(line) <= 70 for line in lines)
    assert lines[0][header.index("text") :].startswith("Good [2J film 很")
    assert lines[0].endswith("很…")
    assert lines[2].split() == ["1", "-", "-", "-", "(no", "words)"]
    assert "(the last 20 of 30 words were" in lines[3]
    column = header.index("label")
    assert [line[column : column + 3] in ("neg", "pos") for line in lines] == [1, 1, 0, 1, 1]

    out = run(capsys, "--workdir", workdir, "--format", "table", "--explain", "Good, not BAD film")
    assert re.search(r"(Good|BAD|film)\([+-]\d\.\d\d\)", out)
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
    except OSError:  # Linux' way to say that the other end is closed
        pass
    os.close(ours)
    assert started.communicate()[1] == ""
    assert started.returncode == 0
    return shown.decode()


def test_terminal_has_a_table_and_colours(workdir):
    raw = "good film, bad plot, of a very oil"
    arguments = ["--workdir", workdir, "--explain", raw]
    shown = in_a_terminal(arguments, TERM="xterm", NO_COLOR="")
    assert " index  label  probability  unknown  green: for the label, red: against" in shown
    coloured = re.findall("\x1b\\[30;48;5;(\\d+)m(\\w+)\x1b\\[0m", shown)
    model = loaded(workdir)
    (weights,) = model.explain([model.read(raw)])[1]
    speak_for = {w: weight > 0 for w, weight in zip(tokenizers.tokenize(raw), weights, strict=True)}
    assert {int(shade) in predict._FOR for shade, _ in coloured} == {True, False}
    assert all((int(shade) in predict._FOR) == speak_for[word] for shade, word in coloured)
    assert "\x1b" not in in_a_terminal(arguments, TERM="xterm", NO_COLOR="1")


def test_of_a_long_text_the_end_is_read(workdir):
    reading = loaded(workdir).read("Bad start, " + "a " * (MAXLEN - 2) + "good END!")
    assert reading.text == "a " * (MAXLEN - 2) + "good END!"
    assert reading.text[slice(*reading.spans[-2])] == "good"
    assert (reading.words, len(reading.spans)) == (MAXLEN + 2, MAXLEN)


def test_a_typed_line_is_answered_at_once(workdir):
    ours, theirs = pty.openpty()
    started = start("--workdir", workdir, stdin=theirs, stdout=subprocess.PIPE)
    os.close(theirs)
    os.write(ours, b"good film\n")
    ready, _, _ = select.select([started.stdout], [], [], 120)
    os.write(ours, b"\x04")
    out, err = started.communicate()
    os.close(ours)
    assert ready
    assert json.loads(out)["words"] == 2
    assert err == "EncodedText texts, one a line; Ctrl-D ends.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x"], "--workdir"),
        (["--workdir", "{w}", "--top", "0", "x"], "--top: 0 must be a whole number of at least 1"),
        (["--workdir", "{w}", "--top", "x", "x"], "--top: invalid int value: 'x'"),
        (["--workdir", "{w}", "--top", "3", "x"], "--top: 3 must be at most 2, all labels"),
        (["--workdir", "{w}", "--format", "csv", "x"], "--format: invalid choice: 'csv'"),
        (["--workdir", "{w}", "--topp", "3"], "--topp"),
        (["--workdir", "{w}", "--file", "x", "text"], "--file: cannot be had together"),
        (["--workdir", "{w}", "--file", "{w}"], "cannot be read (Is a directory)"),
        (["--workdir", "{w}", "--file", "nope"], "nope cannot be read (No such file"),
        (["--workdir", "{w}", "--file", "a.csv"], "--field: missing; name the field of a.csv"),
        (["--workdir", "{w}", "--field", "a"], "--field: only a --file that ends in .jsonl or"),
        (["--workdir", "{w}", "--file", "{w}/a.csv", "--field", "b"], "no field 'b'; it has x, y"),
        (["--workdir", "{w}", "--file", "{w}/a.jsonl", "--field", "b"], "no field 'b'; it has x"),
        (["--workdir", "/nope", "x"], "--workdir: /nope: no trained model here"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, workdir, capsys, monkeypatch):
    (workdir / "a.csv").write_text("x,y\n1,2\n")
    (workdir / "a.jsonl").write_text('{"x": 1}\n')
    arguments = [argument.format(w=workdir) for argument in arguments]
    monkeypatch.setattr(signal, "signal", lambda *a: None)
    with pytest.raises(SystemExit) as caught:
        terminal.run(lambda: predict.main(arguments))
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_closed_pipe_and_ctrl_c_end_it_without_a_word(workdir, tmp_path):
    path = tmp_path / "many.txt"
    path.write_text("good film\n" * 20_000)
    reading = start("--workdir", workdir, "--file", path, stdout=subprocess.PIPE)
    assert json.loads(reading.stdout.readline())["index"] == 0
    reading.stdout.close()
    assert reading.stderr.read() == ""
    assert reading.wait() == -signal.SIGPIPE
    reading.stderr.close()

    waiting = start("--workdir", workdir, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    time.sleep(0.7)
    waiting.send_signal(signal.SIGINT)
    assert waiting.communicate() == ("", "")
    assert waiting.returncode == -signal.SIGINT


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(workdir):
    with open("/dev/full", "w") as full:
        started = start("--workdir", workdir, "good", stdout=full)
        _, error = started.communicate()
    assert error == "error: reading or writing failed (No space left on device)\n"
    assert started.returncode == 1


def test_a_workdir_is_only_read(workdir):
    """A run that is under way writes to it, and would be in trouble."""
    folder = workdir / "checkpoints"
    (folder / "9.123.part").mkdir(exist_ok=True)
    files.write_folder(folder / "8", {"weights.safetensors": b""})
    (folder / "8" / "weights.safetensors").write_bytes(b"x")
    before = sorted(folder.rglob("*"))
    assert flaxrnn.load(workdir).predict(["good"])[0] == loaded(workdir).predict(["good"])[0]
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "no trained model here"),
        ("config.json", '{"seed": 0}', "config.json: task: missing"),
        ("labels.json", None, "no trained model here"),
        ("vocabulary.json", "[]", "no readable vocabulary"),
        ("checkpoints", None, "no whole checkpoint here"),
    ],
)
def test_a_damaged_workdir_is_refused(name, content, message, tmp_path):
    folder = make_workdir(tmp_path / "run", imdb.get_config(), ["neg", "pos"])
    (folder / name).rename(folder / "gone")
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(WorkdirError, match=message):
        flaxrnn.load(folder)

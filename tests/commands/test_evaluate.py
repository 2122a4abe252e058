"""`python -m flaxrnn.evaluate` as a user runs it, on tiny models."""

import json
import signal

import numpy as np
import pytest
from helpers import loaded, saved_seeds, saved_workdir, shrink, write_csv
from sklearn.metrics import f1_score

from configs import imdb, reuters
from flaxrnn import evaluate
from flaxrnn.errors import ConfigError, DataError
from flaxrnn.runtime import terminal

TEXTS = ["good film", "bad", "oil", "the <b>plot</b>", "of a very good plot", "grain and oil"]
LABELS = ["pos", "neg", "pos", "neg", "neg", "pos"]
LEFT_OUT = [(" .,", "neg"), ("x", "other"), ("y", "third"), ("z", "other")]


def run(tmp_path, workdir, *arguments, rows=None):
    path = write_csv(tmp_path / "labelled.csv", rows or [*zip(TEXTS, LABELS, strict=True)])
    evaluate.main(["--workdir", str(workdir), "--file", str(path), *map(str, arguments)])


def test_figures_are_those_of_the_predictions(imdb_workdir, tmp_path, capsys):
    rows = [*zip(TEXTS, LABELS, strict=True), *LEFT_OUT]
    run(tmp_path, imdb_workdir, "--json", tmp_path / "e.json", "--threshold", 0.6, rows=rows)
    found = json.loads((tmp_path / "e.json").read_text())
    predicted, probabilities = loaded(imdb_workdir).predict(TEXTS)
    right = np.array(predicted) == LABELS
    assert 0 < right.mean() < 1
    assert (found["texts"], found["accuracy"]) == (6, right.mean())
    low, high = found["accuracy_interval"]
    assert 0 < low < right.mean() < high < 1
    assert found["macro_f1"] == pytest.approx(f1_score(LABELS, predicted, average="macro"))
    sure = probabilities.max(axis=1) >= 0.6
    assert found["above"] == {
        "threshold": 0.6, "share": pytest.approx(sure.mean()), "accuracy": right[sure].mean()
    }  # fmt: skip
    assert 0 < sure.mean() < 1
    assert found["classes"]["pos"]["support"] == 3
    assert sum(pair["texts"] for pair in found["confusion"]) == 6
    assert found["unknown_labels"] == {"other": 2, "third": 1}
    assert found["without_words"] == 1
    out = capsys.readouterr().out
    assert f"accuracy           {right.mean():.4f}  (95% interval {low:.4f} to {high:.4f}" in out
    low, high = found["macro_f1_interval"]
    assert 0 <= low < found["macro_f1"] < high <= 1
    assert f"{found['macro_f1']:.4f}  (95% interval {low:.4f} to {high:.4f})\n" in out
    assert "labels the model does not know: other (2), third (1)\n" in out
    assert "left out 1 texts without words\n" in out
    assert f"at least 0.6       {sure.mean():.1%} get a label" in out


def test_page_shows_the_mistakes(imdb_workdir, tmp_path, capsys):
    opposite = [
        "neg" if label == "pos" else "pos" for label in loaded(imdb_workdir).predict(TEXTS)[0]
    ]
    run(
        tmp_path,
        imdb_workdir,
        "--page",
        tmp_path / "e.html",
        rows=[*zip(TEXTS, opposite, strict=True)],
    )
    page = (tmp_path / "e.html").read_text("utf-8")
    assert page.count("<li>") == 6
    assert page.count('<p class="words">') == 6
    assert "the &lt;b&gt;plot&lt;/b&gt;" in page
    assert "<b>0.0000</b> 95% interval" in page
    assert f"written to {tmp_path / 'e.html'}" in capsys.readouterr().out


def test_a_folder_of_classes_is_read(imdb_workdir, tmp_path, capsys):
    for label in ("neg", "pos"):
        (tmp_path / "test" / label).mkdir(parents=True)
        (tmp_path / "test" / label / "1.txt").write_text("good film")
    evaluate.main(["--workdir", str(imdb_workdir), "--file", str(tmp_path / "test")])
    assert "accuracy           0.5000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threshold", "1.5"], "--threshold: 1.5 must be a number from 0 to 1"),
        (["--label_field", "y"], "--label_field: {t}/labelled.csv has no column 'y'"),
        (["--field", "body"], "--field: {t}/labelled.csv has no column 'body'; it has text, label"),
        (["--page", "/proc/x/e.html"], "--page: /proc/x/e.html cannot be written"),
        (["--workdir", "/nope"], "--workdir: no trained model in /nope"),
        (["--workdir", "{w}", "--file", ""], "--file: missing; name a file or folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments, message, imdb_workdir, tmp_path, capsys, monkeypatch
):
    arguments = [argument.format(w=imdb_workdir, t=tmp_path) for argument in arguments]
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        terminal.run(lambda: run(tmp_path, imdb_workdir, *arguments))
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message.format(t=tmp_path)}")
    assert err.count("\n") == 1


def test_a_language_model_is_none_that_can_be_evaluated(tmp_path):
    config = shrink(reuters.get_config(), target="next")
    workdir = saved_workdir(tmp_path / "run", config, ["a", "b"])
    with pytest.raises(ConfigError, match=r"model\.target: must be label for this; .* with next"):
        run(tmp_path, workdir)


def test_several_seeds_are_evaluated_as_one_model(tmp_path, capsys):
    workdir = saved_seeds(tmp_path / "seeds", shrink(imdb.get_config()), ["neg", "pos"])
    predicted, _ = loaded(workdir).predict(TEXTS)
    run(tmp_path, workdir)
    accuracy = np.mean(np.array(predicted) == LABELS)
    assert f"accuracy           {accuracy:.4f}" in capsys.readouterr().out


def test_texts_of_other_labels_alone_cannot_be_evaluated(imdb_workdir, tmp_path):
    with pytest.raises(
        DataError, match=r"no text can be evaluated: left out 3 texts .* other \(2\)"
    ):
        run(tmp_path, imdb_workdir, rows=LEFT_OUT[1:])

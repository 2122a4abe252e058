"""The baseline at the end of a run: where it is shown, and that it never costs the result."""

import json
import os
import signal
import sys

import pytest
from helpers import RESULT, shrink

import flaxrnn
from configs import imdb, language_model
from flaxrnn import seeds
from flaxrnn.reporting import report
from flaxrnn.runtime import signals
from flaxrnn.training import baseline

FIGURES = {"name": "a line", "C": 0.3, "test_accuracy": 0.98765, "test_macro_f1": 0.9, "seconds": 7}


@pytest.fixture
def config(tiny_corpus):
    config = shrink(imdb.get_config(), epochs=1)
    config.train.baseline = True
    return config


def result_of(workdir):
    return json.loads((workdir / "result.json").read_text())


def test_it_is_evaluated_on_the_splits_of_the_run(config, tmp_path, capsys):
    result = flaxrnn.train(config, tmp_path)
    assert set(result) == {*RESULT, "baseline"}
    assert result_of(tmp_path) == result
    found = result["baseline"]
    assert set(found) == {"name", "C", "test_accuracy", "test_macro_f1", "seconds"}
    assert 0 < found["test_accuracy"] <= 1
    last = capsys.readouterr().out.splitlines()[-1]
    shown = f"accuracy {found['test_accuracy']:.4f}  macro-F1 {found['test_macro_f1']:.4f}"
    assert last.startswith(f"  baseline    {shown}  (TF-IDF of words (1-2), linear SVM, C=")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert f"<dt>baseline accuracy</dt><dd><b>{found['test_accuracy']:.4f}</b> TF-IDF of w" in page


def test_the_result_is_written_before_it(config, tmp_path, monkeypatch):
    before = []

    def evaluate(corpus, rows):
        before.append(result_of(tmp_path))
        assert {split: len(of_split) for split, of_split in rows.items()} == {
            "train": 40, "val": 10, "test": 23
        }  # fmt: skip
        assert corpus.train.lengths.max() > config.data.maxlen  # not clipped
        return FIGURES

    monkeypatch.setattr(baseline, "evaluate", evaluate)
    result = flaxrnn.train(config, tmp_path)
    assert result == {**before[0], "baseline": FIGURES}
    assert result_of(tmp_path) == result


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_it_leaves_the_result(number, config, tmp_path, monkeypatch):
    monkeypatch.setattr(baseline, "evaluate", lambda *_: os.kill(os.getpid(), number))
    with pytest.raises(
        signals.Saved, match=r"SIG\w+: .*seed-0 is complete, without a b"
    ) as stopped:
        seeds.train(config, 2, tmp_path)
    assert stopped.value.exit_code == 128 + number
    assert set(result_of(tmp_path / "seed-0")) == RESULT
    assert not (tmp_path / "seed-1").exists()
    monkeypatch.setattr(baseline, "evaluate", lambda *_: FIGURES)
    assert flaxrnn.train(config, tmp_path / "seed-0")["baseline"] == FIGURES


def test_a_signal_after_the_result_was_written_leaves_it_out(config, tmp_path, monkeypatch):
    def with_a_signal(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        finish(*arguments)

    finish = report.Report.finish
    monkeypatch.setattr(report.Report, "finish", with_a_signal)
    with pytest.raises(signals.Saved, match=r"SIGTERM: .* is complete, without a baseline$"):
        flaxrnn.train(config, tmp_path)
    assert set(result_of(tmp_path)) == RESULT
    config.train.baseline = False
    with pytest.raises(signals.Saved, match=r"SIGTERM: .* is complete$"):
        flaxrnn.train(config, tmp_path / "other")


def test_its_failure_costs_a_line(config, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise MemoryError("of 3 GiB")

    monkeypatch.setattr(baseline, "evaluate", fail)
    assert set(flaxrnn.train(config, tmp_path)) == RESULT
    assert capsys.readouterr().out.splitlines()[-1] == "  baseline    none: of 3 GiB"


def test_without_scikit_learn_a_line_says_how_to_install_it(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert set(flaxrnn.train(config, tmp_path)) == RESULT
    line = "  baseline    none: needs scikit-learn; pip install scikit-learn"
    assert capsys.readouterr().out.splitlines()[-1] == line
    assert "baseline" not in result_of(tmp_path)


def test_seeds_share_it(config, tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(baseline, "evaluate", lambda *_: calls.append(1) or FIGURES)
    results = seeds.train(config, 2, tmp_path)
    assert len(calls) == 1
    assert [result["baseline"] for result in results] == [FIGURES, FIGURES]
    assert result_of(tmp_path / "seed-1")["baseline"] == FIGURES
    assert json.loads((tmp_path / "seeds.json").read_text())["baseline"] == FIGURES
    assert capsys.readouterr().out.count("  baseline    accuracy 0.9877  macro-F1 0.9000") == 3


def test_language_models_have_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(baseline, "evaluate", None)
    config = shrink(language_model.get_config(), epochs=1, hidden_size=3)
    config.train.baseline = True
    assert set(flaxrnn.train(config, tmp_path)) == RESULT
    assert "baseline" not in capsys.readouterr().out

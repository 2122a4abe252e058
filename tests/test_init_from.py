"""Runs that start with the parameters of another run."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from helpers import WORDS, korean, shrink, weights, write_csv

import flaxrnn
from benchmarks import faults
from configs import reuters, text
from flaxrnn import loop, seeds
from flaxrnn import run as run_lib
from flaxrnn.data import corpora
from flaxrnn.data.vocabulary import FIRST_WORD, Vocabulary
from flaxrnn.errors import ConfigError, WorkdirError

NO_RATE = 1e-30  # of learning: an update rounds to nothing


def same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def probabilities(workdir):
    _, found = flaxrnn.load(workdir).predict(["the good film", "oil and grain", "a plot"])
    return found


def words(workdir):
    return Vocabulary.load(workdir / "vocabulary.json").words


@pytest.fixture
def config(tiny_corpus, no_plots):
    config = shrink(reuters.get_config(), epochs=1)
    config.train.averaging = False  # an average of equal numbers is rounded
    return config


@pytest.fixture
def source(config, tmp_path):
    """The workdir of a trained classifier, from which `config` starts."""
    config.train.learning_rate = 0.02
    flaxrnn.train(config, tmp_path / "source")
    config.train.init_from = str(tmp_path / "source")
    return tmp_path / "source"


def test_a_classifier_starts_with_what_a_language_model_knows(
    config, tmp_path, monkeypatch, capsys
):
    config.model.target = "next"
    flaxrnn.train(config, tmp_path / "language")
    others, load = [*WORDS[:0:-1], "new"], corpora.load_corpus

    def load_with_other_words(*arguments, **options):
        corpus = load(*arguments, **options)
        return dataclasses.replace(corpus, vocabulary=Vocabulary(others))

    monkeypatch.setattr(corpora, "load_corpus", load_with_other_words)
    config.model.update({"target": "label", "bidirectional": True})
    config.train.update({"learning_rate": NO_RATE, "init_from": str(tmp_path / "language")})
    capsys.readouterr()
    flaxrnn.train(config, tmp_path / "classifier")
    shown = capsys.readouterr().out
    assert "train.init_from: 11 of 12 words (" in shown
    assert "% of the training tokens), a new output layer\n" in shown
    old, new = weights(tmp_path / "language"), weights(tmp_path / "classifier")
    assert words(tmp_path / "classifier") == others
    for row, word in enumerate(others[:-1], FIRST_WORD):
        expected = old["embed"]["embedding"][FIRST_WORD + WORDS.index(word)]
        np.testing.assert_array_equal(new["embed"]["embedding"][row], expected)
    same(new["lstm_0"]["forward"], old["lstm_0"])
    assert (new["lstm_0"]["backward"]["kernel"] != old["lstm_0"]["kernel"]).any()


def test_fine_tuning_at_no_rate_gives_the_predictions_of_the_source(config, source, capsys):
    config.train.learning_rate = NO_RATE
    capsys.readouterr()
    flaxrnn.train(config, source.parent / "tuned")
    assert "12 of 12 words (100% of the training tokens), the same output layer" in (
        capsys.readouterr().out
    )
    before, after = (probabilities(source.parent / name) for name in ("source", "tuned"))
    np.testing.assert_array_equal(after, before)
    config.train.init_from = None
    flaxrnn.train(config, source.parent / "random")
    assert (probabilities(source.parent / "random") != before).any()


def test_a_stopped_run_and_its_refit_end_as_if_it_had_not_been(config, source, monkeypatch):
    config.train.update({"refit": True, "restore_best": False, "epochs": 2})
    flaxrnn.train(config, source.parent / "straight")
    stopped = source.parent / "stopped"
    train_epoch = loop._train_epoch

    def fail_later(run):
        if run.progress.history:
            raise ZeroDivisionError
        train_epoch(run)

    for module, name, value in (
        (loop, "_train_epoch", fail_later),
        (run_lib, "begin_refit", lambda _: 1 / 0),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            with pytest.raises(ZeroDivisionError):
                flaxrnn.train(config, stopped)
        shutil.rmtree(source, ignore_errors=True)  # it is not needed again
    flaxrnn.train(config, stopped)
    assert faults.final_state(stopped) == faults.final_state(source.parent / "straight")


def test_damaged_initial_parameters_stop_a_refit(config, source, monkeypatch):
    config.train.refit = True
    workdir = source.parent / "refit"
    with monkeypatch.context() as patch:
        patch.setattr(run_lib, "begin_refit", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            flaxrnn.train(config, workdir)
    shutil.rmtree(workdir / "initial")
    with pytest.raises(WorkdirError, match=r"refit/initial is missing or damaged; name another"):
        flaxrnn.train(config, workdir)


def test_every_seed_and_its_refit_start_with_the_same_parameters(config, source):
    config.train.update({"learning_rate": NO_RATE, "refit": True})
    root = source.parent / "seeds"
    seeds.train(config, 2, root)
    for folder in ("seed-0", "seed-1"):
        same(weights(root / folder), weights(source))
    config.train.init_from = str(root)
    with pytest.raises(
        ConfigError, match=r"train\.init_from: .*seeds holds several runs; .* like .*seeds/seed-0$"
    ):
        flaxrnn.train(config, source.parent / "new")


def test_mistakes_are_one_line_and_leave_no_workdir(config, source, tmp_path):
    missing, new = str(tmp_path / "missing"), tmp_path / "new"
    config.train.init_from = missing
    with pytest.raises(WorkdirError, match=r"train\.init_from: no trained model in .*missing \("):
        flaxrnn.train(config, new)
    (tmp_path / "edited").mkdir()
    edited = shutil.copytree(source, tmp_path / "edited", dirs_exist_ok=True)
    (edited / "labels.json").write_text('["a", "b"]')
    config.train.init_from = str(edited)
    with pytest.raises(WorkdirError, match=r"^train\.init_from: .*labels\.json is not the one"):
        flaxrnn.train(config, new)
    config.train.init_from, config.model.hidden_size = str(source), 9
    with pytest.raises(ConfigError, match=r"model\.hidden_size: must be 5, not 9: that of train"):
        flaxrnn.train(config, new)
    config.data.vectors = "vectors.txt"
    with pytest.raises(ConfigError, match=r"data\.vectors: must be unset with train\.init_from"):
        flaxrnn.train(config, new)
    assert not new.exists()


def test_more_epochs_of_a_finished_run_name_the_way(config, source):
    config.train.update({"init_from": None, "epochs": 5})
    with pytest.raises(WorkdirError) as refused:
        flaxrnn.train(config, source)
    message = str(refused.value)
    assert "train.epochs=1, not 5; name another workdir, or use the same config" in message
    assert message.endswith(f"name another workdir and add --config.train.init_from={source}")


def test_subwords_are_those_of_the_source(no_plots, tmp_path):
    pytest.importorskip("sentencepiece")
    rows = korean(160)
    lines = "\n".join(line for line, _ in rows[60:])
    (tmp_path / "lines.txt").write_text(lines)
    config = shrink(text.get_config(), epochs=1, segment=0, bidirectional=False)
    config.data.update({"data_dir": str(tmp_path / "data"), "path": str(tmp_path / "lines.txt")})
    config.data.update({"tokenizer": "subword", "num_words": 150, "validation": "train"})
    config.model.update({"target": "next", "word_ngrams": 0, "character_ngrams": 0})
    flaxrnn.train(config, tmp_path / "language")
    config.data.path = str(write_csv(tmp_path / "rows.csv", rows[:60]))
    config.data.tokenizer, config.model.target = "auto", "label"
    config.train.init_from = str(tmp_path / "language")
    result = flaxrnn.train(config, tmp_path / "classifier")
    old, new = (
        Vocabulary.load(tmp_path / name / "vocabulary.json") for name in ("language", "classifier")
    )
    assert new.tokenizer == old.tokenizer
    assert new.words != old.words
    shutil.rmtree(tmp_path / "language")
    again = flaxrnn.train(config, tmp_path / "classifier")
    assert again["test_loss"] == result["test_loss"]

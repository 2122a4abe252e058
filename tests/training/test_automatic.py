"""What a run chooses by itself: n-grams by the number of classes."""

import io
import json
import sys

import numpy as np
import pytest
from helpers import shrink, write_csv

import flaxrnn
from configs import text as text_config
from flaxrnn.config import parse
from flaxrnn.training import automatic, ngrams


def settings(folder, classes):
    rows = [(f"w{i} v{i % 7} {end}", f"c{i}") for i in range(classes) for end in "abcde"]
    config = shrink(text_config.get_config(), epochs=1, cell="simple")
    config.data.path = str(write_csv(folder / "many.csv", rows))
    config.data.data_dir = str(folder / "data")
    return config


@pytest.mark.parametrize(
    ("classes", "chosen"),
    [(2, (2, 4, "thorough")), (61, (2, 4, "quick")), (301, (0, 0, "quick"))],
)
def test_n_grams_suit_the_number_of_classes(classes, chosen, tmp_path):
    config = parse(settings(tmp_path, 2))
    model = automatic.choose_ngrams(config, classes, tmp_path).model
    assert (model.word_ngrams, model.character_ngrams, model.ngram_fit) == chosen
    given = text_config.get_config()
    given.data.path = "x.csv"
    given.model.update({"word_ngrams": 1, "character_ngrams": 0, "ngram_fit": "thorough"})
    assert automatic.choose_ngrams(parse(given), classes, tmp_path) == parse(given)


def test_the_choice_is_printed_recorded_and_kept(tmp_path, monkeypatch, capsys, no_plots):
    config = settings(tmp_path, 5)
    monkeypatch.setattr(automatic, "_NGRAMS", 4)
    monkeypatch.setattr(ngrams, "fit", lambda *_: pytest.fail("5 classes are too many"))
    flaxrnn.train(config, tmp_path / "run")
    out = capsys.readouterr().out
    assert "model.word_ngrams: 0, chosen for 5 classes\n" in out
    assert "model.ngram_fit: thorough, chosen for 5 classes\n" in out
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())["model"]
    assert (recorded["word_ngrams"], recorded["character_ngrams"]) == (0, 0)
    monkeypatch.setattr(automatic, "_NGRAMS", 300)  # another version, which would choose otherwise
    flaxrnn.train(config, tmp_path / "run")
    assert "model.word_ngrams: 0, chosen for" in capsys.readouterr().out


def fit_thirty_classes():
    labels = np.arange(60) % 30
    words = [f"w{label}" for label in labels]
    counts = ngrams.count(ngrams.hash_tokens(words), np.ones(60, int), ngrams.View("words", 1))
    fitted = ngrams.fit_quickly([(ngrams.View("words", 1), counts)], labels, 30, np.arange(30))
    assert fitted.scores.shape == (60, 30)


def test_a_line_says_that_many_classes_are_fitted(capsys):
    fit_thirty_classes()
    err = capsys.readouterr().err
    assert err.startswith("n-grams of words, 1 to 1: fitting to a class 30 times…\n")


def test_a_terminal_shows_how_far_the_fits_are(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    fit_thirty_classes()
    shown = sys.stderr.getvalue()
    assert "n-grams of words, 1 to 1:   0%" in shown
    assert "0/30 [" in shown
    assert "fitting to a class" not in shown

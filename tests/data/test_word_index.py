"""Ids are those of Keras' own files, where these are."""

import dataclasses
import json
import os

import numpy as np
import pytest
from helpers import WORDS

import flaxrnn
from flaxrnn.data import corpora, word_index
from flaxrnn.data.ragged import RaggedTexts
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.errors import ConfigError, DataError

RANKS = {word: rank for rank, word in enumerate(reversed(WORDS), 1)}


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    """Where Keras keeps its files, empty at first."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras" / "datasets").mkdir(parents=True)
    return tmp_path / "keras" / "datasets"


@pytest.fixture
def corpus(monkeypatch):
    """A corpus that is the real one to `load_data`: four texts, the last one to test on."""
    ids = np.array([1, 4, 5, 1, 6, 2, 1, 7, 1, 4, 4], np.int32)
    texts = RaggedTexts(ids, np.array([0, 3, 6, 8, 11]), np.arange(4, dtype=np.int32))
    corpus = corpora.Corpus(
        name="tiny",
        synthetic=False,
        label_names=["neg", "pos"],
        vocabulary=Vocabulary(WORDS),
        train=texts.take(np.arange(3)),
        test=texts.take(np.array([3])),
    )
    monkeypatch.setattr(corpora, "load_corpus", lambda *_: corpus)
    return corpus


def write(folder, content, name="reuters_word_index.json"):
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def rows(split):
    return [row.tolist() for row in split[0]]


def test_ids_are_those_of_the_file_that_keras_keeps(corpus, keras_home, capsys):
    first, second, third, fourth = (RANKS[word] + 3 for word in WORDS[:4])
    write(keras_home, RANKS)
    train, test = flaxrnn.load_data("reuters")
    assert rows(train) == [[1, first, second], [1, third, 2], [1, fourth]]
    assert rows(test) == [[1, first, first]]
    assert capsys.readouterr().err == ""
    assert flaxrnn.get_word_index("reuters") == RANKS
    train, _ = flaxrnn.load_data("reuters", num_words=first)
    assert rows(train) == [[1, 2, second], [1, third, 2], [1, fourth]]


def test_a_word_that_the_file_lacks_is_unknown(corpus, tmp_path, capsys):
    path = write(tmp_path, {"of": 1, WORDS[1]: 2}, "mine.json")
    train, _ = flaxrnn.load_data("imdb", word_index=str(path))
    assert rows(train) == [[1, 2, 5], [1, 4, 2], [1, 2]]
    assert capsys.readouterr().err == ""


def test_without_the_file_one_line_warns(corpus, keras_home, capsys):
    train, _ = flaxrnn.load_data("imdb")
    assert rows(train) == [[1, 4, 5], [1, 6, 2], [1, 7]]
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert warning.startswith(
        f"warning: word_index: there is no {keras_home / 'imdb_word_index.json'}; words of equal"
    )
    assert flaxrnn.get_word_index("imdb", word_index="corpus")[WORDS[0]] == 1
    assert capsys.readouterr().err == ""


def test_only_the_corpora_of_keras_have_its_ids(corpus, keras_home, monkeypatch, capsys):
    write(keras_home, RANKS)
    write(keras_home, RANKS, "reuters_clean_word_index.json")
    assert rows(flaxrnn.load_data("reuters_clean")[0])[0] == [1, 4, 5]
    made_up = dataclasses.replace(corpus, synthetic=True)
    monkeypatch.setattr(corpora, "load_corpus", lambda *_: made_up)
    assert rows(flaxrnn.load_data("reuters")[0])[0] == [1, 4, 5]
    assert capsys.readouterr().err == ""


def test_skip_top_and_test_split_are_those_of_keras(corpus):
    train, _ = flaxrnn.load_data("reuters", skip_top=5, word_index="corpus")
    assert rows(train) == [[2, 2, 5], [2, 6, 2], [2, 7]]  # the start has an id below 5, too
    train, test = flaxrnn.load_data("reuters", test_split=0.5, word_index="corpus")
    assert rows(train) == [[1, 4, 5], [1, 6, 2]]
    assert rows(test) == [[1, 7], [1, 4, 4]]
    assert test[1].tolist() == [2, 3]
    train, test = flaxrnn.load_data("reuters", test_split=0, word_index="corpus")
    assert (len(train[0]), len(test[0]), len(test[1])) == (4, 0, 0)
    train, test = flaxrnn.load_data("reuters", maxlen=2, test_split=1, word_index="corpus")
    assert (train[0].shape, test[0].shape) == ((0, 2), (4, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"skip_top": -1}, "skip_top: -1 is below 0"),
        ({"test_split": 1.5}, "test_split: 1.5 is not between 0 and 1"),
        ({"task": "imdb", "test_split": 0.2}, "test_split: must be None with task=imdb"),
    ],
)
def test_the_impossible_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        flaxrnn.load_data(**{"task": "reuters", **arguments})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "is not a JSON object"),
        ('{"a": 1', "is not valid JSON"),
        ("{}", "its ranks are not 1, 2, 3"),
        ('{"a": 1, "b": 1}', "its ranks are not 1, 2, 3"),
        ('{"a": 0, "b": 1}', "its ranks are not 1, 2, 3"),
        ('{"a": 1, "b": 3}', "its ranks are not 1, 2, 3"),
        ('{"a": true}', "its ranks are not all whole numbers"),
        ('{"a": 1.0}', "its ranks are not all whole numbers"),
        ('{"a": [[1]]}', "its ranks are not all whole numbers"),
        (r'{"\ud800": 1}', "surrogates not allowed"),
        (f'{{"a": {"1" * 5000}}}', "is not valid JSON"),
    ],
)
def test_what_is_no_word_index_is_refused(content, message, tmp_path):
    path = tmp_path / "imdb_word_index.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        word_index.read(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path, corpus):
    with pytest.raises(DataError, match=r"word_index: nope cannot be read \(No such file"):
        flaxrnn.load_data("imdb", word_index="nope")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="it is no regular file"):
        word_index.read(tmp_path / "pipe")
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 17 * 2**20)
    with pytest.raises(DataError, match="it has more than 16 MiB"):
        word_index.read(tmp_path / "large")


def test_the_files_are_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = tmp_path / ".keras" / "datasets" / "imdb_word_index.json"
    assert word_index.default_path("imdb") == expected

"""`flaxrnn.fit`: texts in memory → a classifier."""

import gc
from pathlib import Path

import numpy as np
import pytest
from helpers import ROWS, korean

import flaxrnn
from configs import reuters
from flaxrnn import config as config_lib
from flaxrnn import loop
from flaxrnn.datasets import custom
from flaxrnn.datasets.reading import Format
from flaxrnn.datasets.rows import Fields
from flaxrnn.errors import ConfigError, DataError, WorkdirError

TEXTS, LABELS = map(list, zip(*ROWS, strict=True))
TINY = {
    "epochs": 3,
    "num_words": 300,
    "max_padding": 1.0,
    "embedding_size": 8,
    "hidden_size": 8,
    "word_ngrams": 1,
    "character_ngrams": 0,
    "tokenizer": "words",
    "train.baseline": False,
    "train.explain": False,
}


def test_fit_predict_evaluate_and_save(no_plots, tmp_path):
    texts, names = map(np.array, zip(*korean(120), strict=True))
    labels = np.unique(names, return_inverse=True)[1]
    train, test = slice(0, 100), slice(100, 120)
    model = flaxrnn.fit(texts[train], labels[train], test_data=(texts[test], labels[test]), **TINY)

    assert model.result["test_examples"] == 20
    assert model.result["epochs"] == 3
    predicted, probabilities = model.predict(texts[test])
    assert model.label_names == ["0", "1", "2"]
    assert probabilities.shape == (20, 3)
    right = np.mean(np.array(predicted) == labels[test].astype(str))
    assert right > 0.6
    figures = model.evaluate(texts[test], labels[test])
    assert figures["accuracy"] == right == pytest.approx(model.result["test_accuracy"])
    assert figures["classes"]["2"]["support"] == sum(labels[test] == 2)
    assert model.evaluate(texts[101], labels[101])["texts"] == 1  # one text, and its label
    with pytest.raises(DataError, match=r"none of them can be .* does not know: x \(1\)"):
        model.evaluate(["good"], ["x"])

    folder = model.save(tmp_path / "saved")
    np.testing.assert_array_equal(flaxrnn.load(folder).predict(texts[test])[1], probabilities)
    assert (folder / "report.html").exists()
    assert not list(folder.rglob("texts.jsonl"))
    with pytest.raises(WorkdirError, match="exists; name a new one"):
        model.save(folder)

    workdir = model.workdir
    assert workdir.exists()
    del model
    gc.collect()
    assert not workdir.parent.exists()


@pytest.fixture
def started(monkeypatch):
    """Takes the place of training; returns the configs that it was called with."""
    configs = []

    def train(config, workdir):
        configs.append(config_lib.parse(config))
        (Path(workdir) / "checkpoints").mkdir(exist_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train_and_evaluate", train)
    return configs


def start(*arguments, **keywords):
    with pytest.raises(KeyboardInterrupt):
        flaxrnn.fit(*arguments, **keywords)


def test_the_run_reads_what_was_given(started, tmp_path):
    texts = ['one, "two"\nthree', "\u2028", "네 번째", "five"]
    held_out = (["six"], ["b"])
    start(texts, [1, 1.0, " x ", "1"], validation_data=held_out, workdir=tmp_path / "run")
    (config,) = started
    assert config.data.path == str(tmp_path / "run" / "texts.jsonl")
    source = custom.find_source(config.data.path, Fields("text", "label"), Format())
    labels = ["1", "1", "x", "1"]
    assert [example[:3] for example in source.read()] == [
        *((text, label, "train") for text, label in zip(texts, labels, strict=True)),
        ("six", "b", "validation"),
    ]
    start(texts, labels, workdir=tmp_path / "other")
    path = started[1].data.path
    source = custom.find_source(path, Fields("text", "label"), Format())
    assert {example.split for example in source.read()} == {""}


def test_settings_are_those_of_the_text_config_and_the_fields(started, tmp_path):
    start(TEXTS, LABELS, seed=3, epochs=7, workdir=tmp_path / "a", **{"data.maxlen": 9})
    config = started[0]
    assert (config.task, config.seed, config.train.epochs, config.data.maxlen) == ("text", 3, 7, 9)
    assert config.model.word_ngrams == -1
    chapter = reuters.get_config()
    chapter.data.encoding = "cp949"
    start(TEXTS, LABELS, config=chapter, workdir=tmp_path / "b")
    config = started[1]
    assert (config.task, config.data.encoding, config.model.word_ngrams) == ("text", "utf-8", 0)
    assert config.train.batch_size == 20


def test_a_workdir_belongs_to_its_texts(started, tmp_path):
    start(TEXTS, LABELS, workdir=tmp_path)
    before = (tmp_path / "texts.jsonl").read_text()
    with pytest.raises(WorkdirError, match="holds a run on other texts"):
        flaxrnn.fit(TEXTS[1:], LABELS[1:], workdir=tmp_path)
    assert (tmp_path / "texts.jsonl").read_text() == before
    start(TEXTS, LABELS, workdir=tmp_path)  # resumes
    assert len(started) == 2


def test_an_interrupted_fit_leaves_no_temporary_folder(started):
    start(TEXTS, LABELS)
    assert not Path(started[0].data.path).parents[1].exists()


@pytest.mark.parametrize(
    ("arguments", "fields", "error", "message"),
    [
        ((TEXTS, LABELS[1:]), {}, DataError, "labels: there are 19 for 20 texts"),
        ((["a", float("nan")], ["x", "y"]), {}, DataError, "text 1 is not a string but float"),
        ((["a", "b"], ["x", float("nan")]), {}, DataError, "text 1: label must be a string or a"),
        ((["a", "b"], ["x", None]), {}, DataError, "text 1: label must be a string or a whole"),
        (([], []), {}, DataError, "texts: there are none"),
        ((TEXTS, LABELS), {"epoch": 3}, ConfigError, "epoch: there is no such field; did you mean"),
        ((TEXTS, LABELS), {"epochs": -3}, ConfigError, "train.epochs: -3 must be"),
        ((TEXTS, LABELS), {"path": "a.csv"}, ConfigError, "data.path: cannot be set here"),
    ],
)
def test_a_mistake_is_one_line(arguments, fields, error, message, tmp_path):
    with pytest.raises(error) as caught:
        flaxrnn.fit(*arguments, workdir=tmp_path / "run", **fields)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_every_field_can_be_named_without_its_group():
    names = [name.rpartition(".")[2] for name in config_lib.FIELDS]
    assert len(set(names)) == len(names)


def as_ids(texts):
    """The texts as arrays of `load_data`, and the word index, which lacks a word of theirs."""
    words = sorted({word for text in texts for word in text.split()})
    ranks = {word: rank for rank, word in enumerate(words, 1)}
    ids = [np.array([1, *(ranks[word] + 3 for word in text.split())], np.int32) for text in texts]
    return ids, {word: rank for word, rank in ranks.items() if word != "a"}


def test_arrays_of_load_data_are_read_as_their_words(started, tmp_path):
    ids, word_index = as_ids(TEXTS)
    padded = np.zeros((len(ids), 6), np.int32)
    for row, of_text in zip(padded, ids, strict=True):
        row[-len(of_text) :] = of_text
    given = [ids, [row.tolist() for row in ids], padded]
    for i, sequences in enumerate(given):
        start(sequences, LABELS, word_index=word_index, workdir=tmp_path / str(i))
        source = custom.find_source(started[-1].data.path, Fields("text", "label"), Format())
        texts = [example.text for example in source.read()]
        assert texts == [text.replace(" a", " \ufffd") for text in TEXTS]
    start(ids, LABELS, test_data=(padded, LABELS), workdir=tmp_path / "numbers")
    source = custom.find_source(started[-1].data.path, Fields("text", "label"), Format())
    numbers = [" ".join(map(str, row[1:])) for row in ids]
    assert [example.text for example in source.read()] == [*numbers, *numbers]
    assert started[-1].model.character_ngrams == 0
    assert started[0].model.character_ngrams == -1


def test_a_model_of_arrays_predicts_for_arrays_and_for_texts(no_plots, tmp_path):
    ids, word_index = as_ids(TEXTS)
    ids[0] = np.append(ids[0], 2)  # unknown
    settings = {**TINY, "epochs": 8, "learning_rate": 0.02, "config": "text"}
    model = flaxrnn.fit(ids, np.array(LABELS), word_index=word_index, **settings)
    labels, probabilities = model.predict(ids)
    assert np.mean(np.array(labels) == LABELS) == model.evaluate(ids, LABELS)["accuracy"] > 0.8
    texts = flaxrnn.to_texts(ids, word_index)
    assert texts[0].endswith(" \ufffd")
    np.testing.assert_array_equal(model.predict(texts)[1], probabilities)
    np.testing.assert_array_equal(flaxrnn.load(model.workdir).predict(texts)[1], probabilities)
    with pytest.raises(DataError, match="text 0 is not a string but ndarray"):
        flaxrnn.load(model.workdir).predict(ids)


def test_a_config_is_named_as_on_the_command_line(started, tmp_path):
    start(TEXTS, LABELS, config="imdb:keras", workdir=tmp_path)
    assert started[0].data.padding == "pre"


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"config": "imbd"}, ConfigError, "config: 'imbd' is not one of default, imdb"),
        ({"config": "imdb:fat"}, ConfigError, "config: imdb:fat: variant 'fat' is not one of"),
        ({"config": "text:fast"}, ConfigError, "config: text:fast: it has no variants"),
        ({"word_index": {}}, DataError, "word_index: is for ids, but the texts are strings"),
        (
            {"labels": np.eye(20)},
            DataError,
            "labels: a matrix has no names; give a list of names for each text",
        ),
    ],
)
def test_a_mistaken_argument_is_one_line(keywords, error, message, tmp_path):
    with pytest.raises(error) as caught:
        flaxrnn.fit(TEXTS, **{"labels": LABELS, "workdir": tmp_path / "run", **keywords})
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "run").exists()

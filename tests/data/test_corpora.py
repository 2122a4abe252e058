"""Corpora from builders and from custom files, with every tokenizer; their cache."""

import csv
import os
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import ROWS, load_custom, write_csv

import flaxrnn
from flaxrnn.data import corpora, tokenizers
from flaxrnn.datasets import preparation
from flaxrnn.errors import ConfigError, DataError


class Source(list):
    """Examples as TFDS has them."""

    def __getitems__(self, keys):
        return [self[key] for key in keys]


def test_tokenizer_applies_to_corpora_of_builders_too(tmp_path, monkeypatch):
    rows = [{"text": b"Oil\xc2\xa0prices ROSE!", "label": 0}, {"text": b"Oil fell", "label": 1}]
    features = {"label": SimpleNamespace(names=["up", "down"])}
    builder = SimpleNamespace(
        info=SimpleNamespace(full_name="tiny/1.0.0", features=features),
        as_data_source=lambda split: Source(rows * 50),
    )
    monkeypatch.setattr(preparation, "prepare", lambda *_: builder)
    found = {}
    for _ in range(2):  # from the cache, too
        for kind in tokenizers.TOKENIZERS:
            corpus = corpora.load_corpus(
                "reuters", data_dir=str(tmp_path), tokenizer=kind, num_words=40
            )
            found[kind] = corpus.vocabulary
        assert found["words"].tokenizer.kind == "keras"  # to which U+00A0 is no space
        assert found["words"].words == ["oil\u00a0prices", "rose", "oil", "fell"]
        assert max(map(len, found["characters"].words)) == 1
        assert "".join(found["subword"].tokenizer("oil fell")) == "▁oil▁fell"
        builder.as_data_source = lambda split: pytest.fail("a text was read")
    assert len(list(tmp_path.glob("encoded/*"))) == 3


def test_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path, monkeypatch):
    path = write_csv(tmp_path / "a.csv", ROWS)
    first = load_custom(path, tmp_path)
    stamp = path.stat()
    with monkeypatch.context() as patch:
        patch.setattr(csv, "reader", lambda *_, **__: pytest.fail("the file was parsed"))
        again = load_custom(path, tmp_path)
        np.testing.assert_array_equal(first.train.ids, again.train.ids)
        assert again.label_names == first.label_names
        assert again.vocabulary.words == first.vocabulary.words
    for options in (
        {"seed": 1},
        {"test_fraction": 0.5},
        {"tokenizer": "characters"},
        {"tokenizer": "subword", "num_words": 30},
        {"tokenizer": "subword", "num_words": 31},
    ):
        with monkeypatch.context() as patch:
            patch.setattr(csv, "reader", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                load_custom(path, tmp_path, **options)
        load_custom(path, tmp_path, **options)
    with pytest.raises(DataError, match="with a single text"):
        load_custom(path, tmp_path, text_field="label", label_field="text")
    path.write_text(path.read_text().replace("good", "fine"), newline="\r\n")  # as long, and as old
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert path.stat().st_size == stamp.st_size
    changed = load_custom(path, tmp_path)
    assert "fine" in changed.vocabulary.words
    assert "good" not in changed.vocabulary.words


def test_what_was_read_is_summarized_and_empty_texts_are_left_out(tmp_path, capsys):
    path = write_csv(tmp_path / "a.csv", [*ROWS, ("", "up"), (" … ", "odd"), ("\u200b", "up")])
    told = ": 18 texts to train on, 2 to test, 2 classes: down, up"
    for _ in range(2):  # also from the cache
        corpus = load_custom(path, tmp_path)
        assert len(corpus.train) + len(corpus.test) == 20
        assert capsys.readouterr().err == f"a.csv{told}; left out 3 without a word\n"
    load_custom(write_csv(tmp_path / "b.csv", ROWS), tmp_path)
    assert capsys.readouterr().err == f"b.csv{told}\n"


def test_load_corpus_asks_for_the_path():
    with pytest.raises(ConfigError, match=r"data\.path: missing"):
        flaxrnn.load_data("text")
    with pytest.raises(ConfigError, match=r"data\.tokenizer: 'bpe' is not one of words, char"):
        corpora.load_corpus("imdb", tokenizer="bpe")

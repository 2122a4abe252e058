"""Texts with any number of labels each: how every format says them, and how they are split."""

import json

import numpy as np
import pytest
from helpers import load_custom, write_csv

from configs import text as text_config
from flaxrnn.config import parse
from flaxrnn.datasets.parsing import Example
from flaxrnn.datasets.parsing import parse as parse_file
from flaxrnn.datasets.reading import Format
from flaxrnn.datasets.rows import Fields
from flaxrnn.errors import ConfigError, DataError

COMMAS = Fields("text", "label", several=True, separator=",")
LISTS = Fields("text", "label", several=True)
WANTED = [
    Example("a", "oil, war", "", ("oil", "war")),
    Example("b", "war", "", ("war",)),
    Example("c", "", "", ()),
]


@pytest.mark.parametrize(
    ("name", "content", "fields"),
    [
        ("a.csv", 'text,label\na,"war, oil,war"\nb,war\nc,\n', COMMAS),
        ("a.tsv", "text\tlabel\na\toil|war|\nb\twar\nc\t | \n", COMMAS._replace(separator="|")),
        ("a.jsonl", '{"text":"a","label":["war","oil"]}\n{"text":"b","label":"war"}\n'
         '{"text":"c","label":[]}\n', LISTS),
        ("a.json", '[{"text":"a","label":"oil,war"},{"text":"b","label":["war"]},'
         '{"text":"c","label":""}]', COMMAS),
        ("a.txt", "__label__war __label__oil a\n__label__war b\n\nc\n", LISTS),
        ("a.txt", "__label__war __label__oil a\n__label__war b\nc\n", COMMAS),
    ],
)  # fmt: skip
def test_every_format_says_several_labels(name, content, fields, tmp_path):
    assert parse_file(tmp_path / name, content.encode(), fields, Format()) == WANTED


def test_parquet_has_lists(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pa.table({"text": ["a", "b", "c"], "label": [["war", "oil"], ["war"], []]})
    parquet.write_table(table, tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    assert parse_file(tmp_path / "a.parquet", content, LISTS, Format()) == WANTED


@pytest.mark.parametrize(
    ("label", "fields", "message"),
    [
        (["a"], Fields("text", "label"), "label must be a string or a whole number, not ['a']; set"
         " model.target=labels if a text may have several labels"),
        (["a", None], LISTS, "each of label must be a string or a whole number, not None"),
        (None, COMMAS, "label must be a string or a whole number, not None"),
        ([["a"]], LISTS, "each of label must be"),
    ],
)  # fmt: skip
def test_what_is_no_label_is_refused_by_line(label, fields, message, tmp_path):
    content = json.dumps({"text": "x", "label": label}).encode()
    with pytest.raises(DataError) as caught:
        parse_file(tmp_path / "a.jsonl", content, fields, Format())
    assert f"a.jsonl: line 1: {message}" in str(caught.value)


@pytest.mark.parametrize("separator", ["", " ", "\t", ", ", "a", "1"])
def test_separators_that_make_no_sense_are_refused(separator):
    config = text_config.get_config()
    config.data.update({"path": "a.csv", "label_separator": separator})
    with pytest.raises(ConfigError, match=r"^data\.label_separator: .* must be a single character"):
        parse(config)


def test_the_separator_chooses_the_head():
    config = text_config.get_config()
    config.data.update({"path": "a.csv", "label_separator": "|"})
    assert parse(config).model.target == "labels"
    config.data.label_separator = None
    assert parse(config).model.target == "label"


def corpus_of(rows, tmp_path, **options):
    path = write_csv(tmp_path / "a.csv", rows, options.pop("header", ("text", "label")))
    return load_custom(path, tmp_path, several=True, separator="|", **options)


def test_labels_are_ones_in_a_row_per_text(tmp_path):
    rows = [(f"word{i}", "x|y" if i % 2 else "y") for i in range(20)] + [("none here", "")]
    corpus = corpus_of(rows, tmp_path)
    assert corpus.label_names == ["x", "y"]
    assert corpus.train.labels.dtype == np.uint8
    both = np.concatenate([corpus.train.labels, corpus.test.labels])
    assert sorted(map(tuple, both.tolist())) == sorted([(0, 1)] * 10 + [(1, 1)] * 10 + [(0, 0)])
    assert corpus.test.labels.sum(axis=0).tolist() == [1, 2]  # stratified by the rarest label


def test_every_label_is_trained_on(tmp_path):
    """A label with two texts: one of them is drawn for testing at most; one with a single: none."""
    rows = [(f"word{i}", "x|y|z"[: 1 + 2 * (i % 3)]) for i in range(60)]
    rows += [("once", "x|lonely"), ("twice", "x|pair"), ("twice more", "pair|z")]
    for seed in range(5):
        corpus = corpus_of(rows, tmp_path, seed=seed, test_fraction=0.4)
        assert (corpus.train.labels.sum(axis=0) > 0).all()
    assert any("Without a test text: 'lonely' (1)" in finding for finding in corpus.findings)
    dropped = corpus_of(rows, tmp_path, rare_classes="drop")
    assert dropped.label_names == ["pair", "x", "y", "z"]
    assert len(dropped.train) + len(dropped.test) == len(rows)  # the text stays


def test_a_label_of_a_given_test_split_alone_is_said(tmp_path):
    rows = [("a", "x", "train"), ("b", "y", "train"), ("c", "x|new", "test")]
    corpus = corpus_of(rows, tmp_path, header=("text", "label", "split"))
    assert corpus.label_names == ["new", "x", "y"]
    assert "Without a training text: 'new' (1); such a label is never predicted." in corpus.findings
    assert not any("Several labels per text?" in finding for finding in corpus.findings)


def test_a_validation_split_has_every_label(tmp_path):
    from flaxrnn.data.validation import stratified_split

    rows = [(f"word{i}", "x|y" if i < 50 else "y") for i in range(200)]
    rows += [(f"rare{i}", "x|rare") for i in range(4)]
    texts = corpus_of(rows, tmp_path, num_words=10_000).train
    train, val = stratified_split(texts, 0.2, seed=0)
    for part in (train, val):
        assert (texts.labels[part].sum(axis=0) > 0).all()
    assert texts.labels[val, 1].sum() == pytest.approx(0.2 * texts.labels[:, 1].sum(), abs=2)

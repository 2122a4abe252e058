"""A run with texts without labels, which its n-gram classifier labels."""

import json

import numpy as np
import pytest
from helpers import korean, loaded, shrink, train_until_killed, weights, write_csv

import flaxrnn
from configs import imdb, reuters
from configs import text as text_config
from flaxrnn.errors import ConfigError, DataError
from flaxrnn.runtime.clock import Clock
from flaxrnn.training.texts import load_texts


def settings(folder, data_dir):
    config = shrink(text_config.get_config(), epochs=2, cell="simple")
    config.data.path = str(folder / "reviews.csv")
    config.data.unlabelled = str(folder / "others.txt")
    config.data.data_dir = data_dir
    config.data.num_words = 100
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run: its config, workdir and result."""
    folder = tmp_path_factory.mktemp("unlabelled")
    texts = korean(300)
    write_csv(folder / "reviews.csv", texts[:100])
    others = [f"{text} 새로운낱말" for text, _ in texts[100:]]
    (folder / "others.txt").write_text("\n".join([*others, " "]), "utf-8")
    config = settings(folder, str(folder / "data"))
    return config, folder / "run", flaxrnn.train(config, folder / "run")


def test_the_classifier_labels_the_texts_that_have_none(run, capfd):
    config, workdir, _ = run
    parsed = flaxrnn.config.parse(config)
    texts = load_texts(parsed, workdir, Clock())
    data = texts.training_data
    rows = data.rows["unlabelled"]
    assert len(rows) == 200  # not the line without a word
    assert set(data.texts.labels[rows]) == {-1}
    assert not set(rows) & set(np.concatenate([data.rows[s] for s in ("train", "val", "test")]))
    raw = [" ".join(texts.vocabulary.decode(ids).split()) for ids in data.texts.take(rows).texts()]
    assert all("새로운낱말" in text for text in raw)  # their words are in the vocabulary
    scores = data.texts.scores[rows]
    assert np.isfinite(scores).all()
    assert scores.std(axis=0).min() > 0
    assert "200 without labels" in capfd.readouterr().err


def test_every_epoch_reads_the_texts_without_labels(run):
    config, workdir, result = run
    data = load_texts(flaxrnn.config.parse(config), workdir, Clock()).training_data
    size = config.train.batch_size
    seen = np.concatenate([batch.rows for batch in data.epoch_batches(size, 0, 1)])
    assert sorted(seen) == sorted([*data.rows["train"], *data.rows["unlabelled"]])
    assert data.num_batches(size) == -(-len(seen) // size)
    assert result["test_examples"] == len(data.rows["test"])


def test_they_change_what_the_network_learns(run, tmp_path, no_plots):
    config, workdir, _ = run
    alone = config.copy_and_resolve_references()
    alone.data.unlabelled = None
    flaxrnn.train(alone, tmp_path)
    with_them, without = (json.loads((f / "result.json").read_text()) for f in (workdir, tmp_path))
    assert with_them["train_examples_per_second"] != without["train_examples_per_second"]
    kernels = [weights(folder)["dense"]["kernel"] for folder in (workdir, tmp_path)]
    assert not np.allclose(*kernels)


def test_a_resumed_run_ends_the_same(run, tmp_path, no_plots):
    config, workdir, result = run
    train_until_killed(config, tmp_path)
    again = flaxrnn.train(config, tmp_path)
    assert again["test_loss"] == result["test_loss"]
    resumed, whole = weights(tmp_path), weights(workdir)
    np.testing.assert_array_equal(resumed["dense"]["kernel"], whole["dense"]["kernel"])


def test_the_model_predicts_as_any_other(run):
    _, workdir, _ = run
    texts, labels = zip(*korean(100)[:50], strict=True)
    predicted, _ = loaded(workdir).predict(list(texts))
    assert np.mean(np.array(predicted) == np.array(labels)) > 0.5


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.unlabelled", "missing.txt", "data.unlabelled: there is no file or folder"),
        ("train.loss", "squared_hinge", "train.loss: must be cross_entropy with data.unlabelled"),
    ],
)
def test_mistakes_are_named(run, tmp_path, field, value, message):
    config = run[0].copy_and_resolve_references()
    config.train.label_smoothing = 0.0
    config.update_from_flattened_dict({field: value})
    with pytest.raises((ConfigError, DataError), match=message):
        flaxrnn.train(config, tmp_path / "run")


def test_what_it_needs_is_named(tmp_path):
    config = imdb.get_config()
    config.data.unlabelled = "dataset"
    with pytest.raises(ConfigError, match=r"data\.unlabelled: needs model\.word_ngrams"):
        flaxrnn.train(config, tmp_path)
    config.data.unlabelled = "texts.txt"
    with pytest.raises(ConfigError, match="must be dataset or unset with task=imdb"):
        flaxrnn.train(config, tmp_path)
    config = reuters.get_config("best")
    config.data.unlabelled, config.data.source = "dataset", "synthetic"
    with pytest.raises(ConfigError, match="has no texts without labels"):
        flaxrnn.train(config, tmp_path)

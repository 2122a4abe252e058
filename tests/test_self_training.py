"""A run with texts without labels, which its n-gram classifier labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from helpers import SAYS, korean, loaded, shrink, train_until_killed, weights, write_csv

import flaxrnn
from configs import imdb, reuters
from configs import text as text_config
from flaxrnn import seeds, teacher
from flaxrnn.data.ngrams import ARRAYS, RATIOS, View, count, hash_tokens
from flaxrnn.errors import ConfigError, DataError, WorkdirError
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


def test_a_teacher_labels_them(run, tmp_path, capfd, no_plots):
    config, workdir, _ = run
    taught = config.copy_and_resolve_references()
    taught.train.teacher = str(workdir)
    flaxrnn.train(taught, tmp_path / "run")
    assert "labelling 200 texts by" in capfd.readouterr().out
    parsed = flaxrnn.config.parse(taught)
    texts = load_texts(parsed, tmp_path / "run", Clock(), teacher.label)
    assert "labelling" not in capfd.readouterr().out  # what it said is kept
    data = texts.training_data
    rows = data.rows["unlabelled"]
    raw = Path(config.data.unlabelled).read_text("utf-8").split("\n")[:-1]
    _, want = loaded(workdir).predict(raw)
    logits = data.texts.scores[rows]
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, want, atol=1e-4)
    assert set(data.texts.labels[rows]) == {-1}


def test_the_n_grams_learn_what_a_teacher_labels(run, tmp_path, no_plots):
    config, workdir, _ = run
    taught = config.copy_and_resolve_references()
    taught.train.teacher, taught.model.ratio_ngrams = str(workdir), 1
    taught.data.tokenizer = "words"
    flaxrnn.train(taught, tmp_path)
    new = hash_tokens(["새로운낱말"])  # a word of unlabelled texts only
    word = count(new, np.array([1]), View("words", 1)).codes
    alone, with_them = (
        safetensors.numpy.load_file(folder / "ngrams" / ARRAYS) for folder in (workdir, tmp_path)
    )
    assert word not in alone["0/codes"]
    assert word in with_them["0/codes"]
    ratios = safetensors.numpy.load_file(tmp_path / "ratios" / RATIOS)
    assert word in ratios["codes"]
    # No text knows its own label: its ratios are those of the texts in other folds.
    parsed = flaxrnn.config.parse(taught)
    texts = load_texts(parsed, tmp_path, Clock(), teacher.label).training_data.texts
    is_word = texts.ids == texts.ids.max()
    assert len(np.unique(texts.features[is_word], axis=0)) == 5


def test_two_classes_and_an_ensemble_as_a_teacher(tmp_path, no_plots):
    rows = [(text, label) for text, label in korean(120) if label != sorted(SAYS)[0]]
    write_csv(tmp_path / "reviews.csv", rows[:40])
    (tmp_path / "others.txt").write_text("\n".join(text for text, _ in rows[40:]), "utf-8")
    config = settings(tmp_path, str(tmp_path / "data"))
    seeds.train(config, 2, tmp_path / "seeds")
    config.train.teacher = str(tmp_path / "seeds")
    found = seeds.train(config, 2, tmp_path / "taught")
    assert len(found) == 2
    said = [tmp_path / "taught" / f"seed-{i}" / "teacher" / "logits.safetensors" for i in (0, 1)]
    assert said[0].read_bytes() == said[1].read_bytes()
    logits = safetensors.numpy.load_file(said[0])["logits"]
    _, want = loaded(tmp_path / "seeds").predict([text for text, _ in rows[40:]])
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, 0])), want[:, 1], atol=1e-4)


def test_mistakes_about_a_teacher_are_named(run, tmp_path):
    config, workdir, _ = run
    other = config.copy_and_resolve_references()
    other.train.teacher = str(tmp_path / "nothing")
    with pytest.raises(WorkdirError, match=r"train\.teacher: .*nothing"):
        flaxrnn.train(other, tmp_path / "run")
    write_csv(tmp_path / "two.csv", [(text, label[:1]) for text, label in korean(100)])
    other.train.teacher, other.data.path = str(workdir), str(tmp_path / "two.csv")
    with pytest.raises(ConfigError, match=r"train\.teacher: .* must\s+have those of the run"):
        flaxrnn.train(other, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    other.data.unlabelled = None
    with pytest.raises(ConfigError, match=r"train\.teacher: must be unset without data\.unlab"):
        flaxrnn.train(other, tmp_path / "run")

"""A run with n-grams beside the network: trained, resumed, predicted from, explained, exported."""

import json
import shutil

import jax
import numpy as np
import pytest
from helpers import korean, loaded, shrink, train_until_killed, weights, write_csv

import flaxrnn
from configs import text as text_config
from flaxrnn import export
from flaxrnn.data import corpora
from flaxrnn.errors import ConfigError, WorkdirError
from flaxrnn.inference import loader
from flaxrnn.training import ngrams, texts

TEXTS = ["방 직원 정말 좋았어요", "the worst!", "별로였다,  다시는 안 가요"]


def settings(folder, data_dir, **model):
    config = shrink(text_config.get_config(), epochs=3, cell="simple", **model)
    config.data.path = str(folder / "reviews.csv")
    config.data.data_dir = data_dir
    config.data.num_words = 100
    return config


@pytest.fixture(scope="module")
def run(both_count, tmp_path_factory):
    """A finished run: its config, workdir and result."""
    folder = tmp_path_factory.mktemp("ngrams")
    write_csv(folder / "reviews.csv", korean(120))
    config = settings(folder, str(folder / "data"))
    return config, folder / "run", flaxrnn.train(config, folder / "run")


def test_the_result_is_that_of_the_blend(run):
    config, workdir, result = run
    model = loaded(workdir)
    texts = corpora.CustomTexts(config.data.path)
    corpus = corpora.load_corpus("text", data_dir=config.data.data_dir, custom=texts)
    raw = [corpus.vocabulary.decode(ids) for ids in corpus.test.texts()]
    labels, _ = model.predict(raw)
    expected = [corpus.label_names[i] for i in corpus.test.labels]
    assert np.mean(np.array(labels) == expected) == result["test_accuracy"]
    network, of_ngrams = weights(workdir)["blend"]["weights"]
    assert network > 0
    assert of_ngrams > 0


def test_the_network_alone_is_trained_the_same(run, tmp_path):
    """The classifier changes no step; the blend only chooses which epoch is kept."""
    config, workdir, _ = run
    alone = config.copy_and_resolve_references()
    alone.model.word_ngrams = alone.model.character_ngrams = 0
    flaxrnn.train(alone, tmp_path)
    histories = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (workdir, tmp_path)
    ]
    for blended, plain in zip(*histories, strict=True):
        assert blended["train_loss"] == plain["train_loss"]
        assert blended["val_loss"] < plain["val_loss"]


def test_a_resumed_run_reads_the_classifier_and_ends_the_same(run, tmp_path, monkeypatch):
    config, workdir, result = run
    train_until_killed(config, tmp_path)
    monkeypatch.setattr(ngrams, "fit", lambda *_: pytest.fail("it was fitted again"))
    resumed = flaxrnn.train(config, tmp_path)
    assert resumed["test_loss"] == result["test_loss"]
    jax.tree.map(np.testing.assert_array_equal, weights(tmp_path), weights(workdir))


def test_every_word_is_explained(run):
    _, workdir, _ = run
    model = loaded(workdir)
    encoded = [model.encode(text) for text in TEXTS]
    probabilities, attributions = model.explain(encoded)
    np.testing.assert_allclose(probabilities, model.probabilities(encoded), atol=1e-6)
    for text, found in zip(encoded, attributions, strict=True):
        assert len(found) == len(text.spans)
        assert np.abs(found).max() > 1e-3


def test_an_export_predicts_the_same(run, tmp_path):
    _, workdir, _ = run
    export.export(workdir, tmp_path / "out")
    labels, probabilities = loader.load(tmp_path / "out")(TEXTS)
    expected = loaded(workdir).predict(TEXTS)
    assert labels == expected[0]
    np.testing.assert_allclose(probabilities, expected[1], rtol=0, atol=1e-6)


def test_a_damaged_classifier_is_refused_by_name(run, tmp_path):
    _, workdir, _ = run
    shutil.copytree(workdir, tmp_path / "run")
    damaged = tmp_path / "run" / "ngrams" / "ngrams.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(WorkdirError, match=r"ngrams: ngrams\.safetensors is damaged; train the"):
        flaxrnn.load(tmp_path / "run")


def test_n_grams_need_a_label_per_text():
    config = shrink(text_config.get_config())
    config.data.path = "poems.txt"
    config.model.update({"target": "next", "bidirectional": False, "segment": 0})
    with pytest.raises(ConfigError, match=r"model\.word_ngrams: must be 0 with model\.target=next"):
        flaxrnn.train(config)


def test_more_classes_than_can_be_fitted_are_refused(run, tmp_path, monkeypatch):
    config, _, _ = run
    monkeypatch.setattr(texts, "_MOST_CLASSES", 2)
    message = r"^model\.word_ngrams: 3 classes are too many for n-grams.*model\.word_ngrams=0 and"
    with pytest.raises(ConfigError, match=message):
        flaxrnn.train(config, tmp_path / "run")

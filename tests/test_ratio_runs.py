"""A run whose recurrence reads log-count ratios: trained, resumed, predicted from, exported."""

import json

import numpy as np
import pytest
from helpers import korean, loaded, shrink, train_until_killed, weights, write_csv

import flaxrnn
from configs import text as text_config
from flaxrnn import export
from flaxrnn.errors import ConfigError, WorkdirError
from flaxrnn.inference import loader
from flaxrnn.training.texts import load_texts

TEXTS = ["방 직원 정말 좋았어요", "the worst!", "별로였다,  다시는 안 가요"]


@pytest.fixture(scope="module")
def run(both_count, tmp_path_factory):
    """A finished run: its config, workdir and result."""
    folder = tmp_path_factory.mktemp("ratios")
    write_csv(folder / "reviews.csv", korean(120))
    config = shrink(text_config.get_config(), epochs=2, cell="simple", ratio_ngrams=2)
    config.model.character_ngrams = 0
    config.data.path = str(folder / "reviews.csv")
    config.data.data_dir = str(folder / "data")
    config.data.num_words = 100
    return config, folder / "run", flaxrnn.train(config, folder / "run")


def test_the_recurrence_reads_a_feature_for_each_class_and_length(run):
    config, workdir, _ = run
    kernel = weights(workdir)["simple_0"]["forward"]["kernel"]
    assert len(kernel) == config.model.embedding_size + 2 * 3


def test_texts_are_predicted_as_they_were_tested(run):
    config, workdir, result = run
    from flaxrnn.runtime.clock import Clock

    texts = load_texts(flaxrnn.config.parse(config), workdir, Clock())
    data = texts.training_data
    found = data.texts.take(data.rows["test"])
    assert found.features.any()
    probabilities = loaded(workdir).probabilities_of_ids(found)
    assert np.mean(probabilities.argmax(axis=1) == found.labels) == result["test_accuracy"]
    # From raw text it finds the same features.
    raw = [text for text, _ in korean(120)]
    encoded = loaded(workdir).encode_all(raw)
    by_ids = {tuple(text.ids): text.features for text in encoded}
    same = [
        np.array_equal(by_ids[tuple(ids)], features)
        for ids, features in zip(
            found.texts(), np.split(found.features, found.offsets[1:-1]), strict=True
        )
        if tuple(ids) in by_ids
    ]
    assert same
    assert all(same)


def test_a_resumed_run_ends_the_same(run, tmp_path, no_plots):
    config, workdir, result = run
    train_until_killed(config, tmp_path)
    again = flaxrnn.train(config, tmp_path)
    assert again["test_loss"] == result["test_loss"]
    resumed, whole = weights(tmp_path), weights(workdir)
    np.testing.assert_array_equal(
        resumed["simple_0"]["forward"]["kernel"], whole["simple_0"]["forward"]["kernel"]
    )


def test_explain_attributes_features_to_their_tokens(run):
    model = loaded(run[1])
    encoded = model.encode_all(TEXTS)
    _, found = model.explain(encoded)
    without = [text._replace(features=np.zeros_like(text.features)) for text in encoded]
    _, others = model.explain(without)
    for text, a, b in zip(encoded, found, others, strict=True):
        assert len(a) == len(text.spans)
        assert np.isfinite(a).all()
        if text.features.any():
            assert not np.allclose(a, b)


def test_an_export_reads_the_same(run, tmp_path):
    export.export(run[1], tmp_path / "served")
    labels, probabilities = loader.load(tmp_path / "served")(TEXTS)
    expected, wanted = loaded(run[1]).predict(TEXTS)
    assert labels == expected
    np.testing.assert_allclose(probabilities, wanted, atol=1e-5)


def test_a_table_that_was_exchanged_is_not_used(run, tmp_path):
    import shutil

    copy = shutil.copytree(run[1], tmp_path / "copy")
    path = copy / "ratios" / "ratios.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(WorkdirError, match="ratios"):
        flaxrnn.load(copy)


def test_other_targets_read_no_ratios(run, tmp_path):
    config = run[0].copy_and_resolve_references()
    config.model.target, config.model.word_ngrams, config.model.segment = "next", 0, 0
    config.model.bidirectional = False
    with pytest.raises(ConfigError, match=r"model\.ratio_ngrams: must be 0"):
        flaxrnn.train(config, tmp_path)
    assert "ratio_ngrams" in json.dumps(config.model.to_dict())

"""One page that runs the whole system, for every shipped config and variant, on tiny data."""

import functools
import json

import jax
import numpy as np
import pytest
from helpers import RESULT, WORDS, shrink, train_until_killed, weights

import flaxrnn
from configs import imdb, language_model, reuters
from flaxrnn.data import batching
from flaxrnn.errors import ConfigError, DataError, DivergedError, WorkdirError
from flaxrnn.reporting import report
from flaxrnn.training import temperature


@pytest.fixture(autouse=True)
def plots_of_shipped_configs_only(request):
    if not request.node.name.startswith("test_shipped_config_trains"):
        request.getfixturevalue("no_plots")


@pytest.mark.parametrize("variant", ["", "keras", "fast", "best", "demo"])
@pytest.mark.parametrize("module", [reuters, imdb])
def test_shipped_config_trains(module, variant, tiny_corpus, tmp_path, capsys):
    config = shrink(module.get_config(variant))
    result = flaxrnn.train(config, tmp_path)

    assert set(result) == RESULT
    assert set(result["seconds"]) == {
        "startup",
        "ngrams",
        "compile",
        "train",
        "input",
        "eval",
        "test",
        "total",
    }
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert result["epochs"] == 2
    assert result["test_examples"] == 23
    assert result["data_source"] == "synthetic"
    assert json.loads((tmp_path / "config.json").read_text()) == config.to_dict()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    history = [row for row in rows if "phase" not in row]  # without the refit of :best
    assert [row["epoch"] for row in history] == [1, 2]
    assert result["best_epoch"] == 1 + int(np.argmin([row["val_loss"] for row in history]))
    for name in ("report.html", "curves.png", "vocabulary.json", "labels.json", "checkpoints"):
        assert (tmp_path / name).exists()
    assert list(tmp_path.glob("events.out.tfevents.*"))
    page = (tmp_path / "report.html").read_text("utf-8")
    wrong = round(result["test_examples"] * (1 - result["test_accuracy"]))
    assert page.count("<li>") == min(20, wrong) > 0
    assert f"Total parameters: {result['parameters']:,}" in page

    shown = capsys.readouterr().out
    assert "EMBEDDED SYNTHETIC CORPUS" in shown
    assert f"Total parameters: {result['parameters']:,}" in shown
    assert tiny_corpus == [(config.task, config.data.source)]

    classifier = flaxrnn.load(tmp_path)
    labels, probabilities = classifier.predict(["the good film", "not very bad, oil!"] * 5)
    assert probabilities.shape == (10, len(classifier.label_names))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert labels[0] == classifier.label_names[probabilities[0].argmax()]


def test_two_epochs_and_two_more_equal_four(tiny_corpus, tmp_path):
    straight = flaxrnn.train(shrink(imdb.get_config(), epochs=4), tmp_path / "straight")

    train_until_killed(shrink(imdb.get_config(), epochs=4), tmp_path / "resumed", epochs=2)
    resumed = flaxrnn.train(shrink(imdb.get_config(), epochs=4), tmp_path / "resumed")

    for name in ("epochs", "best_epoch", "val_loss", "test_loss", "test_accuracy"):
        assert straight[name] == resumed[name], name
    jax.tree.map(
        np.testing.assert_array_equal,
        weights(tmp_path / "straight"),
        weights(tmp_path / "resumed"),
    )
    again = flaxrnn.train(shrink(imdb.get_config(), epochs=4), tmp_path / "resumed")
    assert again["test_loss"] == resumed["test_loss"]
    assert again["seconds"] == resumed["seconds"]  # what a finished run took
    (tmp_path / "resumed" / "result.json").unlink()
    again = flaxrnn.train(shrink(imdb.get_config(), epochs=4), tmp_path / "resumed")
    assert again["seconds"]["total"] > resumed["seconds"]["total"] - resumed["seconds"]["test"]
    assert again["seconds"] != resumed["seconds"]


def test_automatic_batch_size_is_chosen_once(tiny_corpus, tmp_path, monkeypatch, capsys):
    config = shrink(reuters.get_config())
    config.train.batch_size = 4
    straight = flaxrnn.train(config, tmp_path / "straight")
    config.train.batch_size = 0
    with monkeypatch.context() as patch:
        patch.setattr(report.Report, "epoch", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            flaxrnn.train(config, tmp_path / "resumed")
    assert "train.batch_size: 4, chosen for 40 training texts\n" in capsys.readouterr().out
    recorded = json.loads((tmp_path / "resumed" / "config.json").read_text())
    assert recorded["train"]["batch_size"] == 4

    # As if it were another version that chooses: the run keeps its choice.
    monkeypatch.setattr(batching, "suitable_batch_size", lambda _: 16)
    resumed = flaxrnn.train(config, tmp_path / "resumed")
    assert json.loads((tmp_path / "resumed" / "config.json").read_text()) == recorded
    assert resumed["test_loss"] == straight["test_loss"]
    config.train.batch_size = 8
    with pytest.raises(WorkdirError, match=r"created with train\.batch_size=4, not 8"):
        flaxrnn.train(config, tmp_path / "resumed")


def test_automatic_epochs_are_all_trained(tiny_corpus, tmp_path, monkeypatch):
    config = shrink(reuters.get_config())
    config.train.update({"epochs": 0, "patience": 9})
    monkeypatch.setattr(batching, "suitable_epochs", lambda num_batches: num_batches - 2)
    assert flaxrnn.train(config, tmp_path)["epochs"] == 3  # of 5 batches


def test_same_seed_same_bits_other_seed_others(tiny_corpus, tmp_path):
    def run(name, seed):
        config = shrink(reuters.get_config())
        config.seed = seed
        flaxrnn.train(config, tmp_path / name)
        return weights(tmp_path / name)["embed"]["embedding"]

    first = run("a", 0)
    np.testing.assert_array_equal(first, run("b", 0))
    assert (first != run("c", 1)).any()


def test_calibration_divides_the_logits_and_nothing_else(tiny_corpus, tmp_path):
    config = shrink(reuters.get_config(), epochs=6)
    config.train.update({"learning_rate": 0.05, "calibrate": True})
    calibrated = flaxrnn.train(config, tmp_path / "calibrated")
    config.train.calibrate = False
    plain = flaxrnn.train(config, tmp_path / "plain")
    assert plain["temperature"] == 1 != calibrated["temperature"]
    expected = temperature.divide_logits(weights(tmp_path / "plain"), calibrated["temperature"])
    same = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    jax.tree.map(same, expected, weights(tmp_path / "calibrated"))
    for name in ("val_loss", "test_accuracy", "test_macro_f1", "epochs", "best_epoch"):
        assert calibrated[name] == plain[name]
    labels, probabilities = flaxrnn.load(tmp_path / "calibrated").predict(WORDS)
    assert labels == flaxrnn.load(tmp_path / "plain").predict(WORDS)[0]
    assert abs(probabilities - flaxrnn.load(tmp_path / "plain").predict(WORDS)[1]).max() > 1e-3


def test_early_stopping_brings_the_best_weights_back(tiny_corpus, tmp_path):
    config = shrink(reuters.get_config(), epochs=60)
    config.train.learning_rate = 0.05
    config.train.patience = 2
    result = flaxrnn.train(config, tmp_path)
    assert result["epochs"] == result["best_epoch"] + 2 < 60
    history = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert result["val_loss"] == min(row["val_loss"] for row in history)

    config.train.epochs = result["best_epoch"]  # ends where the best epoch was
    same = flaxrnn.train(config, tmp_path / "shorter")
    assert same["test_loss"] == result["test_loss"]
    config.train.epochs, config.train.restore_best = 60, False
    last = flaxrnn.train(config, tmp_path / "last")
    assert last["epochs"] == result["epochs"]
    assert last["test_loss"] != result["test_loss"]


def test_monitored_metric_chooses_the_weights(tiny_corpus, tmp_path, capsys):
    config = shrink(reuters.get_config(), epochs=6)
    config.train.update({"learning_rate": 0.05, "monitor": "macro_f1"})
    result = flaxrnn.train(config, tmp_path)
    history = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = [row["val_macro_f1"] for row in history]
    best = history[result["best_epoch"] - 1]
    assert result["val_macro_f1"] == max(scores) > min(scores)
    assert best["val_loss"] > min(row["val_loss"] for row in history)
    assert f"validation loss {best['val_loss']:.4f} accuracy" in capsys.readouterr().out

    config.train.epochs = result["best_epoch"]  # ends where the best epoch was
    assert flaxrnn.train(config, tmp_path / "b")["test_loss"] == result["test_loss"]


def test_macro_f1_of_a_vocabulary_is_not_monitored(tmp_path):
    config = shrink(language_model.get_config())
    config.train.monitor = "macro_f1"
    with pytest.raises(ConfigError, match=r"train\.monitor: must be loss or accuracy"):
        flaxrnn.train(config, tmp_path)


@pytest.mark.parametrize("device_memory", [0.0, 1.0])
def test_nothing_compiles_after_the_first_epoch(device_memory, tiny_corpus, tmp_path, monkeypatch):
    """With several buckets in every epoch, texts resident or streamed; nor in the evaluation."""
    compiled, after_epoch = [], []

    def listen(event, duration, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(details)

    reported = report.Report.epoch

    def report_and_count(self, *arguments):
        reported(self, *arguments)
        after_epoch.append(len(compiled))

    monkeypatch.setattr(report.Report, "epoch", report_and_count)
    config = shrink(reuters.get_config(), epochs=4)
    config.data.max_padding = 0.05
    config.data.device_memory = device_memory
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        result = flaxrnn.train(config, tmp_path)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(result["buckets"]) > 2
    assert result["resident"] == bool(device_memory)
    assert after_epoch[0] > 0
    assert len(compiled) == after_epoch[0]


def test_streamed_and_resident_texts_give_the_same_bits(tiny_corpus, tmp_path):
    for name, device_memory in (("streamed", 0.0), ("resident", 1.0)):
        config = shrink(imdb.get_config())
        config.data.device_memory = device_memory
        flaxrnn.train(config, tmp_path / name)
    jax.tree.map(
        np.testing.assert_array_equal,
        weights(tmp_path / "streamed"),
        weights(tmp_path / "resident"),
    )


def test_result_names_time_and_memory(tiny_corpus, tmp_path):
    result = flaxrnn.train(shrink(reuters.get_config()), tmp_path)
    assert 0 <= result["seconds"]["input"] < result["seconds"]["train"]
    assert 100 < result["memory"]["peak_rss_mib"] < 100_000
    assert result["memory"]["peak_device_mib"] is None  # CPU


def test_compiled_programs_are_kept_where_the_config_says(tiny_corpus, tmp_path):
    config = shrink(reuters.get_config(), hidden_size=3)  # that no other test compiles
    before = jax.config.jax_compilation_cache_dir
    config.compile_cache = str(tmp_path / "compiled")
    try:
        flaxrnn.train(config, tmp_path / "run")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert list((tmp_path / "compiled").glob("*jit_train_steps-*"))


def test_loss_that_is_not_finite_stops_and_keeps_the_last_good_weights(tiny_corpus, tmp_path):
    config = shrink(reuters.get_config(), epochs=3)
    config.train.learning_rate = 1e38
    with pytest.raises(DivergedError, match=r"training step \d+ is not finite") as caught:
        flaxrnn.train(config, tmp_path)
    assert caught.value.exit_code == 3
    for leaf in jax.tree.leaves(weights(tmp_path)):
        assert np.isfinite(leaf).all()
    with pytest.raises(DivergedError, match="learning_rate"):  # and does not go on from there
        flaxrnn.train(config, tmp_path)


def test_too_few_texts_for_the_validation_fraction(tiny_corpus, tmp_path):
    config = shrink(reuters.get_config())
    config.data.validation_fraction = 0.001
    with pytest.raises(DataError, match=r"data\.validation_fraction: 0\.001 of 50 texts"):
        flaxrnn.train(config, tmp_path)

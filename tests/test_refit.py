"""A refit: new weights, trained on train and validation texts for as many epochs as were kept."""

import functools
import json
import os
import signal

import jax
import numpy as np
import pytest
from helpers import shrink, weights

import flaxrnn
from benchmarks import faults
from configs import reuters
from flaxrnn import loop
from flaxrnn import run as run_lib
from flaxrnn.errors import ConfigError
from flaxrnn.runtime import signals
from flaxrnn.training import optimizers, temperature


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def config(tiny_corpus, monkeypatch):
    """40 training and 10 validation texts in batches of 8."""
    monkeypatch.setattr("flaxrnn.training.trainer.STEPS_PER_DISPATCH", 2)
    monkeypatch.setattr(loop, "STEPS_PER_DISPATCH", 2)
    config = shrink(reuters.get_config(), epochs=9)
    config.data.max_padding = 1.0
    config.train.update({"refit": True, "learning_rate": 0.02, "patience": 2, "calibrate": True})
    return config


def test_refit_equals_training_on_all_texts(config, tmp_path, capsys):
    result = flaxrnn.train(config, tmp_path / "refit")
    best = result["best_epoch"]
    assert 1 < best < result["epochs"]
    shown = capsys.readouterr().out
    assert f"refit epoch 2/{best} | train loss" in shown
    assert f"refit epoch {best + 1}/" not in shown
    rows = rows_of(tmp_path / "refit")
    assert result["refit"]
    assert result["val_loss"] == rows[best - 1]["val_loss"]
    refit = rows[result["epochs"] :]
    assert [(row["phase"], row["epoch"]) for row in refit] == [
        ("refit", i + 1) for i in range(best)
    ]
    assert not any(name.startswith("val_") for row in refit for name in row)

    config.data.validation = "test"
    config.train.update({"refit": False, "epochs": best, "patience": 9, "restore_best": False})
    other = flaxrnn.train(config, tmp_path / "all")
    assert (other["temperature"], other["test_accuracy"]) == (1, result["test_accuracy"])
    # The temperature is that of the first fit: the refit has no text left to validate on.
    assert result["temperature"] != 1
    expected = temperature.divide_logits(weights(tmp_path / "all"), result["temperature"])
    same = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    jax.tree.map(same, expected, weights(tmp_path / "refit"))


def test_stopped_at_any_time_it_ends_the_same(config, tmp_path, monkeypatch, capsys):
    config.train.update({"schedule": "warmup_cosine", "epochs": 3, "restore_best": False})
    config.train.checkpoint_steps = 2
    found, build = set(), optimizers.build

    def build_and_note(settings, steps, *others):
        found.add(steps)
        return build(settings, steps, *others)

    with monkeypatch.context() as patch:
        patch.setattr(optimizers, "build", build_and_note)
        straight = flaxrnn.train(config, tmp_path / "straight")
    assert straight["epochs"] == 3
    assert found == {1, 3 * 5, 3 * 7}  # the decay is as long, in epochs
    train_epoch = loop._train_epoch

    def stop(run):
        if run.progress.refit is not None and len(run.progress.refit) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        train_epoch(run)

    with monkeypatch.context() as patch:
        patch.setattr(run_lib, "begin_refit", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            flaxrnn.train(config, tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_train_epoch", stop)
        with pytest.raises(signals.Saved, match="SIGTERM: saved after refit step 9; "):
            flaxrnn.train(config, tmp_path / "stopped")
    kept = weights(tmp_path / "stopped")  # still those of the first fit
    capsys.readouterr()
    resumed = flaxrnn.train(config, tmp_path / "stopped")
    assert "after refit epoch 1, step 9\n" in capsys.readouterr().out
    assert resumed["test_loss"] == straight["test_loss"]
    assert faults.final_state(tmp_path / "stopped") == faults.final_state(tmp_path / "straight")
    flaxrnn.train(config, tmp_path / "stopped")  # finished
    assert faults.final_state(tmp_path / "stopped") == faults.final_state(tmp_path / "straight")
    final = weights(tmp_path / "stopped")
    assert (kept["embed"]["embedding"] != final["embed"]["embedding"]).any()


def test_the_test_texts_are_not_for_a_refit(config, tmp_path):
    config.data.validation = "test"
    with pytest.raises(
        ConfigError, match=r"train\.refit: must be False with data\.validation=test"
    ):
        flaxrnn.train(config, tmp_path)

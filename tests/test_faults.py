"""Runs that are killed, disks that fail, settings that make no sense: nothing is lost or hidden."""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import filelock
import jax
import numpy as np
import pytest
from helpers import ROOT, python, shrink, weights
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

import flaxrnn
from benchmarks import faults
from configs import default, imdb, reuters
from flaxrnn import closing, loop
from flaxrnn import config as config_lib
from flaxrnn import run as run_lib
from flaxrnn.data import batching, corpora, ragged, splitting
from flaxrnn.data.vocabulary import FIRST_WORD, Vocabulary
from flaxrnn.errors import (
    ConfigError,
    DivergedError,
    LostWorkdirError,
    OutOfMemoryError,
    WorkdirError,
)
from flaxrnn.runtime import files, signals

pytestmark = pytest.mark.usefixtures("no_plots")
STEPS = 16 * 83  # epochs, batches
KILLED = """
import os, runpy, signal, sys, threading
from flaxrnn import loop

after, number = float(sys.argv.pop(1)), int(sys.argv.pop(1))
train_epoch = loop._train_epoch

def with_a_bomb(run):
    if not run.progress.history:
        threading.Timer(after, os.kill, (os.getpid(), number)).start()
    train_epoch(run)

loop._train_epoch = with_a_bomb
runpy.run_path("train.py", run_name="__main__")
"""


def test_killed_runs_end_as_if_they_had_been_left_alone(few_texts, tmp_path):
    """Three SIGKILLs and a SIGTERM, at random moments from the first training step on; many more
    are benchmarks/faults.py's."""
    corpora.load_corpus("reuters", "synthetic", str(tmp_path / "data"))
    flags = [
        "--config=configs/reuters.py",
        "--config.data.source=synthetic",
        f"--config.data.data_dir={tmp_path / 'data'}",
        "--config.data.maxlen=20",
        "--config.data.max_padding=0.5",
        "--config.model.hidden_size=8",
        "--config.train.batch_size=2",
        "--config.train.epochs=16",
        "--config.train.patience=16",
        "--config.train.baseline=False",
        "--config.train.explain=False",
        "--config.train.checkpoint_steps=32",
    ]
    faults.finish(flags, tmp_path / "alone")  # in new processes, unlike the others
    alone = faults.final_state(tmp_path / "alone")
    seconds = json.loads((tmp_path / "alone" / "result.json").read_text())["seconds"]["train"]
    draw, steps = random.Random(time.time()), []
    for i, number in enumerate([signal.SIGKILL] * 3 + [signal.SIGTERM]):
        workdir, after = tmp_path / str(i), draw.uniform(0, seconds)
        command = [*python(), "-c", KILLED, str(after), str(int(number)), *flags]
        killed = subprocess.run(
            [*command, f"--workdir={workdir}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if number == signal.SIGKILL:
            assert killed.returncode in (-signal.SIGKILL, 0)  # it may have been quicker
        else:
            assert killed.returncode in (128 + signal.SIGTERM, 0), killed.stderr
            assert "Traceback" not in killed.stderr
        found = (workdir / "checkpoints").iterdir()
        steps.append(max(int(path.name) for path in found if path.name.isdecimal()))
        resume = [*python(), "train.py", *flags, f"--workdir={workdir}"]
        subprocess.run(resume, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        assert faults.final_state(workdir) == alone, (number, after)
    assert any(0 < step < STEPS for step in steps), steps


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_between_two_steps_and_says_how_to_go_on(
    number, tiny_corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr("flaxrnn.training.trainer.STEPS_PER_DISPATCH", 2)
    monkeypatch.setattr(loop, "STEPS_PER_DISPATCH", 2)
    config = shrink(reuters.get_config(), epochs=3)
    straight = flaxrnn.train(config, tmp_path / "straight")
    before = signal.getsignal(number)
    train_epoch = loop._train_epoch

    def with_a_signal(run):
        if len(run.progress.history) == 1:
            os.kill(os.getpid(), number)
        train_epoch(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_train_epoch", with_a_signal)
        with pytest.raises(signals.Saved, match="saved after step 7; resume with: python ") as stop:
            flaxrnn.train(config, tmp_path / "stopped")
    assert stop.value.exit_code == 128 + number
    assert f"--workdir {tmp_path / 'stopped'}" in str(stop.value)
    assert signal.getsignal(number) is before
    resumed = flaxrnn.train(config, tmp_path / "stopped")
    assert resumed["test_loss"] == straight["test_loss"]
    jax.tree.map(
        np.testing.assert_array_equal,
        weights(tmp_path / "straight"),
        weights(tmp_path / "stopped"),
    )


def test_a_signal_before_training_ends_at_once(tiny_corpus, tmp_path, monkeypatch):
    start = run_lib.start

    def with_a_signal(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return start(*arguments)

    monkeypatch.setattr(run_lib, "start", with_a_signal)
    with pytest.raises(signals.Stopped, match="SIGTERM: stopped before there was anything") as stop:
        flaxrnn.train(shrink(reuters.get_config()), tmp_path)
    assert stop.value.exit_code == 143


@pytest.mark.parametrize("place", ["_stop_if_asked", "_test"])
def test_a_signal_during_the_test_saves_and_the_same_command_tests(
    place, tiny_corpus, tmp_path, monkeypatch, capsys
):
    config = shrink(reuters.get_config(), epochs=1)
    original = getattr(loop, place)

    def with_a_signal(run):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, place, with_a_signal)
        with pytest.raises(signals.Saved, match="SIGTERM: saved after step 5; resume with: python"):
            flaxrnn.train(config, tmp_path / "run")
    assert "SIGTERM: saving; a second signal exits at once" in capsys.readouterr().err
    assert not (tmp_path / "run" / "result.json").exists()
    result = flaxrnn.train(config, tmp_path / "run")
    assert result["test_loss"] == flaxrnn.train(config, tmp_path / "alone")["test_loss"]


def test_a_start_that_fails_leaves_nothing(tiny_corpus, tmp_path, monkeypatch):
    def fail(*_):
        raise OutOfMemoryError("while compiling")

    monkeypatch.setattr("flaxrnn.training.trainer.Trainer.compile", fail)
    with pytest.raises(OutOfMemoryError):
        flaxrnn.train(shrink(reuters.get_config()), tmp_path / "runs" / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("owner", "place"), [(loop, "_validate"), (loop, "_test"), (closing, "finish")]
)
def test_a_workdir_that_is_deleted_ends_the_run_with_an_error(
    owner, place, tiny_corpus, tmp_path, monkeypatch
):
    original = getattr(owner, place)

    def with_a_deletion(run, *arguments):
        while (tmp_path / "run").exists():  # a checkpoint may be written at the same time
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return original(run, *arguments)

    monkeypatch.setattr(owner, place, with_a_deletion)
    with pytest.raises(LostWorkdirError, match="run was deleted while the run was in progress"):
        flaxrnn.train(shrink(reuters.get_config(), epochs=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seed", range(6))
def test_a_write_that_fails_stops_cleanly_or_not_at_all(
    seed, tiny_corpus, tmp_path, monkeypatch, capfd
):
    """The disk is full from some write on, or at one; then the run ends as if it had not been."""
    config = shrink(reuters.get_config(), epochs=3)
    config.train.checkpoint_steps = 2
    monkeypatch.setattr("flaxrnn.training.trainer.STEPS_PER_DISPATCH", 2)
    monkeypatch.setattr(loop, "STEPS_PER_DISPATCH", 2)
    number, lasting, writes = [1, 3, 5, 7, 9, 11][seed], seed % 2, 0

    def failing(function):
        def write(*arguments, **kwargs):
            nonlocal writes
            writes += 1
            if writes == number or (lasting and writes > number):
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*arguments, **kwargs)

        return write

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "fsync", failing(os.fsync))
        patch.setattr(Path, "write_bytes", failing(Path.write_bytes))
        expected = pytest.raises(WorkdirError, match="No space left on device")
        with expected if lasting else contextlib.suppress(WorkdirError):
            flaxrnn.train(config, tmp_path / "run")
    assert writes >= number
    assert "Traceback" not in capfd.readouterr().err
    result = flaxrnn.train(config, tmp_path / "run")
    assert result["test_loss"] == flaxrnn.train(config, tmp_path / "alone")["test_loss"]


def test_two_runs_on_one_workdir_are_refused(tiny_corpus, tmp_path):
    config = shrink(reuters.get_config(), epochs=1)
    refused = pytest.raises(WorkdirError, match=f"another run is writing to {tmp_path}")
    with filelock.FileLock(tmp_path / ".lock"), refused:
        flaxrnn.train(config, tmp_path)
    flaxrnn.train(config, tmp_path)


def test_other_texts_than_those_of_the_checkpoint_are_refused(tiny_corpus, tmp_path, monkeypatch):
    config = shrink(reuters.get_config(), epochs=1)
    flaxrnn.train(config, tmp_path)
    arrange = batching.prepare_data

    def other(*arguments, **settings):
        training_data = arrange(*arguments, **settings)
        training_data.texts.ids[3] += 1
        return training_data

    monkeypatch.setattr(batching, "prepare_data", other)
    with pytest.raises(WorkdirError, match="was trained on texts that have changed since"):
        flaxrnn.train(config, tmp_path)


def test_a_history_without_checkpoints_is_no_new_start(tiny_corpus, tmp_path):
    config = shrink(reuters.get_config(), epochs=1)
    flaxrnn.train(config, tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        path.rename(tmp_path / f"lost-{path.name}")
    with pytest.raises(WorkdirError, match="contains metrics of a run but no checkpoint"):
        flaxrnn.train(config, tmp_path)


def poisoned(patch, steps):
    """Makes the loss of some training steps infinite, through the weights of their rows."""
    chunks = batching.group_batches

    def poison(batches, batch_size, *arguments):
        for i, chunk in enumerate(chunks(batches, batch_size, *arguments)):
            if batch_size == 8 and i in steps:
                chunk.weights[0, 0] = np.inf
            yield chunk

    patch.setattr(batching, "group_batches", poison)
    patch.setattr("flaxrnn.training.trainer.STEPS_PER_DISPATCH", 1)
    patch.setattr(loop, "STEPS_PER_DISPATCH", 1)


def test_steps_that_are_not_finite_are_skipped_and_counted(tiny_corpus, tmp_path, monkeypatch):
    config = shrink(reuters.get_config(), epochs=2)
    config.train.nonfinite = "skip"
    poisoned(monkeypatch, {1, 3})
    result = flaxrnn.train(config, tmp_path / "some")
    assert result["skipped_steps"] == 4
    assert np.isfinite([result["val_loss"], result["test_loss"]]).all()
    lines = (tmp_path / "some" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["skipped_steps"] for row in rows] == [2, 2]
    assert np.isfinite([row["train_loss"] for row in rows]).all()
    poisoned(monkeypatch, set(range(5)))
    with pytest.raises(DivergedError, match="every step of epoch 1"):
        flaxrnn.train(config, tmp_path / "all")


def test_too_little_memory_names_the_batch_and_what_to_lower(tiny_corpus, tmp_path, monkeypatch):
    config = shrink(reuters.get_config())
    config.model.hidden_size = 2**19  # 4 TiB of recurrent weights
    with pytest.raises(OutOfMemoryError, match=r"for the parameters; lower model\.hidden_size"):
        flaxrnn.train(config, tmp_path / "model")

    def exhausted(program, *arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr("flaxrnn.runtime.devices.compiled", lambda *_: exhausted)
    config = shrink(reuters.get_config())
    config.data.max_padding = 1.0
    with pytest.raises(OutOfMemoryError) as caught:
        flaxrnn.train(config, tmp_path / "batch")
    assert str(caught.value) == (
        "out of memory with a batch of 8 texts of 20 tokens on 1 devices; lower train.batch_size,"
        " data.maxlen or model.hidden_size, or set model.recompute"
    )


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 70), st.floats(), st.text(max_size=5), st.just([])
)


@given(
    st.dictionaries(st.sampled_from([*config_lib.FIELDS, "model.size", "x"]), VALUES, max_size=4)
)
def test_any_config_is_possible_or_named(overrides):
    config = ConfigDict(default.get_config().to_dict(), type_safe=False)
    for name, value in overrides.items():
        group, _, field = name.rpartition(".")
        (config[group] if group else config)[field] = value
    message = ""
    try:
        config_lib.parse(config)
    except ConfigError as error:
        message = str(error)
    assert not message or message.startswith(tuple(overrides))
    assert "\n" not in message


POSSIBLE = {
    "data.maxlen": range(1, 41),
    "data.padding": ["post", "pre"],
    "data.max_padding": [0.05, 0.3, 1.0],
    "data.device_memory": [0.0, 1.0],
    "data.num_words": range(4, 41),
    "data.validation": ["train", "stratified", "test"],
    "model.dropout": [0.0, 0.3],
    "model.conv_filters": [0, 3],
    "model.conv_pool": range(1, 51),
    "model.cell": ["simple", "lstm", "gru"],
    "model.layers": [1, 2],
    "model.bidirectional": [True, False],
    "model.pooling": ["last", "max", "mean", "attention"],
    "model.recompute": range(10),
    "train.batch_size": range(1, 71),
    "train.eval_batch_size": range(1, 71),
    "train.learning_rate": [1e-3, 1e-2, 10.0, 1e38],
    "train.schedule": ["constant", "warmup_linear"],
    "train.nonfinite": ["stop", "skip"],
    "train.restore_best": [True, False],
}


def test_any_possible_config_trains_or_diverges(tiny_corpus, tmp_path):
    trained = 0
    for seed in range(5):
        rng = random.Random(seed)
        config = shrink(imdb.get_config(), epochs=1)
        chosen = {name: rng.choice(values) for name, values in POSSIBLE.items()}
        config.update_from_flattened_dict(chosen)
        try:
            result = flaxrnn.train(config, tmp_path / str(seed))
        except DivergedError:
            assert chosen["train.learning_rate"] > 1, chosen
            continue
        assert result["test_examples"] == 23, chosen
        trained += 1
    assert trained >= 3


@given(st.lists(st.text(max_size=10_000), min_size=1, max_size=4), st.integers(1, 600))
def test_any_text_is_encoded_and_padded(texts, maxlen):
    words = [splitting.tokenize(raw) for raw in texts]
    vocabulary = Vocabulary(sorted({word for found in words for word in found}))
    rows = [np.array(vocabulary.encode(found), np.int32) for found in words]
    offsets = np.cumsum([0, *map(len, rows)])
    split = ragged.RaggedTexts(np.concatenate(rows), offsets, np.zeros(len(rows), np.int32))
    for found, row in zip(words, split.texts(), strict=True):
        assert vocabulary.decode(row) == " ".join(found)
    clipped = split.clip(len(vocabulary) + FIRST_WORD, maxlen)
    arrays = clipped.padded(maxlen, "post")
    for tokens, length, row in zip(arrays["tokens"], arrays["lengths"], rows, strict=True):
        np.testing.assert_array_equal(tokens[:length], row[-maxlen:])
        assert not tokens[length:].any()

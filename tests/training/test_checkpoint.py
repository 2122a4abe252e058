"""Checkpoints on failing disks and under corruption: the right one is restored, or an error."""

import contextlib
import errno
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from flaxrnn.errors import WorkdirError
from flaxrnn.runtime import files
from flaxrnn.training import checkpoint
from flaxrnn.training.steps import TrainState


def state_of(step, seed=0):
    params = {"layer": {"kernel": jax.random.normal(jax.random.key(seed + step), (3, 4))}}
    opt_state = optax.adam(1e-3).init(params)
    return TrainState(jnp.int32(step), jax.random.PRNGKey(step), params, opt_state, params)


def assert_restored(restored, step):
    assert restored["progress"] == {"step": step}
    jax.tree.map(np.testing.assert_array_equal, restored["state"], state_of(step))
    jax.tree.map(np.testing.assert_array_equal, restored["weights"], state_of(step).params)


def save(folder, *steps):
    checkpoints = checkpoint.Checkpoints(folder)
    for step in steps:
        state = state_of(step)
        failure = checkpoints.save(state, state.params, {"step": step}, wait=True)
    checkpoints.close()
    return failure


def restore(folder):
    checkpoints = checkpoint.Checkpoints(folder)
    template = state_of(0)
    restored = checkpoints.restore(state=template, weights=template.params)
    checkpoints.close()
    return restored


def test_the_newest_is_restored_and_two_are_kept(tmp_path):
    assert restore(tmp_path) is None
    save(tmp_path, 8, 16, 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["100", "16"]
    assert_restored(restore(tmp_path), 100)


def test_save_copies_the_arrays(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    state = jax.tree.map(np.array, state_of(8))
    checkpoints.save(state, state.params, {"step": 8})
    state.params["layer"]["kernel"][:] = 0
    checkpoints.close()
    assert_restored(restore(tmp_path), 8)


@pytest.mark.parametrize("seed", range(4))
def test_corruption_of_the_newest_restores_the_previous_one(tmp_path, capsys, seed):
    """Bit flips, truncations and deletions in every file; 200 over all seeds, none undetected."""
    save(tmp_path / "intact", 8, 16)
    rng = np.random.default_rng(seed)
    names = sorted(path.name for path in (tmp_path / "intact" / "16").iterdir())
    for i in range(50):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(tmp_path / "intact", tmp_path / "run")
        path = tmp_path / "run" / "16" / names[i % len(names)]
        content = bytearray(path.read_bytes())
        match rng.integers(3):
            case 0:
                content[rng.integers(len(content))] ^= 1 << rng.integers(8)
                path.write_bytes(content)
            case 1:
                path.write_bytes(content[: rng.integers(len(content))])
            case 2:
                path.unlink()
        assert_restored(restore(tmp_path / "run"), 8)
        assert f"{path.parent}: {path.name} is" in capsys.readouterr().err
        assert (tmp_path / "run" / "16.damaged").is_dir()
        assert_restored(restore(tmp_path / "run"), 8)


def test_a_run_whose_every_checkpoint_is_corrupt_does_not_start_over(tmp_path):
    save(tmp_path, 8, 16)
    for step in ("8", "16"):
        (tmp_path / step / "state.safetensors").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(WorkdirError, match=f"{tmp_path}: every checkpoint is corrupt"):
            restore(tmp_path)


def tampered(folder, change):
    """Changes the arrays of a checkpoint's state and updates its checksums."""
    arrays = checkpoint.safetensors.numpy.load_file(folder / "state.safetensors")
    change(arrays)
    checkpoint.safetensors.numpy.save_file(arrays, folder / "state.safetensors")
    (folder / files.CHECKSUMS).unlink()
    files.write_checksums(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(step=a["step"].astype(np.int64)), r"step is int64\[\], not int32\[\]"),
        (
            lambda a: a.update({"params/layer/kernel": np.zeros((4, 3), np.float32)}),
            r"params/layer/kernel is float32\[4, 3\], not float32\[3, 4\]",
        ),
        (lambda a: a.pop("key"), "missing array key"),
        (lambda a: a.update(more=a["key"]), "unknown array more"),
    ],
)
def test_arrays_of_another_model_are_refused_by_name(tmp_path, change, message):
    save(tmp_path, 8)
    tampered(tmp_path / "8", change)
    with pytest.raises(WorkdirError, match=rf"8/state\.safetensors: {message}"):
        restore(tmp_path)


class PowerLossError(BaseException):
    """Interrupts everything at once."""


def fail_at(patch, number, error):
    """Makes the `number`-th file operation fail, and after a power loss all later ones too."""
    done = []

    def failing(function):
        def run(*args, **kwargs):
            done.append(function.__name__)
            last = isinstance(error, PowerLossError) and len(done) > number
            if last or len(done) == number:
                raise error
            return function(*args, **kwargs)

        return run

    for owner, name in [
        (files.os, "fsync"),
        (files.os, "replace"),
        (Path, "mkdir"),
        (Path, "rename"),
        (Path, "write_bytes"),
        (shutil, "rmtree"),
    ]:
        patch.setattr(owner, name, failing(getattr(owner, name)))
    return done


@pytest.mark.parametrize(
    "error", [PowerLossError(), OSError(errno.ENOSPC, "No space left on device")]
)
def test_an_intact_checkpoint_remains_whichever_write_fails(tmp_path, error, capfd):
    save(tmp_path / "0", 8, 16)
    with pytest.MonkeyPatch.context() as patch:
        operations = fail_at(patch, 0, None)
        save(tmp_path / "0", 24)
    assert len(operations) > 10
    for number in range(1, len(operations) + 1):
        folder, failure = tmp_path / str(number), None
        save(folder, 8, 16)
        with pytest.MonkeyPatch.context() as patch:
            fail_at(patch, number, error)
            with contextlib.suppress(PowerLossError, WorkdirError):
                failure = save(folder, 24)
        if failure:
            assert (
                failure == "the checkpoint of step 24 cannot be written (No space left on device)"
            )
            assert f"{failure}; that of step" in capfd.readouterr().err
        restored = restore(folder)
        assert restored["progress"]["step"] in (16, 24)
        assert_restored(restored, restored["progress"]["step"])
        assert save(folder, 32) is None  # works again
        assert_restored(restore(folder), 32)
        assert not list(folder.glob("*.part"))


def test_progress_is_restored_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(0)
    values = [float(x) for x in rng.normal(size=100)] + [float("inf"), 1e-310, 0.1 + 0.2]
    checkpoints = checkpoint.Checkpoints(tmp_path)
    state = state_of(1)
    checkpoints.save(state, state.params, {"values": values}, wait=True)
    restored = checkpoints.restore(state=state, weights=state.params)
    checkpoints.close()
    assert restored["progress"]["values"] == values
    assert json.loads((tmp_path / "1" / "progress.json").read_text())["values"] == values


def test_arrays_are_named_by_path(tmp_path):
    save(tmp_path, 8)
    arrays = checkpoint.safetensors.numpy.load_file(tmp_path / "8" / "weights.safetensors")
    assert set(arrays) == set(traverse_util.flatten_dict(state_of(8).params, sep="/"))

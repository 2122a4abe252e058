import os
import signal
import statistics

import pytest
from helpers import shrink

import flaxrnn
from benchmarks import faults
from configs import reuters
from flaxrnn import loop, seeds
from flaxrnn import run as run_lib
from flaxrnn.errors import ConfigError
from flaxrnn.runtime import signals

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture
def config(tiny_corpus, monkeypatch):
    monkeypatch.setattr("flaxrnn.training.trainer.STEPS_PER_DISPATCH", 2)
    monkeypatch.setattr(loop, "STEPS_PER_DISPATCH", 2)
    config = shrink(reuters.get_config())
    config.seed = 3
    return config


def alone(config, seed, workdir):
    config = config.copy_and_resolve_references()
    config.seed = seed
    flaxrnn.train(config, workdir)
    return faults.final_state(workdir)


def test_each_seed_is_the_run_it_would_be_alone(config, tmp_path):
    results = seeds.train(config, 2, tmp_path / "many")
    assert config.seed == 3
    assert [result["seed"] for result in results] == [3, 4]
    many = [tmp_path / "many" / f"seed-{seed}" for seed in (3, 4)]
    assert sorted((tmp_path / "many").iterdir()) == many
    for seed, workdir in zip((3, 4), many, strict=True):
        assert faults.final_state(workdir) == alone(config, seed, tmp_path / str(seed))
        names = [{path.name for path in folder.iterdir() if not path.name.startswith("events.")}
                 for folder in (workdir, tmp_path / str(seed))]  # fmt: skip
        assert names[0] == names[1]
        assert (workdir / "config.json").read_text() == (
            tmp_path / str(seed) / "config.json"
        ).read_text()
    assert faults.final_state(many[0]) != faults.final_state(many[1])
    alone(config, 4, many[1])  # goes on as a run of its own


def test_table_of_the_seeds_and_their_mean(config, tmp_path, capsys):
    config.data.max_padding = 0.03
    results = seeds.train(config, 3, tmp_path)
    accuracies = [result["test_accuracy"] for result in results]
    lines = capsys.readouterr().out.splitlines()[-5:]
    header, *rows = ([c.strip() for c in line.split("  ") if c.strip()] for line in lines)
    assert header[:3] == ["run", "n", "test accuracy"]
    assert [row[:3] for row in rows[:3]] == [
        [str(tmp_path / f"seed-{seed}"), "1", f"{accuracy:.4f}"]
        for seed, accuracy in zip((3, 4, 5), accuracies, strict=True)
    ]
    assert len(set(accuracies)) > 1
    mean, std = statistics.mean(accuracies), statistics.stdev(accuracies)
    assert rows[3][:3] == [f"{tmp_path / 'seed-3'} (+2)", "3", f"{mean:.4f} ± {std:.4f}"]

    seeds.train(config, 1, tmp_path)
    last = capsys.readouterr().out.splitlines()[-3:]
    assert last[0] == ""
    assert last[2].startswith(f"{tmp_path / 'seed-3'}  ")


@pytest.mark.parametrize(("function", "step"), [("_train_epoch", 7), ("_test", 2)])
def test_a_signal_stops_a_seed_and_the_same_call_goes_on(
    function, step, config, tmp_path, monkeypatch
):
    """In the second epoch of the second seed, or when the first one has nothing left to stop."""
    original, number = getattr(loop, function), signal.SIGTERM

    def with_a_signal(run):
        if (run.config.seed, function) == (3, "_test") or (
            run.config.seed == 4 and len(run.progress.history) == 1
        ):
            os.kill(os.getpid(), number)
        return original(run)

    with monkeypatch.context() as patch:
        patch.setattr(loop, function, with_a_signal)
        with pytest.raises(signals.Saved, match=f"SIGTERM: saved after step {step}; ") as stop:
            seeds.train(config, 3, tmp_path / "many")
    assert stop.value.exit_code == 128 + number
    assert str(stop.value).endswith(f" --workdir {tmp_path / 'many'}")
    assert (tmp_path / "many" / "seed-3" / "result.json").exists()
    assert not (tmp_path / "many" / "seed-5").exists()
    seeds.train(config, 2, tmp_path / "many")
    stopped = faults.final_state(tmp_path / "many" / "seed-4")
    assert stopped == alone(config, 4, tmp_path / "alone")


def test_a_signal_while_the_second_seed_starts_ends_at_once(config, tmp_path, monkeypatch):
    start = run_lib.start

    def with_a_signal(config, *arguments):
        if config.seed == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return start(config, *arguments)

    monkeypatch.setattr(run_lib, "start", with_a_signal)
    with pytest.raises(signals.Stopped, match="stopped before there was anything") as stop:
        seeds.train(config, 2, tmp_path)
    assert stop.value.exit_code == 128 + signal.SIGTERM


def test_seeds_below_one_are_refused(config, tmp_path):
    with pytest.raises(ConfigError, match="--seeds: 0 must be a whole number of at least 1"):
        seeds.train(config, 0, tmp_path)
    config.train.epochs = 0
    with pytest.raises(ConfigError, match=r"train\.epochs: 0 must be"):
        seeds.train(config, 2)
    assert list(tmp_path.iterdir()) == []

import json
import os
import signal
import statistics

import numpy as np
import pytest
from helpers import korean, shrink, write_csv
from sklearn.metrics import f1_score

import flaxrnn
from benchmarks import faults
from configs import language_model, reuters
from configs import text as text_config
from flaxrnn import compare, loop, seeds
from flaxrnn import run as run_lib
from flaxrnn.config import parse
from flaxrnn.data import corpora
from flaxrnn.errors import ConfigError, WorkdirError
from flaxrnn.runtime import signals
from flaxrnn.runtime.clock import Clock
from flaxrnn.training.texts import load_texts

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
    assert sorted((tmp_path / "many").iterdir()) == [*many, tmp_path / "many" / "seeds.json"]
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
    *lines, ensemble = capsys.readouterr().out.splitlines()[-6:]
    header, *rows = ([c.strip() for c in line.split("  ") if c.strip()] for line in lines)
    assert header[:4] == ["run", "n", "val accuracy", "test accuracy"]
    assert [[*row[:2], row[3]] for row in rows[:3]] == [
        [str(tmp_path / f"seed-{seed}"), "1", f"{accuracy:.4f}"]
        for seed, accuracy in zip((3, 4, 5), accuracies, strict=True)
    ]
    assert len(set(accuracies)) > 1
    mean, std = statistics.mean(accuracies), statistics.stdev(accuracies)
    assert rows[3][:2] == [f"{tmp_path / 'seed-3'} (+2)", "3"]
    assert rows[3][3] == f"{mean:.4f} ± {std:.4f}"
    record = json.loads((tmp_path / "seeds.json").read_text())
    assert record["members"] == ["seed-3", "seed-4", "seed-5"]
    assert record["single"]["test_accuracy"] == {"mean": mean, "std": std}
    shown = [f"{tmp_path} (ensemble)", "1", "-", f"{record['ensemble']['test_accuracy']:.4f}"]
    assert ensemble.split("  ")[0] == shown[0]
    assert ensemble.removeprefix(shown[0]).split()[:3] == shown[1:]
    assert ensemble.split()[-1] == "3"

    seeds.train(config, 1, tmp_path)
    assert json.loads((tmp_path / "seeds.json").read_text())["members"] == ["seed-3"]
    last = capsys.readouterr().out.splitlines()[-3:]
    assert last[0] == ""
    assert last[2].startswith(f"{tmp_path / 'seed-3'}  ")


def test_figures_of_the_ensemble_are_those_of_the_mean_probabilities(config, tmp_path):
    config.train.learning_rate = 0.05
    seeds.train(config, 3, tmp_path)
    test = corpora.load_corpus("reuters").test.clip(config.data.num_words, config.data.maxlen)
    single = [flaxrnn.load(tmp_path / f"seed-{s}").probabilities_of_ids(test) for s in (3, 4, 5)]
    predicted = np.mean(single, axis=0).argmax(axis=1)
    expected = [
        np.mean(predicted == test.labels),
        f1_score(test.labels, predicted, average="macro"),
    ]
    found = json.loads((tmp_path / "seeds.json").read_text())["ensemble"]
    assert [found["test_accuracy"], found["test_macro_f1"]] == pytest.approx(expected)
    assert found["test_examples"] == 23
    run = compare.read(tmp_path)
    assert [run.values["test accuracy"], run.values["macro-F1"]] == pytest.approx(expected)
    runs = [compare.read(tmp_path / f"seed-{s}") for s in (3, 4, 5)]
    seconds = [curve.end for each in runs for curve in each.curves]
    assert run.curves[-1].end == pytest.approx(sum(seconds))
    assert run.values["parameters"] == 3 * runs[0].values["parameters"]


def test_all_seeds_are_tested_on_the_same_custom_texts(tmp_path, data_dir):
    """Else the test texts of one run would be training texts of another."""
    config = shrink(text_config.get_config(), epochs=1)
    config.data.num_words = 100
    path = write_csv(tmp_path / "a.csv", korean(60))
    config.data.update({"path": str(path), "data_dir": data_dir})
    config.seed = 5
    seeds.train(config, 2, tmp_path / "many")
    configs = [
        parse(json.loads((tmp_path / "many" / f"seed-{seed}" / "config.json").read_text()))
        for seed in (5, 6)
    ]
    first, second = (load_texts(each, tmp_path, Clock()) for each in configs)
    np.testing.assert_array_equal(first.training_data.texts.ids, second.training_data.texts.ids)
    assert first.vocabulary.words == second.vocabulary.words
    assert flaxrnn.load(tmp_path / "many").num_members == 2
    config.seed = 6  # alone, it has a split of its own
    alone = load_texts(parse(config), tmp_path, Clock()).training_data
    assert alone.texts.ids.tolist() != first.training_data.texts.ids.tolist()
    config.data.split_seed = 5
    same = load_texts(parse(config), tmp_path, Clock()).training_data
    assert same.texts.ids.tolist() == first.training_data.texts.ids.tolist()


def test_language_models_make_no_ensemble(tmp_path, capsys):
    config = shrink(language_model.get_config(), epochs=1, hidden_size=3)
    seeds.train(config, 2, tmp_path)
    assert set(json.loads((tmp_path / "seeds.json").read_text())) == {"members", "single"}
    assert "ensemble" not in capsys.readouterr().out
    with pytest.raises(WorkdirError, match="has no figures of an ensemble"):
        compare.main([str(tmp_path)])


def test_folder_of_a_single_run_is_refused(config, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WorkdirError, match="holds a single run; name another for --seeds"):
        seeds.train(config, 2, tmp_path)


@pytest.mark.parametrize(("function", "step"), [("_train_epoch", 7), ("_test", 10)])
def test_a_signal_stops_a_seed_and_the_same_call_goes_on(
    function, step, config, tmp_path, monkeypatch
):
    """In the second epoch of the second seed, or when the first one has only its test left."""
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
    tested = function == "_train_epoch"
    assert (tmp_path / "many" / "seed-3" / "result.json").exists() is tested
    assert (tmp_path / "many" / "seed-4").exists() is tested
    assert not (tmp_path / "many" / "seed-5").exists()
    if tested:
        with pytest.raises(WorkdirError, match="is unfinished, seed-4, seed-5 of 3 runs"):
            compare.read(tmp_path / "many")
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
    config.train.patience = 0
    with pytest.raises(ConfigError, match=r"train\.patience: 0 must be"):
        seeds.train(config, 2)
    assert list(tmp_path.iterdir()) == []

"""What is not finite is no result: the run fails, its files are valid, no text gets a label."""

import json
import shutil

import jax
import numpy as np
import pytest
from helpers import loaded, saved_workdir, shrink

import flaxrnn
from configs import imdb, reuters
from flaxrnn import compare, predict, seeds
from flaxrnn.errors import DivergedError, WorkdirError
from flaxrnn.inference import predictor
from flaxrnn.training import checkpoint, trainer

pytestmark = pytest.mark.usefixtures("no_plots")


def strict(path):
    def refuse(token):
        pytest.fail(f"{path.name} has {token}, which is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def poisoned(monkeypatch, splits, seeds=(0,)):
    """Makes the loss on these splits NaN in runs with these seeds."""
    evaluate = trainer.Trainer.evaluate

    def evaluated(self, params, split):
        sums, per_text = evaluate(self, params, split)
        if split in splits and self._seed in seeds:
            sums["loss"] = sums["loss"] * np.nan
        return sums, per_text

    monkeypatch.setattr(trainer.Trainer, "evaluate", evaluated)


@pytest.mark.parametrize("splits", [("test",), ("val", "test")])
def test_a_loss_that_is_not_finite_at_the_end_fails_the_run(
    splits, tiny_corpus, tmp_path, monkeypatch, capsys
):
    poisoned(monkeypatch, splits)
    config = shrink(reuters.get_config())
    for _ in range(2):  # also when it is started again
        with pytest.raises(
            DivergedError, match=r"_loss of .*run is nan: .*learning_rate"
        ) as failed:
            flaxrnn.train(config, tmp_path / "run")
        assert failed.value.exit_code == 3
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_loss"] is None
    assert "NaN" not in (tmp_path / "run" / "result.json").read_text()
    assert [row["val_loss"] is None for row in strict(tmp_path / "run" / "metrics.jsonl")] == [
        "val" in splits
    ] * 2
    compare.main([str(tmp_path / "run")])
    assert f"{tmp_path / 'run'}" in capsys.readouterr().out


def test_one_seed_that_diverges_is_left_out(tiny_corpus, tmp_path, monkeypatch, capsys):
    poisoned(monkeypatch, ("test",), seeds=(1,))
    with pytest.raises(DivergedError, match="--seeds: 1 of 3 runs diverged: seed-1") as failed:
        seeds.train(shrink(reuters.get_config()), 3, tmp_path)
    assert failed.value.exit_code == 3
    record = json.loads((tmp_path / "seeds.json").read_text())
    assert record["members"] == ["seed-0", "seed-2"]
    printed = capsys.readouterr()
    assert "continuing without it" in printed.err
    assert "(ensemble)" in printed.out
    assert predictor.load(tmp_path).num_members == 2


def test_all_seeds_that_diverge_are_named(tiny_corpus, tmp_path, monkeypatch):
    poisoned(monkeypatch, ("val", "test"), seeds=(0, 1))
    with pytest.raises(DivergedError, match="2 of 2 runs diverged: seed-0, seed-1"):
        seeds.train(shrink(reuters.get_config()), 2, tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(value, tmp_path):
    folder = saved_workdir(tmp_path / "run", shrink(imdb.get_config()), ["neg", "pos"])
    with_one = jax.tree.map(np.copy, loaded(folder)._saved.members[0])
    with_one["dense"]["kernel"][0] = value
    shutil.rmtree(folder / "checkpoints")
    checkpoint.write_weights(folder / "checkpoints", with_one)
    with pytest.raises(WorkdirError, match=f"--workdir: the weights of {folder} are not finite"):
        flaxrnn.load(folder)


def test_a_text_whose_probabilities_are_not_finite_has_no_label(imdb_workdir, monkeypatch, capsys):
    model = flaxrnn.load(imdb_workdir)
    predicted = model._predicted

    def overflowing(texts):  # as large weights do, for some texts
        for rows, probabilities in predicted(texts):
            found = np.array(probabilities)[: len(rows)]
            found[texts.lengths[rows] > 4] = np.nan
            yield rows, found

    model._predicted = overflowing
    monkeypatch.setattr(predictor, "load", lambda *_: model)
    with pytest.raises(DivergedError, match="text 1 has no label"):
        model.predict(["good", "good film not bad film"])
    predict.main(["--workdir", "x", "--format", "jsonl", "good", "good film not bad film"])
    one, other = strict_lines(capsys.readouterr().out)
    assert one["label"] in ("neg", "pos")
    assert (other["label"], other["probability"]) == (None, None)
    assert "not finite" in other["note"]
    for form in ("jsonl", "table"):
        predict.main(["--workdir", "x", "--format", form, "--explain", "good film not bad film"])
        shown = capsys.readouterr().out
        assert "not finite" in shown
        assert "NaN" not in shown


def strict_lines(text):
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]

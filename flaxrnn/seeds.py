"""Several seeds of a config: runs of their own, one after the other, and the ensemble they make."""

from __future__ import annotations

import dataclasses
import statistics
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flaxrnn import compare, loop, teacher
from flaxrnn import config as config_lib
from flaxrnn.config import Config, declare
from flaxrnn.errors import ConfigError, DivergedError, WorkdirError
from flaxrnn.inference import predictor, saved
from flaxrnn.nn import heads
from flaxrnn.reporting import console
from flaxrnn.runtime import devices, distributed, files, records, signals
from flaxrnn.runtime.clock import Clock
from flaxrnn.training import metrics
from flaxrnn.training.texts import load_texts
from flaxrnn.training.workdir import fresh_workdir

_MAX_SEEDS = 1_000
_SHOWN = ("accuracy", "micro_f1", "macro_f1")  # metrics of one seed and of the ensemble


def train(
    config: ConfigDict, seeds: int, workdir: str | Path | None = None
) -> list[dict[str, Any]]:
    """Trains a config with several seeds, from its own on, and evaluates them as an ensemble.

    Seed S is a run in the folder seed-S of the workdir, as it would be alone; with custom texts,
    all have the test split of the first. The same call resumes one that was stopped. At the end it
    prints a table, and writes mean, spread and ensemble to seeds.json.

    Args:
        config: As docs/config.md describes.
        seeds: How many.
        workdir: Where their folders are. None: a fresh folder under runs/.

    Returns:
        What `result.json` of each run holds.

    Raises:
        ConfigError: `seeds` is below 1, or too large.
        WorkdirError: The workdir itself holds a run.
        DivergedError: A seed diverged; the others were trained, and make the ensemble.
        FlaxrnnError, signals.Stopped: See `loop.train_and_evaluate`; no later seed is begun.
    """
    checked = _with_split_seed(config_lib.parse(config))
    devices.initialize(checked.train.shards)
    _check_number(seeds, checked.seed)
    root = files.expand(workdir or fresh_workdir(checked), "--workdir")
    if distributed.broadcast((root / "config.json").exists()):
        raise WorkdirError(f"--workdir: {root} holds a single run; name another for --seeds")
    folders = [saved.folder_of_seed(root, checked.seed + i) for i in range(seeds)]
    results: list[dict[str, Any]] = []
    diverged: list[Path] = []
    with signals.Listener() as listener:
        for i, folder in enumerate(folders):
            one = dataclasses.replace(checked, seed=checked.seed + i)
            baseline = results[0].get("baseline") if results else None
            try:
                # A signal that comes too late to stop a run stops the next one.
                results.append(loop.train(one, root, folder.name, listener, baseline))
            except DivergedError as error:
                diverged.append(folder)
                print(f"warning: {error}; continuing without it", file=sys.stderr, flush=True)
            members = [folder for folder in folders if folder not in diverged]
            if distributed.is_primary():  # from the first one on: those to come are known, too
                _record_members(root, members)
    if distributed.is_primary() and members:
        _report(checked, root, members, results)
    if diverged:
        names = ", ".join(folder.name for folder in diverged)
        raise DivergedError(f"--seeds: {len(diverged)} of {seeds} runs diverged: {names}")
    return results


def _check_number(seeds: int, first: int) -> None:
    if seeds < 1:
        raise ConfigError(f"--seeds: {seeds} must be a whole number of at least 1")
    if seeds > _MAX_SEEDS:
        raise ConfigError(f"--seeds: {seeds} must be at most {_MAX_SEEDS:,}")
    if (last := first + seeds - 1) > declare.MOST_SEED:
        raise ConfigError(f"--seeds: the last seed, {last}, must be at most {declare.MOST_SEED:,}")


def _with_split_seed(config: Config) -> Config:
    """The config with a split of custom texts that does not depend on the seed.

    Otherwise what one run is tested on would be what the others were trained on.
    """
    if config.task != "text" or config.data.split_seed is not None:
        return config
    data = dataclasses.replace(config.data, split_seed=config.seed)
    return dataclasses.replace(config, data=data)


def _record_members(root: Path, folders: list[Path]) -> None:
    """Writes the names of the runs to seeds.json, unless it already has them."""
    names = [folder.name for folder in folders]
    if saved.read_record(root).get("members") != names:
        _write_record(root, {"members": names})


def _write_record(root: Path, record: dict[str, Any]) -> None:
    try:
        files.write_atomically(root / saved.SEEDS, records.to_text(record, indent=2) + "\n")
    except OSError as error:
        raise WorkdirError(f"--workdir: {root} cannot be written ({error.strerror})") from None


def _report(config: Config, root: Path, folders: list[Path], results: list[dict[str, Any]]) -> None:
    """Completes seeds.json, and prints a table of the runs, their mean and their ensemble."""
    record: dict[str, Any] = {"members": [folder.name for folder in folders]}
    shown = [name for name in _SHOWN if f"test_{name}" in results[0]]
    record["single"] = {f"test_{name}": _spread(results, f"test_{name}") for name in shown}
    classifies = not heads.get_head(config.model.target).per_token
    if classifies:
        record["ensemble"] = _evaluate_ensemble(config, root, folders[0])
    if baseline := results[0].get("baseline"):
        record["baseline"] = baseline
    _write_record(root, record)
    runs = [compare.read(folder) for folder in folders]
    groups = [[run] for run in runs]
    if len(runs) > 1:
        groups += [runs, *([[compare.read(root)]] if classifies else [])]
    print()
    compare.show(groups)
    if baseline:
        print(console.baseline(baseline))


def _spread(results: list[dict[str, Any]], name: str) -> dict[str, float | None]:
    values = [result[name] for result in results]
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "std": deviation}


def _evaluate_ensemble(config: Config, root: Path, first: Path) -> dict[str, Any]:
    """Evaluates the mean of the probabilities of the kept weights on the test split."""
    data = load_texts(config, first, Clock(), teacher.label).training_data
    test = data.texts.take(data.rows["test"])
    model = predictor.load(root)
    probabilities = model.probabilities_of_ids(test)
    several = model.thresholds is not None
    predicted = probabilities > model.thresholds if several else probabilities.argmax(axis=1)
    scores = metrics.of_predictions(test.labels, predicted, probabilities.shape[1])
    return {f"test_{name}": score for name, score in scores.items()} | {"test_examples": len(test)}

"""The training loop: config → data → model → steps → report."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from flaxrnn import checkpoint, data, devices, metrics, models, optim, report, steps
from flaxrnn import config as config_lib
from flaxrnn.errors import DivergedError, WorkdirError
from flaxrnn.trainer import STEPS_A_DISPATCH, Trainer


def train_and_evaluate(config: ConfigDict, workdir: str | Path | None = None) -> dict[str, Any]:
    """Trains a text classifier, or goes on with it, and evaluates it once on the test split.

    Args:
        config: As `configs/default.py` describes.
        workdir: Where everything is written; one with a checkpoint of the same config is continued.
            None: a fresh folder under runs/.

    Returns:
        What `result.json` in the workdir holds.

    Raises:
        ConfigError: A field is impossible.
        DataError: The corpus cannot be had, or has too few texts for the config.
        WorkdirError: The workdir cannot be written or belongs to another config.
        DivergedError: The loss is not finite any more; the last good weights are kept.
    """
    clock = Clock()
    with clock("startup"):
        config_lib.check(config)
        devices.use_all_cores()
        devices.keep_compiled(config.compile_cache)
        workdir = _open_workdir(workdir, config)
        corpus = data.load_corpus(
            config.task, config.data.source, config.data.data_dir, config.data.manual_dir
        )
        if corpus.synthetic:
            print(report.banner(corpus.name))
        label_names = corpus.label_names
        source = {
            "dataset": corpus.name,
            "data_source": "synthetic" if corpus.synthetic else "real",
        }
        material = data.arrange(
            corpus,
            num_words=config.data.num_words,
            maxlen=config.data.maxlen,
            padding=config.data.padding,
            max_padding=config.data.max_padding,
            validation=config.data.validation,
            validation_fraction=config.data.validation_fraction,
        )
        corpus.vocabulary.limit(config.data.num_words).save(workdir / "vocabulary.json")
        report.write_atomically(workdir / "labels.json", json.dumps(label_names))
        del corpus  # the texts of the run are all that is needed, IMDB's others take 100 MB
        model = models.build(config.model, config.data.num_words, len(label_names))
        print(models.summary(model, config.train.batch_size, config.data.maxlen))
        steps_an_epoch = -(-len(material.rows["train"]) // config.train.batch_size)
        optimizer = optim.adam(
            config.train.learning_rate,
            config.train.schedule,
            steps_an_epoch * config.train.epochs,
        )
        state = _copy(steps.init_state(model, optimizer, config.seed))
        weights = _copy(state.average)  # what the run would end with now
        progress: dict[str, Any] = {"history": [], "diverged_at": None}
        checkpoints = checkpoint.Checkpoints(workdir / "checkpoints")
        if restored := checkpoints.restore(state=state, weights=weights):
            state, weights, progress = (restored[k] for k in ("state", "weights", "progress"))
            clock.add(progress["seconds"])
            print(f"Continuing {workdir} after epoch {len(progress['history'])}")
        history = progress["history"]
        if progress["diverged_at"] is not None:
            raise _diverged(progress["diverged_at"], workdir)
        trainer = Trainer(
            material,
            model,
            optimizer,
            averaging=config.train.averaging,
            batch_size=config.train.batch_size,
            eval_batch_size=config.train.eval_batch_size,
            device_memory=config.data.device_memory,
            seed=config.seed,
        )
        state, weights = trainer.place((state, weights))
        reporter = report.Report(workdir, len(history))
    with clock("compile"):
        trainer.compile(state)

    def save(wait: bool = False) -> None:
        snapshot = {**progress, "history": list(history), "seconds": clock.read()}
        checkpoints.save(_copy(state), weights, snapshot, wait)  # the next step takes the state's

    def watch(epoch: int, fed: Iterator[Any], dispatches: int) -> Iterable[Any]:
        return reporter.progress(clock.each("input", fed), dispatches, STEPS_A_DISPATCH, epoch)

    while not _finished(history, config.train):
        epoch = len(history) + 1
        began = time.perf_counter()
        with clock("train"):
            state, sums, bad_step = trainer.epoch(state, epoch, functools.partial(watch, epoch))
        train_seconds = time.perf_counter() - began
        if bad_step is not None:
            progress["diverged_at"] = bad_step
            save(wait=True)
            raise _diverged(bad_step, workdir)
        with clock("eval"):
            val_sums = trainer.evaluate(state.average, "val")
        history.append(
            {
                "epoch": epoch,
                **{f"train_{name}": value for name, value in metrics.means(sums).items()},
                **{f"val_{name}": value for name, value in metrics.means(val_sums).items()},
                "train_examples_per_second": len(material.rows["train"]) / train_seconds,
                "seconds": time.perf_counter() - began,
            }
        )
        if not config.train.restore_best or report.best_epoch(history) == epoch:
            weights = _copy(state.average)
        save()
        reporter.epoch(history, config.train.epochs, config.train.patience)

    with clock("test"):
        test_sums = trainer.evaluate(weights, "test")
    checkpoints.close()
    best = report.best_epoch(history)
    kept = history[best - 1 if config.train.restore_best else -1]
    test_means = metrics.means(test_sums)
    seconds = clock.read()
    train = material.rows["train"]
    tokens = int(material.texts.lengths[train].sum())
    result = {
        "task": config.task,
        **source,
        "seed": config.seed,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(weights)),
        "epochs": len(history),
        "best_epoch": best,
        "val_loss": kept["val_loss"],
        "val_accuracy": kept["val_accuracy"],
        "test_loss": test_means["loss"],
        "test_accuracy": test_means["accuracy"],
        "test_macro_f1": metrics.macro_f1(test_sums["confusion"]),
        "test_examples": int(test_sums["weight"]),
        "seconds": seconds,
        "train_examples_per_second": len(train) * len(history) / seconds["train"],
        "train_tokens_per_second": tokens * len(history) / seconds["train"],
        "buckets": list(material.buckets),
        "resident": trainer.resident,
        "memory": devices.peak_memory(),
        **report.provenance(),
    }
    reporter.finish(result, history)
    return result


class Clock:
    """Seconds spent in the parts of a run, over all its starts.

    "input", the wait for the next batches, is a part of "train"; "eval" is all validations, "test"
    the one evaluation on the test split.
    """

    def __init__(self) -> None:
        """Starts the total."""
        parts = ("startup", "compile", "train", "input", "eval", "test")
        self._seconds = dict.fromkeys(parts, 0.0)
        self._began = time.perf_counter()
        self._before = 0.0

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Adds the time of a block to `part`."""
        began = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - began

    def each(self, part: str, items: Iterator[Any]) -> Iterator[Any]:
        """The items; adds the time that they are waited for to `part`."""
        while True:
            with self(part):
                item = next(items, None)
            if item is None:
                return
            yield item

    def add(self, before: dict[str, float]) -> None:
        """Adds what the earlier starts of the run had spent."""
        for part in self._seconds:
            self._seconds[part] += before[part]
        self._before += before["total"]

    def read(self) -> dict[str, float]:
        """Seconds by part, and "total"."""
        return {**self._seconds, "total": self._before + time.perf_counter() - self._began}


def _finished(history: list[dict[str, Any]], settings: ConfigDict) -> bool:
    """Whether the last epoch is done, or the validation loss has stopped falling."""
    if not history:
        return False
    since_best = len(history) - report.best_epoch(history)
    return len(history) >= settings.epochs or since_best >= settings.patience


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)  # no array twice in it, none that a step will donate


def _diverged(step: int, workdir: Path) -> DivergedError:
    return DivergedError(
        f"the loss of training step {step} is not finite; the last good weights are in"
        f" {workdir / 'checkpoints'}; start anew with a lower train.learning_rate"
    )


def _open_workdir(workdir: str | Path | None, config: ConfigDict) -> Path:
    """Makes the workdir, or checks that it belongs to the config."""
    text = json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"
    if workdir is None:
        workdir = Path("runs") / f"{config.task}-{datetime.now():%Y%m%d-%H%M%S-%f}"
    workdir = Path(workdir).expanduser()
    path = workdir / "config.json"
    try:
        if path.exists():
            _check_same(config, json.loads(path.read_text("utf-8")), workdir)
        else:
            workdir.mkdir(parents=True, exist_ok=True)
            if (workdir / "checkpoints").exists():
                raise WorkdirError(f"--workdir: {workdir} holds checkpoints but no config.json")
            report.write_atomically(path, text)
    except ValueError as error:
        raise WorkdirError(f"--workdir: {path} is not readable as JSON ({error})") from None
    except OSError as error:
        raise WorkdirError(f"--workdir: {workdir} cannot be written ({error.strerror})") from None
    return workdir


def _check_same(config: ConfigDict, before: dict[str, Any], workdir: Path) -> None:
    old, new = config_lib.flatten(ConfigDict(before)), config_lib.flatten(config)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise WorkdirError(
                f"--workdir: {workdir} was made with {name}={old.get(name)!r}, not"
                f" {new.get(name)!r}; name another workdir, or the same config"
            )

"""The training loop: config → data → model → steps → report."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import signal
import time
import zlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from flaxrnn import config as config_lib
from flaxrnn.data import batching, corpora, ragged
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.errors import ConfigError, DivergedError, WorkdirError
from flaxrnn.nn import models
from flaxrnn.reporting import page, report
from flaxrnn.runtime import devices, distributed, files, signals
from flaxrnn.runtime.clock import Clock
from flaxrnn.training import checkpoint, metrics, optimizers, steps
from flaxrnn.training.trainer import STEPS_PER_DISPATCH, MetricAccumulator, Trainer
from flaxrnn.training.workdir import open_workdir


def train_and_evaluate(config: ConfigDict, workdir: str | Path | None = None) -> dict[str, Any]:
    """Trains a text classifier, or goes on with it, and evaluates it once on the test split.

    Or a tagger, or a language model, see `model.target`.

    A run that is stopped, by a signal or by force, ends as if it had not been, once it is started
    again with the same config and workdir.

    Args:
        config: As `configs/default.py` describes.
        workdir: Where everything is written; one with a checkpoint of the same config is continued.
            None: a fresh folder under runs/.

    Returns:
        What `result.json` in the workdir holds.

    Raises:
        ConfigError: A field is impossible.
        DataError: The corpus cannot be had, or has too few texts for the config.
        WorkdirError: The workdir cannot be written, belongs to another config or run, or has no
            checkpoint that is whole.
        DivergedError: The loss is not finite any more; the last good weights are kept.
        OutOfMemoryError: A batch does not fit.
        ProcessError: Another process of the run was lost.
        signals.Stopped: SIGTERM or SIGINT came; once training has begun, the run is saved.
    """
    config_lib.check(config)
    with signals.Listener() as listener:
        return train(config, workdir or fresh_workdir(config), "", listener)


def train(
    config: ConfigDict, root: str | Path, folder: str, listener: signals.Listener
) -> dict[str, Any]:
    """As `train_and_evaluate`, in a folder of `root`, which is what --workdir names.

    A signal that the listener heard before stops the run after its first steps.
    """
    with contextlib.ExitStack() as stack:
        clock = Clock()
        with clock("startup"):
            listener.deferred = False
            devices.use_all_cores()
            devices.enable_compilation_cache(config.compile_cache)
            stack.enter_context(distributed.fail_fast())
            root = Path(distributed.broadcast(str(root))).expanduser()
            workdir = root / folder
            if distributed.is_primary():
                stack.enter_context(open_workdir(workdir, config.to_dict()))
            run = _start(config, root, workdir, clock, listener, stack)
        with clock("compile"):
            run.trainer.compile(run.state)
        listener.deferred = True
        while not _finished(run.progress["history"], config.train):
            _train_epoch(run)
            _validate(run)
        return _test(run)


def fresh_workdir(config: ConfigDict) -> Path:
    """A folder under runs/ that is named after task and time."""
    return Path("runs") / f"{config.task}-{datetime.now():%Y%m%d-%H%M%S-%f}"


@dataclass
class Run:
    """A run under way."""

    config: ConfigDict
    root: Path  # what --workdir names: the workdir, or of several seeds the folder around it
    workdir: Path
    clock: Clock
    listener: signals.Listener
    corpus: dict[str, str]  # dataset, data_source
    training_data: batching.TrainingData
    vocabulary: Vocabulary  # of the words that the model knows
    label_names: list[str]
    summary: str  # of the model
    trainer: Trainer
    checkpoints: checkpoint.Checkpoints | None  # of the first process
    reporter: report.Report | report.NoReport
    state: steps.TrainState
    weights: steps.Params  # what the run would end with now
    # As JSON: "history" of epochs, and of the epoch under way the batches "done", their "sums"
    # and "seconds_in_epoch"; "diverged_at", the step; "seconds" of the clock; "fingerprint".
    progress: dict[str, Any]
    stop: int = 0  # the signal that asked to stop, on all processes at the same step; 0: none

    def save(self, wait: bool = False) -> str | None:
        """Writes a checkpoint, see `Checkpoints.save`."""
        if self.checkpoints is None:
            return None
        progress = {**self.progress, "seconds": self.clock.read()}
        return self.checkpoints.save(self.state, self.weights, progress, wait)


def _start(
    config: ConfigDict,
    root: Path,
    workdir: Path,
    clock: Clock,
    listener: signals.Listener,
    stack: contextlib.ExitStack,
) -> Run:
    """Reads the corpus and builds everything, at the point where the last checkpoint stands.

    What must be closed at the end is left to `stack`.
    """
    corpus = _load_corpus(config)
    if corpus.synthetic and distributed.is_primary():
        print(report.banner(corpus.name))
    label_names = corpus.label_names
    training_data = arranged(corpus, config.data)
    fingerprint = _fingerprint(config, training_data.texts)
    if distributed.broadcast(fingerprint) != fingerprint:
        raise ConfigError("--config: the processes of the run have different configs or corpora")
    vocabulary = corpus.vocabulary.limit(config.data.num_words)
    model = models.build(config.model, vocabulary.num_words, len(label_names))
    optimizer = optimizers.adam(
        config.train.learning_rate,
        config.train.schedule,
        -(-len(training_data.rows["train"]) // config.train.batch_size) * config.train.epochs,
    )
    with devices.raise_on_oom("out of memory for the parameters; lower model.hidden_size"):
        state = jax.block_until_ready(steps.init_state(model, optimizer, config.seed))
    checkpoints = None
    if distributed.is_primary():
        checkpoints = checkpoint.Checkpoints(workdir / "checkpoints")
        stack.callback(checkpoints.close)
    state, weights, progress = _resume(checkpoints, state, fingerprint, workdir)
    if progress["seconds"]:
        clock.add(progress["seconds"])
    summary = models.summary(model, config.train.batch_size, config.data.maxlen)
    if distributed.is_primary():
        vocabulary.save(workdir / "vocabulary.json")
        files.write_atomically(workdir / "labels.json", json.dumps(label_names))
        print(summary)
        if progress["seconds"]:
            place = f"epoch {len(progress['history'])}, step {int(state.step):,}"
            print(f"Continuing {workdir} after {place}")
    source = "synthetic" if corpus.synthetic else "real"
    names = {"dataset": corpus.name, "data_source": source}
    del corpus  # the texts of the run are all that is needed, IMDB's others take 100 MB
    trainer = Trainer(
        training_data,
        model,
        optimizer,
        averaging=config.train.averaging,
        batch_size=config.train.batch_size,
        eval_batch_size=config.train.eval_batch_size,
        device_memory=config.data.device_memory,
        seed=config.seed,
    )
    state, weights = trainer.place(_copy((state, weights)))
    history = progress["history"]
    reporter = report.Report(workdir, history) if distributed.is_primary() else report.NoReport()
    stack.callback(reporter.close)
    run = Run(
        config,
        root,
        workdir,
        clock,
        listener,
        names,
        training_data,
        vocabulary,
        label_names,
        summary,
        trainer,
        checkpoints,
        reporter,
        state,
        weights,
        progress,
    )
    if not int(state.step) and (failure := run.save(wait=True)):  # from here on, there is one
        raise WorkdirError(f"--workdir: {workdir}: {failure}")
    return run


def _load_corpus(config: ConfigDict) -> corpora.Corpus:
    settings = config.data
    own = settings.path and corpora.CustomTexts(
        settings.path,
        settings.text_field,
        settings.label_field if config.model.target == "label" else None,
        settings.test_fraction,
        config.seed,
    )
    return corpora.load_corpus(
        config.task,
        settings.source,
        settings.data_dir,
        settings.manual_dir,
        tokenizer=settings.tokenizer,
        num_words=settings.num_words,
        own=own,
    )


def arranged(corpus: corpora.Corpus, settings: ConfigDict) -> batching.TrainingData:
    """A corpus as the data group of a config wants it."""
    return batching.prepare_data(
        corpus,
        num_words=settings.num_words,
        maxlen=settings.maxlen,
        padding=settings.padding,
        max_padding=settings.max_padding,
        validation=settings.validation,
        validation_fraction=settings.validation_fraction,
    )


def _resume(
    checkpoints: checkpoint.Checkpoints | None,
    state: steps.TrainState,
    fingerprint: str,
    workdir: Path,
) -> tuple[steps.TrainState, steps.Params, dict[str, Any]]:
    """State, weights and progress of the last checkpoint, or of a new run; the first process reads.

    Args:
        checkpoints: Of the first process; None: of another one.
        state: Of a new run.
        fingerprint: Of config and texts.
        workdir: Named in errors.
    """
    weights = state.average
    restored = checkpoints and checkpoints.restore(state=state, weights=weights)
    progress = distributed.broadcast(restored and restored["progress"])
    if progress is None:
        if checkpoints and (workdir / "metrics.jsonl").exists():
            raise WorkdirError(f"--workdir: {workdir} holds epochs of a run, but no checkpoint")
        new = {"history": [], "done": 0, "sums": {}, "seconds_in_epoch": 0.0, "diverged_at": None}
        return state, weights, {**new, "seconds": None, "fingerprint": fingerprint}
    if progress["fingerprint"] != fingerprint:
        raise WorkdirError(
            f"--workdir: {workdir} was trained on other texts than there are now; name another one"
        )
    if progress["diverged_at"] is not None:
        raise _diverged(progress["diverged_at"], workdir)
    if restored:
        state, weights = restored["state"], restored["weights"]
    return *distributed.broadcast_arrays((state, weights)), progress


def _train_epoch(run: Run) -> None:
    """Trains an epoch, or the rest of it; saves now and then, and when a signal asks to stop."""
    settings, progress = run.config.train, run.progress
    epoch, count = len(progress["history"]) + 1, run.trainer.batches()
    seconds_before, began = progress["seconds_in_epoch"], time.perf_counter()
    tally = MetricAccumulator(progress["sums"])
    dispatches = run.trainer.epoch(
        run.state,
        epoch,
        progress["done"],
        stop=lambda: run.listener.received,
        watch=functools.partial(run.clock.each, "input"),
    )
    shown = run.reporter.progress(
        dispatches, progress["done"], count, STEPS_PER_DISPATCH, epoch, lambda: tally.loss
    )

    def _snapshot() -> None:
        progress["sums"] = tally.read()
        progress["seconds_in_epoch"] = seconds_before + time.perf_counter() - began
        if settings.nonfinite == "stop":
            progress["diverged_at"] = tally.first_bad

    saved_at, steps_since = began, 0
    with run.clock("train"):
        for run.state, sums in shown:
            tally.append(sums)
            progress["done"] = min(progress["done"] + STEPS_PER_DISPATCH, count)
            if tally.stop or (tally.first_bad and settings.nonfinite == "stop"):
                break
            steps_since += STEPS_PER_DISPATCH
            due = time.perf_counter() - saved_at >= settings.checkpoint_seconds
            due |= 0 < settings.checkpoint_steps <= steps_since
            if due and progress["done"] < count:  # at the end of an epoch, after its validation
                _snapshot()
                run.save()
                saved_at, steps_since = time.perf_counter(), 0
        _snapshot()
    if progress["diverged_at"] is not None:
        run.save(wait=True)
        raise _diverged(progress["diverged_at"], run.workdir)
    if not progress["sums"]["weight"]:
        raise DivergedError(f"not one step of epoch {epoch} had a finite loss and gradient")
    run.stop = tally.stop
    if run.stop and progress["done"] < count:
        _save_and_stop(run)


def _validate(run: Run) -> None:
    """Ends an epoch: validation, which weights to keep, report, checkpoint."""
    settings, progress, history = run.config.train, run.progress, run.progress["history"]
    began = time.perf_counter()
    with run.clock("eval"):
        sums, _ = run.trainer.evaluate(run.state.average, "val")
    seconds = progress["seconds_in_epoch"]
    history.append(
        {
            "epoch": len(history) + 1,
            **{f"train_{name}": mean for name, mean in metrics.means(progress["sums"]).items()},
            **{f"val_{name}": mean for name, mean in metrics.means(sums).items()},
            "skipped_steps": int(progress["sums"]["bad"]),
            "train_examples_per_second": len(run.training_data.rows["train"]) / seconds,
            "seconds": seconds + time.perf_counter() - began,
        }
    )
    progress.update(done=0, sums={}, seconds_in_epoch=0.0)
    if not settings.restore_best or report.best_epoch(history) == len(history):
        run.weights = _copy(run.state.average)
    run.save()
    run.reporter.epoch(history, settings.epochs, settings.patience)
    if run.stop:
        _save_and_stop(run)


def _test(run: Run) -> dict[str, Any]:
    """Evaluates the kept weights on the test split and writes the result."""
    history, train = run.progress["history"], run.training_data.rows["train"]
    with run.clock("test"):
        sums, found = run.trainer.evaluate(run.weights, "test")
    if failure := run.save(wait=True):
        raise WorkdirError(f"--workdir: {run.workdir}: {failure}")
    best = report.best_epoch(history)
    kept = history[best - 1 if run.config.train.restore_best else -1]
    means, seconds = metrics.means(sums), run.clock.read()
    tokens = int(run.training_data.texts.lengths[train].sum())
    confusion, of_texts = sums.get("confusion"), run.config.model.target == "label"
    by_class = metrics.scores(*sums["counts"]) if confusion is None else metrics.by_class(confusion)
    result = {
        "task": run.config.task,
        **run.corpus,
        "seed": run.config.seed,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(run.weights)),
        "epochs": len(history),
        "best_epoch": best,
        "val_loss": kept["val_loss"],
        "val_accuracy": kept["val_accuracy"],
        "test_loss": means["loss"],
        "test_accuracy": means["accuracy"],
        "test_macro_f1": metrics.macro_f1(by_class),
        "test_examples": int(sums["weight"]),
        "skipped_steps": sum(row["skipped_steps"] for row in history),
        "seconds": seconds,
        "train_examples_per_second": len(train) * len(history) / seconds["train"],
        "train_tokens_per_second": tokens * len(history) / seconds["train"],
        "buckets": list(run.training_data.buckets),
        "resident": run.trainer.resident,
        "memory": devices.peak_memory(),
        **report.provenance(),
    }
    details = page.Details(
        run.label_names,
        confusion,
        page.mistakes(run.training_data, run.vocabulary, **found) if of_texts else None,
        config_lib.flatten(run.config),
        run.summary,
        "texts" if of_texts else "tokens",
    )
    run.reporter.finish(result, history, details)
    return result


def _save_and_stop(run: Run) -> None:
    name = signal.Signals(run.stop).name
    step = f"step {int(run.state.step):,}"
    if failure := run.save(wait=True):
        raise signals.Saved(run.stop, f"{name}: stopped after {step}; {failure}")
    command = f"python {report.command()}"
    if "--workdir" not in command:
        command += f" --workdir {run.root}"
    raise signals.Saved(run.stop, f"{name}: saved after {step}; go on with: {command}")


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


def _fingerprint(config: ConfigDict, texts: ragged.RaggedTexts) -> str:
    """Of all that decides on the course of a run."""
    arrays = (texts.ids, texts.offsets, texts.labels)
    sums = [zlib.crc32(np.ascontiguousarray(array).data) for array in arrays]
    content = json.dumps([config.to_dict(), sums], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()

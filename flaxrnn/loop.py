"""The training loop: config → data → model → steps → report."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from flaxrnn.config import Config, flatten, parse
from flaxrnn.data import batching, corpora
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.errors import ConfigError, DivergedError, WorkdirError
from flaxrnn.nn import heads, models
from flaxrnn.nn.summary import summary
from flaxrnn.reporting import console, page, provenance, report, result
from flaxrnn.runtime import devices, distributed, files, signals
from flaxrnn.runtime.clock import Clock
from flaxrnn.training import metrics, optimizers, resume, steps, workdir
from flaxrnn.training.checkpoint import Checkpoints
from flaxrnn.training.progress import Progress, best_epoch, fingerprint
from flaxrnn.training.trainer import STEPS_PER_DISPATCH, MetricAccumulator, Trainer


def train_and_evaluate(
    config: ConfigDict | Mapping[str, Any], workdir: str | Path | None = None
) -> dict[str, Any]:
    """Trains a text model, or resumes its training, and evaluates it once on the test split.

    A run that is stopped, by a signal or by force, ends bitwise as if it had not been, once it is
    started again with the same config and workdir.

    Args:
        config: As docs/config.md describes.
        workdir: Where everything is written; a run in it with the same config is resumed. None: a
            new folder under runs/.

    Returns:
        What `result.json` in the workdir holds.

    Raises:
        ConfigError: A field has a value that is not allowed.
        DataError: The corpus cannot be found or read, or has too few texts for the config.
        WorkdirError: The workdir cannot be written, belongs to another config or run, or holds only
            corrupt checkpoints.
        DivergedError: The loss is no longer finite; the last good weights are kept.
        OutOfMemoryError: A batch does not fit.
        ProcessError: Another process of the run was lost.
        signals.Stopped: SIGTERM or SIGINT came; once training has begun, the run is saved.
    """
    checked = parse(config)
    with signals.Listener() as listener:
        return train(checked, workdir or fresh_workdir(checked), "", listener)


def train(
    config: Config, root: str | Path, folder: str, listener: signals.Listener
) -> dict[str, Any]:
    """As `train_and_evaluate`, in a folder of `root`, which is what --workdir names.

    A signal that the listener received earlier stops the run after its first steps.
    """
    heads.get_head(config.model.target).check(config)
    with contextlib.ExitStack() as stack:
        clock = Clock()
        with clock("startup"):
            listener.deferred = False
            devices.use_all_cores()
            devices.enable_compilation_cache(config.compile_cache)
            stack.enter_context(distributed.fail_fast())
            root = Path(distributed.broadcast(str(root))).expanduser()
            if distributed.is_primary():
                stack.enter_context(workdir.open_workdir(root / folder, config.to_dict()))
            run = _start(config, root, root / folder, clock, listener, stack)
        with clock("compile"):
            run.trainer.compile(run.state)
        listener.deferred = True
        while not run.progress.finished(config.train):
            _train_epoch(run)
            _validate(run)
        return _test(run)


def fresh_workdir(config: Config) -> Path:
    """A folder under runs/ that is named after task and time."""
    task = config.task.replace(":", ".")  # module:Builder
    return Path("runs") / f"{task}-{datetime.now():%Y%m%d-%H%M%S-%f}"


@dataclass(frozen=True)
class _Texts:
    """What a run keeps of its corpus."""

    names: dict[str, str]  # dataset, data_source
    training_data: batching.TrainingData
    vocabulary: Vocabulary  # of the words that the model knows
    label_names: list[str]


@dataclass(kw_only=True)
class Run:
    """A run in progress."""

    config: Config
    root: Path  # what --workdir names: the workdir, or of several seeds the folder above it
    workdir: Path
    clock: Clock
    listener: signals.Listener
    texts: _Texts
    model: models.TextModel
    trainer: Trainer
    checkpoints: Checkpoints | None  # of the primary process
    reporter: report.Report | report.NoReport
    state: steps.TrainState
    weights: steps.Params  # what the run would end with now
    progress: Progress
    stop: int = 0  # the signal to stop, on all processes from the same step on; 0: none

    def save(self, wait: bool = False) -> str | None:
        """Writes a checkpoint, see `Checkpoints.save`."""
        if self.checkpoints is None:
            return None
        self.progress.seconds = self.clock.read()
        return self.checkpoints.save(self.state, self.weights, self.progress.to_json(), wait)


def _load_texts(config: Config) -> _Texts:
    data = config.data
    custom = None
    if data.path is not None:
        uses_labels = heads.get_head(config.model.target).uses_labels
        custom = corpora.CustomTexts(
            data.path,
            data.text_field,
            data.label_field if uses_labels else None,
            data.test_fraction,
            config.seed,
        )
    corpus = corpora.load_corpus(
        config.task,
        data.source,
        data.data_dir,
        data.manual_dir,
        tokenizer=data.tokenizer,
        num_words=data.num_words,
        custom=custom,
    )
    training_data = batching.prepare_data(
        corpus,
        num_words=data.num_words,
        maxlen=data.maxlen,
        padding=data.padding,
        max_padding=data.max_padding,
        validation=data.validation,
        validation_fraction=data.validation_fraction,
    )
    source = "synthetic" if corpus.synthetic else "real"
    names = {"dataset": corpus.name, "data_source": source}
    return _Texts(names, training_data, corpus.vocabulary.limit(data.num_words), corpus.label_names)


def _start(
    config: Config,
    root: Path,
    folder: Path,
    clock: Clock,
    listener: signals.Listener,
    stack: contextlib.ExitStack,
) -> Run:
    """Reads the corpus and builds everything, at the point of the last checkpoint.

    What must be closed at the end is left to `stack`.
    """
    texts = _load_texts(config)
    run_fingerprint = _agreed_fingerprint(config, texts.training_data, folder)
    model = models.build(config.model, texts.vocabulary.num_words, len(texts.label_names))
    optimizer = optimizers.build(
        config.train.optimizer,
        config.train.learning_rate,
        config.train.schedule,
        texts.training_data.num_batches(config.train.batch_size) * config.train.epochs,
    )
    with devices.raise_on_oom("out of memory for the parameters; lower model.hidden_size"):
        state = jax.block_until_ready(steps.init_state(model, optimizer, config.seed))
    checkpoints = None
    if distributed.is_primary():
        checkpoints = Checkpoints(folder / "checkpoints")
        stack.callback(checkpoints.close)
    state, weights, progress = resume.restore(checkpoints, state, run_fingerprint, folder)
    if progress.seconds:
        clock.add(progress.seconds)
    if distributed.is_primary():
        _introduce(config, texts, model, folder, progress, int(state.step))
    trainer = _build_trainer(config, texts.training_data, model, optimizer)
    state, weights = trainer.replicate(_copy((state, weights)))
    reporter = report.Report(folder, progress.history) if checkpoints else report.NoReport()
    stack.callback(reporter.close)
    run = Run(
        config=config,
        root=root,
        workdir=folder,
        clock=clock,
        listener=listener,
        texts=texts,
        model=model,
        trainer=trainer,
        checkpoints=checkpoints,
        reporter=reporter,
        state=state,
        weights=weights,
        progress=progress,
    )
    if not int(state.step) and (failure := run.save(wait=True)):  # from here on, there is one
        raise WorkdirError(f"--workdir: {folder}: {failure}")
    return run


def _agreed_fingerprint(config: Config, data: batching.TrainingData, folder: Path) -> str:
    """The fingerprint of the run, whose processes must have the same config and texts."""
    here = fingerprint(config.to_dict(), data.texts)
    if distributed.broadcast(here) != here:
        raise ConfigError("--config: the processes of the run have different configs or corpora")
    # Of the config as it was recorded: fields that are newer than the run do not change it.
    recorded = distributed.is_primary() and workdir.read_config(folder)
    return fingerprint(distributed.broadcast(recorded), data.texts)


def _build_trainer(
    config: Config,
    data: batching.TrainingData,
    model: models.TextModel,
    optimizer: optax.GradientTransformation,
) -> Trainer:
    return Trainer(
        data,
        model,
        optimizer,
        averaging=config.train.averaging,
        batch_size=config.train.batch_size,
        eval_batch_size=config.train.eval_batch_size,
        device_memory=config.data.device_memory,
        seed=config.seed,
    )


def _introduce(
    config: Config,
    texts: _Texts,
    model: models.TextModel,
    folder: Path,
    progress: Progress,
    step: int,
) -> None:
    """Writes vocabulary and labels, and prints what is trained."""
    texts.vocabulary.save(folder / "vocabulary.json")
    files.write_atomically(folder / "labels.json", json.dumps(texts.label_names))
    if texts.names["data_source"] == "synthetic":
        print(console.SYNTHETIC_BANNER.format(name=texts.names["dataset"]))
    print(summary(model, config.train.batch_size, config.data.maxlen))
    if progress.seconds:
        print(f"Resuming {folder} after epoch {len(progress.history)}, step {step:,}")


def _train_epoch(run: Run) -> None:
    """Trains an epoch, or the rest of it; saves now and then, and when a signal asks to stop."""
    settings, progress = run.config.train, run.progress
    epoch, num_batches = len(progress.history) + 1, run.trainer.num_batches()
    seconds_before, began = progress.epoch_seconds, time.perf_counter()
    accumulator = MetricAccumulator(progress.sums)
    dispatches = run.trainer.epoch(
        run.state,
        epoch,
        progress.batches_done,
        stop=lambda: run.listener.received,
        watch=functools.partial(run.clock.each, "input"),
    )
    shown = run.reporter.progress(
        dispatches,
        progress.batches_done,
        num_batches,
        STEPS_PER_DISPATCH,
        epoch,
        lambda: accumulator.loss,
    )

    def snapshot() -> None:
        progress.sums = accumulator.read()
        progress.epoch_seconds = seconds_before + time.perf_counter() - began
        if settings.nonfinite == "stop":
            progress.diverged_at = accumulator.first_nonfinite_step

    saved_at, steps_since = began, 0
    with run.clock("train"):
        for run.state, sums in shown:
            accumulator.append(sums)
            progress.batches_done = min(progress.batches_done + STEPS_PER_DISPATCH, num_batches)
            diverged = accumulator.first_nonfinite_step and settings.nonfinite == "stop"
            if accumulator.stop or diverged:
                break
            steps_since += STEPS_PER_DISPATCH
            due = time.perf_counter() - saved_at >= settings.checkpoint_seconds
            due |= 0 < settings.checkpoint_steps <= steps_since
            if due and progress.batches_done < num_batches:  # else after the validation
                snapshot()
                run.save()
                saved_at, steps_since = time.perf_counter(), 0
        snapshot()
    run.stop = accumulator.stop
    _check_epoch(run, epoch)
    if run.stop and progress.batches_done < num_batches:
        _save_and_stop(run)


def _check_epoch(run: Run, epoch: int) -> None:
    """Raises a DivergedError where the epoch came upon a loss that is not finite."""
    if run.progress.diverged_at is not None:
        run.save(wait=True)
        raise resume.diverged(run.progress.diverged_at, run.workdir)
    if not run.progress.sums["count"]:
        raise DivergedError(f"not one step of epoch {epoch} had a finite loss and gradient")


def _validate(run: Run) -> None:
    """Ends an epoch: validation, which weights to keep, report, checkpoint."""
    settings, progress = run.config.train, run.progress
    began = time.perf_counter()
    with run.clock("eval"):
        sums, _ = run.trainer.evaluate(run.state.average, "val")
    seconds = progress.epoch_seconds
    progress.end_epoch(
        {
            "epoch": len(progress.history) + 1,
            **{f"train_{name}": mean for name, mean in metrics.means(progress.sums).items()},
            **{f"val_{name}": mean for name, mean in metrics.means(sums).items()},
            "skipped_steps": int(progress.sums["nonfinite_steps"]),
            "train_examples_per_second": len(run.texts.training_data.rows["train"]) / seconds,
            "seconds": seconds + time.perf_counter() - began,
        }
    )
    if not settings.restore_best or best_epoch(progress.history) == len(progress.history):
        run.weights = _copy(run.state.average)
    run.save()
    run.reporter.epoch(progress.history, settings.epochs, settings.patience)
    if run.stop:
        _save_and_stop(run)


def _test(run: Run) -> dict[str, Any]:
    """Evaluates the kept weights on the test split and writes the result."""
    texts, head, history = run.texts, run.model.head, run.progress.history
    with run.clock("test"):
        sums, of_texts = run.trainer.evaluate(run.weights, "test")
    if failure := run.save(wait=True):
        raise WorkdirError(f"--workdir: {run.workdir}: {failure}")
    class_counts = sums.pop("class_counts")
    outcome = result.build(
        config=run.config,
        corpus=texts.names,
        history=history,
        sums=sums,
        class_scores=metrics.class_scores(*head.class_totals(class_counts)),
        seconds=run.clock.read(),
        params=run.weights,
        training_data=texts.training_data,
        resident=run.trainer.resident,
    )
    mistakes = None
    if not head.per_token:
        mistakes = page.mistakes(texts.training_data, texts.vocabulary, **of_texts)
    details = page.Details(
        texts.label_names,
        head.confusion(class_counts),
        mistakes,
        flatten(run.config.to_dict()),
        summary(run.model, run.config.train.batch_size, run.config.data.maxlen),
        head.unit,
    )
    run.reporter.finish(outcome, history, details)
    return outcome


def _save_and_stop(run: Run) -> None:
    name = signal.Signals(run.stop).name
    step = f"step {int(run.state.step):,}"
    if failure := run.save(wait=True):
        raise signals.Saved(run.stop, f"{name}: stopped after {step}; {failure}")
    command = f"python {provenance.command()}"
    if "--workdir" not in command:
        command += f" --workdir {run.root}"
    raise signals.Saved(run.stop, f"{name}: saved after {step}; resume with: {command}")


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)  # no array twice in it, none that a step will donate

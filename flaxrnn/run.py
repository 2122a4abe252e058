"""A run: its parts, and how it starts, from scratch or from its latest checkpoint."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from flaxrnn import teacher
from flaxrnn.config import Config
from flaxrnn.data import batching
from flaxrnn.errors import ConfigError, WorkdirError
from flaxrnn.nn import cells, heads, models
from flaxrnn.nn.summary import summary
from flaxrnn.reporting import opening, report
from flaxrnn.runtime import devices, distributed, signals
from flaxrnn.runtime.clock import Clock
from flaxrnn.training import (
    automatic,
    footprint,
    objective,
    optimizers,
    pretrained,
    resume,
    seal,
    steps,
    temperature,
    thresholds,
    workdir,
)
from flaxrnn.training.checkpoint import Checkpoints
from flaxrnn.training.progress import Progress, kept_epoch
from flaxrnn.training.texts import Texts, load_texts
from flaxrnn.training.trainer import Trainer


@dataclass(kw_only=True)
class Run:
    """A run in progress."""

    config: Config
    root: Path  # --workdir: the workdir itself or, with --seeds, its parent
    workdir: Path
    clock: Clock
    listener: signals.Listener
    texts: Texts
    model: models.TextModel
    trainer: Trainer
    checkpoints: Checkpoints | None  # None: not the primary process
    reporter: report.Report | report.NoReport
    state: steps.TrainState
    weights: steps.Params  # what the run would keep if it ended now
    progress: Progress
    stop: int = 0  # signal that stops all processes at the same step; 0: none

    @property
    def earlier_steps(self) -> int:
        """Training steps before those that the state counts."""
        num_batches = self.texts.training_data.num_batches(self.config.train.batch_size)
        return self.progress.earlier_steps(num_batches)

    def begin(self) -> None:
        """Writes the first checkpoint of a new run, so that there always is one.

        Raises:
            WorkdirError: It cannot be written.
        """
        if not int(self.state.step) and (failure := self.save(wait=True)):
            raise WorkdirError(f"--workdir: {self.workdir}: {failure}")

    def save(self, wait: bool = False) -> str | None:
        """Writes a checkpoint; see `Checkpoints.save`.

        Raises:
            LostWorkdirError: The workdir was deleted.
        """
        if self.checkpoints is None:
            return None
        workdir.check_exists(self.workdir)
        self.progress.seconds = self.clock.read()
        progress = self.progress.to_json()
        return self.checkpoints.save(self.state, self.weights, progress, wait, self.earlier_steps)

    def keep(self, weights: steps.Params, divided_by: float = 1.0) -> None:
        """Marks weights as those to keep, with logits that are divided by a temperature."""
        self.weights = self.trainer.replicate(temperature.divide_logits(weights, divided_by))

    def keep_calibrated(self, weights: steps.Params, logits: np.ndarray | None) -> None:
        """Like `keep`, with the temperature that suits their logits of the validation texts.

        It stays 1 where nothing may be chosen on these texts, or where there are no logits.
        """
        config, several = self.config, self.model.head.several
        chosen = 1.0
        if (
            logits is not None
            and config.train.calibrate
            and (config.model.target == "label" or several)
            and config.data.validation != "test"
        ):
            chosen = temperature.fit(logits, self.validation_labels)
        self.progress.temperature = distributed.broadcast(chosen)
        if several:
            self.progress.thresholds = distributed.broadcast(self.choose(logits, chosen))
        self.keep(weights, self.progress.temperature)

    @property
    def validation_labels(self) -> np.ndarray:
        """The labels of the validation texts, int [n], or of several each, 0 or 1, [n, C]."""
        data = self.texts.training_data
        return data.texts.labels[data.rows["val"]]

    def choose(self, logits: Any, divided_by: float = 1.0) -> list[float]:
        """The thresholds that suit the validation texts; halves if these are the test texts."""
        if self.config.data.validation == "test":
            return [0.5] * self.model.num_outputs
        return thresholds.from_scores(thresholds.choose(logits, self.validation_labels), divided_by)


def start(
    config: Config,
    root: Path,
    folder: Path,
    clock: Clock,
    listener: signals.Listener,
    stack: contextlib.ExitStack,
) -> Run:
    """Loads the corpus and builds everything, restored from the latest checkpoint if there is one.

    Args:
        config: The run's config.
        root: The value of --workdir.
        folder: The workdir: the root, or of several seeds a folder in it.
        clock: Is advanced by the seconds of earlier starts.
        listener: Listener for signals.
        stack: Closes what must be closed at the end of the run.
    """
    source = pretrained.find_source(config, folder)
    texts = load_texts(config, folder, clock, teacher.label)
    config = automatic.resolve(config, texts, folder)
    agreed = resume.agreed_fingerprint(config, texts.training_data, folder)
    model = models.build(config.model, texts.vocabulary.num_words, len(texts.label_names))
    state = _init_state(config, texts, model)
    checkpoints = _open_checkpoints(folder, stack)
    state, weights, progress = resume.restore(checkpoints, state, agreed, folder)
    clock.add(progress.seconds or {})
    if final := _seconds_of_finished(config, texts, progress, folder):
        clock.freeze(final)
    if progress.seconds is None:  # a new run
        state = pretrained.start(config, texts, model, state, folder, source)
        weights = state.average
    if checkpoints:
        _write_inputs_and_summary(config, texts, model, folder, progress, int(state.step))
    trainer = _build_trainer(config, texts, model, refit=progress.refit is not None)
    state, weights = trainer.replicate((state, weights))
    return Run(
        config=config,
        root=root,
        workdir=folder,
        clock=clock,
        listener=listener,
        texts=texts,
        model=model,
        trainer=trainer,
        checkpoints=checkpoints,
        reporter=_open_report(folder, progress, config.train.monitor, stack),
        state=state,
        weights=weights,
        progress=progress,
    )


def check_names(config: Config) -> None:
    """Checks what the config names in modules of the user's, before anything is read.

    Raises:
        ConfigError: A head, cell or optimizer cannot be imported or is none.
    """
    head = heads.get_head(config.model.target)
    head.check(config)
    if config.train.monitor == "macro_f1" and not head.uses_labels:
        raise ConfigError(
            f"train.monitor: must be loss or accuracy with model.target={config.model.target},"
            " whose classes are the words of the vocabulary"
        )
    if config.train.monitor == "micro_f1" and not head.several:
        raise ConfigError("train.monitor: micro_f1 needs model.target=labels; else it is accuracy")
    if config.data.label_separator is not None and not head.several:
        raise ConfigError("model.target: must be labels with data.label_separator")
    cells.get_cell(config.model.cell)
    optimizers.build(config.train, steps=1)


def begin_refit(run: Run) -> None:
    """Starts a second fit from the initial weights, with the validation texts for training too.

    The weights to keep stay those of the first fit until the refit is finished.
    """
    run.progress.refit = []
    run.trainer = _build_trainer(run.config, run.texts, run.model, refit=True)
    state = _init_state(run.config, run.texts, run.model)
    state = pretrained.start_again(run.config, state, run.workdir)
    run.state = run.trainer.replicate(state)
    with run.clock("compile"), run.reporter.compiling():
        run.trainer.compile(run.state)


def _init_state(config: Config, texts: Texts, model: models.TextModel) -> steps.TrainState:
    optimizer = _build_optimizer(config, texts.training_data)
    shapes = steps.init_state.eval_shape(model, optimizer, config.seed)
    footprint.check(config, shapes, texts.training_data)
    with devices.raise_on_oom("out of memory for the parameters; lower model.hidden_size"):
        return jax.block_until_ready(steps.init_state(model, optimizer, config.seed))


def _open_checkpoints(folder: Path, stack: contextlib.ExitStack) -> Checkpoints | None:
    """Opens the checkpoints; None: this is not the primary process."""
    if not distributed.is_primary():
        return None
    checkpoints = Checkpoints(folder / "checkpoints")
    stack.callback(checkpoints.close)
    return checkpoints


def _open_report(
    folder: Path, progress: Progress, monitor: str, stack: contextlib.ExitStack
) -> report.Report | report.NoReport:
    """The primary process's report; the others report nothing."""
    reporter: report.Report | report.NoReport = report.NoReport()
    if distributed.is_primary():
        reporter = report.Report(folder, progress.history, progress.refit, monitor)
    stack.callback(reporter.close)
    return reporter


def _build_optimizer(config: Config, data: batching.TrainingData) -> optax.GradientTransformation:
    num_steps = data.num_batches(config.train.batch_size) * config.train.epochs
    return optimizers.build(config.train, num_steps, config.model.train_embedding)


def _build_trainer(
    config: Config,
    texts: Texts,
    model: models.TextModel,
    refit: bool,
) -> Trainer:
    """The trainer of the first fit, or of the refit, whose training texts are all but the test's.

    The learning rate of both is the same function of the part of all `train.epochs` that is done.
    """
    data = texts.training_data.with_validation() if refit else texts.training_data
    labels = np.zeros(0, int) if model.head.per_token else data.texts.labels[data.rows["train"]]
    return Trainer(
        data,
        model,
        _build_optimizer(config, data),
        averaging=config.train.averaging,
        objective=objective.build(
            config.train,
            texts.label_names,
            labels,
            self_training=config.data.unlabelled is not None,
        ),
        batch_size=config.train.batch_size,
        eval_batch_size=config.train.eval_batch_size,
        device_memory=config.data.device_memory,
        seed=config.seed,
        precision=config.train.precision,
        shards=config.train.shards,
    )


def _write_inputs_and_summary(
    config: Config,
    texts: Texts,
    model: models.TextModel,
    folder: Path,
    progress: Progress,
    step: int,
) -> None:
    """Writes the vocabulary and the labels, seals them, and prints a summary of the model."""
    contents = {
        "vocabulary.json": texts.vocabulary.to_json(),
        "labels.json": json.dumps(texts.label_names),
    }
    seal.write_inputs(folder, contents, progress.seal)
    progress.seal = seal.take(folder)
    opening.show(config, texts, summary(model, config.train.batch_size, config.data.maxlen))
    if progress.seconds:
        fit = "" if progress.refit is None else "refit "
        print(f"Resuming {folder} after {fit}epoch {len(progress.epochs)}, step {step:,}")


def _seconds_of_finished(
    config: Config, texts: Texts, progress: Progress, folder: Path
) -> dict[str, float] | None:
    """The seconds in the result of a run that was finished before; None: it was not."""
    num_batches = texts.training_data.num_batches(config.train.batch_size)
    if not progress.finished(config.train, num_batches):
        return None
    refit_epochs = kept_epoch(progress.history, config.train) if config.train.refit else 0
    if len(progress.refit or []) < refit_epochs:
        return None
    try:
        return dict(json.loads((folder / "result.json").read_text("utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it was stopped before its result was written

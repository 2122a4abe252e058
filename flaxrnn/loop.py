"""The training loop: config → data → model → steps → report."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flaxrnn import closing
from flaxrnn import run as run_lib
from flaxrnn.config import Config, flatten, modules, parse
from flaxrnn.errors import DivergedError, WorkdirError
from flaxrnn.nn.summary import summary
from flaxrnn.reporting import page, provenance, result
from flaxrnn.reporting.judgement import judge
from flaxrnn.runtime import devices, distributed, files, plugins, signals
from flaxrnn.runtime.clock import Clock
from flaxrnn.training import metrics, resume, thresholds, workdir
from flaxrnn.training.confidence import Confidence
from flaxrnn.training.progress import kept_epoch, patience_in_epochs
from flaxrnn.training.trainer import STEPS_PER_DISPATCH, MetricAccumulator
from flaxrnn.training.workdir import fresh_workdir


def train_and_evaluate(
    config: ConfigDict | Mapping[str, Any], workdir: str | Path | None = None
) -> dict[str, Any]:
    """Trains a text model, or resumes its training, and evaluates it once on the test split.

    An interrupted run, even one that was killed, resumes when it is started again with the same
    config and workdir; its result is bitwise identical to that of an uninterrupted run.

    Args:
        config: See docs/config.md.
        workdir: The run's output folder. If it already holds a run with the same config, that run
            is resumed. None: a new folder under runs/.

    Returns:
        The contents of `result.json`.

    Raises:
        ConfigError: A field has an invalid value.
        DataError: The corpus cannot be found or read, or has too few texts for the config.
        WorkdirError: The workdir cannot be written, belongs to another config or run, holds only
            corrupt checkpoints, or was deleted during the run.
        DivergedError: The loss became non-finite; the last good weights are kept.
        OutOfMemoryError: The parameters or a batch do not fit in memory.
        ProcessError: Another process of the run was lost.
        signals.Stopped: SIGTERM or SIGINT was received; the run is saved if training had begun.
    """
    checked = parse(config)
    with signals.Listener() as listener:
        return train(checked, workdir or fresh_workdir(checked), "", listener)


def train(
    config: Config,
    root: str | Path,
    folder: str,
    listener: signals.Listener,
    known_baseline: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Like `train_and_evaluate`, with the workdir `root / folder`; `root` is --workdir.

    The baseline is computed unless that of another run on the same texts is known.
    """
    plugins.allow(modules(config))  # the user's own config
    run_lib.check_names(config)
    with contextlib.ExitStack() as stack:
        clock = Clock()
        with clock("startup"):
            listener.deferred, listener.at_once = False, signals.NOTHING
            listener.check()
            devices.initialize(config.train.shards)
            devices.enable_compilation_cache(config.compile_cache)
            stack.enter_context(distributed.fail_fast())
            root = files.expand(distributed.broadcast(str(root)), "--workdir")
            if distributed.is_primary():
                listener.deferred = True  # until it is known how to undo this
                opened = workdir.open_workdir(root / folder, config.to_dict())
                listener.undo = stack.enter_context(opened)
                listener.deferred = False
                listener.check()
            run = run_lib.start(config, root, root / folder, clock, listener, stack)
        with clock("compile"), run.reporter.compiling():
            run.trainer.compile(run.state)
        listener.check()
        listener.deferred = True
        run.begin()
        while not run.progress.finished(run.config.train, run.trainer.num_batches()):
            _train_epoch(run)
            _validate(run)
        if run.config.train.refit:
            _refit(run)
        outcome, details = _test(run)
        result.check_finite(outcome, run.workdir)
        closing.finish(run, outcome, details, known_baseline)
        if config.task == "text" and details.mistakes is not None:
            run.reporter.closing(details)
        if listener.received:
            raise signals.Saved(listener.received, closing.complete(run, outcome))
        return outcome


def _train_epoch(run: run_lib.Run) -> None:
    """Trains an epoch, or the rest of it; saves periodically and when a signal asks to stop."""
    settings, progress = run.config.train, run.progress
    epoch, num_batches = len(progress.epochs) + 1, run.trainer.num_batches()
    earlier_seconds, start = progress.epoch_seconds, time.perf_counter()
    accumulator = MetricAccumulator(progress.sums, run.trainer.overlap)
    dispatches = run.trainer.epoch(
        run.state,
        epoch,
        progress.batches_done,
        stop=lambda: run.listener.received,
        watch=functools.partial(run.clock.each, "input"),
    )
    with_progress = run.reporter.progress(
        dispatches,
        progress.batches_done,
        num_batches,
        STEPS_PER_DISPATCH,
        f"epoch {epoch}" if progress.refit is None else f"refit epoch {epoch}",
        lambda: accumulator.loss,
    )

    def snapshot() -> None:
        progress.sums = accumulator.read()
        progress.epoch_seconds = earlier_seconds + time.perf_counter() - start
        if settings.nonfinite == "stop":
            progress.diverged_at = accumulator.first_nonfinite_step

    saved_at, steps_since = start, 0
    with run.clock("train"):
        for run.state, sums in with_progress:
            accumulator.append(sums)
            progress.batches_done = min(progress.batches_done + STEPS_PER_DISPATCH, num_batches)
            diverged = accumulator.first_nonfinite_step and settings.nonfinite == "stop"
            if accumulator.stop or diverged:
                break
            steps_since += STEPS_PER_DISPATCH
            due = time.perf_counter() - saved_at >= settings.checkpoint_seconds
            due |= 0 < settings.checkpoint_steps <= steps_since
            if due and progress.batches_done < num_batches:  # else the end of the epoch saves
                snapshot()
                run.save()
                saved_at, steps_since = time.perf_counter(), 0
        snapshot()
    run.stop = accumulator.stop
    _stop_or_continue(run, epoch, num_batches)


def _stop_or_continue(run: run_lib.Run, epoch: int, num_batches: int) -> None:
    """Ends the run after the steps of an epoch, if they diverged or a signal asks to stop."""
    progress = run.progress
    if progress.diverged_at is not None:
        run.save(wait=True)
        raise resume.diverged(progress.diverged_at, run.workdir)
    if run.stop and progress.batches_done < num_batches:
        _save_and_stop(run)
    if not progress.sums["count"]:
        raise DivergedError(f"every step of epoch {epoch} had a non-finite loss or gradient")


def _validate(run: run_lib.Run) -> None:
    """Ends an epoch: validates, chooses the weights to keep, saves and reports."""
    settings, progress = run.config.train, run.progress
    start = time.perf_counter()
    weights = run.state.average
    with run.clock("eval"):
        sums, per_text = run.trainer.evaluate(weights, "val")
        if run.model.has_scores:
            from flaxrnn.training import calibration  # SciPy takes long to import

            blend = calibration.blend(per_text["logits"], run.texts.training_data)
            weights = run.trainer.replicate({**weights, "blend": blend})
            sums, per_text = run.trainer.evaluate(weights, "val")
    if run.model.head.several:
        logits = per_text["logits"]
        sums = thresholds.rescore(sums, logits, run.validation_labels, run.choose(logits))
    class_scores = metrics.class_scores(*run.model.head.class_totals(sums.pop("class_counts")))
    scores = metrics.scores(sums, class_scores, run.model.head.several).items()
    _end_epoch(run, {f"val_{name}": mean for name, mean in scores}, time.perf_counter() - start)
    if kept_epoch(progress.history, settings) == len(progress.history):
        run.keep_calibrated(weights, per_text.get("logits"))
    run.save()
    patience = patience_in_epochs(settings, run.trainer.num_batches())
    run.reporter.epoch(progress.history, settings.epochs, patience)
    if run.stop:
        _save_and_stop(run)


def _end_epoch(run: run_lib.Run, scores: dict[str, Any], eval_seconds: float) -> None:
    """Adds the row of an epoch, with other scores than those of training, to the progress."""
    progress, seconds = run.progress, run.progress.epoch_seconds
    progress.end_epoch(
        {
            "epoch": len(progress.epochs) + 1,
            **{f"train_{name}": mean for name, mean in metrics.means(progress.sums).items()},
            **scores,
            "skipped_steps": int(progress.sums["nonfinite_steps"]),
            "train_examples_per_second": run.trainer.num_texts / seconds,
            "seconds": seconds + eval_seconds,
        }
    )


def _refit(run: run_lib.Run) -> None:
    """Trains anew, on train and validation texts, for as many epochs as validation chose."""
    progress = run.progress
    if progress.refit is None:
        run_lib.begin_refit(run)
    epochs = kept_epoch(progress.history, run.config.train)
    while len(progress.epochs) < epochs:
        _train_epoch(run)
        _end_epoch(run, {"phase": "refit"}, 0.0)
        if len(progress.epochs) == epochs:
            if run.model.has_scores:
                run.keep({**run.state.average, "blend": run.weights["blend"]})
            else:
                run.keep(run.state.average, progress.temperature)
        run.save()
        run.reporter.refit_epoch(progress.history, progress.epochs, epochs)
        if run.stop:
            _save_and_stop(run)


def _test(run: run_lib.Run) -> tuple[dict[str, Any], page.Details]:
    """Evaluates the kept weights on the test split; writes and returns the result and its page.

    The weights, then the result, are on disk before anything that is only shown is made.
    """
    texts, head = run.texts, run.model.head
    _stop_if_asked(run)
    with run.clock("test"):
        sums, per_text = run.trainer.evaluate(run.weights, "test")
    _stop_if_asked(run)
    if failure := run.save(wait=True):
        raise WorkdirError(f"--workdir: {run.workdir}: {failure}")
    limits, confidence = run.progress.thresholds, None
    if limits is not None:
        sums = thresholds.rescore(sums, per_text["logits"], texts.test_labels, limits)
    elif not head.per_token:
        correct = per_text["predicted"] == texts.test_labels
        confidence = Confidence(per_text["probability"], correct)
    class_counts = sums.pop("class_counts")
    class_scores = metrics.class_scores(*head.class_totals(class_counts))
    outcome = result.build(
        config=run.config,
        corpus=texts.names,
        progress=run.progress,
        sums=sums,
        class_scores=class_scores,
        seconds=run.clock.read(),
        params=run.weights,
        confidence=confidence,
        predicted=per_text.get("predicted") if limits is None else None,
        training_data=texts.training_data,
        findings=texts.findings,
        labelled=head.uses_labels and not head.per_token,
        resident=run.trainer.resident,
    )
    run.reporter.result(outcome, run.progress.history, run.progress.refit)
    details = page.Details(
        texts.label_names,
        class_scores,
        confidence=confidence,
        config=flatten(run.config.to_dict()),
        summary=summary(run.model, run.config.train.batch_size, run.config.data.maxlen),
        profile=texts.profile,
        unit=head.unit,
        **judge(texts, head, class_counts, per_text, limits),
    )
    run.reporter.finish(outcome, run.progress.history, details)
    return outcome, details


def _stop_if_asked(run: run_lib.Run) -> None:
    """Ends a run that has been trained, but has no result yet, if a signal asks to stop."""
    run.stop = distributed.largest(run.listener.received)
    if run.stop:
        _save_and_stop(run)


def _save_and_stop(run: run_lib.Run) -> None:
    fit = "" if run.progress.refit is None else "refit "
    step = f"{fit}step {int(run.state.step):,}"
    if failure := run.save(wait=True):
        raise signals.Saved(run.stop, f"stopped after {step}; {failure}")
    command = provenance.resume_command(run.root)
    raise signals.Saved(run.stop, f"saved after {step}; resume with: {command}")

"""A run: its parts, and how it starts, from scratch or from its latest checkpoint."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxrnn.config import Config, DataConfig, TrainConfig
from flaxrnn.data import batching, corpora
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.errors import ConfigError, WorkdirError
from flaxrnn.nn import heads, models
from flaxrnn.nn.summary import summary
from flaxrnn.reporting import console, report
from flaxrnn.runtime import devices, distributed, files, signals
from flaxrnn.runtime.clock import Clock
from flaxrnn.training import objective, optimizers, resume, steps, workdir
from flaxrnn.training.checkpoint import Checkpoints
from flaxrnn.training.progress import Progress, fingerprint, text_checksums
from flaxrnn.training.trainer import Trainer


@dataclass(frozen=True)
class Texts:
    """What a run needs from its corpus."""

    names: dict[str, str]  # "dataset" and "data_source", as in result.json
    training_data: batching.TrainingData
    vocabulary: Vocabulary  # limited to `data.num_words`
    label_names: list[str]
    corpus: corpora.Corpus | None  # unclipped, for the baseline; None: the run has none


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

    def save(self, wait: bool = False) -> str | None:
        """Writes a checkpoint; see `Checkpoints.save`."""
        if self.checkpoints is None:
            return None
        self.progress.seconds = self.clock.read()
        return self.checkpoints.save(self.state, self.weights, self.progress.to_json(), wait)

    def keep(self) -> None:
        """Marks the current averaged weights as those to keep."""
        self.weights = _copy(self.state.average)


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
    texts = load_texts(config)
    run_fingerprint = _agreed_fingerprint(config, texts.training_data, folder)
    model = models.build(config.model, texts.vocabulary.num_words, len(texts.label_names))
    optimizer = _build_optimizer(config.train, texts.training_data)
    with devices.raise_on_oom("out of memory for the parameters; lower model.hidden_size"):
        state = jax.block_until_ready(steps.init_state(model, optimizer, config.seed))
    checkpoints = _open_checkpoints(folder, stack)
    state, weights, progress = resume.restore(checkpoints, state, run_fingerprint, folder)
    clock.add(progress.seconds or {})
    if checkpoints:
        _write_inputs_and_summary(config, texts, model, folder, progress, int(state.step))
    trainer = _build_trainer(config, texts, model, optimizer)
    state, weights = trainer.replicate(_copy((state, weights)))
    reporter = _open_report(folder, progress, stack)
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
    if not int(state.step) and (failure := run.save(wait=True)):  # so that there is always one
        raise WorkdirError(f"--workdir: {folder}: {failure}")
    return run


def _open_checkpoints(folder: Path, stack: contextlib.ExitStack) -> Checkpoints | None:
    """Opens the checkpoints; None: this is not the primary process."""
    if not distributed.is_primary():
        return None
    checkpoints = Checkpoints(folder / "checkpoints")
    stack.callback(checkpoints.close)
    return checkpoints


def _open_report(
    folder: Path, progress: Progress, stack: contextlib.ExitStack
) -> report.Report | report.NoReport:
    """The primary process's report; the others report nothing."""
    primary = distributed.is_primary()
    reporter = report.Report(folder, progress.history) if primary else report.NoReport()
    stack.callback(reporter.close)
    return reporter


def _build_optimizer(
    config: TrainConfig, data: batching.TrainingData
) -> optax.GradientTransformation:
    num_steps = data.num_batches(config.batch_size) * config.epochs
    return optimizers.build(config, num_steps)


def _build_trainer(
    config: Config,
    texts: Texts,
    model: models.TextModel,
    optimizer: optax.GradientTransformation,
) -> Trainer:
    data = texts.training_data
    labels = np.zeros(0, int) if model.head.per_token else data.texts.labels[data.rows["train"]]
    return Trainer(
        data,
        model,
        optimizer,
        averaging=config.train.averaging,
        objective=objective.build(config.train, texts.label_names, labels),
        batch_size=config.train.batch_size,
        eval_batch_size=config.train.eval_batch_size,
        device_memory=config.data.device_memory,
        seed=config.seed,
    )


def _agreed_fingerprint(config: Config, data: batching.TrainingData, folder: Path) -> str:
    """The run's fingerprint; checks that all processes have the same config and texts."""
    checksums = text_checksums(data.texts)
    local = fingerprint(config.to_dict(), checksums)
    if distributed.broadcast(local) != local:
        raise ConfigError("--config: the processes of the run have different configs or corpora")
    # Uses the recorded config, so that fields added since the run began do not change it.
    recorded = distributed.is_primary() and workdir.read_config(folder)
    return fingerprint(distributed.broadcast(recorded), checksums)


def _write_inputs_and_summary(
    config: Config,
    texts: Texts,
    model: models.TextModel,
    folder: Path,
    progress: Progress,
    step: int,
) -> None:
    """Writes the vocabulary and the labels, and prints a summary of the model."""
    texts.vocabulary.save(folder / "vocabulary.json")
    files.write_atomically(folder / "labels.json", json.dumps(texts.label_names))
    if texts.names["data_source"] == "synthetic":
        print(console.SYNTHETIC_BANNER.format(name=texts.names["dataset"]))
    print(summary(model, config.train.batch_size, config.data.maxlen))
    if progress.seconds:
        print(f"Resuming {folder} after epoch {len(progress.history)}, step {step:,}")


def load_texts(config: Config) -> Texts:
    """Loads and prepares the corpus that a config names."""
    data, head = config.data, heads.get_head(config.model.target)
    custom = None
    if data.path is not None:
        custom = corpora.CustomTexts(
            data.path,
            data.text_field,
            data.label_field if head.uses_labels else None,
            data.test_fraction,
            config.seed if data.split_seed is None else data.split_seed,
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
    source = "synthetic" if corpus.synthetic else "real"
    names = {"dataset": corpus.name, "data_source": source}
    vocabulary = corpus.vocabulary.limit(data.num_words)
    with_baseline = config.train.baseline and head.uses_labels and not head.per_token
    return Texts(
        names,
        prepare_data(corpus, data),
        vocabulary,
        corpus.label_names,
        corpus if with_baseline else None,
    )


def prepare_data(corpus: corpora.Corpus, data: DataConfig) -> batching.TrainingData:
    """Prepares a corpus as the data group of a config says; see `batching.prepare_data`."""
    return batching.prepare_data(
        corpus,
        num_words=data.num_words,
        maxlen=data.maxlen,
        padding=data.padding,
        max_padding=data.max_padding,
        validation=data.validation,
        validation_fraction=data.validation_fraction,
    )


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)  # no buffer appears twice or is donated by a step

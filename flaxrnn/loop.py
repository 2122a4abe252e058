"""The training loop: config → data → model → steps → report."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from flaxrnn import checkpoint, data, metrics, models, optim, report, steps
from flaxrnn import config as config_lib
from flaxrnn.errors import DataError, DivergedError, WorkdirError

STEPS_A_DISPATCH = 16  # batches that one program runs through


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
        use_all_cores()
        workdir = _open_workdir(workdir, config)
        corpus = data.load_corpus(
            config.task, config.data.source, config.data.data_dir, config.data.manual_dir
        )
        if corpus.synthetic:
            print(report.banner(corpus.name))
        train, validation, test = _splits(corpus, config.data)
        corpus.vocabulary.limit(config.data.num_words).save(workdir / "vocabulary.json")
        report.write_atomically(workdir / "labels.json", json.dumps(corpus.label_names))
        model = models.build(config.model, config.data.num_words, len(corpus.label_names))
        optimizer = optim.adam(config.train.learning_rate)
        state = _copy(steps.init_state(model, optimizer, config.seed))
        print(models.summary(model, config.train.batch_size, config.data.maxlen))
        weights = _copy(state.average)  # what the run would end with now
        progress: dict[str, Any] = {"history": [], "diverged_at": None}
        checkpoints = checkpoint.Checkpoints(workdir / "checkpoints")
        if restored := checkpoints.restore(state=state, weights=weights):
            state, weights, progress = (restored[k] for k in ("state", "weights", "progress"))
            clock.add(progress["seconds"])
            print(f"Continuing {workdir} after epoch {len(progress['history'])}")
        history = progress["history"]
        reporter = report.Report(workdir, len(history))
    if progress["diverged_at"] is not None:
        raise _diverged(progress["diverged_at"], workdir)

    batch_size, eval_batch_size = config.train.batch_size, config.train.eval_batch_size
    mesh = mesh_for(batch_size)
    everywhere = NamedSharding(mesh, PartitionSpec())
    state, weights = jax.device_put((state, weights), everywhere)
    texts = {
        name: jax.device_put(split.padded(config.data.maxlen, config.data.padding), everywhere)
        for name, split in (("train", train), ("val", validation), ("test", test))
    }

    def chunks(order: np.ndarray, batch_size: int) -> Iterator[tuple]:
        return data.chunks(order, batch_size, STEPS_A_DISPATCH, mesh.size)

    with clock("compile"):
        step = functools.partial(
            steps.train_steps, model=model, optimizer=optimizer, averaging=config.train.averaging
        )
        some = next(chunks(np.arange(1), batch_size))
        train_steps = (
            steps.in_parallel(step, mesh, donate=True).lower(state, texts["train"], *some).compile()
        )
        some = next(chunks(np.arange(1), eval_batch_size))
        evaluates = {
            name: steps.in_parallel(functools.partial(steps.evaluate, model=model), mesh, False)
            .lower(weights, texts[name], *some)
            .compile()
            for name in ("val", "test")
        }

    def evaluate(name: str, params: steps.Params) -> metrics.Sums:
        order = np.arange(len(texts[name]["labels"]))
        return _sum_up(
            evaluates[name](params, texts[name], *chunk) for chunk in chunks(order, eval_batch_size)
        )

    def save(wait: bool = False) -> None:
        snapshot = {**progress, "history": list(history), "seconds": clock.read()}
        checkpoints.save(_copy(state), weights, snapshot, wait)  # the next step takes the state's

    while not _finished(history, config.train):
        epoch = len(history) + 1
        began = time.perf_counter()
        with clock("train"):
            order = data.epoch_order(len(train), config.seed, epoch)
            shown = reporter.progress(list(chunks(order, batch_size)), STEPS_A_DISPATCH, epoch)
            state, sums, bad_step = _train_epoch(train_steps, state, texts["train"], shown)
        train_seconds = time.perf_counter() - began
        if bad_step is not None:
            progress["diverged_at"] = bad_step
            save(wait=True)
            raise _diverged(bad_step, workdir)
        with clock("eval"):
            val_sums = evaluate("val", state.average)
        history.append(
            {
                "epoch": epoch,
                **{f"train_{name}": value for name, value in metrics.means(sums).items()},
                **{f"val_{name}": value for name, value in metrics.means(val_sums).items()},
                "train_examples_per_second": len(train) / train_seconds,
                "seconds": time.perf_counter() - began,
            }
        )
        if not config.train.restore_best or report.best_epoch(history) == epoch:
            weights = _copy(state.average)
        save()
        reporter.epoch(history, config.train.epochs, config.train.patience)

    with clock("eval"):
        test_sums = evaluate("test", weights)
    checkpoints.close()
    best = report.best_epoch(history)
    kept = history[best - 1 if config.train.restore_best else -1]
    test_means = metrics.means(test_sums)
    seconds = clock.read()
    result = {
        "task": config.task,
        "dataset": corpus.name,
        "data_source": "synthetic" if corpus.synthetic else "real",
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
        "train_tokens_per_second": len(train.ids) * len(history) / seconds["train"],
        **report.provenance(),
    }
    reporter.finish(result, history)
    return result


class Clock:
    """Seconds spent in the parts of a run, over all its starts."""

    def __init__(self) -> None:
        """Starts the total."""
        self._seconds = dict.fromkeys(("startup", "compile", "train", "eval"), 0.0)
        self._began = time.perf_counter()
        self._before = 0.0

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Adds the time of a block to `part`."""
        began = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - began

    def add(self, before: dict[str, float]) -> None:
        """Adds what the earlier starts of the run had spent."""
        for part in self._seconds:
            self._seconds[part] += before[part]
        self._before += before["total"]

    def read(self) -> dict[str, float]:
        """Seconds by part, and "total"."""
        return {**self._seconds, "total": self._before + time.perf_counter() - self._began}


def _splits(corpus: data.Corpus, settings: ConfigDict) -> tuple[data.Split, data.Split, data.Split]:
    """Train, validation and test texts, clipped to vocabulary and length."""
    train = corpus.train.clip(settings.num_words, settings.maxlen)
    test = corpus.test.clip(settings.num_words, settings.maxlen)
    if settings.validation == "test":
        return train, test, test
    cut = len(train) - round(len(train) * settings.validation_fraction)
    if not 0 < cut < len(train):
        raise DataError(
            f"data.validation_fraction: {settings.validation_fraction} of {len(train):,} texts"
            " leaves none to train on or none to validate with"
        )
    return train.slice(0, cut), train.slice(cut, len(train)), test


def use_all_cores() -> None:
    """Makes every core a device of JAX' CPU backend, unless JAX is at work already."""
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", os.cpu_count())


def mesh_for(batch_size: int) -> Mesh:
    """The devices to spread a batch over: all, but at least 8 rows for each."""
    devices = jax.local_devices()[: max(1, batch_size // 8)]
    return Mesh(np.array(devices), ("data",))


def _train_epoch(
    train_steps: Callable,
    state: steps.TrainState,
    texts: steps.Arrays,
    chunks: Iterable[tuple],
) -> tuple[steps.TrainState, metrics.Sums, int | None]:
    """Runs the chunks of an epoch.

    Returns:
        The new state, sums over the epoch, and the number of the first step that was not finite,
        where the epoch broke off, else None.
    """
    parts: list[metrics.Sums] = []
    for chunk in chunks:
        state, sums = train_steps(state, texts, *chunk)
        parts.append(sums)
        # A look at the dispatch before, so that an accelerator always has the next one. On CPU, two
        # programs under way can wait for each other's threads for ever.
        look = parts[-1 if jax.default_backend() == "cpu" else max(-2, -len(parts))]
        if look["first_bad"] != steps.NO_STEP:
            break
    first_bad = min(int(sums.pop("first_bad")) for sums in parts)
    return state, _sum_up(parts), None if first_bad == steps.NO_STEP else first_bad


def _sum_up(parts: Iterable[metrics.Sums]) -> metrics.Sums:
    """Adds up dispatches, in float64 on the host."""
    total: metrics.Sums = {}
    for part in parts:
        for name, value in jax.device_get(part).items():
            total[name] = total.get(name, 0) + np.float64(value)
    return total


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

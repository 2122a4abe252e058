"""What a run shows and leaves behind: progress, metrics, TensorBoard, result, curves, the page."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar
from tqdm import tqdm

from flaxrnn.reporting import page, plots
from flaxrnn.runtime import files

PACKAGES = ("flaxrnn", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")

_BANNER = """
********************************************************************************
**  EMBEDDED SYNTHETIC CORPUS: {name}
**  The texts are generated: its accuracies say nothing about those of a real corpus.
**  README.md, "The real corpora", says which there are and where to put them.
********************************************************************************
"""


class Report:
    """Writes the reports of one run into its workdir."""

    def __init__(self, workdir: Path, history: list[dict[str, Any]]):
        """Goes on after the epochs of `history`; later events are dropped from TensorBoard."""
        self._workdir = workdir
        self._events: RecordWriter | None = None
        with self._warning():
            name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
            self._events = RecordWriter(str(workdir / name))
            self._event(0, file_version="brain.Event:2")
            restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._event(len(history) + 1, session_log=restart)
            if history:
                self._write_metrics(history)

    def progress(
        self,
        dispatches: Iterable[Any],
        done: int,
        count: int,
        steps: int,
        epoch: int,
        loss: Callable[[], float],
    ) -> Iterator[Any]:
        """Gives an epoch's dispatches, and shows on a terminal how far they are.

        Args:
            dispatches: Still to come.
            done: Batches that are done.
            count: Batches of the epoch.
            steps: Batches a dispatch, the last one may have fewer.
            epoch: Its number.
            loss: Gives the mean so far, in nats.
        """
        with tqdm(
            desc=f"epoch {epoch}",
            initial=done,
            total=count,
            unit=" steps",
            leave=False,
            disable=None,
        ) as bar:
            for dispatch in dispatches:
                yield dispatch
                bar.set_postfix_str(f"train loss {loss():.4f}", refresh=False)
                bar.update(min(steps, count - bar.n))

    def epoch(self, history: list[dict[str, Any]], epochs: int, patience: int) -> None:
        """Reports the last epoch of `history`; what cannot be written costs a warning."""
        row = history[-1]
        with self._warning():
            self._write_metrics(history)
            for key, value in row.items():
                if key != "epoch":
                    summary = scalar(key.replace("_", "/", 1), value)
                    self._event(row["epoch"], summary=summary)
        since_best = row["epoch"] - best_epoch(history)
        skipped = f" | {row['skipped_steps']} steps skipped" if row["skipped_steps"] else ""
        print(
            f"epoch {row['epoch']:3d}/{epochs}"
            f" | train loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.4f}"
            f" | validation loss {row['val_loss']:.4f} accuracy {row['val_accuracy']:.4f}"
            f" | {row['seconds']:.1f} s, {row['train_examples_per_second']:,.0f} texts/s"
            f" | {f'best {since_best} of {patience} epochs ago' if since_best else 'best so far'}"
            f"{skipped}",
            flush=True,
        )

    def finish(
        self, result: dict[str, Any], history: list[dict[str, Any]], details: page.Details
    ) -> None:
        """Writes report.html, curves.png and result.json and prints the outcome.

        Raises:
            OSError: Something cannot be written.
        """
        self._write_metrics(history)
        draw_curves(history, result, self._workdir / "curves.png")
        shown = self._workdir / "report.html"
        files.write_atomically(shown, page.render(result, history, details))
        files.write_atomically(
            self._workdir / "result.json", json.dumps(result, indent=2) + "\n"
        )  # the last one: where it is, the run is complete
        seconds = ", ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items())
        print(
            f"\n{result['dataset']} ({result['data_source']} corpus), seed {result['seed']}:"
            f" {result['epochs']} epochs, the best was {result['best_epoch']}\n"
            f"  validation  loss {result['val_loss']:.4f}  accuracy {result['val_accuracy']:.4f}\n"
            f"  test        loss {result['test_loss']:.4f}  accuracy {result['test_accuracy']:.4f}"
            f"  macro-F1 {result['test_macro_f1']:.4f}\n"
            f"  seconds     {seconds}\n"
            f"  speed       {result['train_examples_per_second']:,.0f} texts/s,"
            f" {result['train_tokens_per_second']:,.0f} tokens/s in training\n"
            f"  report      {shown}",
            flush=True,
        )

    def close(self) -> None:
        """Closes the TensorBoard log."""
        if self._events is not None:
            with self._warning():
                self._events.close()

    def _write_metrics(self, history: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in history)
        files.write_atomically(self._workdir / "metrics.jsonl", lines)

    def _event(self, epoch: int, **content: Any) -> None:
        if self._events is not None:
            event = event_pb2.Event(wall_time=time.time(), step=epoch, **content)
            self._events.write(event.SerializeToString())
            self._events.flush()

    @contextlib.contextmanager
    def _warning(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            print(f"warning: {self._workdir} cannot be written ({error.strerror})", file=sys.stderr)


class NoReport:
    """What every process of a run but the first reports."""

    def progress(self, dispatches: Iterable[Any], *about: Any) -> Iterable[Any]:
        """Shows nothing."""
        return dispatches

    def epoch(self, *about: Any) -> None:
        """Reports nothing."""

    def finish(self, *about: Any) -> None:
        """Reports nothing."""

    def close(self) -> None:
        """Has nothing to close."""


def banner(name: str) -> str:
    """The warning of a run on the embedded corpus `name`."""
    return _BANNER.format(name=name)


def best_epoch(history: list[dict[str, Any]]) -> int:
    """The epoch of the lowest validation loss, from 1; the first of several."""

    def loss(row: dict[str, Any]) -> float:
        return math.inf if math.isnan(row["val_loss"]) else row["val_loss"]

    return min(history, key=loss)["epoch"]


def provenance() -> dict[str, Any]:
    """Devices, versions, commit and command of this process."""
    return {
        "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()],
        "versions": {
            "python": sys.version.partition(" ")[0],
            **{package: metadata.version(package) for package in PACKAGES},
        },
        "commit": commit(),
        "command": command(),
    }


def command() -> str:
    """The command line of this process, without folders of the program."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def commit() -> str | None:
    """The commit of the package's own checkout, "-dirty" behind it if it is changed."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None  # installed, perhaps inside somebody else's repository
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        git = subprocess.run(describe, cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return git.stdout.strip() or None


def draw_curves(history: list[dict[str, Any]], result: dict[str, Any], path: Path) -> None:
    """Draws loss and accuracy of training and validation over the epochs, the best one marked."""
    from matplotlib.figure import Figure  # slow to import, and not needed before the end
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in history]
    best = result["best_epoch"]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, (metric, unit) in zip(
        figure.subplots(1, 2), (("loss", "loss (nats)"), ("accuracy", "accuracy")), strict=True
    ):
        for split, colour in (("train", "tab:blue"), ("val", "tab:orange")):
            label = "validation" if split == "val" else "training"
            values = [row[f"{split}_{metric}"] for row in history]
            axes.plot(epochs, values, "o-", ms=4, color=colour, label=label)
        value = history[best - 1][f"val_{metric}"]
        axes.axvline(best, color="grey", ls=":", lw=1)
        axes.plot(best, value, "*", ms=15, color="tab:orange", mec="black", zorder=3)
        axes.plot([], [], "*", ms=11, color="tab:orange", mec="black", ls="none",
                  label=f"best epoch {best}: {value:.4f}")  # fmt: skip
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    corpus = "SYNTHETIC corpus" if result["data_source"] == "synthetic" else result["dataset"]
    figure.suptitle(
        f"{result['task']} on {corpus}, seed {result['seed']}"
        f" — test accuracy {result['test_accuracy']:.4f}"
    )
    plots.save(figure, path)

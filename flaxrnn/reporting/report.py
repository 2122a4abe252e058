"""The reports of a run: progress and metrics during training, the result at the end."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flaxrnn.reporting import console, page, plots
from flaxrnn.reporting.tensorboard import EventLog
from flaxrnn.runtime import files
from flaxrnn.training.progress import best_epoch


class Report:
    """Reports one run on the console and in its workdir."""

    def __init__(self, workdir: Path, history: list[dict[str, Any]]):
        """Continues after the epochs of `history`; TensorBoard drops what was logged after them."""
        self._workdir = workdir
        self._events: EventLog | None = None
        with self._warn_on_failure():
            self._events = EventLog(workdir, first_epoch=len(history) + 1)
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
        """Yields the dispatches of an epoch, with a progress bar if stderr is a terminal.

        Args:
            dispatches: Those still to come.
            done: Steps of the epoch that were taken before.
            count: Steps of the epoch.
            steps: Steps per dispatch; the last one may have fewer.
            epoch: Its number.
            loss: Returns the mean training loss so far, in nats.
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
        """Reports the last epoch of `history`; a failure to write costs a warning only."""
        with self._warn_on_failure():
            self._write_metrics(history)
            if self._events is not None:
                self._events.epoch(history[-1])
        print(
            console.epoch_line(history[-1], best_epoch(history), epochs, patience),
            flush=True,
        )

    def finish(
        self, result: dict[str, Any], history: list[dict[str, Any]], details: page.Details
    ) -> None:
        """Writes curves.png, report.html and result.json, and prints the outcome.

        Raises:
            OSError: One of the files cannot be written.
        """
        self._write_metrics(history)
        plots.save_curves(history, result, self._workdir / "curves.png")
        self._write_result(result, history, details)
        print(console.outcome(result, self._workdir / "report.html"), flush=True)

    def baseline(
        self, result: dict[str, Any], history: list[dict[str, Any]], details: page.Details
    ) -> None:
        """Adds the baseline that a written result now has to report.html and result.json.

        Raises:
            OSError: One of the files cannot be written.
        """
        self._write_result(result, history, details)
        print(console.baseline(result["baseline"]), flush=True)

    def close(self) -> None:
        """Closes the TensorBoard log."""
        if self._events is not None:
            with self._warn_on_failure():
                self._events.close()

    def _write_result(
        self, result: dict[str, Any], history: list[dict[str, Any]], details: page.Details
    ) -> None:
        rendered = page.render(result, history, details)
        files.write_atomically(self._workdir / "report.html", rendered)
        # Last, because its presence marks a run as finished.
        files.write_atomically(self._workdir / "result.json", json.dumps(result, indent=2) + "\n")

    def _write_metrics(self, history: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in history)
        files.write_atomically(self._workdir / "metrics.jsonl", lines)

    @contextlib.contextmanager
    def _warn_on_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            print(f"warning: {self._workdir} cannot be written ({error.strerror})", file=sys.stderr)


class NoReport:
    """Stands in for `Report` on all processes of a run except the first."""

    def progress(self, dispatches: Iterable[Any], *_: Any) -> Iterable[Any]:
        """Returns the dispatches."""
        return dispatches

    def epoch(self, *_: Any) -> None:
        """Does nothing."""

    def finish(self, *_: Any) -> None:
        """Does nothing."""

    def baseline(self, *_: Any) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""

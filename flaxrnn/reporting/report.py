"""The reports of a run: progress and metrics during training, the result at the end."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flaxrnn.reporting import console, page, plots
from flaxrnn.reporting.tensorboard import EventLog
from flaxrnn.runtime import files, records
from flaxrnn.training.progress import History, best_epoch

_PAGE = "report.html"


class Report:
    """Reports one run on the console and in its workdir."""

    def __init__(
        self,
        workdir: Path,
        history: History,
        refit: History | None = None,
        monitor: str = "loss",
    ):
        """Continues after the epochs of `history`; TensorBoard drops what was logged after them.

        Args:
            workdir: The run's.
            history: Its epochs so far, the first lines of metrics.jsonl.
            refit: Those of its refit, the other lines; None: it has not begun.
            monitor: The metric that says which epoch is the best.
        """
        self._workdir, self._monitor = workdir, monitor
        self._events: EventLog | None = None
        with self._warn_on_failure():
            self._events = EventLog(workdir, first_epoch=len(history) + 1)
            if history:
                self._write_metrics(history, refit)

    def compiling(self) -> contextlib.AbstractContextManager[None]:
        """Says, as long as the block takes, that programs are compiled."""
        return console.waiting("compiling")

    def progress(
        self,
        dispatches: Iterable[Any],
        done: int,
        count: int,
        steps: int,
        title: str,
        loss: Callable[[], float],
    ) -> Iterator[Any]:
        """Yields the dispatches of an epoch, with a progress bar if stderr is a terminal.

        Args:
            dispatches: Those still to come.
            done: Steps of the epoch that were taken before.
            count: Steps of the epoch.
            steps: Steps per dispatch; the last one may have fewer.
            title: What the bar is of.
            loss: Returns the mean training loss so far, in nats.
        """
        with tqdm(
            desc=title,
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

    def epoch(self, history: History, epochs: int, patience: int | None) -> None:
        """Reports the last epoch of `history`; a failure to write costs a warning only."""
        with self._warn_on_failure():
            self._write_metrics(history)
            if self._events is not None:
                self._events.epoch(history[-1])
        best = best_epoch(history, self._monitor)
        line = console.epoch_line(history[-1], best, epochs, patience, self._monitor)
        print(line, flush=True)

    def refit_epoch(self, history: History, refit: History, epochs: int) -> None:
        """Reports the last epoch of `refit`, which has `epochs`, as `epoch` does."""
        with self._warn_on_failure():
            self._write_metrics(history, refit)
        print(console.refit_line(refit[-1], epochs), flush=True)

    def result(
        self, result: dict[str, Any], history: History, refit: History | None = None
    ) -> None:
        """Writes metrics.jsonl, then result.json, whose presence marks a run as finished.

        Raises:
            OSError: One of the files cannot be written.
        """
        self._write_metrics(history, refit)
        self._write_result(result)

    def finish(self, result: dict[str, Any], history: History, details: page.Details) -> None:
        """Writes curves.png and report.html, and prints the outcome; a failure costs a warning."""
        with self._warn_on_failure("curves.png"):
            plots.save_curves(history, result, self._workdir / "curves.png")
        self.write_page(result, history, details)
        outcome = console.outcome(result, self._workdir / _PAGE, self._monitor)
        with self._warn_on_failure("stdout"):
            print(outcome.encode("utf-8", "replace").decode(), flush=True)

    def baseline(self, result: dict[str, Any], history: History, details: page.Details) -> None:
        """Adds the baseline that a written result now has to result.json and report.html.

        Raises:
            OSError: result.json cannot be written.
        """
        self._write_result(result)
        self.write_page(result, history, details)
        print(console.baseline(result["baseline"]), flush=True)

    def write_page(self, result: dict[str, Any], history: History, details: page.Details) -> None:
        """Writes report.html; a failure costs a warning."""
        with self._warn_on_failure(_PAGE):
            rendered = page.render(result, history, details)
            # The name of a file need not be UTF-8.
            files.write_atomically(self._workdir / _PAGE, rendered.encode("utf-8", "replace"))

    def closing(self, details: page.Details) -> None:
        """Prints some mistakes, and the command that predicts."""
        line = console.closing(details.mistakes or [], details.label_names, self._workdir)
        with self._warn_on_failure("stdout"):
            print(line.encode("utf-8", "replace").decode(), flush=True)

    def close(self) -> None:
        """Closes the TensorBoard log."""
        if self._events is not None:
            with self._warn_on_failure():
                self._events.close()

    def _write_result(self, result: dict[str, Any]) -> None:
        content = records.to_text(result, indent=2) + "\n"
        files.write_atomically(self._workdir / "result.json", content)

    def _write_metrics(self, history: History, refit: History | None = None) -> None:
        lines = "".join(records.to_text(row) + "\n" for row in [*history, *(refit or [])])
        files.write_atomically(self._workdir / "metrics.jsonl", lines)

    @contextlib.contextmanager
    def _warn_on_failure(self, name: str = "") -> Iterator[None]:
        """Prints a warning instead of an error: nothing that is only shown may cost a result."""
        try:
            yield
        except Exception as error:
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            reason = textwrap.shorten(reason, 200, placeholder=" …")
            warning = f"warning: {self._workdir / name} cannot be written ({reason})"
            print(warning.encode("utf-8", "replace").decode(), file=sys.stderr)


class NoReport:
    """Stands in for `Report` on all processes of a run except the first."""

    def compiling(self) -> contextlib.AbstractContextManager[None]:
        """Says nothing."""
        return contextlib.nullcontext()

    def progress(self, dispatches: Iterable[Any], *_: Any) -> Iterable[Any]:
        """Returns the dispatches."""
        return dispatches

    def epoch(self, *_: Any) -> None:
        """Does nothing."""

    def refit_epoch(self, *_: Any) -> None:
        """Does nothing."""

    def result(self, *_: Any) -> None:
        """Does nothing."""

    def finish(self, *_: Any) -> None:
        """Does nothing."""

    def baseline(self, *_: Any) -> None:
        """Does nothing."""

    def write_page(self, *_: Any) -> None:
        """Does nothing."""

    def closing(self, *_: Any) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""

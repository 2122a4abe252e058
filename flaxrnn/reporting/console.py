"""What a run prints: the synthetic corpus' banner, a line per epoch and the outcome."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flaxrnn.reporting import provenance
from flaxrnn.runtime import terminal
from flaxrnn.runtime.terminal import escaped
from flaxrnn.training import intervals, metrics

if TYPE_CHECKING:
    from flaxrnn.reporting.page import Mistake

_MISTAKES = 3
_COLUMNS = 60  # of a text that was mistaken

_BANNER = """
********************************************************************************
**  EMBEDDED SYNTHETIC CORPUS: {name}
**  The texts are generated: accuracies on them say nothing about the real corpus.
{reason}********************************************************************************
"""


def synthetic_banner(name: str, missing: str | None) -> str:
    """Announces a synthetic corpus, and what is missing for the real one, if that was wanted."""
    reason = f"**  {missing}.\n**  Put the archive there for the real one.\n" if missing else ""
    return _BANNER.format(name=name, reason=reason)


@contextlib.contextmanager
def waiting(title: str) -> Iterator[None]:
    """Says what the block does: on a terminal with the seconds so far, else in a line."""
    if not sys.stderr.isatty():
        print(f"{title}…", flush=True)
        yield
        return
    done, start = threading.Event(), time.perf_counter()

    def show() -> None:
        line = ""
        while not done.is_set():
            line = f"{title}… {time.perf_counter() - start:.0f} s"
            print(f"\r{line}", end="", file=sys.stderr, flush=True)
            done.wait(1)
        print(f"\r{' ' * len(line)}\r", end="", file=sys.stderr, flush=True)

    timer = threading.Thread(target=show, daemon=True)
    timer.start()
    try:
        yield
    finally:
        done.set()
        timer.join()


def epoch_line(
    row: Mapping[str, Any],
    best_epoch: int,
    epochs: int,
    patience: int | None,
    monitor: str = "loss",
) -> str:
    """Reports an epoch in one line.

    Args:
        row: Its line of metrics.jsonl.
        best_epoch: The best one so far.
        epochs: How many there are at most.
        patience: How many without a better one end the run; None: no number of them does.
        monitor: The metric that says which epoch is the best.
    """
    since_best = row["epoch"] - best_epoch
    of_patience = "" if patience is None else f" of {patience}"
    best = f"best {since_best}{of_patience} epochs ago" if since_best else "best so far"
    validation = f"validation {_metrics(row, 'val', metrics.validated(row, monitor))}"
    return _line(f"epoch {row['epoch']:3d}/{epochs}", row, validation, best)


def refit_line(row: Mapping[str, Any], epochs: int) -> str:
    """Reports an epoch of the refit, which has `epochs`, by its line of metrics.jsonl."""
    return _line(f"refit epoch {row['epoch']}/{epochs}", row)


def _line(title: str, row: Mapping[str, Any], validation: str = "", best: str = "") -> str:
    skipped = f"{row['skipped_steps']} steps skipped" if row["skipped_steps"] else ""
    train = f"train {_metrics(row, 'train', metrics.per_epoch())}"
    speed = f"{row['seconds']:.1f} s, {row['train_examples_per_second']:,.0f} texts/s"
    return " | ".join(filter(None, [title, train, validation, speed, best, skipped]))


def outcome(result: Mapping[str, Any], page: Path, monitor: str = "loss") -> str:
    """Summarizes a finished run.

    Args:
        result: As in result.json.
        page: The file with its report.
        monitor: The metric that says which epoch is the best.
    """
    before = " (before the refit)" if result["refit"] else ""
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items())
    validated, tested = metrics.validated(result, monitor), metrics.recorded(result, "test")
    return (
        f"\n{escaped(result['dataset'])} ({result['data_source']} corpus), seed {result['seed']}:"
        f" {result['epochs']} epochs, the best was {result['best_epoch']}\n"
        f"  validation  {_metrics(result, 'val', validated, '  ')}{before}\n"
        f"  test        {_metrics(result, 'test', tested, '  ')}\n"
        f"{''.join(_context(result))}"
        f"  seconds     {seconds}\n"
        f"  speed       {result['train_examples_per_second']:,.0f} texts/s,"
        f" {result['train_tokens_per_second']:,.0f} tokens/s in training\n"
        f"  report      {escaped(str(page))}"
        + "".join(f"\n  warning     {escaped(sentence)}" for sentence in result["warnings"])
    )


def _context(result: Mapping[str, Any]) -> Iterator[str]:
    """The lines that say how sure the scores of the test split are, and how easy its labels."""
    shown = [
        f"{metric.title} {intervals.show(interval)}"
        for metric in metrics.METRICS.values()
        if (interval := result.get(f"test_{metric.name}_interval"))
    ]
    if shown:
        yield f"  95%         {'  '.join(shown)}\n"
    if (largest := result.get("largest_class_accuracy")) is not None:
        yield f"  largest     accuracy {largest:.4f}  (always the largest class)\n"


def baseline(found: Mapping[str, Any]) -> str:
    """The line of a baseline, as in result.json, below the summary."""
    measured = [m for m in metrics.METRICS.values() if f"test_{m.name}" in found]
    shown = _metrics(found, "test", measured, "  ")
    return f"  baseline    {shown}  ({found['name']}, C={found['C']}; {found['seconds']:.1f} s)"


def closing(mistakes: Sequence[Mistake], names: Sequence[str], workdir: Path) -> str:
    """The last lines of a run on one's own texts: some mistakes, and the command that predicts.

    Args:
        mistakes: Those of the test split, the most confident first.
        names: Of the classes.
        workdir: The run's.
    """
    lines = [
        f"{_confused(mistake, names)}: {terminal.fit(mistake.text, _COLUMNS)}"
        for mistake in mistakes[:_MISTAKES]
    ] or ["none among the test texts"]
    installed = provenance.command().startswith("flaxrnn ")
    command = "flaxrnn predict" if installed else "python -m flaxrnn.predict"
    titles = ["mistakes", *[""] * (len(lines) - 1)]
    return "\n".join(
        [
            *(f"  {t:11} {escaped(line)}" for t, line in zip(titles, lines, strict=True)),
            f"  predict     {command} --workdir {terminal.quoted([str(workdir)])} 'A new text.'",
        ]
    )


def _confused(mistake: Mistake, names: Sequence[str]) -> str:
    predicted, true = (mistake.named(what, names) for what in ("predicted", "label"))
    if isinstance(mistake.label, tuple):  # the probability is not that of all labels
        return f"{predicted} instead of {true}"
    return f"{predicted} ({mistake.probability:.2f}), not {true}"


def _metrics(
    record: Mapping[str, Any],
    split: str,
    shown: Iterable[metrics.Metric],
    separator: str = " ",
) -> str:
    return separator.join(f"{metric.title} {metric.show(record, split)}" for metric in shown)

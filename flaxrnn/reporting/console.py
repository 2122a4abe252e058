"""What a run prints: the synthetic corpus' banner, a line per epoch and the outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flaxrnn.runtime.terminal import escaped
from flaxrnn.training import metrics

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
    validation = f"validation {_metrics(row, 'val', metrics.validated(monitor))}"
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
    return (
        f"\n{escaped(result['dataset'])} ({result['data_source']} corpus), seed {result['seed']}:"
        f" {result['epochs']} epochs, the best was {result['best_epoch']}\n"
        f"  validation  {_metrics(result, 'val', metrics.validated(monitor), '  ')}{before}\n"
        f"  test        {_metrics(result, 'test', metrics.METRICS.values(), '  ')}\n"
        f"  seconds     {seconds}\n"
        f"  speed       {result['train_examples_per_second']:,.0f} texts/s,"
        f" {result['train_tokens_per_second']:,.0f} tokens/s in training\n"
        f"  report      {escaped(str(page))}"
        + "".join(f"\n  warning     {escaped(sentence)}" for sentence in result["warnings"])
    )


def baseline(found: Mapping[str, Any]) -> str:
    """The line of a baseline, as in result.json, below the summary."""
    measured = [m for m in metrics.METRICS.values() if f"test_{m.name}" in found]
    shown = _metrics(found, "test", measured, "  ")
    return f"  baseline    {shown}  ({found['name']}, C={found['C']}; {found['seconds']:.1f} s)"


def _metrics(
    record: Mapping[str, Any],
    split: str,
    shown: Iterable[metrics.Metric],
    separator: str = " ",
) -> str:
    return separator.join(f"{metric.title} {metric.show(record, split)}" for metric in shown)

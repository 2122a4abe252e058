"""What a run prints: the synthetic corpus' banner, a line per epoch and the outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flaxrnn.training import metrics

SYNTHETIC_BANNER = """
********************************************************************************
**  EMBEDDED SYNTHETIC CORPUS: {name}
**  The texts are generated: accuracies on them say nothing about the real corpus.
**  README.md, "The real corpora", lists the archives and where to put them.
********************************************************************************
"""


def epoch_line(row: Mapping[str, Any], best_epoch: int, epochs: int, patience: int) -> str:
    """Reports an epoch in one line.

    Args:
        row: Its line of metrics.jsonl.
        best_epoch: The best one so far.
        epochs: How many there are at most.
        patience: How many without a better one end the run.
    """
    since_best = row["epoch"] - best_epoch
    parts = [
        f"epoch {row['epoch']:3d}/{epochs}",
        f"train {_metrics(row, 'train', metrics.per_epoch())}",
        f"validation {_metrics(row, 'val', metrics.per_epoch())}",
        f"{row['seconds']:.1f} s, {row['train_examples_per_second']:,.0f} texts/s",
        f"best {since_best} of {patience} epochs ago" if since_best else "best so far",
    ]
    if row["skipped_steps"]:
        parts.append(f"{row['skipped_steps']} steps skipped")
    return " | ".join(parts)


def outcome(result: Mapping[str, Any], page: Path) -> str:
    """Summarizes a finished run.

    Args:
        result: As in result.json.
        page: The file with its report.
    """
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items())
    return (
        f"\n{result['dataset']} ({result['data_source']} corpus), seed {result['seed']}:"
        f" {result['epochs']} epochs, the best was {result['best_epoch']}\n"
        f"  validation  {_metrics(result, 'val', metrics.per_epoch(), '  ')}\n"
        f"  test        {_metrics(result, 'test', metrics.METRICS.values(), '  ')}\n"
        f"  seconds     {seconds}\n"
        f"  speed       {result['train_examples_per_second']:,.0f} texts/s,"
        f" {result['train_tokens_per_second']:,.0f} tokens/s in training\n"
        f"  report      {page}"
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

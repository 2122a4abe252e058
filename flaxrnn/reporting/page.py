"""report.html: a run on one page, in one file that asks for no other."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from flaxrnn.data import batching
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.training import metrics

_MISTAKES = 20
_SNIPPET = 240  # characters of a mistaken text that are seen at once
_PARTS = {  # of the seconds of a run, as the page names them
    "startup": "start, data read",
    "compile": "compiling",
    "train": "training",
    "input": "training: wait for input",
    "eval": "validation",
    "test": "test",
    "other": "checkpoints, other",
}


@dataclass(frozen=True)
class Mistake:
    """A text that was taken for another class."""

    text: str
    label: int  # the true class
    predicted: int
    probability: float  # of the predicted class


@dataclass(frozen=True)
class Details:
    """What the page shows beside result.json and metrics.jsonl."""

    label_names: list[str]
    confusion: np.ndarray | None  # of the test split, true and predicted class, [C, C]; None: words
    mistakes: list[Mistake] | None  # the most confident first; None: outputs are per token
    config: dict[str, Any]  # by name with dots
    summary: str  # of the model
    judged: str = "texts"  # or "tokens": what has a class


def mistakes(
    training_data: batching.TrainingData,
    vocabulary: Vocabulary,
    predicted: np.ndarray,
    probability: np.ndarray,
) -> list[Mistake]:
    """The texts of the test split that were mistaken with the most confidence, at most 20.

    Args:
        training_data: The texts, as the model read them.
        vocabulary: Of their words.
        predicted: Class of each text of the test split, int [N].
        probability: Of that class, float [N].
    """
    texts, rows = training_data.texts, training_data.rows["test"]
    wrong = np.flatnonzero(predicted != texts.labels[rows])
    worst = wrong[np.argsort(-probability[wrong], kind="stable")][:_MISTAKES]
    return [
        Mistake(
            vocabulary.decode(texts.ids[texts.offsets[row] : texts.offsets[row + 1]]),
            int(texts.labels[row]),
            int(predicted[i]),
            float(probability[i]),
        )
        for i, row in zip(worst, rows[worst], strict=True)
    ]


def render(result: dict[str, Any], history: list[dict[str, Any]], details: Details) -> str:
    """The page, as HTML.

    Args:
        result: As `result.json` holds it.
        history: As `metrics.jsonl` holds it, an epoch each.
        details: What those do not hold.
    """
    title = f"{result['task']}, seed {result['seed']}: accuracy {result['test_accuracy']:.4f}"
    body = [
        _headline(result, details.judged),
        _section("Training", _curves(history, result["best_epoch"])),
        *_of_classes(details),
        _section("Time", _time(result["seconds"])),
        _section("Model", f'<pre class="scroll">{escape(details.summary)}</pre>'),
        _section("Config", _pairs({k: json.dumps(v) for k, v in details.config.items()})),
        _section("Provenance", _pairs(_provenance(result))),
    ]
    style, script = (
        Path(__file__).with_suffix(suffix).read_text("utf-8") for suffix in (".css", ".js")
    )
    return _PAGE.format(title=escape(title), style=style, script=script, body="\n".join(body))


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>"


def _of_classes(details: Details) -> list[str]:
    """The sections that the run has something for."""
    names, judged, sections = details.label_names, details.judged, []
    if details.confusion is not None:
        classes = metrics.class_scores(
            np.diag(details.confusion),
            details.confusion.sum(axis=1),
            details.confusion.sum(axis=0),
        )
        order = np.argsort(-classes["support"], kind="stable")
        sections += [
            _section("Classes", _classes(classes, names, order, judged)),
            _section("Confusion", _confusion(details.confusion, names, order, judged)),
        ]
    if details.mistakes is not None:
        sections.append(_section("The most confident mistakes", _mistakes(details.mistakes, names)))
    return sections


def _headline(result: dict[str, Any], judged: str) -> str:
    seconds = result["seconds"]["total"]
    tiles = {
        "test accuracy": (
            f"{result['test_accuracy']:.4f}",
            f"{result['test_examples']:,} {judged}",
        ),
        "test loss": (f"{result['test_loss']:.4f}", "nats"),
        "test macro-F1": (f"{result['test_macro_f1']:.4f}", "mean over classes"),
        "epochs": (f"{result['epochs']}", f"the best was {result['best_epoch']}"),
        "time": (f"{seconds:,.1f}", "seconds from start to end"),
        "speed": (
            f"{result['train_examples_per_second']:,.0f}",
            f"texts/s in training, {result['train_tokens_per_second']:,.0f} tokens/s",
        ),
        "parameters": (f"{result['parameters']:,}", ""),
        "seed": (f"{result['seed']}", ""),
    }
    shown = "\n".join(
        f"<div><dt>{name}</dt><dd><b>{value}</b> {unit}</dd></div>"
        for name, (value, unit) in tiles.items()
    )
    warning = ""
    if result["data_source"] == "synthetic":
        warning = (
            '<p class="synthetic" role="alert"><b>SYNTHETIC corpus.</b> The words are generated:'
            " these figures say nothing about the real task.</p>\n"
        )
    corpus = f"{result['dataset']} ({result['data_source']} corpus)"
    heading = f"<h1>{escape(result['task'])}</h1>\n<p>{escape(corpus)}</p>"
    return f'<header>\n{heading}\n{warning}<dl class="tiles">\n{shown}\n</dl>\n</header>'


def _curves(history: list[dict[str, Any]], best: int) -> str:
    legend = (
        '<p class="legend"><span class="train">training</span>'
        f'<span class="val">validation</span><span class="best">best epoch, {best}</span></p>'
    )
    panels = "\n".join(
        _panel(history, best, metric, unit)
        for metric, unit in (("loss", "loss (nats)"), ("accuracy", "accuracy"))
    )
    return f'{legend}\n<div class="panels">\n{panels}\n</div>'


def _panel(history: list[dict[str, Any]], best: int, metric: str, unit: str) -> str:
    """One chart: a metric of training and validation by epoch."""
    width, height, left, right, top, bottom = 460, 300, 62, 14, 14, 46
    series = {
        split: [
            (row["epoch"], row[f"{split}_{metric}"])
            for row in history
            if math.isfinite(row[f"{split}_{metric}"])
        ]
        for split in ("train", "val")
    }
    values = [value for points in series.values() for _, value in points] or [0.0, 1.0]
    margin = 0.06 * (max(values) - min(values)) or 0.05
    low, high = min(values) - margin, max(values) + margin
    first, last = 0.6, len(history) + 0.4

    def x(epoch: float) -> float:
        return left + (epoch - first) / (last - first) * (width - left - right)

    def y(value: float) -> float:
        return top + (high - value) / (high - low) * (height - top - bottom)

    parts = []
    for tick in _ticks(low, high):
        parts.append(
            f'<path class="grid" d="M{left} {y(tick):.1f}H{width - right}"/>'
            f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for epoch in range(1, len(history) + 1, math.ceil(len(history) / 10)):
        at = f'x="{x(epoch):.1f}" y="{height - bottom + 18}"'
        parts.append(f'<text {at} text-anchor="middle">{epoch}</text>')
    middle = (top + height - bottom) / 2
    parts.append(
        f'<path class="axis" d="M{left} {top}V{height - bottom}H{width - right}"/>'
        f'<text x="{(left + width - right) / 2}" y="{height - 6}" text-anchor="middle">epoch</text>'
        f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{unit}</text>'
        f'<path class="best" d="M{x(best):.1f} {top}V{height - bottom}"/>'
    )
    for split, points in series.items():
        name = "training" if split == "train" else "validation"
        line = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in points)
        parts.append(f'<polyline class="{split}" points="{line}"/>')
        for epoch, value in points:
            marked = split == "val" and epoch == best
            parts.append(
                f'<circle class="{split}{" marked" if marked else ""}" cx="{x(epoch):.1f}"'
                f' cy="{y(value):.1f}" r="{6 if marked else 3}">'
                f"<title>epoch {epoch}, {name}: {metric} {value:.4f}</title></circle>"
            )
    best_value = history[best - 1][f"val_{metric}"]
    label = f"{unit} by epoch, training and validation; {best_value:.4f} in the best, {best}"
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg><figcaption>validation {metric} of the best epoch:"
        f" <b>{best_value:.4f}</b></figcaption></figure>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, at most 7."""
    step = 10 ** math.floor(math.log10((high - low) / 6))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _classes(
    classes: dict[str, np.ndarray], names: list[str], order: Iterable[int], judged: str
) -> str:
    titles = ("class", "precision", "recall", "F1", judged, "predicted")
    head = "".join(
        f'<th scope="col"{" aria-sort=descending" if title == judged else ""}>'
        f'<button type="button">{title}</button></th>'
        for title in titles
    )
    rows = []
    for i in order:
        scores = [float(classes[name][i]) for name in ("precision", "recall", "f1")]
        cells = [f'<td data-key="{score}">{score:.3f}</td>' for score in scores]
        cells[2] = (
            f'<td data-key="{scores[2]}" class="bar" style="--share:{scores[2]:.3f}">'
            f"<span>{scores[2]:.3f}</span></td>"
        )
        for count in (classes["support"][i], classes["predicted"][i]):
            cells.append(f'<td data-key="{count:.0f}">{count:,.0f}</td>')
        rows.append(f'<tr><th scope="row">{escape(names[i])}</th>{"".join(cells)}</tr>')
    return (
        f"<p>Of the test split. “{judged}” are those of the class (support), “predicted” those"
        " taken for it. A click on a heading sorts.</p>\n"
        f'<div class="scroll tall"><table class="classes sortable"><thead><tr>{head}</tr></thead>\n'
        "<tbody>" + "\n".join(rows) + "</tbody></table></div>"
    )


def _confusion(confusion: np.ndarray, names: list[str], order: np.ndarray, judged: str) -> str:
    columns = "".join(
        f'<th scope="col"><span>{escape(names[column])}</span></th>' for column in order
    )
    rows = []
    for row in order:
        total, cells = confusion[row].sum(), []
        for column in order:
            count = confusion[row, column]
            share = count / max(total, 1)
            title = (
                f"true {names[row]}, predicted {names[column]}: {count:,.0f} of {total:,.0f}"
                f" {judged} ({share:.1%})"
            )
            kind = "hit" if row == column else "miss"
            look = f' class="{kind}" style="--share:{share:.3f}"' if count else ""
            shown = f"{count:.0f}" if count else ""
            cells.append(f'<td{look} title="{escape(title)}">{shown}</td>')
        rows.append(f'<tr><th scope="row">{escape(names[row])}</th>{"".join(cells)}</tr>')
    size = "large" if len(names) <= 8 else "small"
    return (
        f"<p>Rows are the true classes, columns the predicted ones, both by number of {judged}."
        " The colour is the share of the row: blue is right, orange is mistaken.</p>\n"
        '<p class="readout" aria-live="polite">Point at a cell to read it.</p>\n'
        f'<div class="scroll tall fit"><table class="confusion {size}">'
        f'<thead><tr><th class="corner">true \\ predicted</th>{columns}</tr></thead>\n'
        "<tbody>" + "\n".join(rows) + "</tbody></table></div>"
    )


def _mistakes(found: list[Mistake], names: list[str]) -> str:
    if not found:
        return "<p>None: every text of the test split was classified rightly.</p>"
    items = []
    for mistake in found:
        probability = f"{mistake.probability:.2%}"
        wrong, right = escape(names[mistake.predicted]), escape(names[mistake.label])
        verdict = (
            f'<p><b>{probability}</b> <span class="wrong">{wrong}</span>,'
            f' in truth <span class="right">{right}</span></p>'
        )
        shown = f"<p>{escape(mistake.text)}</p>"
        if len(mistake.text) > _SNIPPET:
            snippet = mistake.text[:_SNIPPET].rpartition(" ")[0] or mistake.text[:_SNIPPET]
            shown = f"<details><summary><span>{escape(snippet)} …</span></summary>{shown}</details>"
        items.append(f"<li>{verdict}{shown}</li>")
    return (
        "<p>The probability of the predicted class, its name, and the true one. The text is what"
        " the model read: words it does not know are “?”.</p>\n"
        '<ol class="mistakes">\n' + "\n".join(items) + "\n</ol>"
    )


def _time(seconds: dict[str, float]) -> str:
    parts = {name: seconds[name] for name in seconds if name != "total"}
    parts["train"] -= parts["input"]
    parts["other"] = max(0.0, seconds["total"] - sum(parts.values()))
    bar, rows = [], []
    for name, value in parts.items():
        share = value / seconds["total"]
        label = f"{_PARTS[name]}: {value:.2f} s"
        bar.append(f'<span class="{name}" style="--share:{share:.4f}" title="{label}"></span>')
        rows.append(
            f'<tr><th scope="row"><i class="{name}"></i>{_PARTS[name]}</th>'
            f"<td>{value:.2f} s</td><td>{share:.0%}</td></tr>"
        )
    total = f'<th scope="row">total</th><td>{seconds["total"]:.2f} s</td><td></td>'
    rows.append(f'<tr class="total">{total}</tr>')
    return f'<div class="time">{"".join(bar)}</div>\n<table>{"".join(rows)}</table>'


def _provenance(result: dict[str, Any]) -> dict[str, str]:
    kinds = Counter(device.partition(" ")[2] for device in result["devices"])
    peak = result["memory"]
    device_peak = peak["peak_device_mib"]
    on_device = "not measured" if device_peak is None else f"{device_peak:,.0f} MiB"
    return {
        "command": result["command"],
        "commit": result["commit"] or "none: not run from a checkout",
        "devices": ", ".join(f"{kind} ({count})" for kind, count in kinds.items()),
        "peak memory of the process": f"{peak['peak_rss_mib']:,.0f} MiB",
        "peak memory of a device": on_device,
        "texts on the devices": "all" if result["resident"] else "streamed",
        "lengths padded to": ", ".join(map(str, result["buckets"])),
        "steps skipped, not finite": f"{result['skipped_steps']:,}",
        **result["versions"],
    }


def _pairs(pairs: dict[str, str]) -> str:
    rows = "\n".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in pairs.items()
    )
    return f'<dl class="pairs">\n{rows}\n</dl>'


# The policy forbids the page to ask for anything: what would, fails loudly in the console.
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>
{script}</script>
</body>
</html>
"""

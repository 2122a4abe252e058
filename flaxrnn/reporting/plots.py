"""Plots: the training curves of a run, as PNG and as SVG, and its confidence, for its page."""

from __future__ import annotations

import io
import math
import re
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from flaxrnn.training import metrics

# matplotlib takes half a second to import, and is needed at the end of a run only.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flaxrnn.training.confidence import Confidence

# For what matplotlib's own font lacks, the first of these that is installed: East Asian scripts on
# Linux, Windows and macOS.
_FALLBACKS = (
    "Noto Sans CJK KR",
    "Noto Sans CJK JP",
    "NanumGothic",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "Arial Unicode MS",
)
# The variables of page.css, by their values in the light theme.
_COLOURS = {
    "#1b1f24": "ink",
    "#5b6470": "soft",
    "#d9dde3": "line",
    "#2463c9": "blue",
    "#c2570c": "orange",
}
_INK, _SOFT, _LINE, _BLUE, _ORANGE = _COLOURS
_SPLITS = {"train": ("training", _BLUE), "val": ("validation", _ORANGE)}
_STYLE: Any = {
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _SOFT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.ymargin": 0.06,
    "grid.color": _LINE,
    "legend.borderaxespad": 0,
    "legend.columnspacing": 1.2,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "legend.handletextpad": 0.4,
    "text.color": _SOFT,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "svg.fonttype": "none",  # text, not outlines
    "svg.hashsalt": "flaxrnn",  # the same ids every time
}


def save_curves(history: list[dict[str, Any]], result: dict[str, Any], path: Path) -> None:
    """Writes the training curves of all metrics as PNG, side by side.

    Args:
        history: The lines of metrics.jsonl.
        result: As in result.json; for the title.
        path: Path of the PNG file.

    Raises:
        OSError: `path` cannot be written.
    """
    corpus = "SYNTHETIC corpus" if result["data_source"] == "synthetic" else result["dataset"]
    metric = metrics.headline(result)
    with styled():
        figure = _curves(history, result["best_epoch"], metrics.per_epoch())
        figure.suptitle(
            f"{result['task']} on {corpus}, seed {result['seed']}"
            f" — test {metric.title} {metric.show(result, 'test')}",
            color=_INK,
        )
        save(figure, path)


def curves_svg(history: list[dict[str, Any]], best: int, metric: metrics.Metric) -> str:
    """The training curves of one metric as an SVG element for report.html.

    Its colours are the variables of page.css, each point has a tooltip, and it refers to nothing
    outside itself. The same history gives the same text.

    Args:
        history: The lines of metrics.jsonl.
        best: The best epoch.
        metric: One that is computed per epoch.
    """
    tooltips = {
        split: [
            f"epoch {epoch}, {title}: {metric.title} {value:{metric.format}}"
            for epoch, value in _finite(history, metric, split).items()
        ]
        for split, (title, _) in _SPLITS.items()
    }
    label = (
        f"{metric.label} by epoch in training and validation; best epoch {best},"
        f" validation {metric.title} {metric.show(history[best - 1], 'val')}"
    )
    with styled():
        return to_svg(_curves(history, best, [metric]), label, tooltips)


def reliability_svg(confidence: Confidence) -> str:
    """The accuracy of texts by the probability of their label, as an SVG element; see above."""
    with styled():
        figure, axes = _share_axes("probability of the predicted label", "share that is right")
        found = confidence.bins()
        points = ([each.probability for each in found], [each.accuracy for each in found])
        axes.plot([0, 1], [0, 1], color=_SOFT, ls="--", lw=1, label="calibrated", clip_on=False)
        axes.plot(*points, "o-", ms=5, color=_BLUE, label="test", gid="test", clip_on=False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        tooltips = [
            f"{each.texts:,} texts of probability {each.probability:.3f}: {each.accuracy:.1%} right"
            for each in found
        ]
        label = "share of right labels by their probability, on the test split"
        return to_svg(figure, label, {"test": tooltips})


def coverage_svg(confidence: Confidence) -> str:
    """The accuracy of the most confident share of texts, as an SVG element; see above."""
    with styled():
        figure, axes = _share_axes(
            "share of texts that get a label", "share of those that is right"
        )
        curve = confidence.curve()
        points = ([each.share for each in curve], [each.accuracy for each in curve])
        axes.plot(*points, "o-", ms=2, color=_BLUE, gid="test", clip_on=False)
        axes.set_ylim(auto=True)
        tooltips = [
            f"threshold {each.threshold:.3f}: {each.share:.1%} get a label,"
            f" {each.accuracy:.1%} of those are right"
            for each in curve
        ]
        label = "accuracy by the share of texts that get a label, the most confident first"
        return to_svg(figure, label, {"test": tooltips})


def styled() -> AbstractContextManager[None]:
    """A block in which figures look like the page."""
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def panel(x: str, y: str) -> tuple[Figure, Axes]:
    """A figure of one plot, with the labels of its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="y", clip_on=False)
    axes.set(xlabel=x, ylabel=y)
    return figure, axes


def _share_axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = panel(x, y)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return figure, axes


def to_svg(figure: Figure, label: str, tooltips: dict[str, list[str]]) -> str:
    """A plot as an SVG element in the colours of page.css.

    Args:
        figure: The plot.
        label: What it shows, for who does not see it.
        tooltips: By the gid of a line, one per marker.
    """
    with io.StringIO() as file:
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():  # HTML has no namespaces
        element.tag = element.tag.rpartition("}")[2]
        for name in list(element.attrib):
            element.set(name.rpartition("}")[2], element.attrib.pop(name))
    root[:] = root.findall("g")  # without metadata, and a style sheet that is for the whole page
    for line, texts in tooltips.items():
        markers = root.findall(f".//g[@id='{line}']/g/use")
        for marker, text in zip(markers, texts, strict=True):
            ElementTree.SubElement(marker, "title").text = text
    for group in root.iter("g"):
        group.attrib.pop("id", None)  # those of two plots on a page would be the same
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": label,
    }
    svg = ElementTree.tostring(root, encoding="unicode")
    for colour, name in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return re.sub(r' font-family: [^;]*;| transform="rotate\(-0 [^"]*"|\n *', "", svg)


def save(figure: Figure, path: Path) -> None:
    """Writes a plot as PNG; a character that no font has becomes a box, without a warning.

    Raises:
        OSError: `path` cannot be written.
    """
    from matplotlib import font_manager
    from matplotlib.text import Text

    installed = {font.name for font in font_manager.fontManager.ttflist}
    families = ["DejaVu Sans", *[name for name in _FALLBACKS if name in installed][:1]]
    for text in figure.findobj(Text):
        text.set_fontfamily(families)
        text.set_parse_math(False)  # a name may have dollar signs
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(path, dpi=110)


def _curves(history: list[dict[str, Any]], best: int, panels: list[metrics.Metric]) -> Figure:
    """One panel per metric, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(panels), 3.4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, history, best, metric)
    return figure


def _draw(axes: Axes, history: list[dict[str, Any]], best: int, metric: metrics.Metric) -> None:
    """Draws a metric of training and validation by epoch, with the best epoch marked."""
    from matplotlib.ticker import MaxNLocator

    whole: Any = {"clip_on": False, "in_layout": False}  # markers reach over the edge
    axes.grid(axis="y", clip_on=False)
    axes.axvline(best, color=_SOFT, ls="--", lw=1, clip_on=False)
    for split, (label, colour) in _SPLITS.items():
        values = _finite(history, metric, split)
        line = (list(values), list(values.values()))
        axes.plot(*line, "o-", ms=4, color=colour, label=label, gid=split, **whole)
    value = metric.value(history[best - 1], "val")
    label = f"best epoch {best}: {value:{metric.format}}"
    axes.plot(best, value, "o", ms=9, color=_ORANGE, mec=_INK, mew=1.5, label=label, **whole)
    axes.set_xlim(0.6, len(history) + 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_ylabel(metric.label)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)


def _finite(history: list[dict[str, Any]], metric: metrics.Metric, split: str) -> dict[int, float]:
    """Epochs and their values, without those that are not finite."""
    values = {row["epoch"]: metric.value(row, split) for row in history}
    return {epoch: value for epoch, value in values.items() if math.isfinite(value)}

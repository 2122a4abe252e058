"""Plots: the training curves of a run, as a PNG file and as SVG for its page."""

from __future__ import annotations

import io
import math
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from flaxrnn.training import metrics

# matplotlib takes half a second to import, and is needed at the end of a run only.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    import matplotlib

    corpus = "SYNTHETIC corpus" if result["data_source"] == "synthetic" else result["dataset"]
    metric = metrics.METRICS[metrics.HEADLINE]
    with matplotlib.rc_context(_STYLE):
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
    import matplotlib

    with matplotlib.rc_context(_STYLE), io.StringIO() as file:
        _curves(history, best, [metric]).savefig(
            file, format="svg", transparent=True, metadata={"Date": None}
        )
        root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():  # HTML has no namespaces
        element.tag = element.tag.rpartition("}")[2]
        for name in list(element.attrib):
            element.set(name.rpartition("}")[2], element.attrib.pop(name))
    root[:] = root.findall("g")  # without metadata, and a style sheet that is for the whole page
    for split, (title, _) in _SPLITS.items():
        markers = root.findall(f".//g[@id='{split}']/g/use")
        points = _finite(history, metric, split).items()
        for marker, (epoch, value) in zip(markers, points, strict=True):
            tooltip = f"epoch {epoch}, {title}: {metric.title} {value:{metric.format}}"
            ElementTree.SubElement(marker, "title").text = tooltip
    for group in root.iter("g"):
        group.attrib.pop("id", None)  # those of two plots on a page would be the same
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": f"{metric.label} by epoch in training and validation; best epoch {best},"
        f" validation {metric.title} {metric.show(history[best - 1], 'val')}",
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

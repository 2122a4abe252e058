"""The curves of several runs in one picture, as PNG and on a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flaxrnn.reporting import page, plots
from flaxrnn.runtime import terminal
from flaxrnn.training import metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES = {"seconds": "seconds since the start", "epoch": "epoch"}  # what a curve may be over
_COLOURS = (  # by turns; they are seen on white and on black
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd",
    "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """The validation of a run by epoch, and its test.

    Attributes:
        seconds: Since the start, at the end of each epoch.
        values: Of each metric on validation, by its name.
        end: Seconds of the whole run.
        score: The headline metric on test.
    """

    seconds: list[float]
    values: dict[str, list[float]]
    end: float
    score: float

    def over(self, axis: str) -> list[float]:
        """Where its epochs are on one of `AXES`."""
        return self.seconds if axis == "seconds" else [1.0 + i for i in range(len(self.seconds))]

    def last(self, axis: str) -> float:
        """Where its test is on one of `AXES`; NaN: nowhere."""
        return self.end if axis == "seconds" else float(len(self.seconds)) or math.nan


@dataclass(frozen=True)
class Group:
    """Curves that share a colour: those of runs that differ by seed alone."""

    name: str
    curves: list[Curve]


def save_plot(groups: Sequence[Group], axis: str, path: Path) -> None:
    """Plots the headline metric as PNG: validation by epoch, and test at the end.

    Raises:
        OSError: `path` cannot be written.
    """
    from matplotlib.figure import Figure  # slow to import

    headline = _headline(groups)
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for i, group in enumerate(groups):
        colour = _COLOURS[i % len(_COLOURS)]
        for curve in group.curves:
            values = curve.values[headline.name]
            axes.plot(curve.over(axis), values, "o-", ms=3, color=colour, lw=1, alpha=0.6)
        ends = [(curve.last(axis), curve.score) for curve in group.curves]
        label = group.name[-60:]  # a longer legend would leave no room for the axes
        axes.plot(*zip(*ends, strict=True), "*", ms=12, color=colour, mec="black", label=label)
    axes.set_xlabel(AXES[axis])
    _count_epochs(axes, axis)
    axes.set_ylabel(f"{headline.title} (lines: validation, stars: test)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    plots.save(figure, path)


def to_html(groups: Sequence[Group], table: Sequence[Sequence[str]]) -> str:
    """A page with the table of the groups and all their curves.

    Args:
        groups: The groups.
        table: A header, then a row for each group.
    """
    shown = [(metric, "epoch") for metric in metrics.per_epoch()]
    shown.append((_headline(groups), "seconds"))
    header, *rows = table
    colours = [_COLOURS[i % len(_COLOURS)] for i in range(len(groups))]
    return page.fill(
        "comparison",
        title=f"{sum(bool(c.seconds) for group in groups for c in group.curves):,} runs",
        header=header,
        rows=list(zip(colours, rows, strict=True)),
        panels=[_svg(groups, metric, axis) for metric, axis in shown],
    )


def _headline(groups: Sequence[Group]) -> metrics.Metric:
    """What runs are ranked by; accuracy unless all are of texts with several labels."""
    curves = (curve for group in groups for curve in group.curves)
    return metrics.headline_of(all("micro_f1" in curve.values for curve in curves))


def _svg(groups: Sequence[Group], metric: metrics.Metric, axis: str) -> str:
    """The validation of all runs by one metric, as an SVG element with a tooltip per epoch."""
    with plots.styled():
        figure, axes = plots.panel(AXES[axis], f"validation {metric.label}")
        tooltips: dict[str, list[str]] = {}
        for i, group in enumerate(groups):
            for curve in group.curves:
                line = f"run{len(tooltips)}"
                tooltips[line] = _draw(axes, group.name, curve, metric, axis, i, line)
        _count_epochs(axes, axis)
        return plots.to_svg(figure, f"validation {metric.title} of all runs by {axis}", tooltips)


def _count_epochs(axes: Axes, axis: str) -> None:
    """Numbers epochs by whole numbers."""
    from matplotlib.ticker import MaxNLocator

    if axis == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _draw(
    axes: Axes, name: str, curve: Curve, metric: metrics.Metric, axis: str, number: int, line: str
) -> list[str]:
    """Draws a curve, whose gid is `line`; returns the tooltip of each of its markers."""
    points = [
        (epoch, x, value)
        for epoch, (x, value) in enumerate(
            zip(curve.over(axis), curve.values[metric.name], strict=True), 1
        )
        if math.isfinite(value)
    ]
    colour = _COLOURS[number % len(_COLOURS)]
    xs, values = [x for _, x, _ in points], [value for *_, value in points]
    axes.plot(xs, values, "o-", ms=3, lw=1, color=colour, gid=line, clip_on=False)
    return [
        f"{terminal.escaped(name)}, epoch {epoch}: {metric.title} {value:{metric.format}}"
        for epoch, _, value in points
    ]

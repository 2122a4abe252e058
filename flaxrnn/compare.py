"""Compares finished runs in a table: their metrics, and the settings in which they differ.

python -m flaxrnn.compare runs/*
python -m flaxrnn.compare runs/* --plot accuracy.png --by epoch
python -m flaxrnn.compare runs/* --page comparison.html

The best on validation comes first. A workdir of several seeds is one entry, with the figures of
their ensemble.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import shutil
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flaxrnn import config
from flaxrnn.errors import ConfigError, WorkdirError
from flaxrnn.inference import saved
from flaxrnn.reporting import overlay
from flaxrnn.runtime import files, records, terminal
from flaxrnn.training import metrics

# What the content of a file that somebody edited may raise.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError)


@dataclass(frozen=True)
class Column:
    """A column of numbers: its heading, their format, and how to get one from result.json."""

    title: str
    format: str
    value: Callable[[dict[str, Any]], float]


@dataclass(frozen=True)
class Run:
    """A finished run, or an ensemble of several, read from its workdir.

    Attributes:
        workdir: Its folder.
        seed: Its seed, the first one of an ensemble.
        settings: All other fields of its config by dotted name, the dataset, and the number of
            "members" of an ensemble.
        values: By the title of the column; NaN if the run is older than the metric.
        validated: The headline metric on validation, by which runs are ranked; that of an ensemble
            is the mean of its members'.
        monitor: The metric by which its best epoch was chosen, on validation.
        curves: Its validation by epoch, and its test; of an ensemble, those of its members, and a
            last one without epochs for its own test.
    """

    workdir: Path
    seed: int
    settings: dict[str, Any]
    values: dict[str, float]
    validated: float
    monitor: str
    curves: list[overlay.Curve]


def main(arguments: list[str] | None = None) -> None:
    """Compares the runs named by the arguments.

    Raises:
        ConfigError: A flag is unknown or impossible.
        WorkdirError: None of the workdirs holds a finished run, or a file cannot be written.
    """
    parser = terminal.Parser(
        prog="python -m flaxrnn.compare",
        description="Compares finished runs, the best on validation first; those that differ by"
        " seed alone share a row.",
    )
    parser.add_argument("workdirs", nargs="+", metavar="WORKDIR", type=Path)
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="write a plot of accuracy")
    parser.add_argument(
        "--by", choices=overlay.AXES, default="seconds", help="what it is over; default: seconds"
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE.html", help="write a page with the curves of all runs"
    )
    flags = parser.parse_args(arguments)
    if flags.plot and flags.plot.suffix != ".png":
        raise ConfigError(f"--plot: {flags.plot} must end in .png")
    groups = group_by_settings(_read_all(flags.workdirs))
    show(groups)
    curves = [
        overlay.Group(_name(group), [curve for run in group for curve in run.curves])
        for group in groups
    ]
    if flags.plot:
        with _written_to("--plot", flags.plot):
            overlay.save_plot(curves, flags.by, flags.plot)
    if flags.page:
        with _written_to("--page", flags.page):
            content = overlay.to_html(curves, _table(groups))
            files.write_atomically(flags.page, content.encode("utf-8", "replace"))


def _read_all(workdirs: list[Path]) -> list[Run]:
    """The runs; says which workdirs hold none that is finished."""
    runs, skipped = [], []
    for workdir in workdirs:
        if workdir.name == saved.SEEDS:  # which the shell finds next to the runs it is about
            continue
        try:
            runs.append(read(workdir))
        except WorkdirError as error:
            skipped.append(str(error).removeprefix("--workdir: "))
    if not runs:
        raise WorkdirError(f"no finished run: {'; '.join(skipped)}")
    if skipped:
        print(terminal.escaped(f"left out: {'; '.join(skipped)}"), file=sys.stderr)
    return runs


@contextlib.contextmanager
def _written_to(flag: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorkdirError(f"{flag}: {path} cannot be written ({error.strerror})") from None


def columns(monitored: Container[str], several: bool = True) -> list[Column]:
    """The columns of numbers: metrics, then the cost of the run.

    Args:
        monitored: The metrics that are shown for validation; all but the loss are shown for test.
        several: Whether to show those that only runs with several labels per text have.
    """
    return [
        *_metric_columns(monitored, several),
        Column("seconds", ",.1f", lambda result: result["seconds"]["total"]),
        Column("parameters", ",.0f", lambda result: result["parameters"]),
        Column("epochs", ",.0f", lambda result: result["epochs"]),
    ]


def read(workdir: Path) -> Run:
    """Reads a run from its workdir.

    Raises:
        WorkdirError: It holds no run, or none that is finished; the message is short.
    """
    if saved.holds_several(workdir):
        return _read_ensemble(workdir)
    if not (workdir / "config.json").is_file():
        raise WorkdirError(f"{workdir} is not a run directory")
    if not (workdir / "result.json").is_file():
        raise WorkdirError(f"{workdir} is unfinished")
    try:
        recorded = records.read(workdir / "config.json", dict)
        settings = config.flatten(config.with_defaults(recorded))
        if settings["train.monitor"] not in metrics.METRICS:
            raise ValueError(f"config.json: train.monitor: {settings['train.monitor']!r}")
        result = records.read(workdir / "result.json", dict)
        headline = metrics.headline(result)
        path = workdir / "metrics.jsonl"
        rows = records.read_lines(path) if path.exists() else []
        history = [row for row in rows if "phase" not in row]  # a refit is not validated
        seconds = [float(result["seconds"]["startup"]) + float(result["seconds"]["compile"])]
        for row in history:
            seconds.append(seconds[-1] + float(row["seconds"]))
        curve = overlay.Curve(
            seconds[1:],
            {
                metric.name: [metric.value(row, "val") for row in history]
                for metric in (*metrics.per_epoch(), headline)
            },
            float(result["seconds"]["total"]),
            headline.value(result, "test"),
        )
        return Run(
            workdir,
            int(settings.pop("seed")),
            {**settings, "dataset": str(result["dataset"])},
            {column.title: float(column.value(result)) for column in columns(metrics.METRICS)},
            headline.value(result, "val"),
            settings["train.monitor"],
            [curve],
        )
    except _UNREADABLE as error:
        raise WorkdirError(f"{workdir} cannot be read ({error})") from None


def _read_ensemble(workdir: Path) -> Run:
    """The ensemble of a workdir of several seeds: their test figures as one, their cost in sum."""
    runs = [read(folder) for folder in saved.finished_members(workdir)]
    ensemble = saved.read_record(workdir).get("ensemble")
    if ensemble is None:
        raise WorkdirError(f"{workdir} has no figures of an ensemble")
    curves = [curve for run in runs for curve in run.curves]
    seconds = sum(curve.end for curve in curves)
    costs = {"seconds": {"total": seconds}, "epochs": math.nan}
    parameters = sum(run.values["parameters"] for run in runs)
    result = {**ensemble, **costs, "parameters": parameters}
    try:
        headline = metrics.headline(result)
        score = headline.value(result, "test")
        return Run(
            workdir,
            runs[0].seed,
            {**runs[0].settings, "members": len(runs)},
            {column.title: float(column.value(result)) for column in columns(metrics.METRICS)},
            _mean_validated(runs),
            runs[0].monitor,
            [*curves, overlay.Curve([], {name: [] for name in curves[0].values}, seconds, score)],
        )
    except _UNREADABLE as error:
        raise WorkdirError(f"{workdir} cannot be read ({error})") from None


def group_by_settings(runs: list[Run]) -> list[list[Run]]:
    """Groups runs that differ by seed alone; the best on validation, in the mean, comes first.

    A repetition with the same seed says nothing about the spread, so it goes to another group.
    """
    groups: dict[str, list[Run]] = {}
    seen: Counter[str] = Counter()
    for run in runs:
        settings = json.dumps(run.settings, sort_keys=True)
        seen[f"{settings} {run.seed}"] += 1
        groups.setdefault(f"{settings} {seen[f'{settings} {run.seed}']}", []).append(run)
    return sorted(groups.values(), key=_mean_validated, reverse=True)


def show(groups: list[list[Run]]) -> None:
    """Prints the table, one row per group; transposed if it is too wide for the terminal."""
    rows = _table(groups)
    text = terminal.table(rows)
    screen = shutil.get_terminal_size().columns
    if sys.stdout.isatty() and text.index("\n") > screen and len(rows) < len(rows[0]):
        text = terminal.table([list(column) for column in zip(*rows, strict=True)])
    print(text)


def _metric_columns(monitored: Container[str], several: bool) -> Iterator[Column]:
    for metric in metrics.headline_first({"test_micro_f1": 0} if several else {}):
        value = functools.partial(metric.value, split="val")
        if metric.name in monitored:
            yield Column(f"val {metric.title}", metric.format, value)
        value = functools.partial(metric.value, split="test")
        if metric.name != "loss":
            title = f"test {metric.title}" if metric.per_epoch else metric.title
            yield Column(title, metric.format, value)


def _table(groups: list[list[Run]]) -> list[list[str]]:
    """A header, then one row per group."""
    settings = _differing_settings(groups)
    several = _have_several(groups)
    headline = metrics.headline_of(several)
    shown = columns({headline.name, *(run.monitor for group in groups for run in group)}, several)
    rows = [["run", "n", *(column.title for column in shown), *settings]]
    for group in groups:
        cells = [
            _mean_and_deviation([run.values[column.title] for run in group], column.format)
            for column in shown
        ]
        values = [group[0].settings.get(name) for name in settings]
        cells += ["-" if value is None else str(value) for value in values]
        rows.append([_name(group), str(len(group)), *cells])
    return rows


def _have_several(groups: list[list[Run]]) -> bool:
    """Whether a run is of texts that may have several labels."""
    title = metrics.METRICS["micro_f1"].title
    return any(math.isfinite(run.values[title]) for group in groups for run in group)


def _differing_settings(groups: list[list[Run]]) -> list[str]:
    """The names of the settings that are not the same in all groups, sorted."""
    settings = [group[0].settings for group in groups]
    names = sorted({name for each in settings for name in each})
    return [name for name in names if any(s.get(name) != settings[0].get(name) for s in settings)]


def _name(group: list[Run]) -> str:
    """The first workdir of a group, whether it is an ensemble, and how many more there are."""
    kind = " (ensemble)" if "members" in group[0].settings else ""
    return f"{group[0].workdir}{kind}" + (f" (+{len(group) - 1})" if len(group) > 1 else "")


def _mean_validated(group: list[Run]) -> float:
    scores = [run.validated for run in group if math.isfinite(run.validated)]
    return statistics.mean(scores) if scores else -math.inf


def _mean_and_deviation(values: list[float], form: str) -> str:
    """Mean ± standard deviation of the finite values; the value alone if all are equal."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return "-"
    if min(values) == max(values):
        return format(values[0], form)
    form = form.replace(".0f", ".1f")  # the mean of whole numbers seldom is one
    return f"{statistics.mean(values):{form}} ± {statistics.stdev(values):{form}}"


if __name__ == "__main__":
    terminal.run(main)

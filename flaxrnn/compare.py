"""A table of finished runs: what they came to, and the settings in which they differ.

python -m flaxrnn.compare runs/*
python -m flaxrnn.compare runs/* --plot accuracy.png
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flaxrnn import config
from flaxrnn.errors import ConfigError, WorkdirError
from flaxrnn.reporting import plots
from flaxrnn.runtime import terminal

# Heading → what of `result.json`, and how it is shown.
COLUMNS: dict[str, tuple[Callable[[dict[str, Any]], float], str]] = {
    "test accuracy": (lambda result: result["test_accuracy"], ".4f"),
    "val loss": (lambda result: result["val_loss"], ".4f"),
    "macro-F1": (lambda result: result["test_macro_f1"], ".4f"),
    "seconds": (lambda result: result["seconds"]["total"], ",.1f"),
    "parameters": (lambda result: result["parameters"], ",.0f"),
    "epochs": (lambda result: result["epochs"], ",.0f"),
}


@dataclass(frozen=True)
class Run:
    """A finished run, as its workdir says."""

    workdir: Path
    seed: int
    settings: dict[str, Any]  # the other fields of the config, and the dataset
    figures: dict[str, float]  # the `COLUMNS`
    curve: tuple[list[float], list[float]]  # seconds and validation accuracy by epoch


def main(arguments: list[str] | None = None) -> None:
    """Compares the runs that the arguments name.

    Raises:
        ConfigError: A flag is unknown or impossible.
        WorkdirError: Not one workdir holds a finished run, or the plot cannot be written.
    """
    parser = terminal.Parser(
        prog="python -m flaxrnn.compare",
        description="Compares finished runs; those that differ by seed alone share a row.",
        allow_abbrev=False,
    )
    parser.add_argument("workdirs", nargs="+", metavar="WORKDIR", type=Path)
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="accuracy against seconds")
    given = parser.parse_args(arguments)
    if given.plot and given.plot.suffix != ".png":
        raise ConfigError(f"--plot: {given.plot} must end in .png")
    runs, left_out = [], []
    for workdir in given.workdirs:
        try:
            runs.append(read(workdir))
        except WorkdirError as error:
            left_out.append(str(error))
    if not runs:
        raise WorkdirError(f"no finished run: {'; '.join(left_out)}")
    if left_out:
        print(f"left out: {'; '.join(left_out)}", file=sys.stderr)
    groups = group(runs)
    show(groups)
    if given.plot:
        plot(groups, given.plot)


def read(workdir: Path) -> Run:
    """A run from its workdir.

    Raises:
        WorkdirError: It holds none, or none that is finished; the message is short.
    """
    if not (workdir / "config.json").is_file():
        raise WorkdirError(f"{workdir} is no run")
    if not (workdir / "result.json").is_file():
        raise WorkdirError(f"{workdir} is unfinished")
    try:
        settings = config.flatten(json.loads((workdir / "config.json").read_text("utf-8")))
        result = json.loads((workdir / "result.json").read_text("utf-8"))
        path = workdir / "metrics.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        history = [json.loads(line) for line in lines]
        seconds = [result["seconds"]["startup"] + result["seconds"]["compile"]]
        for row in history:
            seconds.append(seconds[-1] + row["seconds"])
        return Run(
            workdir,
            settings.pop("seed"),
            {**settings, "dataset": result["dataset"]},
            {name: float(of(result)) for name, (of, _) in COLUMNS.items()},
            (seconds[1:], [row["val_accuracy"] for row in history]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WorkdirError(f"{workdir} is not readable ({error})") from None


def group(runs: list[Run]) -> list[list[Run]]:
    """Runs that differ by seed alone, together; the group of the best mean accuracy first.

    A run that was repeated with its seed says nothing new of the spread: it is in another group.
    """
    groups: dict[str, list[Run]] = {}
    seen: Counter[str] = Counter()
    for run in runs:
        settings = json.dumps(run.settings, sort_keys=True)
        seen[f"{settings} {run.seed}"] += 1
        groups.setdefault(f"{settings} {seen[f'{settings} {run.seed}']}", []).append(run)
    return sorted(groups.values(), key=lambda of: _mean(of, "test accuracy"), reverse=True)


def differing(groups: list[list[Run]]) -> list[str]:
    """The settings that are not the same in all groups, in the order of their names."""
    settings = [of[0].settings for of in groups]
    names = sorted({name for each in settings for name in each})
    return [name for name in names if any(s.get(name) != settings[0].get(name) for s in settings)]


def rows(groups: list[list[Run]]) -> list[list[str]]:
    """The table: a header, then a row a group."""
    names = differing(groups)
    found = [["run", "n", *COLUMNS, *names]]
    for of in groups:
        cells = [
            _figure([run.figures[name] for run in of], form) for name, (_, form) in COLUMNS.items()
        ]
        settings = [_shown(of[0].settings.get(name)) for name in names]
        found.append([_name(of), str(len(of)), *cells, *settings])
    return found


def show(groups: list[list[Run]]) -> None:
    """Prints the table; one that is too wide for the terminal stands on its side."""
    found = rows(groups)
    shown = terminal.table(found)
    screen = shutil.get_terminal_size().columns
    if sys.stdout.isatty() and shown.index("\n") > screen and len(found) < len(found[0]):
        shown = terminal.table([list(column) for column in zip(*found, strict=True)])
    print(shown)


def plot(groups: list[list[Run]], path: Path) -> None:
    """Draws validation accuracy by seconds, and test accuracy at the end, of each group.

    Raises:
        WorkdirError: `path` cannot be written.
    """
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for i, of in enumerate(groups):
        colour = f"C{i % 10}"
        for run in of:
            axes.plot(*run.curve, "o-", ms=3, color=colour, lw=1, alpha=0.6)
        ends = [(run.figures["seconds"], run.figures["test accuracy"]) for run in of]
        label = _name(of)[-60:]  # matplotlib leaves no room for axes beside longer ones
        axes.plot(*zip(*ends, strict=True), "*", ms=12, color=colour, mec="black", label=label)
    axes.set_xlabel("seconds since the start")
    axes.set_ylabel("accuracy (lines: validation, stars: test)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    try:
        plots.save(figure, path)
    except OSError as error:
        raise WorkdirError(f"--plot: {path} cannot be written ({error.strerror})") from None


def _name(of: list[Run]) -> str:
    """The first workdir of a group, and how many others there are."""
    return f"{of[0].workdir}" + (f" (+{len(of) - 1})" if len(of) > 1 else "")


def _mean(of: list[Run], name: str) -> float:
    return statistics.mean(run.figures[name] for run in of)


def _figure(values: list[float], form: str) -> str:
    """Mean ± standard deviation, or what all of them are."""
    if min(values) == max(values):
        return format(values[0], form)
    form = form.replace(".0f", ".1f")  # a mean of whole numbers is none
    return f"{statistics.mean(values):{form}} ± {statistics.stdev(values):{form}}"


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)


if __name__ == "__main__":
    terminal.run(main)

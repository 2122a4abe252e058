"""Labels for texts, by a trained workdir.

python -m flaxrnn.predict --workdir runs/imdb "What a joy!" "A film to fall asleep in."
python -m flaxrnn.predict --workdir runs/imdb --file reviews.csv --field review > labels.jsonl
tail -n 100 reviews.txt | python -m flaxrnn.predict --workdir runs/imdb --format table --explain
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from flaxrnn.errors import ConfigError, DataError
from flaxrnn.runtime import terminal

if TYPE_CHECKING:
    import numpy as np

    from flaxrnn.inference.predictor import EncodedText, TextPredictor

TEXTS_AT_ONCE = 1024
LEAST_SHARE = 0.1  # of the largest weight in a text, for a word to be marked

# Backgrounds of the 256 colours, faint to strong, under black letters.
_FOR = (194, 157, 120, 83, 46)
_AGAINST = (224, 217, 210, 203, 196)


class Record(NamedTuple):
    """A text as it was given."""

    text: str
    note: str | None = None  # why there is none


class Row(NamedTuple):
    """A text and what the classifier says of it."""

    place: int  # among the texts given, from 0
    reading: EncodedText
    note: str | None
    top: list[tuple[str, float]]  # labels and probabilities, the likeliest first; none: no words
    weights: np.ndarray | None  # of the words read, where they are asked for


def main(arguments: list[str] | None = None) -> None:
    """Labels the texts that the arguments name, in their order.

    Raises:
        ConfigError: A flag is unknown or impossible.
        DataError: The file cannot be read, or has not the field.
        WorkdirError: The workdir holds no trained model.
    """
    given = _parse(arguments)
    with _records(given) as records:
        from flaxrnn.inference import predictor

        model = predictor.load(given.workdir)
        labels = len(model.label_names)
        if given.top > labels:
            raise ConfigError(f"--top: {given.top} must be at most {labels}, all labels")
        show = _table(model, given) if given.format == "table" else _json_lines(given)
        # From a keyboard, each line is answered at once.
        typed = not (given.file or given.texts) and sys.stdin.isatty()
        at_once = 1 if typed else TEXTS_AT_ONCE
        for row in _classify(model, records, at_once, given.top, given.explain):
            print(show(row), flush=typed)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = terminal.Parser(
        prog="python -m flaxrnn.predict",
        description="Labels texts: those given, else those of --file, else the lines of stdin.",
        allow_abbrev=False,
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT")
    parser.add_argument("--workdir", required=True, help="of a trained run")
    parser.add_argument("--file", help="a text a line; or .jsonl, or .csv with a header")
    parser.add_argument("--field", help="of the .jsonl or .csv, that holds the text")
    parser.add_argument("--top", type=int, default=1, metavar="K", help="show the K likeliest")
    parser.add_argument("--explain", action="store_true", help="show which words decided")
    parser.add_argument(
        "--format", choices=("table", "jsonl"), help="default: table on a terminal, else jsonl"
    )
    given = parser.parse_args(arguments)
    if given.top < 1:
        raise ConfigError(f"--top: {given.top} must be a whole number of at least 1")
    if given.file and given.texts:
        raise ConfigError("--file: cannot be had together with texts as arguments")
    fields = bool(given.file) and Path(given.file).suffix in WITH_FIELDS
    if fields and not given.field:
        raise ConfigError(f"--field: missing; name the field of {given.file} that holds the text")
    if given.field and not fields:
        raise ConfigError("--field: only a --file that ends in .jsonl or .csv has fields")
    given.format = given.format or ("table" if sys.stdout.isatty() else "jsonl")
    return given


@contextlib.contextmanager
def _records(given: argparse.Namespace) -> Iterator[Iterator[Record]]:
    """The texts, read as they are asked for; a file's first one at once, for its errors."""
    if given.texts:
        yield map(Record, given.texts)
        return
    if not given.file:
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
        if sys.stdin.isatty():
            print("EncodedText texts, one a line; Ctrl-D ends.", file=sys.stderr)
        yield _lines(sys.stdin)
        return
    kind = Path(given.file).suffix
    newline = "" if kind == ".csv" else "\n"
    try:  # a byte that is no UTF-8 costs a word, not the text
        file = open(given.file, encoding="utf-8-sig", errors="replace", newline=newline)  # noqa: SIM115
    except OSError as error:
        raise DataError(f"--file: {given.file} cannot be read ({error.strerror})") from None
    with file:
        if kind in WITH_FIELDS:
            records = WITH_FIELDS[kind](file, given.file, given.field)
        else:
            records = _lines(file)
        first = list(itertools.islice(records, 1))
        yield itertools.chain(first, records)


def _lines(file: TextIO) -> Iterator[Record]:
    return (Record(line.rstrip("\r\n")) for line in file)


def _of_json(file: TextIO, name: str, field: str) -> Iterator[Record]:
    """The field of the object in each line; of the first one it must be a field."""
    for i, line in enumerate(file):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield Record("", "the line is no JSON")
            continue
        fields = value if isinstance(value, dict) else {}
        if i == 0 and field not in fields:
            raise _no_field(name, field, fields)
        text = fields.get(field)
        yield Record(text) if isinstance(text, str) else Record("", f"no text in {field!r}")


def _of_csv(file: TextIO, name: str, field: str) -> Iterator[Record]:
    """The field of each row."""
    csv.field_size_limit(2**31 - 1)
    rows = csv.DictReader(file)
    if field not in (rows.fieldnames or []):
        raise _no_field(name, field, rows.fieldnames or [])
    for row in rows:
        yield Record(row[field]) if row[field] is not None else Record("", f"no text in {field!r}")


def _no_field(name: str, field: str, fields: Iterable[str]) -> DataError:
    known = ", ".join(map(str, fields)) or "none"
    return DataError(f"--field: the first line of {name} has no field {field!r}; it has {known}")


WITH_FIELDS = {".jsonl": _of_json, ".csv": _of_csv}


def _classify(
    model: TextPredictor, records: Iterator[Record], at_once: int, top: int, explain: bool
) -> Iterator[Row]:
    """The rows of all records, in order; no more than `at_once` texts are held."""
    index = itertools.count()
    while some := [(r.note, model.read(r.text)) for r in itertools.islice(records, at_once)]:
        full = [reading for _, reading in some if reading.words]
        weights: Iterable[np.ndarray | None] = itertools.repeat(None)
        if explain:
            probabilities, weights = model.explain(full)
        else:
            probabilities = model.probabilities(full)
        found = zip(probabilities, weights, strict=False)
        for note, reading in some:
            if not reading.words:
                yield Row(next(index), reading, note or "no words", [], None)
                continue
            of_labels, of_words = next(found)
            if (read := len(reading.spans)) < reading.words:
                note = f"the last {read:,} of {reading.words:,} words were read"
            likeliest = (-of_labels).argsort(kind="stable")[:top]
            best = [(model.label_names[i], float(of_labels[i])) for i in likeliest]
            yield Row(next(index), reading, note, best, of_words)


def _json_lines(given: argparse.Namespace) -> Callable[[Row], str]:
    """Shows a row as a line of JSON; the keys are the same in every row."""
    # Half a surrogate pair can be written as JSON, but not as UTF-8.
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]

    def show(row: Row) -> str:
        label, probability = row.top[0] if row.top else (None, None)
        content: dict[str, Any] = {
            "index": row.place,
            "label": label,
            "probability": probability and round(probability, 6),
            "unknown": round(row.reading.unknown, 4) if row.top else None,
            "words": row.reading.words,
            "words_read": len(row.reading.spans),
            "note": row.note,
        }
        if given.top > 1:
            content["top"] = [{"label": name, "probability": round(p, 6)} for name, p in row.top]
        if given.explain:
            content["explanation"] = [
                {"word": word, "weight": round(weight, 6)} for word, weight in _weighted(row)
            ]
        return json.dumps(content, ensure_ascii=False)

    return show


def _weighted(row: Row) -> list[tuple[str, float]]:
    """The words read, as they are spelled, and their weights."""
    words = [row.reading.text[begin:end] for begin, end in row.reading.spans]
    return list(zip(words, [] if row.weights is None else row.weights.tolist(), strict=True))


def _table(model: TextPredictor, given: argparse.Namespace) -> Callable[[Row], str]:
    """Shows a row as lines of a table, whose header it prints; its columns are known beforehand."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    screen = shutil.get_terminal_size().columns
    colour = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    colour = colour and not os.environ.get("NO_COLOR")
    names = max(map(terminal.width, ["label", *model.label_names]))

    def line(index: str, label: str, probability: str, unknown: str, rest: str) -> str:
        label += " " * (names - terminal.width(label))
        begin = f"{index:>6}  {label}  {probability:>11}  {unknown:>7}  "
        return (begin + terminal.fit(rest, max(20, screen - terminal.width(begin)))).rstrip()

    def show(row: Row) -> str:
        note = f"({row.note}) " if row.note else ""
        rest = note if given.explain else note + row.reading.text
        if not row.top:
            return line(str(row.place), "-", "-", "-", note)
        (label, probability), *others = row.top
        lines = [
            line(str(row.place), label, f"{probability:.4f}", f"{row.reading.unknown:.2f}", rest)
        ]
        lines += [line("", label, f"{probability:.4f}", "", "") for label, probability in others]
        if given.explain:
            lines += [*_marked(row, colour, screen), ""]
        return "\n".join(lines)

    meaning = "green: for the label, red: against" if colour else "+ for the label, - against"
    print(line("index", "label", "probability", "unknown", meaning if given.explain else "text"))
    return show


def _marked(row: Row, colour: bool, screen: int) -> list[str]:
    """The text read, wrapped, its words marked by their weights, if they have much of it."""
    marked, at = [], 0
    spans, weighted = row.reading.spans, _weighted(row)
    most = max(abs(weight) for _, weight in weighted) or 1
    for (begin, end), (word, weight) in zip(spans, weighted, strict=True):
        word, share = terminal.printable(word, "�"), abs(weight) / most
        if share >= LEAST_SHARE and colour:
            shade = (_FOR if weight > 0 else _AGAINST)[min(4, int(5 * share))]
            word = f"\x1b[30;48;5;{shade}m{word}\x1b[0m"
        elif share >= LEAST_SHARE:
            word = f"{word}({weight:+.2f})"
        marked += [terminal.printable(row.reading.text[at:begin]), word]
        at = end
    marked.append(terminal.printable(row.reading.text[at:]))
    return terminal.wrap("".join(marked), screen, indent=8)


if __name__ == "__main__":
    terminal.run(main)

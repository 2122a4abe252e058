"""Texts of the user's own: a table, lines, a folder or a TFDS dataset → examples."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flaxrnn import datasets
from flaxrnn.errors import DataError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SPLIT = "split"  # the column that may say which texts are train and which test
_LONGEST_FIELD = 2**31 - 1  # characters; csv's own limit is 128 KiB


class Example(NamedTuple):
    """A text and its class."""

    text: str
    label: str  # "": classes are not asked for
    split: str  # train | test | "": the source does not say


@dataclass(frozen=True)
class Source:
    """Where examples come from."""

    name: str
    digest: str  # SHA-256 of all its content
    read: Callable[[], list[Example]]


def find(
    path: str, text_field: str, label_field: str | None, data_dir: str | None = None
) -> Source:
    """Finds a source and takes its fingerprint.

    Args:
        path: A file .csv, .tsv or .jsonl in UTF-8; a folder with a folder of .txt files a class,
            or two such folders, train and test; else a TFDS dataset, like "glue/sst2". Where no
            class is asked for, also a file .txt, a text a line, or a folder of .txt files.
        text_field: The column, key or feature that holds a text.
        label_field: The one that holds its class; None: no class is asked for.
        data_dir: Where TFDS datasets are prepared; default: TFDS' own.

    Raises:
        DataError: There is none; reading raises it, too, and names file and line.
    """
    place = Path(path).expanduser()
    try:
        if place.is_dir():
            return _folder(place, label_field is not None)
        if place.is_file():
            return _file(place, text_field, label_field)
    except OSError as error:
        reason = f"{error.filename} cannot be read ({error.strerror})"
        raise DataError(f"data.path: {reason}") from None
    if place.suffix or not re.fullmatch(r"[a-z]\w*(/\w+)?", path):
        raise DataError(f"data.path: there is no file or folder {place}")
    return _dataset(path, text_field, label_field, data_dir)


def _file(place: Path, text_field: str, label_field: str | None) -> Source:
    kind = place.suffix.lower()
    kinds = [*_DELIMITERS, ".jsonl", *([".txt"] if label_field is None else [])]
    if kind not in kinds:
        listed_kinds = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
        raise DataError(f"data.path: {place} must end in {listed_kinds}, or be a folder")
    content = place.read_bytes()

    def read() -> list[Example]:
        decoded = _decoded(place, content)
        if not decoded.strip():
            raise DataError(f"data.path: {place} is empty")
        if kind == ".txt":
            found = [Example(line, "", "") for line in decoded.splitlines() if line.strip()]
        elif kind == ".jsonl":
            found = list(_lines(place, decoded, text_field, label_field))
        else:
            found = list(_rows(place, decoded, _DELIMITERS[kind], text_field, label_field))
        if not found:
            raise DataError(f"data.path: {place} has a header, but no row below it")
        return found

    return Source(place.name, _digest({"": content}), read)


def _decoded(place: Path, content: bytes) -> str:
    try:
        decoded = content.removeprefix(codecs.BOM_UTF8).decode()
        at = content.find(0)
        problem = "is NUL, which no text holds"
    except UnicodeDecodeError as error:
        decoded = ""
        at = error.start + len(content) - len(error.object)
        problem = f"(0x{content[at]:02x}) is not UTF-8"
    if at < 0:
        return decoded
    line = content.count(b"\n", 0, at) + 1
    raise DataError(f"data.path: {place}: line {line}: byte {at} {problem}; save it as UTF-8")


def _rows(
    place: Path, decoded: str, delimiter: str, text_field: str, label_field: str | None
) -> Iterator[Example]:
    csv.field_size_limit(_LONGEST_FIELD)
    lines = io.StringIO(decoded, newline="")
    reader = csv.reader(
        lines,
        delimiter=delimiter,
        # TSV has no quotes: a quotation mark is a part of the text.
        quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
        strict=True,
    )
    names: list[str] = []
    line = 1
    try:
        for row in reader:
            if not row:
                pass  # a blank line
            elif not names:
                names = [name.strip() for name in row]
                _check_fields(f"{place} has no column", names, text_field, label_field)
            elif len(row) != len(names):
                raise DataError(
                    f"data.path: {place}: line {line}: {len(row)} fields, but the header has"
                    f" {len(names)}"
                )
            else:
                values = dict(zip(names, row, strict=True))
                label = None if label_field is None else values[label_field]
                yield _example(
                    f"{place}: line {line}",
                    values[text_field],
                    label_field,
                    label,
                    values.get(_SPLIT),
                )
            line = reader.line_num + 1
    except csv.Error as error:
        reason = str(error)
        if reason == "unexpected end of data":
            reason = "a quotation mark opens a field that does not end"
        raise DataError(f"data.path: {place}: line {line}: {reason}") from None


def _check_fields(
    has_no: str, names: Iterable[str], text_field: str, label_field: str | None
) -> None:
    """Raises a DataError that begins with `has_no` where a field is not among `names`."""
    for field, value in (("text", text_field), ("label", label_field)):
        if value is not None and value not in names:
            raise DataError(f"data.{field}_field: {has_no} {value!r}, it has {listed(names)}")


def _lines(
    place: Path, decoded: str, text_field: str, label_field: str | None
) -> Iterator[Example]:
    for number, line in enumerate(decoded.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{place}: line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"data.path: {where}: no JSON ({error})") from None
        if not isinstance(values, dict):
            raise DataError(f"data.path: {where}: must be an object with keys, like {{...}}")
        _check_fields(f"{where} has no key", values, text_field, label_field)
        text, label = values[text_field], "" if label_field is None else values[label_field]
        if type(text) is not str:
            raise DataError(f"data.path: {where}: {text_field} must be a string, not {text!r}")
        if type(label) not in (str, int):
            raise DataError(
                f"data.path: {where}: {label_field} must be a string or a whole number,"
                f" not {label!r}"
            )
        yield _example(where, text, label_field, str(label), values.get(_SPLIT))


def _example(
    where: str, text: str, label_field: str | None, label: str | None, split: Any
) -> Example:
    label = unicodedata.normalize("NFC", (label or "").strip())
    if label_field is not None and not label:
        raise DataError(f"data.path: {where}: {label_field} is empty")
    if split is not None and split not in ("train", "test"):
        raise DataError(f"data.path: {where}: {_SPLIT} must be train or test, not {split!r}")
    if re.search("[\ud800-\udfff]", text + label):
        raise DataError(f"data.path: {where}: half a surrogate pair, which no text holds")
    return Example(text, label, split or "")


def listed(names: Iterable[str]) -> str:
    """The names, the first twenty of them, none longer than 40 characters."""
    shown = [name if len(name) <= 40 else f"{name[:39]}…" for name in names]
    more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
    return ", ".join(shown[:20]) + more


def _folder(place: Path, classes: bool) -> Source:
    names = [path.name for path in _folders(place)]
    splits = {"": place / "train" if names == ["train"] else place}
    if {"train", "test"} <= set(names):
        splits = {split: place / split for split in ("train", "test")}
    contents = {}
    for split, folder in splits.items():
        if classes and not _folders(folder):
            raise DataError(
                f"data.path: {folder} holds no folder; it must have one of .txt files a class"
            )
        for holder in _folders(folder) if classes else [folder]:
            paths = sorted(holder.glob("*.txt") if classes else holder.rglob("*.txt"))
            if not paths:
                raise DataError(f"data.path: {holder} holds no .txt file")
            contents.update({path: (split, path.read_bytes()) for path in paths})

    def read() -> list[Example]:
        field = "folder" if classes else None
        return [
            _example(
                str(path),
                _decoded(path, content),
                field,
                path.parent.name if classes else None,
                split or None,
            )
            for path, (split, content) in contents.items()
        ]

    by_name = {str(path.relative_to(place)): content for path, (_, content) in contents.items()}
    return Source(place.resolve().name, _digest(by_name), read)


def _folders(place: Path) -> list[Path]:
    return sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))


def _dataset(name: str, text_field: str, label_field: str | None, data_dir: str | None) -> Source:
    builder = datasets.prepare_named(name, data_dir)
    features = builder.info.features
    _check_fields(f"{name} has no feature", features, text_field, label_field)
    names = getattr(features[label_field], "names", None) if label_field else None

    def labelled(split: str) -> list[tuple[str, str]]:
        found = []
        for row in datasets.examples(builder, split):
            text = row[text_field]
            label: Any = row[label_field] if label_field else ""
            if not isinstance(text, bytes):
                raise DataError(f"data.text_field: {text_field} of {name} is no text")
            if names is None:
                shown = label.decode() if isinstance(label, bytes) else str(label)
            elif label < 0:  # not labelled, as TFDS has it
                continue
            else:
                shown = names[label]
            found.append((text.decode(), shown))
        return found

    def read() -> list[Example]:
        splits = [split for split in ("train", "test") if split in builder.info.splits]
        parts = {split: labelled(split) for split in splits}
        if not parts.get("train"):
            raise DataError(f"data.path: {name} has no split train with texts, or labels of them")
        divided = bool(parts.get("test"))
        return [
            _example(f"{name}: {split}", text, label_field, label, split if divided else None)
            for split, rows in parts.items()
            for text, label in rows
        ]

    return Source(builder.info.full_name, _digest_of_files(Path(builder.data_path)), read)


def _digest(contents: dict[str, bytes]) -> str:
    total = hashlib.sha256()
    for name, content in contents.items():
        total.update(
            f"{name}\n{hashlib.sha256(content).hexdigest()}\n".encode(errors="surrogateescape")
        )
    return total.hexdigest()


def _digest_of_files(folder: Path) -> str:
    return _digest(
        {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    )


def train_test_split(
    examples: Sequence[Example], name: str, test_fraction: float, seed: int
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Finds the classes, and divides texts into train and test.

    Where the examples do not say it, `test_fraction` of each class is for the test. The order
    within train spreads every class evenly, so that any last part of it is stratified as well.

    Args:
        examples: None empty.
        name: Of their source.
        test_fraction: Share of texts.
        seed: Of the order of the texts.

    Returns:
        The classes, sorted; the rows of train and of test. Without classes, there is one, "".

    Raises:
        DataError: There are fewer than two classes, or too few texts of one.
    """
    labels = [example.label for example in examples]
    counts = Counter(labels)
    if len(counts) < 2 and "" not in counts:
        found = f"all have the same, {min(counts)!r}" if counts else "none is left"
        raise DataError(f"data.path: {name}: texts of two classes are needed; {found}")
    for label, count in counts.items():
        if count == 1:
            of_class = f"the class {label!r} has" if label else "there is"
            raise DataError(f"data.path: {name}: {of_class} a single text, not two")
    said = [example.split for example in examples]
    if not any(said):
        order = stratified_order(labels, seed)
        cut = len(order) - round(len(order) * test_fraction)
        train, test = order[:cut], order[cut:]
        if not len(test):
            raise DataError(
                f"data.test_fraction: {test_fraction} of {len(labels):,} texts leaves none to test"
                " with"
            )
    else:
        train, test = (np.flatnonzero([split == s for s in said]) for split in ("train", "test"))
        if len(train) + len(test) < len(said):
            raise DataError(f"data.path: {name}: some texts are in a split, others in none")
        if not len(test):
            raise DataError(f"data.path: {name}: no text is in the split test")
        train = train[stratified_order([labels[row] for row in train], seed)]
    if missing := counts.keys() - {labels[row] for row in train}:
        raise DataError(f"data.path: {name}: the class {min(missing)!r} has no text in train")
    return sorted(counts), train, test


def stratified_order(labels: Sequence[str], seed: int) -> np.ndarray:
    """An order of all rows in which the texts of every class come at even distances."""
    order = np.random.default_rng(seed).permutation(len(labels))
    classes = np.unique(labels, return_inverse=True)[1][order]
    place = np.empty(len(labels))
    for label in np.unique(classes):
        rows = np.flatnonzero(classes == label)
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return order[np.argsort(place, kind="stable")]

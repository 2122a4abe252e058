"""Custom texts: a table, lines, a folder or a TFDS dataset → examples."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flaxrnn.datasets import preparation
from flaxrnn.datasets.parsing import (
    DELIMITERS,
    Example,
    Fields,
    check_fields,
    decode,
    make_example,
    parse,
)
from flaxrnn.errors import DataError
from flaxrnn.runtime import files, records

_MAX_MIB = 64  # of a text in a folder


@dataclass(frozen=True)
class Source:
    """Where examples come from."""

    name: str
    digest: str  # SHA-256 of all its content
    read: Callable[[], list[Example]]


def find_source(path: str, fields: Fields, data_dir: str | None = None) -> Source:
    """Finds a source and hashes its content.

    Args:
        path: A .csv, .tsv or .jsonl file in UTF-8; a folder with one folder of .txt files per
            class, or two such folders, train and test; else a TFDS dataset, like "glue/sst2".
            Where no classes are wanted, also a .txt file with one text per line, or a folder of
            .txt files.
        fields: The columns, keys or features to read.
        data_dir: Where TFDS datasets are prepared; default: TFDS's own.

    Raises:
        DataError: There is no such source. `read` raises it, too, and names file and line.
    """
    place = files.expand(path, "data.path")
    try:
        if place.is_dir():
            return _find_folder(place, fields)
        if place.is_file():
            return _find_file(place, fields)
    except OSError as error:
        reason = f"{error.filename} cannot be read ({error.strerror})"
        raise DataError(f"data.path: {reason}") from None
    if place.suffix or not re.fullmatch(r"[a-z]\w*(/\w+)?", path):
        raise DataError(f"data.path: there is no file or folder {place}")
    return _find_dataset(path, fields, data_dir)


def digest_of_files(folder: Path) -> str:
    """SHA-256 of the names and contents of the files in a folder."""
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    return _digest({path.name: path.read_bytes() for path in paths})


def _digest(contents: dict[str, bytes]) -> str:
    total = hashlib.sha256()
    for name, content in contents.items():
        total.update(
            f"{name}\n{hashlib.sha256(content).hexdigest()}\n".encode(errors="surrogateescape")
        )
    return total.hexdigest()


def _find_file(path: Path, fields: Fields) -> Source:
    kinds = [*DELIMITERS, ".jsonl", *([".txt"] if fields.label is None else [])]
    if path.suffix.lower() not in kinds:
        allowed = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
        raise DataError(f"data.path: {path} must end in {allowed}, or be a folder")
    content = path.read_bytes()
    return Source(path.name, _digest({"": content}), lambda: parse(path, content, fields))


def _find_folder(root: Path, fields: Fields) -> Source:
    classes = fields.label is not None
    contents = {
        path: (split, _read_inside(root, path))
        for split, folder in _split_folders(root).items()
        for path in _text_files(folder, classes)
    }

    def read() -> list[Example]:
        names = Fields("text", "folder" if classes else None)
        return [
            make_example(
                str(path), decode(path, content), names, path.parent.name if classes else "", split
            )
            for path, (split, content) in contents.items()
        ]

    by_name = {str(path.relative_to(root)): content for path, (_, content) in contents.items()}
    return Source(root.resolve().name, _digest(by_name), read)


def _read_inside(root: Path, path: Path) -> bytes:
    """The content of a file in a folder, which may come from anybody."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise DataError(f"data.path: {path} is a link out of {root}; put the file itself there")
    return records.read_bytes(path, _MAX_MIB)


def _split_folders(root: Path) -> dict[str | None, Path]:
    """The folder of each split; of None: the texts are not split."""
    names = [path.name for path in _subfolders(root)]
    if {"train", "test"} <= set(names):
        return {"train": root / "train", "test": root / "test"}
    return {None: root / "train" if names == ["train"] else root}


def _text_files(folder: Path, classes: bool) -> list[Path]:
    if classes and not _subfolders(folder):
        raise DataError(
            f"data.path: {folder} holds no folder; it must have one folder of .txt files per class"
        )
    found = []
    for holder in _subfolders(folder) if classes else [folder]:
        paths = sorted(holder.glob("*.txt") if classes else holder.rglob("*.txt"))
        if not paths:
            raise DataError(f"data.path: {holder} holds no .txt file")
        found += paths
    return found


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _find_dataset(name: str, fields: Fields, data_dir: str | None) -> Source:
    builder = preparation.prepare_named(name, data_dir)
    check_fields(f"{name} has no feature", builder.info.features, fields)

    def read() -> list[Example]:
        splits = [split for split in ("train", "test") if split in builder.info.splits]
        parts = {split: _labelled(builder, split, name, fields) for split in splits}
        if not parts.get("train"):
            raise DataError(f"data.path: {name} has no split train with labelled texts")
        divided = bool(parts.get("test"))
        return [
            make_example(f"{name}: {split}", text, fields, label, split if divided else None)
            for split, rows in parts.items()
            for text, label in rows
        ]

    return Source(builder.info.full_name, digest_of_files(Path(builder.data_path)), read)


def _labelled(builder: Any, split: str, name: str, fields: Fields) -> list[tuple[str, str]]:
    """The texts of a split that have a label, and its name; all texts where none is wanted."""
    names = getattr(builder.info.features[fields.label], "names", None) if fields.label else None
    found = []
    for row in preparation.examples(builder, split, "data.path"):
        text = row[fields.text]
        label: Any = row[fields.label] if fields.label else ""
        if not isinstance(text, bytes):
            raise DataError(f"data.text_field: {fields.text} of {name} is not a text")
        if names is None:
            shown = label.decode() if isinstance(label, bytes) else str(label)
        elif label < 0:  # TFDS's convention for "no label"
            continue
        else:
            shown = names[label]
        found.append((text.decode(), shown))
    return found

"""Custom texts: a table, lines, a folder or a TFDS dataset → examples."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flaxrnn.datasets import decoding, preparation
from flaxrnn.datasets.parsing import SPLITS, Example, make_example, parse
from flaxrnn.datasets.reading import Format
from flaxrnn.datasets.rows import Fields, Row, abbreviated, missing_field
from flaxrnn.errors import DataError
from flaxrnn.runtime import files, records

_MAX_MIB = 64  # of a text in a folder


@dataclass(frozen=True)
class Source:
    """Where examples come from."""

    name: str
    digest: str  # SHA-256 of all its content
    read: Callable[[], list[Example]]


def find_sources(
    path: str,
    held_out: Mapping[str, str | None],
    fields: Fields,
    file_format: Format,
    data_dir: str | None = None,
) -> Source:
    """A source, and others that hold its texts of some splits.

    Args:
        path: See `find_source`, as the other arguments.
        held_out: Split, "validation" or "test" → the path of its source; None: `path` has it, too.
        fields: See `find_source`.
        file_format: See `find_source`.
        data_dir: See `find_source`.

    Raises:
        DataError: There is no such source; or, by `read`, two sources have texts of one split.
    """
    main = find_source(path, fields, file_format, data_dir)
    others = {}
    for split, other in held_out.items():
        if other is not None:
            with _named(f"data.{split}_path"):
                others[split] = find_source(other, fields, file_format, data_dir)
    if not others:
        return main

    def read() -> list[Example]:
        examples = main.read()
        if all(not example.split for example in examples):
            examples = [example._replace(split="train") for example in examples]
        for split, other in others.items():
            if any(example.split == split for example in examples):
                raise DataError(
                    f"data.{split}_path: {main.name} has texts in the split {split}, too"
                )
            with _named(f"data.{split}_path"):
                examples += [example._replace(split=split) for example in other.read()]
        return examples

    digests = [main.digest, *(f"{split} {other.digest}" for split, other in others.items())]
    return Source(main.name, _digest(dict.fromkeys(digests, b"")), read)


def find_unlabelled(
    path: str, text_field: str, file_format: Format, data_dir: str | None = None
) -> Source:
    """A source of texts that need no labels; see `find_source`."""

    def read() -> list[Example]:
        with _named("data.unlabelled"):
            return found.read()

    with _named("data.unlabelled"):
        found = find_source(path, Fields(text_field, None), file_format, data_dir)
    return Source(found.name, found.digest, read)


@contextlib.contextmanager
def _named(field: str) -> Iterator[None]:
    """Names `field` in errors that name data.path."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error).replace("data.path", field)) from None


def find_source(
    path: str, fields: Fields, file_format: Format, data_dir: str | None = None
) -> Source:
    """Finds a source and hashes its content.

    Args:
        path: A file that `reading.read_rows` reads; a folder with one folder of .txt files per
            class, or a folder of such folders per split, train, validation, test; else a TFDS
            dataset, like "glue/sst2".
            Where no classes are wanted, also a folder of .txt files.
        fields: The columns, keys or features to read.
        file_format: How to read files.
        data_dir: Where TFDS datasets are prepared; default: TFDS's own.

    Raises:
        DataError: There is no such source. `read` raises it, too, and names file and line.
    """
    place = files.expand(path, "data.path")
    try:
        if place.is_dir():
            return _find_folder(place, fields, file_format)
        if place.is_file():
            content = place.read_bytes()
            digest = _digest({"": content})
            return Source(place.name, digest, lambda: parse(place, content, fields, file_format))
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


def _find_folder(root: Path, fields: Fields, file_format: Format) -> Source:
    classes = fields.label is not None
    contents = {
        path: (split, _read_inside(root, path))
        for split, folder in _split_folders(root)
        for path in _text_files(folder, classes)
    }

    def read() -> list[Example]:
        names = Fields("text", "folder" if classes else None)
        rows = []
        for path, (split, content) in contents.items():
            text = decoding.decode(str(path), content, file_format.encoding)
            rows.append(Row(str(path), text, path.parent.name, split))
        return [make_example(row, names) for row in rows]

    by_name = {str(path.relative_to(root)): content for path, (_, content) in contents.items()}
    return Source(root.resolve().name, _digest(by_name), read)


def _read_inside(root: Path, path: Path) -> bytes:
    """The content of a file in a folder, which may come from anybody."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise DataError(f"data.path: {path} is a link out of {root}; put the file itself there")
    return records.read_bytes(path, _MAX_MIB)


def _split_folders(root: Path) -> list[tuple[str | None, Path]]:
    """The folders of each split; None: the texts are not split."""
    folders = _subfolders(root)
    if not any(folder.name.lower() == "train" for folder in folders):
        return [(None, root)]
    of_splits = [folder for folder in folders if folder.name.lower() in SPLITS]
    if len(of_splits) > 1:
        _warn_of_ignored(root, [folder.name for folder in folders if folder not in of_splits])
        return [(folder.name, folder) for folder in of_splits]
    return [(None, folders[0] if len(folders) == 1 else root)]


def _warn_of_ignored(source: str | Path, splits: list[str]) -> None:
    if splits:
        print(f"warning: {source}: not read: {abbreviated(splits)}", file=sys.stderr)


def _text_files(folder: Path, classes: bool) -> list[Path]:
    if classes and not _subfolders(folder):
        raise DataError(
            f"data.path: {folder} holds no folder; it must have one folder of .txt files per class"
        )
    found = []
    for holder in _subfolders(folder) if classes else [folder]:
        paths = sorted(holder.iterdir() if classes else holder.rglob("*"))
        paths = [path for path in paths if not _is_hidden(path, holder)]
        texts = [path for path in paths if path.suffix.lower() == ".txt"]
        if not texts:  # as in 20 Newsgroups
            texts = [path for path in paths if not path.suffix and not path.is_dir()]
        if not texts:
            raise DataError(f"data.path: {holder} holds no .txt file")
        found += texts
    return found


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not _is_hidden(p, folder))


def _is_hidden(path: Path, folder: Path) -> bool:
    """Whether a path in a folder is not for users, such as those that macOS adds to a .zip."""
    names = path.relative_to(folder).parts
    return any(name.startswith(".") or name == "__MACOSX" for name in names)


def _find_dataset(name: str, fields: Fields, data_dir: str | None) -> Source:
    builder = preparation.prepare_named(name, data_dir)
    for kind, field in fields.wanted():
        if field not in builder.info.features and kind != "split":
            raise missing_field(f"{name} has no feature", kind, field, builder.info.features)
    splits = [split for split in builder.info.splits if split.lower() in SPLITS]
    _warn_of_ignored(name, [split for split in builder.info.splits if split not in splits])

    def read() -> list[Example]:
        parts = {split: _labelled(builder, split, name, fields) for split in splits}
        if not parts.get("train"):
            raise DataError(f"data.path: {name} has no split train with labelled texts")
        divided = len(list(filter(None, parts.values()))) > 1
        return [
            make_example(Row(f"{name}: {split}", text, label, split if divided else None), fields)
            for split, rows in parts.items()
            for text, label in rows
        ]

    return Source(builder.info.full_name, digest_of_files(Path(builder.data_path)), read)


def _labelled(builder: Any, split: str, name: str, fields: Fields) -> list[tuple[str, str]]:
    """The texts of a split that have a label, and its name; all texts where none is wanted."""
    features = dict(fields.wanted())
    of_label = features.get("label")
    names = getattr(builder.info.features[of_label], "names", None) if of_label else None
    found = []
    for row in preparation.examples(builder, split, "data.path"):
        text = row[features["text"]]
        label: Any = row[of_label] if of_label else ""
        if not isinstance(text, bytes):
            raise DataError(f"data.text_field: {fields.text} of {name} is not a text")
        if getattr(label, "ndim", 0):
            raise DataError(
                f"data.label_field: {fields.label} of {name} is a list; several labels per text are"
                " read from files only, such as .jsonl"
            )
        if names is None:
            shown = label.decode() if isinstance(label, bytes) else str(label)
        elif label < 0:  # TFDS's convention for "no label"
            continue
        else:
            shown = names[label]
        try:
            found.append((text.decode(), shown))
        except UnicodeDecodeError as error:
            raise DataError(f"data.path: {name} has a text that is not UTF-8 ({error})") from None
    return found

"""The corpora: one TFDS builder each, and where they come from.

A task's real corpus is looked for as a prepared dataset, as an archive in the manual directory,
then on the web; `source="auto"` falls back to the embedded synthetic twin.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import tensorflow_datasets as tfds
from tqdm import tqdm

from flaxrnn.datasets import imdb_sentiment, reuters_topics, synthetic
from flaxrnn.errors import DataError
from flaxrnn.runtime import files

MANUAL_DIR_VARIABLE = "FLAXRNN_MANUAL_DIR"
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Task:
    """What a task reads: its real corpus, the archive that holds it, and the embedded twin."""

    builder: type[tfds.core.GeneratorBasedBuilder]
    variant: str | None  # builder config
    archive: str
    url: str
    twin: type[tfds.core.GeneratorBasedBuilder]
    vocabulary_splits: tuple[str, ...]  # whose words are counted


TASKS = {
    "reuters": Task(
        reuters_topics.ReutersTopics,
        "keras",
        reuters_topics.ARCHIVE,
        reuters_topics.URL,
        synthetic.SyntheticReutersTopics,
        vocabulary_splits=("train", "test"),  # as in Keras
    ),
    "reuters_clean": Task(
        reuters_topics.ReutersTopics,
        "clean",
        reuters_topics.ARCHIVE,
        reuters_topics.URL,
        synthetic.SyntheticReutersTopics,
        vocabulary_splits=("train",),
    ),
    "imdb": Task(
        imdb_sentiment.ImdbSentiment,
        None,
        imdb_sentiment.ARCHIVE,
        imdb_sentiment.URL,
        synthetic.SyntheticImdbSentiment,
        vocabulary_splits=("train",),
    ),
}
SOURCES = ("auto", "real", "synthetic")


def prepare(
    task: Task, source: str, data_dir: str | None = None, manual_dir: str | None = None
) -> tfds.core.DatasetBuilder:
    """Returns a prepared builder of the task's corpus.

    Args:
        task: One of `TASKS`.
        source: "auto", "real" or "synthetic"; only "auto" may fall back to the twin.
        data_dir: Where prepared datasets are kept; default: TFDS' own.
        manual_dir: Where archives lie; default: `FLAXRNN_MANUAL_DIR`, else TFDS' own.

    Raises:
        DataError: The archive is damaged, or `source="real"` and there is none, or there is no
            folder `manual_dir`.
    """
    root = data_root(data_dir)
    downloads = root / "downloads" / "manual"
    manual = Path(manual_dir or os.environ.get(MANUAL_DIR_VARIABLE) or downloads).expanduser()
    if manual_dir and not manual.is_dir():
        raise DataError(f"data.manual_dir: there is no folder {manual}")
    if source != "synthetic":
        real = functools.partial(_builder, task.builder, root, task.variant)
        if _is_prepared(real()):
            return real()
        if (manual / task.archive).is_file():
            return _prepared(real, manual)
        if _reachable(task.url):
            _download(task.url, downloads / task.archive)
            try:
                return _prepared(real, downloads)
            except DataError:  # what came is not what was asked for: nobody put it there
                (downloads / task.archive).unlink()
                raise
        if source == "real":
            raise DataError(
                f"data.source=real: no {task.archive} in {manual} and {task.url} cannot be reached;"
                f" put the archive there, or name its folder with data.manual_dir or"
                f" {MANUAL_DIR_VARIABLE}"
            )
    return _prepared(functools.partial(_builder, task.twin, root), manual_dir=None)


def prepare_named(name: str, data_dir: str | None = None) -> tfds.core.DatasetBuilder:
    """Returns a prepared builder of any TFDS dataset that can be prepared without TensorFlow.

    Args:
        name: As TFDS has it, with a config or without: "glue/sst2".
        data_dir: Where prepared datasets are kept; default: TFDS' own.

    Raises:
        DataError: There is none of that name, or it cannot be prepared.
    """
    dataset, _, variant = name.partition("/")
    try:
        make_builder = functools.partial(
            tfds.builder_cls(dataset),
            data_dir=data_root(data_dir),
            config=variant or None,
            file_format="array_record",
        )
        return _prepared(make_builder, manual_dir=None)
    except tfds.core.DatasetNotFoundError:
        raise DataError(
            f"data.path: there is no file, no folder and no TFDS dataset {name}"
        ) from None
    except Exception as error:  # whatever the dataset's code raises
        raise _unusable(name, error) from None


def examples(builder: tfds.core.DatasetBuilder, split: str) -> Iterable[dict[str, Any]]:
    """The examples of a prepared dataset.

    Raises:
        DataError: They lie in files that only TensorFlow reads.
    """
    try:
        return builder.as_data_source(split)
    except Exception as error:  # NotImplementedError, and what each reader has of its own
        raise _unusable(builder.info.full_name, error) from None


def _unusable(name: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    reason = reason if len(reason) <= 200 else f"{reason[:199]}…"
    return DataError(
        f"data.path: the TFDS dataset {name} cannot be had here without TensorFlow: {reason}"
    )


def data_root(data_dir: str | None) -> Path:
    """Where prepared datasets are kept; None: TFDS' own folder."""
    return Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()


def is_synthetic(builder: tfds.core.DatasetBuilder) -> bool:
    """Whether the builder is an embedded twin."""
    return any(isinstance(builder, task.twin) for task in TASKS.values())


def _builder(
    cls: type[tfds.core.GeneratorBasedBuilder], root: Path, variant: str | None = None
) -> tfds.core.DatasetBuilder:
    folder = root.joinpath(*filter(None, (cls.name, variant, str(cls.VERSION))))
    sealed = (folder / files.CHECKSUMS).exists()  # others may have prepared it
    try:
        if sealed and (problem := files.find_corruption(folder)):
            print(f"warning: {folder}: {problem}; it is prepared again", file=sys.stderr)
            shutil.rmtree(folder)
        return cls(data_dir=root, config=variant, file_format="array_record")
    except OSError as error:
        raise DataError(f"data.data_dir: {root} cannot be used ({error})") from None


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    return builder.data_path.exists() and builder.is_prepared()


def _prepared(
    make_builder: Callable[[], tfds.core.DatasetBuilder], manual_dir: Path | None
) -> tfds.core.DatasetBuilder:
    """Prepares a dataset unless it is; of several processes one does it, the others wait."""
    builder = make_builder()
    if _is_prepared(builder):
        return builder
    folder = builder.data_path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lock"):
            builder = make_builder()
            if _is_prepared(builder):  # another process was first
                return builder
            for leftover in folder.glob("incomplete.*"):
                shutil.rmtree(leftover)  # of a process that was killed, else it had the lock
            print(f"Preparing {builder.info.full_name} (once) …", file=sys.stderr)
            if not sys.stderr.isatty():
                tfds.disable_progress_bar()
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces unknown sizes
                builder.download_and_prepare(
                    download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
                )
            files.write_checksums(Path(builder.data_path))
    except OSError as error:
        raise DataError(f"{builder.info.full_name} cannot be prepared: {error}") from None
    return builder


def _reachable(url: str) -> bool:
    """Whether the server answers in time; the look-up of its name has no time-out of its own."""
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=_CONNECT_SECONDS).close()
        except OSError:
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_CONNECT_SECONDS)
    return answered.is_set()


def _download(url: str, path: Path) -> None:
    """Fetches `url` to `path`, which exists only once it is complete."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=60) as response, part.open("wb") as file:
            size = int(response.headers.get("Content-Length", 0)) or None
            with tqdm.wrapattr(response, "read", total=size, desc=path.name, disable=None) as body:
                shutil.copyfileobj(body, file)
            if size and file.tell() != size:
                raise OSError(f"connection closed after {file.tell():,} of {size:,} bytes")
        part.replace(path)
    except OSError as error:
        raise DataError(
            f"{url}: download failed ({error}); try again, or put the archive into {path.parent}"
        ) from None
    finally:
        part.unlink(missing_ok=True)

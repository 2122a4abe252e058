"""Finds corpora and prepares them as TFDS datasets.

The real corpus of a task is looked up as a prepared dataset, then as an archive in the manual
directory, then on the web; `source="auto"` falls back to the synthetic counterpart.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import sys
import textwrap
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import tensorflow_datasets as tfds

from flaxrnn.datasets import download
from flaxrnn.datasets.archive import Archive
from flaxrnn.datasets.registry import Task
from flaxrnn.datasets.rows import abbreviated
from flaxrnn.errors import ConfigError, DataError, FlaxrnnError
from flaxrnn.runtime import files

MANUAL_DIR_VARIABLE = "FLAXRNN_MANUAL_DIR"
_FEATURES = {"text": tfds.features.Text, "label": tfds.features.ClassLabel}
_SPLITS = ("train", "test")
_READ_AT_ONCE = 1_000  # examples; one by one takes several times as long

_MakeBuilder = Callable[[], tfds.core.DatasetBuilder]


def prepare(
    task: Task, source: str, data_dir: str | None = None, manual_dir: str | None = None
) -> tfds.core.DatasetBuilder:
    """Returns a prepared builder of the task's corpus.

    Args:
        task: See `registry.get_task`.
        source: "auto", "real" or "synthetic"; only "auto" may fall back to the synthetic corpus.
        data_dir: Where prepared datasets are kept; default: TFDS's own.
        manual_dir: Where archives are; default: `FLAXRNN_MANUAL_DIR`, else TFDS's own.

    Raises:
        ConfigError: `source="synthetic"` and the task has no synthetic counterpart.
        DataError: The corpus is not available or cannot be prepared, or the folder `manual_dir`
            does not exist.
    """
    root = data_root(data_dir)
    manual = _manual_folder(root, manual_dir)
    if manual_dir and not manual.is_dir():
        raise DataError(f"data.manual_dir: there is no folder {manual}")
    real = functools.partial(_builder, task.builder, root, task.config)
    # A builder without an archive is custom code: what it raises is the user's mistake.
    kind = OSError if task.archive else Exception
    with _as_data_error(f"task: {task.name} cannot be prepared", kind):
        if source == "synthetic":
            return _prepare_synthetic(task, root)
        if task.archive is None:
            return _prepare_without_archive(task.name, real, manual)
        if builder := _prepare_from_archive(task.archive, real, manual, _downloads(root)):
            return builder
        if source == "auto" and task.synthetic:
            return _prepare_synthetic(task, root)
    raise DataError(
        f"data.source={source}: {missing_archive(task, data_dir, manual_dir)}; put the archive"
        f" there, or set its folder with data.manual_dir or {MANUAL_DIR_VARIABLE}"
    )


def missing_archive(task: Task, data_dir: str | None = None, manual_dir: str | None = None) -> str:
    """Where the archive of a task was looked for, in vain; the arguments are those of `prepare`."""
    assert task.archive is not None
    folder = _manual_folder(data_root(data_dir), manual_dir)
    return f"no {task.archive.name} in {folder} and {task.archive.url} cannot be reached"


def prepare_named(name: str, data_dir: str | None = None) -> tfds.core.DatasetBuilder:
    """Returns a prepared builder of any TFDS dataset that can be prepared without TensorFlow.

    Args:
        name: As in TFDS, with or without a config: "glue/sst2".
        data_dir: Where prepared datasets are kept; default: TFDS's own.

    Raises:
        DataError: There is no dataset of that name, or it cannot be downloaded or prepared.
    """
    dataset, _, config = name.partition("/")
    with _as_data_error(f"data.path: the TFDS dataset {name} cannot be used without TensorFlow"):
        try:
            builder_class = tfds.builder_cls(dataset)
        except tfds.core.DatasetNotFoundError:
            raise DataError(
                f"data.path: there is no file, no folder and no TFDS dataset {name}"
            ) from None
        if config and config not in builder_class.builder_configs:
            raise DataError(
                f"data.path: the TFDS dataset {dataset} has no config {config}; it has"
                f" {abbreviated(builder_class.builder_configs) or 'none'}"
            )
        make_builder = functools.partial(
            builder_class,
            data_dir=data_root(data_dir),
            config=config or None,
            file_format="array_record",
        )
        builder = make_builder()
        of_hosts = {urllib.parse.urlsplit(url).netloc: url for url in builder.url_infos or ()}
        urls = of_hosts.values()
        if urls and not _is_prepared(builder) and not download.reachable(*urls, any_status=True):
            raise DataError(
                f"data.path: the TFDS dataset {name} is not in {data_root(data_dir)}, and"
                f" {', '.join(urls)} cannot be reached"
            )
        return _prepared(make_builder, manual_dir=None)


def examples(builder: tfds.core.DatasetBuilder, split: str, field: str) -> Iterator[dict[str, Any]]:
    """Yields the examples of a prepared dataset.

    Args:
        builder: The dataset's builder.
        split: Name of one of its splits.
        field: The config field that names the dataset, for errors.

    Raises:
        DataError: The examples are stored in files that only TensorFlow can read.
    """
    name = builder.info.full_name
    with _as_data_error(f"{field}: the TFDS dataset {name} cannot be read without TensorFlow"):
        source = builder.as_data_source(split)
    for begin in range(0, len(source), _READ_AT_ONCE):
        yield from source.__getitems__(range(begin, min(begin + _READ_AT_ONCE, len(source))))


def data_root(data_dir: str | None) -> Path:
    """Where prepared datasets are kept; None: TFDS's own folder."""
    return files.expand(data_dir or tfds.core.constants.DATA_DIR, "data.data_dir")


def _manual_folder(root: Path, manual_dir: str | None) -> Path:
    """Where archives are."""
    folder = Path(manual_dir or os.environ.get(MANUAL_DIR_VARIABLE) or _downloads(root))
    return folder.expanduser()


def _downloads(root: Path) -> Path:
    return root / "downloads" / "manual"  # TFDS's own convention


def _prepare_synthetic(task: Task, root: Path) -> tfds.core.DatasetBuilder:
    if task.synthetic is None:
        raise ConfigError(
            f"data.source: must be auto or real with task={task.name}, which has no synthetic"
            " counterpart"
        )
    return _prepared(functools.partial(_builder, task.synthetic, root), manual_dir=None)


def _prepare_from_archive(
    archive: Archive, make_builder: _MakeBuilder, manual: Path, downloads: Path
) -> tfds.core.DatasetBuilder | None:
    """Prepares a dataset unless it already is; None: its archive is not available."""
    builder = make_builder()
    if _is_prepared(builder):
        return builder
    if (manual / archive.name).is_file():
        return _prepared(make_builder, manual)
    if not download.reachable(archive.url):
        return None
    path = download.download(archive, downloads)
    try:
        return _prepared(make_builder, downloads)
    except DataError:  # a bad download, not the user's own archive
        path.unlink()
        raise


def _prepare_without_archive(
    name: str, make_builder: _MakeBuilder, manual: Path
) -> tfds.core.DatasetBuilder:
    """Prepares a dataset whose builder locates its data, perhaps in the manual directory."""
    features = dict(make_builder().info.features or {})
    for feature, kind in _FEATURES.items():
        if not isinstance(features.get(feature), kind):
            raise DataError(
                f"task: {name} has no feature {feature!r} of type {kind.__name__}; it has"
                f" {', '.join(features) or 'none'}"
            )
    builder = _prepared(make_builder, manual)
    for split in _SPLITS:
        if split not in builder.info.splits:
            raise DataError(
                f"task: {name} has no split {split!r}; it has {', '.join(builder.info.splits)}"
            )
    return builder


def _builder(
    cls: type[tfds.core.GeneratorBasedBuilder], root: Path, config: str | None = None
) -> tfds.core.DatasetBuilder:
    """A builder whose dataset is not prepared yet or, if flaxrnn prepared it, is intact."""
    if config is None and cls.BUILDER_CONFIGS:
        config = cls.default_builder_config.name
    folder = root.joinpath(*filter(None, (cls.name, config, str(cls.VERSION))))
    try:
        if _damage(folder):
            _remove_damaged(folder)
        return cls(data_dir=root, config=config, file_format="array_record")
    except OSError as error:
        raise DataError(f"data.data_dir: {root} cannot be used ({error})") from None


def _damage(folder: Path) -> str | None:
    """What is damaged in a dataset; None: nothing, or another program prepared it."""
    return files.find_corruption(folder) if (folder / files.CHECKSUMS).exists() else None


def _remove_damaged(folder: Path) -> None:
    with _lock(folder.parent):
        if problem := _damage(folder):  # still: no other process has prepared it again by now
            print(f"warning: {folder}: {problem}; preparing it again", file=sys.stderr)
            leftover = folder.with_name(f"incomplete.{folder.name}")
            folder.rename(leftover)  # whatever stops this process, it is there as a whole or not
            shutil.rmtree(leftover)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keeps other processes from preparing a dataset in a folder; says so if it has to wait."""
    lock = filelock.FileLock(folder / ".lock", is_singleton=True)  # so it can be held twice
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        waiting = f"Waiting for another process that prepares a dataset in {folder} …"
        print(waiting, file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    return builder.data_path.exists() and builder.is_prepared()


def _prepared(make_builder: _MakeBuilder, manual_dir: Path | None) -> tfds.core.DatasetBuilder:
    """Prepares a dataset unless it already is; one of several processes does, the others wait."""
    builder = make_builder()
    if _is_prepared(builder):
        return builder
    folder = builder.data_path.parent
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        builder = make_builder()
        if _is_prepared(builder):  # another process was first
            return builder
        for leftover in folder.glob("incomplete.*"):
            shutil.rmtree(leftover)  # of a killed process: a live one would hold the lock
        print(f"Preparing {builder.info.full_name} (once) …", file=sys.stderr)
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):  # hides a notice of TFDS
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
            )
        files.write_checksums(Path(builder.data_path))
    return builder


@contextlib.contextmanager
def _as_data_error(problem: str, kind: type[Exception] = Exception) -> Iterator[None]:
    """Turns an exception of a dataset's code into a one-line DataError: `problem` and reason."""
    try:
        yield
    except FlaxrnnError:
        raise
    except kind as error:
        root: BaseException = error
        while root.__cause__:
            root = root.__cause__
        reasons = [
            textwrap.shorten(f"{type(e).__name__}: {e}", 150, placeholder=" …")
            for e in dict.fromkeys((error, root))
        ]
        raise DataError(f"{problem}: {'; '.join(reasons)}") from error

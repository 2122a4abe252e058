"""Texts in memory → a trained classifier, in one call."""

from __future__ import annotations

import contextlib
import importlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from flaxrnn import config as config_lib
from flaxrnn import evaluate, loop
from flaxrnn.config import flags
from flaxrnn.datasets import parsing
from flaxrnn.datasets.parsing import Example
from flaxrnn.datasets.rows import Fields, Row
from flaxrnn.errors import ConfigError, DataError, WorkdirError
from flaxrnn.inference import saved, sources
from flaxrnn.inference.predictor import TextPredictor
from flaxrnn.runtime import files

_TEXTS = "texts.jsonl"  # in the workdir: what the run reads
_CACHE = "cache"  # there, too: the texts as ids
_FIELDS = Fields("text", "label")

Labelled = tuple[Iterable[str], Iterable[Any]]  # texts and their labels


class FittedClassifier(TextPredictor):
    """A classifier that `fit` has trained.

    Attributes:
        workdir: The folder of its run, in which report.html shows it.
        result: The content of the run's result.json.
    """

    def __init__(self, workdir: Path, result: dict[str, Any], modules: Iterable[str] = ()):
        """Loads the model of a finished run; `modules`: see `saved.load`."""
        super().__init__(saved.load(workdir, modules))
        self.workdir, self.result = workdir, result

    def evaluate(self, texts: Iterable[str], labels: Iterable[Any]) -> dict[str, Any]:
        """Compares the labels of texts with those that the model predicts.

        Returns:
            What `python -m flaxrnn.evaluate --json` writes: "texts", "accuracy",
            "accuracy_interval", "macro_f1", "calibration_error", "classes", "confusion",
            "unknown_labels" and "without_words"; of several labels per text "micro_f1" as well, but
            no interval, calibration error or confusion.

        Raises:
            DataError: Texts and labels do not match, one of them is impossible, or no text has
                words and a label that the model knows.
        """
        fields = _FIELDS._replace(several=self.thresholds is not None)
        evaluation = evaluate.evaluate_examples(self, _examples(texts, labels, fields))
        if not evaluation.texts:
            reasons = "; ".join(evaluation.notes()) or "there are none"
            raise DataError(f"texts: none of them can be evaluated: {reasons}")
        return evaluation.to_json(None)

    def save(self, folder: str | Path) -> Path:
        """Copies the run, without its texts, to a folder that `flaxrnn.load` and commands take.

        Returns:
            The folder.

        Raises:
            WorkdirError: It exists, or cannot be written.
        """
        target = files.expand(folder, "folder")
        try:
            ignore = shutil.ignore_patterns(_TEXTS, _CACHE, ".lock")
            shutil.copytree(self.workdir, target, ignore=ignore)
        except FileExistsError:
            raise WorkdirError(f"folder: {target} exists; name a new one") from None
        except OSError as error:
            raise WorkdirError(f"folder: {target} cannot be written ({error})") from None
        return target


def fit(
    texts: Iterable[str],
    labels: Iterable[Any],
    *,
    validation_data: Labelled | None = None,
    test_data: Labelled | None = None,
    workdir: str | Path | None = None,
    config: ConfigDict | Mapping[str, Any] | None = None,
    **fields: Any,
) -> FittedClassifier:
    """Trains a classifier of texts, as `python train.py --config configs/text.py` does.

    The texts are read as a file with these rows would be: labels are names of classes, so that 1
    and "1" are the same class, and predictions are strings.

    Args:
        texts: N texts: a list, an array, a pandas column.
        labels: Their classes: N strings or whole numbers; or of several per text, N lists of them.
        validation_data: Texts and labels to validate on; None: a tenth of each class is held out.
        test_data: Texts and labels for the scores of the run; None: likewise.
        workdir: The run's folder; the same call again resumes a run that was stopped. None: a
            temporary one, which is removed with the classifier; `save` copies it.
        config: A config with other settings than those of configs/text.py, whose task and paths
            are replaced.
        **fields: Fields of the config, such as `epochs=5` for `train.epochs`, or `seed=1`; see
            docs/config.md.

    Raises:
        ConfigError: A field is unknown or has an invalid value.
        DataError: Texts and labels do not match, one of them is impossible, or there are too few.
        WorkdirError: The workdir belongs to other texts or another config.
        FlaxrnnError, signals.Stopped: See `flaxrnn.train`.
    """
    labels = _as_list(labels)
    wanted = _read_several(labels, config, fields)
    examples = _examples(texts, labels, wanted)
    if not examples:
        raise DataError("texts: there are none")
    held_out = {"validation": validation_data, "test": test_data}
    if given := {split: data for split, data in held_out.items() if data is not None}:
        examples = [example._replace(split="train") for example in examples]
        for split, data in given.items():
            examples += _examples(*data, wanted, split)
    with contextlib.ExitStack() as stack:
        if workdir is None:
            temporary = tempfile.mkdtemp(prefix="flaxrnn-")
            stack.callback(shutil.rmtree, temporary, ignore_errors=True)
            workdir = Path(temporary) / "run"
        folder = files.expand(workdir, "workdir")
        model = _train(examples, folder, config, fields, wanted.several)
        weakref.finalize(model, stack.pop_all().close)
    return model


def _train(
    examples: list[Example],
    folder: Path,
    config: ConfigDict | Mapping[str, Any] | None,
    fields: Mapping[str, Any],
    several: bool,
) -> FittedClassifier:
    """Trains on a file of the examples in the workdir, where what is made of it is cached, too."""
    values = _config(config, fields, folder / _TEXTS)
    if several and values["model.target"] == "label":
        values["model.target"] = "labels"
    modules = config_lib.modules(config_lib.parse(values))
    _write_texts(folder, examples)
    return FittedClassifier(folder, loop.train_and_evaluate(values, folder), modules)


def _read_several(labels: list[Any], config: Any, fields: Mapping[str, Any]) -> Fields:
    """How to read the labels: several per text if one of them is a list, or a field says so."""
    given = config_lib.flatten(config or {}) | {_field(name): fields[name] for name in fields}
    separator = given.get("data.label_separator")
    lists = any(map(_is_list, labels))
    several = lists or separator is not None or given.get("model.target") == "labels"
    return _FIELDS._replace(several=several, separator=separator)


def _as_list(labels: Any) -> list[Any]:
    """The label, or the list of labels, of each text."""
    if getattr(labels, "ndim", 1) == 2:
        raise DataError("labels: a matrix has no names; give a list of names for each text")
    return [labels] if isinstance(labels, str | int | np.generic) else list(labels)


def _is_list(label: Any) -> bool:
    return isinstance(label, list | tuple | set | frozenset | np.ndarray)


def _examples(
    texts: Iterable[str], labels: Any, fields: Fields, split: str | None = None
) -> list[Example]:
    """Texts and labels as a file with these rows would be read.

    Raises:
        DataError: There are more of one than of the other, or one is impossible.
    """
    given = sources.as_list(texts)
    names = _as_list(labels)
    if len(given) != len(names):
        raise DataError(f"labels: there are {len(names):,} for {len(given):,} texts")
    examples = []
    for i, (text, label) in enumerate(zip(given, names, strict=True)):
        try:
            row = Row(f"text {i}", text, _plain(label), split)
            examples.append(parsing.make_example(row, fields))
        except DataError as error:
            raise DataError(str(error).removeprefix("data.path: ")) from None
    return examples


def _plain(label: Any) -> Any:
    """A label, or a list of them, without the types of NumPy."""
    if not _is_list(label):
        return label.item() if hasattr(label, "item") else label
    return [_plain(each) for each in label]


def _config(
    config: ConfigDict | Mapping[str, Any] | None, fields: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    """The config of a run that reads its texts from a path, by names with dots."""
    source = {
        "task": "text",
        "data.path": str(path),
        "data.validation_path": None,
        "data.test_path": None,
        "data.text_field": _FIELDS.text,
        "data.label_field": _FIELDS.label,
        "data.encoding": "utf-8",
    }
    if config is None:
        flags.shipped_configs()  # can be imported from now on
        config = importlib.import_module("configs.text").get_config()
    values = {**config_lib.flatten(config), **source}
    for keyword, value in fields.items():
        name = _field(keyword)
        if name in source:
            raise ConfigError(f"{name}: cannot be set here, where the texts are arguments")
        values[name] = value
    if values.get("data.data_dir") is None:
        values["data.data_dir"] = str(path.parent / _CACHE)
    return values


def _field(keyword: str) -> str:
    """The field that a keyword names, with or without its group."""
    named = [name for name in config_lib.FIELDS if name.rpartition(".")[2] == keyword]
    if keyword not in config_lib.FIELDS and len(named) == 1:
        return named[0]
    config_lib.check_known(keyword)
    return keyword


def _write_texts(folder: Path, examples: list[Example]) -> None:
    """Writes what a run is to read; a run that has begun must have read the same.

    Raises:
        WorkdirError: It has not, or the folder cannot be written.
    """
    rows = [
        {"text": text, "label": label if labels is None else labels}
        | ({"split": split} if split else {})
        for text, label, split, labels in examples
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = folder / _TEXTS
    try:
        begun = (folder / "checkpoints").exists()
        if begun and not (path.exists() and path.read_bytes() == content):
            raise WorkdirError(f"workdir: {folder} holds a run on other texts; name another")
        folder.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, content)
    except OSError as error:
        raise WorkdirError(f"workdir: {folder} cannot be written ({error.strerror})") from None

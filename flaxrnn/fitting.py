"""Texts in memory → a trained classifier, in one call."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from flaxrnn import config as config_lib
from flaxrnn import evaluate, loop
from flaxrnn.config import flags
from flaxrnn.data import keras_api
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

# The latter are ids, as `load_data` gives them.
Texts = Iterable[str] | Sequence[Sequence[int]] | Sequence[np.ndarray] | np.ndarray
Labelled = tuple[Texts, Iterable[Any]]  # texts and their labels


class FittedClassifier(TextPredictor):
    """A classifier that `fit` has trained.

    Attributes:
        workdir: The folder of its run, in which report.html shows it.
        result: The content of the run's result.json.
    """

    def __init__(
        self,
        workdir: Path,
        result: dict[str, Any],
        modules: Iterable[str] = (),
        to_strings: Callable[[Any], list[str]] = sources.as_list,
    ):
        """Loads the model of a finished run.

        Args:
            workdir: That of the run.
            result: Its result.
            modules: See `saved.load`.
            to_strings: Makes texts of what it was fitted to.
        """
        super().__init__(saved.load(workdir, modules))
        self.workdir, self.result = workdir, result
        self._to_strings = to_strings

    def predict(self, texts: str | Texts) -> tuple[list[str], np.ndarray]:
        """Like `TextPredictor.predict`, and if it was fitted to ids, also of those."""
        return super().predict(self._to_strings(texts))

    def evaluate(self, texts: Texts, labels: Iterable[Any]) -> dict[str, Any]:
        """Compares the labels of texts with those that the model predicts.

        Returns:
            What `python -m flaxrnn.evaluate --json` writes: "texts", "accuracy",
            "accuracy_interval", "macro_f1", "macro_f1_interval", "calibration_error", "classes",
            "confusion", "unknown_labels" and "without_words"; of several labels per text
            "micro_f1" as well, but no interval, calibration error or confusion.

        Raises:
            DataError: Texts and labels do not match, one of them is impossible, or no text has
                words and a label that the model knows.
        """
        fields = _FIELDS._replace(several=self.thresholds is not None)
        examples = _examples(self._to_strings(texts), labels, fields)
        evaluation = evaluate.evaluate_examples(self, examples)
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
    texts: Texts,
    labels: Iterable[Any],
    *,
    validation_data: Labelled | None = None,
    test_data: Labelled | None = None,
    word_index: Mapping[str, int] | None = None,
    workdir: str | Path | None = None,
    config: str | ConfigDict | Mapping[str, Any] = "text",
    **fields: Any,
) -> FittedClassifier:
    """Trains a classifier of texts, by default as `python train.py --config configs/text.py` does.

    The texts are read as a file with these rows would be: labels are names of classes, so that 1
    and "1" are the same class, and predictions are strings.

    Args:
        texts: N texts: a list, an array, a pandas column. Or N sequences of ids, as `load_data`
            gives them: lists, arrays, or an array [N, T].
        labels: Their classes: N strings or whole numbers; or of several per text, N lists of them.
        validation_data: Texts and labels to validate on; None: a tenth of each class is held out.
        test_data: Texts and labels for the scores of the run; None: likewise.
        word_index: For ids: the rank of each word, as `get_word_index` gives it; the model then
            reads the words, and predicts for other texts, too. None: it reads the numbers.
        workdir: The run's folder; the same call again resumes a run that was stopped. None: a
            temporary one, which is removed with the classifier; `save` copies it.
        config: A config whose task and paths are replaced, or the name of one that comes with
            flaxrnn, such as "imdb:fast".
        **fields: Fields of the config, such as `epochs=5` for `train.epochs`, or `seed=1`; see
            docs/config.md.

    Raises:
        ConfigError: A field is unknown or has an invalid value.
        DataError: Texts and labels do not match, one of them is impossible, or there are too few.
        WorkdirError: The workdir belongs to other texts or another config.
        FlaxrnnError, signals.Stopped: See `flaxrnn.train`.
    """
    to_strings: Callable[[Any], list[str]] = sources.as_list
    if _are_ids(texts):
        to_strings = functools.partial(_to_strings, word_index=word_index)
        if word_index is None:  # characters of numbers say nothing
            fields = {"model.character_ngrams": 0, **fields}
    elif word_index is not None:
        raise DataError("word_index: is for ids, but the texts are strings")
    labels = _as_list(labels)
    values = config_lib.flatten(flags.shipped_config(config) if isinstance(config, str) else config)
    wanted = _read_several(labels, values, fields)
    examples = _examples(to_strings(texts), labels, wanted)
    if not examples:
        raise DataError("texts: there are none")
    held_out = {"validation": validation_data, "test": test_data}
    if given := {split: data for split, data in held_out.items() if data is not None}:
        examples = [example._replace(split="train") for example in examples]
        for split, (held_out_texts, held_out_labels) in given.items():
            examples += _examples(to_strings(held_out_texts), held_out_labels, wanted, split)
    with contextlib.ExitStack() as stack:
        if workdir is None:
            temporary = tempfile.mkdtemp(prefix="flaxrnn-")
            stack.callback(shutil.rmtree, temporary, ignore_errors=True)
            workdir = Path(temporary) / "run"
        folder = files.expand(workdir, "workdir")
        model = _train(examples, folder, values, fields, to_strings, wanted.several)
        weakref.finalize(model, stack.pop_all().close)
    return model


def _train(
    examples: list[Example],
    folder: Path,
    config: Mapping[str, Any],
    fields: Mapping[str, Any],
    to_strings: Callable[[Any], list[str]],
    several: bool,
) -> FittedClassifier:
    """Trains on a file of the examples in the workdir, where what is made of it is cached, too."""
    values = _config(config, fields, folder / _TEXTS)
    if several and values["model.target"] == "label":
        values["model.target"] = "labels"
    modules = config_lib.modules(config_lib.parse(values))
    _write_texts(folder, examples)
    result = loop.train_and_evaluate(values, folder)
    return FittedClassifier(folder, result, modules, to_strings)


def _read_several(
    labels: list[Any], config: Mapping[str, Any], fields: Mapping[str, Any]
) -> Fields:
    """How to read the labels: several per text if one of them is a list, or a field says so."""
    given = {**config, **{_field(name): fields[name] for name in fields}}
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


def _are_ids(texts: Any) -> bool:
    """Whether the texts are sequences of ids, judged by the first one."""
    if isinstance(texts, np.ndarray) and texts.ndim == 2:
        return texts.dtype.kind in "iu"
    first = texts[0] if isinstance(texts, list | tuple | np.ndarray) and len(texts) else ""
    return isinstance(first, list | tuple | np.ndarray) and all(
        isinstance(i, int | np.integer) for i in first
    )


def _to_strings(texts: Any, word_index: Mapping[str, int] | None) -> list[str]:
    return keras_api.to_texts(texts, word_index) if _are_ids(texts) else sources.as_list(texts)


def _examples(
    texts: list[str], labels: Any, fields: Fields, split: str | None = None
) -> list[Example]:
    """Texts and labels as a file with these rows would be read.

    Raises:
        DataError: There are more of one than of the other, or one is impossible.
    """
    names = _as_list(labels)
    if len(texts) != len(names):
        raise DataError(f"labels: there are {len(names):,} for {len(texts):,} texts")
    examples = []
    for i, (text, label) in enumerate(zip(texts, names, strict=True)):
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


def _config(config: Mapping[str, Any], fields: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A config, by names with dots, of a run that reads its texts from a path."""
    source = {
        "task": "text",
        "data.path": str(path),
        "data.validation_path": None,
        "data.test_path": None,
        "data.text_field": _FIELDS.text,
        "data.label_field": _FIELDS.label,
        "data.encoding": "utf-8",
    }
    values = {**config, **source}
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

"""Evaluates a trained classifier on texts whose labels are known.

python -m flaxrnn.evaluate --workdir runs/reviews --file labelled.csv
python -m flaxrnn.evaluate --workdir runs/reviews --file labelled.csv --threshold 0.8
python -m flaxrnn.evaluate --workdir runs/reviews --file test/ --page mistakes.html
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flaxrnn.config import FIELDS, Config, DataConfig
from flaxrnn.datasets import parsing
from flaxrnn.datasets.parsing import Example
from flaxrnn.datasets.rows import Fields
from flaxrnn.errors import ConfigError, DataError
from flaxrnn.inference import predictions, saved, sources
from flaxrnn.reporting.evaluation import Evaluation, Labelled
from flaxrnn.reporting.multilabel import LabelsEvaluation
from flaxrnn.runtime import files, terminal

if TYPE_CHECKING:
    from flaxrnn.inference.predictor import TextPredictor

_CHUNK_SIZE = 1024  # texts


def main(arguments: list[str] | None = None) -> None:
    """Prints how well the texts of a file are classified, and writes what the flags name.

    Raises:
        ConfigError: A flag is unknown or invalid, or the model does not classify texts.
        DataError: The file cannot be read, or no text in it can be evaluated.
        WorkdirError: The workdir holds no trained model.
    """
    flags = _parse(arguments)
    config = saved.load_config(flags.workdir)
    if flags.label_separator is not None and not _may_have_several(config):
        raise ConfigError("--label_separator: the model knows a single label per text")
    examples = _read(flags, config.data, _may_have_several(config))
    from flaxrnn.inference import predictor  # imports JAX: only once flags and file are valid

    model = predictor.load(flags.workdir, flags.allow_module)
    model.check_target("label")
    evaluation = evaluate_examples(model, examples, flags.threshold)
    if not evaluation.texts:
        reasons = "; ".join(evaluation.notes()) or "it holds none"
        raise DataError(f"--file: {flags.file}: no text can be evaluated: {reasons}")
    print(evaluation.to_text(flags.threshold))
    if flags.page:
        _write("--page", flags.page, _to_html(model, evaluation, flags))
    if flags.json:
        content = evaluation.to_json(flags.threshold)
        _write("--json", flags.json, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = terminal.Parser(
        prog="python -m flaxrnn.evaluate",
        description="Evaluates a trained classifier on texts whose labels are known.",
    )
    parser.add_argument("--workdir", required=True, help="workdir of a run, or of several seeds")
    terminal.add_allow_module(parser)
    sources.add_flags(parser)
    parser.add_argument(
        "--label_field", help="its column or key of the labels; default: the model's own"
    )
    parser.add_argument(
        "--label_separator",
        help="what separates the labels of a text that may have several; default: likewise",
    )
    parser.add_argument(
        "--threshold",
        type=terminal.probability,
        metavar="P",
        help="also say what is left where labels of a lower probability are withheld; where a text"
        " may have several labels: that of all, instead of those chosen on validation",
    )
    parser.add_argument("--page", type=Path, metavar="FILE.html", help="write it and the mistakes")
    parser.add_argument("--json", type=Path, metavar="FILE.json", help="write the figures")
    flags = parser.parse_args(arguments)
    if not flags.file:
        raise ConfigError("--file: missing; name a file or folder of labelled texts")
    field, separator = FIELDS["data.label_separator"], flags.label_separator
    if separator is not None and not field.is_allowed(separator):
        raise ConfigError(f"--label_separator: {separator!r} must be {field.allowed}")
    return flags


def _read(flags: argparse.Namespace, data: DataConfig, several: bool = False) -> list[Example]:
    """The labelled texts, as training reads them; whether they may have `several` labels each."""
    path = Path(flags.file).expanduser()
    fields = Fields(
        flags.field or data.text_field,
        flags.label_field or data.label_field,
        several,
        flags.label_separator or data.label_separator,
    )
    file_format = sources.format_of(flags, data)
    with sources.named_as_flags():
        if path.is_dir():
            from flaxrnn.datasets import custom  # TFDS takes long to import

            return custom.find_source(str(path), fields, file_format).read()
        return parsing.parse(path, sources.read_bytes(path), fields, file_format)


def _may_have_several(config: Config) -> bool:
    """Whether a model's texts may have several labels; a custom head is not imported to ask it."""
    return config.model.target == "labels" or config.data.label_separator is not None


def evaluate_examples(
    model: TextPredictor, examples: list[Example], threshold: float | None = None
) -> Evaluation | LabelsEvaluation:
    """Compares the labels of texts with those that a classifier predicts.

    Args:
        model: The classifier.
        examples: The texts; the labels of each are `Example.names`.
        threshold: Of all labels, where a text may have several; None: those of the classifier.
    """
    if model.thresholds is not None:
        limits = (
            model.thresholds if threshold is None else np.full(len(model.label_names), threshold)
        )
        return _evaluate_several(model, examples, limits)
    index = {name: i for i, name in enumerate(model.label_names)}
    known = [example for example in examples if example.label in index]
    unknown = Counter(example.label for example in examples if example.label not in index)
    found = predictions.classify(
        model, (example.text for example in known), _CHUNK_SIZE, top=1, explain=False
    )
    texts = [
        Labelled(example.text, index[example.label], index[label], probability)
        for example, prediction in zip(known, found, strict=True)
        for label, probability in prediction.top  # one, or none without words
    ]
    empty = len(known) - len(texts)
    return Evaluation(model.label_names, texts, dict(unknown.most_common()), empty)


def _evaluate_several(
    model: TextPredictor, examples: list[Example], limits: np.ndarray
) -> LabelsEvaluation:
    """`evaluate_examples` where a text may have several labels."""
    index = {name: i for i, name in enumerate(model.label_names)}
    names = [name for example in examples for name in example.names]
    unknown = Counter(name for name in names if name not in index)
    texts, labels = [], []
    probabilities = [np.zeros((0, len(index)))]
    for begin in range(0, len(examples), _CHUNK_SIZE):
        chunk = examples[begin : begin + _CHUNK_SIZE]
        encoded = model.encode_all([example.text for example in chunk])
        kept = [i for i, text in enumerate(encoded) if text.total_words]
        probabilities.append(model.probabilities([encoded[i] for i in kept]))
        texts += [chunk[i].text for i in kept]
        labels += [[name in chunk[i].names for name in index] for i in kept]
    empty, counts = len(examples) - len(texts), dict(unknown.most_common())
    found = np.concatenate(probabilities)
    if not np.isfinite(found).all():
        raise DataError(f"--file: a text has no labels: {predictions.NOT_FINITE}")
    truth = np.array(labels, bool).reshape(found.shape)
    return LabelsEvaluation(model.label_names, limits, texts, truth, found, counts, empty)


def _to_html(
    model: TextPredictor, evaluation: Evaluation | LabelsEvaluation, flags: argparse.Namespace
) -> str:
    if isinstance(evaluation, LabelsEvaluation):
        return evaluation.to_html(flags.file, flags.workdir)
    words = _deciding_words(model, [text.text for text in evaluation.worst()])
    return evaluation.to_html(flags.file, flags.workdir, words)


def _deciding_words(model: TextPredictor, texts: list[str]) -> list[tuple[str, ...]]:
    """The words that decided in each text."""
    found = predictions.classify(model, iter(texts), _CHUNK_SIZE, top=1, explain=True)
    return [predictions.deciding(prediction.words) for prediction in found]


def _write(flag: str, path: Path, content: str) -> None:
    try:
        files.write_atomically(path.expanduser(), content.encode("utf-8", "replace"))
    except OSError as error:
        raise ConfigError(f"{flag}: {path} cannot be written ({error.strerror})") from None
    print(f"written to {path}")


if __name__ == "__main__":
    terminal.run(main)

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

from flaxrnn.config import DataConfig
from flaxrnn.datasets import parsing
from flaxrnn.datasets.parsing import Example
from flaxrnn.datasets.rows import Fields
from flaxrnn.errors import ConfigError, DataError
from flaxrnn.inference import predictions, saved, sources
from flaxrnn.reporting.evaluation import Evaluation, Labelled
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
    examples = _read(flags, saved.load_config(flags.workdir).data)
    from flaxrnn.inference import predictor  # imports JAX: only once flags and file are valid

    model = predictor.load(flags.workdir, flags.allow_module)
    evaluation = evaluate_examples(model, examples)
    if not evaluation.texts:
        reasons = "; ".join(evaluation.notes()) or "it holds none"
        raise DataError(f"--file: {flags.file}: no text can be evaluated: {reasons}")
    print(evaluation.to_text(flags.threshold))
    if flags.page:
        words = _deciding_words(model, [text.text for text in evaluation.worst()])
        _write("--page", flags.page, evaluation.to_html(flags.file, flags.workdir, words))
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
        "--threshold",
        type=terminal.probability,
        metavar="P",
        help="also say what is left where labels of a lower probability are withheld",
    )
    parser.add_argument("--page", type=Path, metavar="FILE.html", help="write it and the mistakes")
    parser.add_argument("--json", type=Path, metavar="FILE.json", help="write the figures")
    flags = parser.parse_args(arguments)
    if not flags.file:
        raise ConfigError("--file: missing; name a file or folder of labelled texts")
    return flags


def _read(flags: argparse.Namespace, data: DataConfig) -> list[Example]:
    """The labelled texts, as training reads them."""
    path = Path(flags.file).expanduser()
    fields = Fields(flags.field or data.text_field, flags.label_field or data.label_field)
    file_format = sources.format_of(flags, data)
    with sources.named_as_flags():
        if path.is_dir():
            from flaxrnn.datasets import custom  # TFDS takes long to import

            return custom.find_source(str(path), fields, file_format).read()
        return parsing.parse(path, sources.read_bytes(path), fields, file_format)


def evaluate_examples(model: TextPredictor, examples: list[Example]) -> Evaluation:
    """Compares the labels of texts with those that a classifier predicts."""
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

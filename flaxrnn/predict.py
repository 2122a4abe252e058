"""Labels texts with a trained classifier.

python -m flaxrnn.predict --workdir runs/imdb "What a joy!" "A film to fall asleep in."
python -m flaxrnn.predict --workdir runs/imdb --file reviews.csv --field review > labels.jsonl
python -m flaxrnn.predict --workdir runs/imdb --file old.txt --encoding cp949
python -m flaxrnn.predict --workdir runs/imdb --threshold 0.8 "Well."
python -m flaxrnn.predict --workdir runs/seeds "What a joy!"    (of train.py --seeds: an ensemble)
tail -n 100 reviews.txt | python -m flaxrnn.predict --workdir runs/imdb --format table --explain
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator

from flaxrnn.errors import ConfigError
from flaxrnn.inference import formats, predictions, saved, sources
from flaxrnn.inference.predictions import Prediction
from flaxrnn.runtime import terminal

CHUNK_SIZE = 1024  # texts


def main(arguments: list[str] | None = None) -> None:
    """Labels the texts given by the arguments, in their order.

    Raises:
        ConfigError: A flag is unknown or invalid, or the model does not classify texts.
        DataError: The file cannot be read, or lacks the field.
        WorkdirError: The workdir holds no trained model.
    """
    flags = _parse(arguments)
    texts: Iterator[str]
    if flags.file:
        config = saved.load_config(flags.workdir)
        several = config.model.target == "labels"
        texts = iter(sources.from_file(flags, config.data, several))
    else:
        texts = iter(flags.texts) if flags.texts else sources.from_stdin(flags.encoding)
    from flaxrnn.inference import predictor  # imports JAX: only once flags and file are valid

    model = predictor.load(flags.workdir, flags.allow_module)
    if flags.top > (most := len(model.label_names)):
        raise ConfigError(f"--top: {flags.top} must be at most {most}, the number of labels")
    several = model.thresholds is not None
    to_text = _formatter(flags, model.label_names, model.num_members, several)
    typed = not (flags.file or flags.texts) and sys.stdin.isatty()
    chunk_size = 1 if typed else CHUNK_SIZE  # each line that is typed is answered at once
    for prediction in predictions.classify(
        model,
        texts,
        chunk_size,
        top=flags.top,
        explain=flags.explain,
        threshold=flags.threshold,
    ):
        print(to_text(prediction), flush=typed)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = terminal.Parser(
        prog="python -m flaxrnn.predict",
        description="Labels texts: the arguments, or those in --file, or one per line of stdin.",
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a text to label")
    parser.add_argument(
        "--workdir", required=True, help="workdir of a trained run, or of several seeds: their mean"
    )
    terminal.add_allow_module(parser)
    sources.add_flags(parser)
    parser.add_argument(
        "--top", type=int, default=1, metavar="K", help="show the K likeliest labels"
    )
    parser.add_argument(
        "--threshold",
        type=terminal.probability,
        default=0.0,
        metavar="P",
        help="below this probability, say that the model is unsure instead of a label; where a text"
        " may have several labels: that of all, instead of those chosen on validation",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show which words were decisive; of several seeds, the mean of their attributions",
    )
    parser.add_argument(
        "--format", choices=("table", "jsonl"), help="default: table on a terminal, else jsonl"
    )
    flags = parser.parse_args(arguments)
    if flags.top < 1:
        raise ConfigError(f"--top: {flags.top} must be a whole number of at least 1")
    if flags.file and flags.texts:
        raise ConfigError("--file: cannot be combined with texts as arguments")
    if flags.field and not flags.file:
        raise ConfigError("--field: only a --file has fields")
    flags.format = flags.format or ("table" if sys.stdout.isatty() else "jsonl")
    return flags


def _formatter(
    flags: argparse.Namespace, label_names: list[str], members: int, several: bool
) -> Callable[[Prediction], str]:
    """Prepares stdout, prints the header of a table, and returns what formats a prediction."""
    if flags.format == "jsonl":
        # An unpaired surrogate is valid in JSON, but cannot be encoded as UTF-8.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
        return functools.partial(
            formats.json_line, top=flags.top, explain=flags.explain, several=several
        )
    colour = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    colour = colour and not os.environ.get("NO_COLOR")
    columns = shutil.get_terminal_size().columns
    table = formats.Table(label_names, flags.explain, columns, colour, members)
    print(table.header())
    return table.row


if __name__ == "__main__":
    terminal.run(main)

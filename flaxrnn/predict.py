"""Labels texts with a trained classifier.

python -m flaxrnn.predict --workdir runs/imdb "What a joy!" "A film to fall asleep in."
python -m flaxrnn.predict --workdir runs/imdb --file reviews.csv --field review > labels.jsonl
python -m flaxrnn.predict --workdir runs/seeds "What a joy!"    (of train.py --seeds: an ensemble)
tail -n 100 reviews.txt | python -m flaxrnn.predict --workdir runs/imdb --format table --explain
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from flaxrnn.errors import ConfigError
from flaxrnn.inference import formats, predictions, sources
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
    with contextlib.ExitStack() as stack:
        records: Iterator[sources.Record]
        if flags.texts:
            records = map(sources.Record, flags.texts)
        elif flags.file:
            records = stack.enter_context(sources.open_file(flags.file, flags.field))
        else:
            records = sources.from_stdin()
        from flaxrnn.inference import predictor  # imports JAX: only once flags and file are valid

        model = predictor.load(flags.workdir, flags.allow_module)
        if flags.top > (most := len(model.label_names)):
            raise ConfigError(f"--top: {flags.top} must be at most {most}, the number of labels")
        to_text = _formatter(flags, model.label_names, model.num_members)
        typed = not (flags.file or flags.texts) and sys.stdin.isatty()
        chunk_size = 1 if typed else CHUNK_SIZE  # each line that is typed is answered at once
        for prediction in predictions.classify(
            model, records, chunk_size, top=flags.top, explain=flags.explain
        ):
            print(to_text(prediction), flush=typed)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = terminal.Parser(
        prog="python -m flaxrnn.predict",
        description="Labels texts: the arguments, or those in --file, or one per line of stdin.",
        allow_abbrev=False,
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a text to label")
    parser.add_argument(
        "--workdir", required=True, help="workdir of a trained run, or of several seeds: their mean"
    )
    terminal.add_allow_module(parser)
    parser.add_argument("--file", help="one text per line; or .jsonl, or .csv with a header")
    parser.add_argument("--field", help="field of the .jsonl or .csv that contains the text")
    parser.add_argument(
        "--top", type=int, default=1, metavar="K", help="show the K likeliest labels"
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
    has_fields = bool(flags.file) and Path(flags.file).suffix in sources.WITH_FIELDS
    if has_fields and not flags.field:
        raise ConfigError(f"--field: missing; name the field of {flags.file} with the text")
    if flags.field and not has_fields:
        raise ConfigError("--field: only a --file that ends in .jsonl or .csv has fields")
    flags.format = flags.format or ("table" if sys.stdout.isatty() else "jsonl")
    return flags


def _formatter(
    flags: argparse.Namespace, label_names: list[str], members: int
) -> Callable[[Prediction], str]:
    """Prepares stdout, prints the header of a table, and returns what formats a prediction."""
    if flags.format == "jsonl":
        # An unpaired surrogate is valid in JSON, but cannot be encoded as UTF-8.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
        return functools.partial(formats.json_line, top=flags.top, explain=flags.explain)
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    colour = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    colour = colour and not os.environ.get("NO_COLOR")
    columns = shutil.get_terminal_size().columns
    table = formats.Table(label_names, flags.explain, columns, colour, members)
    print(table.header())
    return table.row


if __name__ == "__main__":
    terminal.run(main)

"""Generates text with a trained language model.

python -m flaxrnn.generate --workdir runs/brackets 3 5 "9(("
python -m flaxrnn.generate --workdir runs/brackets 9 9 9 --temperature 0.5 --seed 1
"""

from __future__ import annotations

import argparse
import math
import sys

from flaxrnn.errors import ConfigError
from flaxrnn.runtime import terminal

_MAX_LENGTH = 1_000_000  # tokens


def main(arguments: list[str] | None = None) -> None:
    """Prints each text given by the arguments with its continuation, one per line.

    Raises:
        ConfigError: A flag is unknown or invalid, or the model does not predict the next token.
        WorkdirError: The workdir holds no trained model.
    """
    flags = _parse(arguments)
    from flaxrnn.inference import predictor  # imports JAX: only once the flags are valid

    model = predictor.load(flags.workdir, flags.allow_module)
    for text in model.generate(flags.texts, flags.length, flags.temperature, flags.seed):
        print(terminal.escaped(text) if sys.stdout.isatty() else text)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = terminal.Parser(
        prog="python -m flaxrnn.generate",
        description="Continues texts token by token.",
    )
    parser.add_argument(
        "texts", nargs="+", metavar="TEXT", help='a text to continue; "" starts a new one'
    )
    parser.add_argument("--workdir", required=True, help="workdir of a run with model.target=next")
    terminal.add_allow_module(parser)
    parser.add_argument("--length", type=int, default=100, help="tokens to add at most")
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="1: sample from the model's distribution; lower: favour likely tokens; 0: always the"
        " likeliest",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling")
    flags = parser.parse_args(arguments)
    if flags.length > _MAX_LENGTH:
        raise ConfigError(f"--length: {flags.length} must be at most {_MAX_LENGTH:,}")
    if flags.length < 1:
        raise ConfigError(f"--length: {flags.length} must be a whole number of at least 1")
    if not 0 <= flags.temperature < math.inf:
        raise ConfigError(f"--temperature: {flags.temperature} must be a number of at least 0")
    if not 0 <= flags.seed < 2**32:
        raise ConfigError(f"--seed: {flags.seed} must be a whole number from 0 to 2³² - 1")
    return flags


if __name__ == "__main__":
    terminal.run(main)

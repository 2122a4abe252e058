"""Texts by a trained language model.

python -m flaxrnn.generate --workdir runs/brackets 3 5 "9(("
python -m flaxrnn.generate --workdir runs/brackets 9 9 9 --temperature 0.5 --seed 1
"""

from __future__ import annotations

import math

from flaxrnn.errors import ConfigError
from flaxrnn.runtime import terminal


def main(arguments: list[str] | None = None) -> None:
    """Continues the texts that the arguments name, and prints one a line.

    Raises:
        ConfigError: A flag is unknown or impossible, or the model predicts no next token.
        WorkdirError: The workdir holds no trained model.
    """
    parser = terminal.Parser(
        prog="python -m flaxrnn.generate",
        description="Continues texts token by token; an empty one is begun.",
        allow_abbrev=False,
    )
    parser.add_argument("prompts", nargs="+", metavar="TEXT")
    parser.add_argument("--workdir", required=True, help="of a run with model.target=next")
    parser.add_argument("--length", type=int, default=100, help="tokens to add at most")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="0: the likeliest token, 1: as learned"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    given = parser.parse_args(arguments)
    if given.length < 1:
        raise ConfigError(f"--length: {given.length} must be a whole number of at least 1")
    if not 0 <= given.temperature < math.inf:
        raise ConfigError(f"--temperature: {given.temperature} must be a number of at least 0")
    if not 0 <= given.seed < 2**32:
        raise ConfigError(f"--seed: {given.seed} must be a whole number from 0 to 2³² - 1")
    from flaxrnn.inference import predictor

    model = predictor.load(given.workdir)
    for text in model.generate(given.prompts, given.length, given.temperature, given.seed):
        print(text)


if __name__ == "__main__":
    terminal.run(main)

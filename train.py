"""Trains a recurrent text classifier: flags → config → loop.

python train.py --config configs/imdb.py
python train.py --config configs/reuters.py:keras --workdir runs/keras --config.seed=1
"""

import sys

from absl import app, flags
from ml_collections import config_flags

from flaxrnn import config
from flaxrnn.errors import FlaxrnnError

config_flags.DEFINE_config_file("config", None, "The config: FILE or FILE:VARIANT.")
flags.DEFINE_string(
    "workdir", None, "Where the run is written, or continued; default: a fresh folder under runs/."
)


def main(argv: list[str]) -> None:
    """Trains with the parsed flags."""
    del argv
    from flaxrnn import loop  # imports JAX: a mistaken flag is answered before that

    loop.train_and_evaluate(flags.FLAGS.config, flags.FLAGS.workdir)


if __name__ == "__main__":
    try:
        app.run(main, flags_parser=config.parse_flags)
    except FlaxrnnError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)

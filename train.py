"""Trains a recurrent text classifier: flags → config → loop.

python train.py --config configs/imdb.py
python train.py --config configs/reuters.py:keras --workdir runs/keras --config.seed=1
python train.py --config configs/reuters.py --workdir runs/reuters --seeds 5
"""

import os
import signal
import sys

from absl import app, flags
from ml_collections import config_flags

from flaxrnn.config import flags as flag_parser
from flaxrnn.errors import FlaxrnnError

config_flags.DEFINE_config_file("config", None, "The config: FILE or FILE:VARIANT.")
flags.DEFINE_string(
    "workdir", None, "Where the run is written, or continued; default: a fresh folder under runs/."
)
flags.DEFINE_integer("seeds", None, "Train so many, from config.seed on, and compare them.")
flags.DEFINE_string("coordinator", None, "Of a run of several processes: HOST:PORT of process 0.")
flags.DEFINE_integer("num_processes", None, "How many processes.")
flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")


def main(argv: list[str]) -> None:
    """Trains with the parsed flags."""
    del argv
    from flaxrnn import loop, seeds
    from flaxrnn.runtime import distributed

    given = flags.FLAGS
    distributed.initialize(given.coordinator, given.num_processes, given.process_id)
    if given.seeds is None:
        loop.train_and_evaluate(given.config, given.workdir)
    else:
        seeds.train(given.config, given.seeds, given.workdir)


if __name__ == "__main__":
    try:
        app.run(main, flags_parser=flag_parser.parse)
    except FlaxrnnError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)  # without a wait for other processes, which may be lost
    except BrokenPipeError:
        os._exit(128 + signal.SIGPIPE)  # nobody reads on, as in `train.py … | head`
    except KeyboardInterrupt as stopped:  # a Stopped, where there was a run to stop
        sys.stdout.flush()
        print(stopped, file=sys.stderr, flush=True)
        # Without a wait for XLA, which may be compiling: it does not survive the usual exit.
        os._exit(getattr(stopped, "exit_code", 128 + signal.SIGINT))

"""Trains a recurrent text model: flags → config → loop.

python train.py --config configs/imdb.py
python train.py --config configs/reuters.py:keras --workdir runs/keras --config.seed=1
python train.py --config configs/reuters.py --workdir runs/reuters --seeds 5
"""

import os
import signal

from absl import app, flags
from ml_collections import config_flags

from flaxrnn.config import flags as flag_parser
from flaxrnn.errors import FlaxrnnError
from flaxrnn.runtime import terminal

config_flags.DEFINE_config_file("config", None, "The config: FILE or FILE:VARIANT.")
flags.DEFINE_string(
    "workdir", None, "The run's folder, to start or resume it; default: a new one under runs/."
)
flags.DEFINE_integer("seeds", None, "Train this many seeds, from config.seed on, and compare them.")
flags.DEFINE_string("coordinator", None, "With several processes: HOST:PORT of process 0.")
flags.DEFINE_integer("num_processes", None, "With several processes: how many.")
flags.DEFINE_integer("process_id", None, "With several processes: which one this is, from 0.")


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
        terminal.check_streams()
        app.run(main, flags_parser=flag_parser.parse)
    except FlaxrnnError as error:
        terminal.exit_with(terminal.error_line(str(error)), error.exit_code)
    except BrokenPipeError:
        os._exit(128 + signal.SIGPIPE)  # the reader has gone, as in `train.py … | head`
    except OSError as error:
        terminal.report_os_error(error)
    except KeyboardInterrupt as stopped:  # a `signals.Stopped` if there was a run to stop
        terminal.exit_with(str(stopped), getattr(stopped, "exit_code", 128 + signal.SIGINT))

"""The command `flaxrnn`, and what `python train.py` does in a clone.

flaxrnn train --config imdb:fast --workdir runs/imdb
flaxrnn predict --workdir runs/imdb "What a joy!"
flaxrnn evaluate --workdir runs/imdb --file labelled.csv
flaxrnn compare runs/*
flaxrnn export --workdir runs/imdb --out served
flaxrnn generate --workdir runs/brackets 3 9

--config takes a file or the name of a config that comes with flaxrnn. Each command has --help.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import sys

from flaxrnn.errors import ConfigError, FlaxrnnError
from flaxrnn.runtime import signals, terminal

_COMMANDS = ("train", "predict", "evaluate", "compare", "export", "generate")


def main() -> None:
    """Runs the command that the first argument names, as the console script does."""
    arguments = sys.argv[1:]
    if arguments[:1] in ([], ["--help"], ["-h"]):
        print(__doc__)
        return
    sys.path.insert(0, os.getcwd())  # for a config's modules, as with `python -m`
    name, *rest = arguments
    if name == "train":
        train([f"{sys.argv[0]} train", *rest])
    else:
        terminal.run(functools.partial(_run, name, rest))


def train(argv: list[str]) -> None:
    """Trains with the flags of a command line, and exits with the status that is documented.

    Args:
        argv: The command and what follows it.
    """
    signals.end_process_when_asked()  # before the imports, which take long
    from absl import app

    from flaxrnn.config import flags as flag_parser

    _define_flags()
    try:
        terminal.check_streams()
        app.run(_train, argv, flags_parser=flag_parser.parse)
    except FlaxrnnError as error:
        terminal.exit_with(terminal.error_line(str(error)), error.exit_code)
    except BrokenPipeError:
        os._exit(128 + signal.SIGPIPE)  # the reader has gone, as in `python train.py … | head`
    except OSError as error:
        terminal.report_os_error(error)
    except KeyboardInterrupt as stopped:  # a `signals.Stopped` if there was a run to stop
        terminal.exit_with(str(stopped), getattr(stopped, "exit_code", 128 + signal.SIGINT))


def _define_flags() -> None:
    from absl import flags
    from ml_collections import config_flags

    config_flags.DEFINE_config_file("config", None, "The config: FILE or NAME, and :VARIANT.")
    flags.DEFINE_string(
        "workdir",
        None,
        "The run's folder, to start or resume it; default: a new one under runs/.",
    )
    flags.DEFINE_integer(
        "seeds", None, "Train this many seeds, from config.seed on, and compare them."
    )
    flags.DEFINE_string("coordinator", None, "With several processes: HOST:PORT of process 0.")
    flags.DEFINE_integer("num_processes", None, "With several processes: how many.")
    flags.DEFINE_integer("process_id", None, "With several processes: which one this is, from 0.")

    for name in ("config", "workdir", "seeds", "coordinator", "num_processes", "process_id"):
        # --help shows those of the main module, for absl the path of the command.
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def _train(argv: list[str]) -> None:
    """Trains with the parsed flags."""
    del argv
    from absl import flags

    given = flags.FLAGS
    if given.coordinator is not None:  # what JAX's runtime would say of a lost process, we say
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "4")
    from flaxrnn import config, loop, seeds  # import JAX: only once the flags are valid
    from flaxrnn.runtime import distributed

    checked = config.parse(given.config)
    what = json.dumps([checked.to_dict(), given.seeds])
    distributed.initialize(given.coordinator, given.num_processes, given.process_id, what)
    with distributed.fail_fast(checked.train.shards):
        if given.seeds is None:
            loop.train_and_evaluate(given.config, given.workdir)
        else:
            seeds.train(given.config, given.seeds, given.workdir)


def _run(name: str, arguments: list[str]) -> None:
    """Runs a command other than train.

    Raises:
        ConfigError: There is no such command.
    """
    if name not in _COMMANDS:
        raise ConfigError(f"{name}: must be one of {', '.join(_COMMANDS)}")
    importlib.import_module(f"flaxrnn.{name}").main(arguments)

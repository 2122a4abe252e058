"""The command line of a run: `--config FILE[:VARIANT]` and overrides of its fields.

A file may also be the name of one that comes with flaxrnn: `--config imdb:fast`.
"""

from __future__ import annotations

import importlib
import itertools
import re
import sys
from pathlib import Path
from typing import NoReturn

from absl import flags, logging
from ml_collections import ConfigDict

from flaxrnn.config import parsing
from flaxrnn.errors import ConfigError
from flaxrnn.runtime import plugins


def parse(argv: list[str], arguments: tuple[str, ...] = ()) -> list[str]:
    """Parses the command line, with `--config` defined by `config_flags`.

    Args:
        argv: The command and what follows it.
        arguments: The names of the positional arguments.

    Returns:
        The command and those arguments.

    Raises:
        ConfigError: A flag or override is unknown or has the wrong type, the config file gives no
            config, or an argument is missing.
    """
    argv = _with_shipped_config(argv)
    if any(re.match(r"--?(help|\?)", argument) for argument in argv[1:]):
        _print_help(argv)
    path = _config_path(argv)
    known = f"; those that come with flaxrnn are {', '.join(shipped_configs())}"
    if not path:
        raise ConfigError(f"--config: missing; name a file{known}")
    if not Path(path).is_file():
        raise ConfigError(f"--config: there is no file {path}{known}")
    try:
        rest = flags.FLAGS(argv)
        if flags.FLAGS["verbosity"].using_default_value:
            logging.set_verbosity(logging.WARNING)  # TFDS chats at INFO
        config = flags.FLAGS.config
    except flags.Error as error:
        raise ConfigError(_reason(error)) from None
    except Exception as error:  # whatever the file's code raises
        raise ConfigError(f"--config: {path} gives no config: {plugins.reason(error)}") from None
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"--config: {path} gives no config: get_config returns no ConfigDict")
    if missing := arguments[len(rest) - 1 :]:
        raise ConfigError(f"{missing[0]}: missing")
    if extra := rest[len(arguments) + 1 :]:
        raise ConfigError(f"{extra[0]}: unexpected argument; flags begin with --")
    return rest


def shipped_configs() -> dict[str, Path]:
    """Name → file of the configs that come with flaxrnn.

    In a wheel they are in the package, in a clone next to it. Python can then import them, since
    some build on others, and those of users may, too.
    """
    package = Path(__file__).parents[1]
    found = [root for root in (package / "shipped", package.parent) if (root / "configs").is_dir()]
    for root in found[:1]:
        if str(root) not in sys.path:
            sys.path.append(str(root))
        return {path.stem: path for path in sorted((root / "configs").glob("*.py"))}
    return {}


def shipped_config(name: str) -> ConfigDict:
    """A config that comes with flaxrnn, by its name, such as "imdb:fast".

    Raises:
        ConfigError: There is none of that name.
    """
    file, _, variant = name.partition(":")
    if file not in (known := shipped_configs()):
        raise ConfigError(f"config: {file!r} is not one of {', '.join(known)}")
    module = importlib.import_module(f"configs.{file}")
    try:
        return module.get_config(variant) if variant else module.get_config()
    except (TypeError, ValueError) as error:
        reason = "it has no variants" if isinstance(error, TypeError) else error
        raise ConfigError(f"config: {name}: {reason}") from None


def _with_shipped_config(argv: list[str]) -> list[str]:
    """The command line with the file of a config in place of its name."""
    changed, shipped = list(argv), shipped_configs()
    for i, argument in enumerate(argv[1:], 1):
        after = argv[i - 1] in ("--config", "-config")
        given = re.fullmatch(r"(--?config=)?([\w]+)((?::.*)?)", argument)
        if given and (after or given[1]) and given[2] in shipped and not Path(given[2]).is_file():
            changed[i] = f"{given[1] or ''}{shipped[given[2]]}{given[3]}"
    return changed


def _print_help(argv: list[str]) -> NoReturn:
    try:
        flags.FLAGS(argv)  # prints it, and exits with 1, as if it had not been asked for
    except SystemExit:
        pass
    except flags.Error as error:
        raise ConfigError(_reason(error)) from None
    sys.exit()


def _reason(error: flags.Error) -> str:
    """What is wrong with a flag in one line, of an error in a config file only its last line."""
    message = str(error).removeprefix("flag ")
    flag, raised, trace = message.partition(": Error whilst parsing config file:\n\n")
    if raised:
        name, _, reason = trace.strip().rpartition("\n")[2].partition(": ")
        if "get_config() takes 0 positional arguments" in reason:
            reason = "the config has no variants"
        message = f"{flag.replace('=', ': ', 1)}: {reason or name}"
    return " ".join(message.split())


def _config_path(argv: list[str]) -> str:
    """The file that `--config` names; "": none. Overrides of unknown fields are refused."""
    path = ""
    for argument, following in itertools.zip_longest(argv[1:], argv[2:], fillvalue=""):
        if override := re.match(r"--?config\.([\w.]+)", argument):
            parsing.check_known(override[1])
        elif given := re.fullmatch(r"--?config(?:=(.*))?", argument):
            path = (following if given[1] is None else given[1]).partition(":")[0]
    return path

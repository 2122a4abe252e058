"""Checks a config: every field is known, of its type and possible.

`FIELDS` and `configs/default.py` list the same fields; a test holds them together.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags, logging
from ml_collections import ConfigDict

from flaxrnn.errors import ConfigError


@dataclass(frozen=True)
class Field:
    """What a field may hold."""

    type: type
    allowed: str  # ends the sentence "must be …"
    possible: Callable[[Any], bool]
    optional: bool = False


def _one_of(*values: str) -> Field:
    return Field(str, f"one of {', '.join(values)}", lambda v: v in values)


def _int(least: int) -> Field:
    return Field(int, f"a whole number of at least {least}", lambda v: v >= least)


_FOLDER = Field(str, "the path of a folder", lambda v: bool(v), optional=True)
_NAME = Field(str, "the name of a column", bool)
_FRACTION = Field(float, "a number above 0 and below 1", lambda v: 0 < v < 1)
_BOOL = Field(bool, "True or False", lambda v: True)

FIELDS = {
    "task": _one_of("reuters", "reuters_clean", "imdb", "brackets", "text"),
    "seed": _int(0),
    "compile_cache": _FOLDER,
    "data.source": _one_of("auto", "real", "synthetic"),
    "data.data_dir": _FOLDER,
    "data.manual_dir": _FOLDER,
    "data.path": Field(str, "the path of a file or folder, or a TFDS name", bool, optional=True),
    "data.text_field": _NAME,
    "data.label_field": _NAME,
    "data.test_fraction": _FRACTION,
    "data.tokenizer": _one_of("words", "characters", "subword"),
    "data.num_words": _int(4),
    "data.maxlen": _int(1),
    "data.padding": _one_of("post", "pre"),
    "data.max_padding": Field(float, "a number above 0, at most 1", lambda v: 0 < v <= 1),
    "data.device_memory": Field(float, "a number of MiB, at least 0", lambda v: v >= 0),
    "data.validation": _one_of("train", "test"),
    "data.validation_fraction": _FRACTION,
    "model.target": _one_of("label", "tags", "next"),
    "model.embedding_size": _int(1),
    "model.dropout": Field(float, "a number from 0 to below 1", lambda v: 0 <= v < 1),
    "model.conv_filters": _int(0),
    "model.conv_width": _int(1),
    "model.conv_pool": _int(1),
    "model.cell": Field(
        str,
        "one of simple, lstm, gru, or module:Class, a recurrent layer of your own",
        lambda v: v in ("simple", "lstm", "gru") or re.fullmatch(r"[\w.]+:\w+", v) is not None,
    ),
    "model.hidden_size": _int(1),
    "model.layers": _int(1),
    "model.bidirectional": _BOOL,
    "model.pooling": _one_of("last", "max", "mean", "attention"),
    "model.recurrence": _one_of("auto", "scan", "fused"),
    "model.recompute": _int(0),
    "train.batch_size": _int(1),
    "train.eval_batch_size": _int(1),
    "train.learning_rate": Field(float, "a number above 0", lambda v: 0 < v < float("inf")),
    "train.schedule": _one_of("constant", "one_cycle"),
    "train.epochs": _int(1),
    "train.patience": _int(1),
    "train.averaging": _BOOL,
    "train.nonfinite": _one_of("stop", "skip"),
    "train.checkpoint_seconds": Field(float, "a number above 0", lambda v: v > 0),
    "train.checkpoint_steps": _int(0),
    "train.restore_best": _BOOL,
}


def check(config: ConfigDict) -> None:
    """Checks every field.

    Raises:
        ConfigError: A field is unknown, missing, of the wrong type or impossible.
    """
    values = flatten(config)
    for name in values:
        _check_known(name)
    for name, field in FIELDS.items():
        if name not in values:
            raise ConfigError(f"{name}: missing; it must be {field.allowed}")
        value = values[name]
        if value is None and field.optional:
            continue
        whole = isinstance(value, int) and not isinstance(value, bool)
        typed = type(value) is field.type or (field.type is float and whole)
        if not typed or not field.possible(value):
            raise ConfigError(f"{name}: {value!r} must be {field.allowed}")
    if values["model.recompute"] and values["model.recurrence"] == "scan":
        raise ConfigError("model.recompute: must be 0 with model.recurrence=scan")
    if values["task"] == "text" and values["data.path"] is None:
        raise ConfigError("data.path: missing; name a file, a folder or a TFDS dataset of texts")
    if values["task"] != "text" and values["data.path"] is not None:
        raise ConfigError(
            f"data.path: must be unset with task={values['task']}; it is of task=text"
        )
    if values["task"] == "text" and values["data.source"] == "synthetic":
        raise ConfigError("data.source: must be auto or real with task=text, which has no twin")
    if values["data.text_field"] == values["data.label_field"]:
        raise ConfigError("data.text_field: must differ from data.label_field")
    _check_target(values)


def _check_target(values: dict[str, Any]) -> None:
    """What outputs per token, and the one corpus with a label for each, can be had with."""
    brackets, target = values["task"] == "brackets", values["model.target"]
    if brackets and target == "label":
        raise ConfigError("model.target: must be tags or next with task=brackets")
    if target == "tags" and not brackets:
        raise ConfigError(
            f"model.target: must be label or next with task={values['task']}, whose labels are"
            " those of texts"
        )
    if brackets and values["data.source"] == "real":
        raise ConfigError("data.source: must be auto or synthetic with task=brackets")
    if brackets and values["data.tokenizer"] != "characters":
        raise ConfigError("data.tokenizer: must be characters with task=brackets")
    if target == "label":
        return
    for name, needed in (("data.padding", "post"), ("model.conv_filters", 0)):
        if values[name] != needed:
            raise ConfigError(f"{name}: must be {needed} with model.target={target}")
    if target == "next" and values["model.bidirectional"]:
        raise ConfigError(
            "model.bidirectional: must be False with model.target=next: read backwards, a text"
            " gives away what comes next"
        )


def flatten(config: ConfigDict | dict[str, Any]) -> dict[str, Any]:
    """Field name with dots → value."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | dict):
            flat.update({f"{key}.{name}": inner for name, inner in flatten(value).items()})
        else:
            flat[key] = value
    return flat


def with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """A config as nested dicts, with today's defaults for the fields that it lacks."""
    from configs import default

    complete = default.get_config().to_dict()
    for name, value in flatten(config).items():
        *groups, last = name.split(".")
        group = complete
        for key in groups:
            group = group.setdefault(key, {})
        group[last] = value
    return complete


def _check_known(name: str) -> None:
    if name in FIELDS:
        return
    last_parts = {known.rpartition(".")[2]: known for known in FIELDS}
    near = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.5) or [
        last_parts[part]
        for part in difflib.get_close_matches(name.rpartition(".")[2], last_parts, n=1)
    ]
    hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(FIELDS)}"
    raise ConfigError(f"{name}: there is no such field{hint}")


def parse_flags(argv: list[str], arguments: tuple[str, ...] = ()) -> list[str]:
    """Parses the command line, with `--config` defined by `config_flags`.

    Args:
        argv: The command and what follows it.
        arguments: The names of those that are no flags.

    Returns:
        The command and those arguments.

    Raises:
        ConfigError: A flag or override is unknown or ill-typed, the config file is no config, or
            an argument is missing.
    """
    path = ""
    if any(re.match(r"--?(help|\?)", arg) for arg in argv[1:]):
        return flags.FLAGS(argv)  # prints the help and exits
    for arg, following in itertools.zip_longest(argv[1:], argv[2:], fillvalue=""):
        if override := re.match(r"--?config\.([\w.]+)", arg):
            _check_known(override[1])
        elif given := re.fullmatch(r"--?config(?:=(.*))?", arg):
            path = (following if given[1] is None else given[1]).partition(":")[0]
    if not path:
        raise ConfigError("--config: missing; name a file, like --config configs/imdb.py")
    if not Path(path).is_file():
        raise ConfigError(f"--config: there is no file {path}")
    try:
        rest = flags.FLAGS(argv)
        if flags.FLAGS["verbosity"].using_default_value:
            logging.set_verbosity(logging.WARNING)  # TFDS chats at INFO
        config = flags.FLAGS.config
    except flags.Error as error:
        raise ConfigError(" ".join(str(error).removeprefix("flag ").split())) from None
    except Exception as error:  # whatever the file's code raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"--config: {path} gives no config: {reason}") from None
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"--config: {path} gives no config: get_config returns no ConfigDict")
    if missing := arguments[len(rest) - 1 :]:
        raise ConfigError(f"{missing[0]}: missing")
    if strange := rest[len(arguments) + 1 :]:
        raise ConfigError(f"{strange[0]}: not understood; flags begin with --")
    return rest

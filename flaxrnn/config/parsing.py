"""From a `ConfigDict` or a config.json to a checked `Config`."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from flaxrnn.config.fields import Config
from flaxrnn.errors import ConfigError
from flaxrnn.runtime import plugins

# Names that values had in configs of earlier versions, whose workdirs are still read.
_RENAMED_VALUES = {
    "model.recurrence": {"auto": "fused"},
    "train.schedule": {"one_cycle": "warmup_linear"},
}

# Values that stand for one that is chosen when a run first starts, and is then in its config.json.
AUTOMATIC = {
    "data.tokenizer": "auto",
    "model.word_ngrams": -1,
    "model.character_ngrams": -1,
    "model.ngram_fit": "auto",
    "train.batch_size": 0,
    "train.epochs": 0,
}


@dataclass(frozen=True)
class Field:
    """A field as the groups declare it."""

    type: type
    optional: bool  # may be None
    default: Any
    doc: str
    allowed: str  # ends the sentence "must be …"
    is_allowed: Callable[[Any], bool]
    names_code: bool  # may be "module:Name"
    most: int  # largest value of a whole number


def _fields(group: type, prefix: str = "") -> dict[str, Field]:
    found: dict[str, Field] = {}
    hints = typing.get_type_hints(group)
    for field in dataclasses.fields(group):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            found |= _fields(typing.cast(type, hint), f"{field.name}.")
            continue
        optional = isinstance(hint, types.UnionType)
        kind = typing.get_args(hint)[0] if optional else hint
        found[prefix + field.name] = Field(kind, optional, field.default, **field.metadata)
    return found


FIELDS = _fields(Config)  # name with dots → field


def default_config() -> ConfigDict:
    """Every field at its default."""
    tree: dict[str, Any] = {}
    for name, field in FIELDS.items():
        group, _, key = name.rpartition(".")
        value = placeholder(field.type) if field.optional else field.default
        (tree.setdefault(group, {}) if group else tree)[key] = value
    return ConfigDict(tree)


def parse(config: ConfigDict | Mapping[str, Any]) -> Config:
    """Checks every field.

    Raises:
        ConfigError: A field is unknown, missing, of the wrong type, or has a value that is not
            allowed.
    """
    values = flatten(config)
    for name in values:
        check_known(name)
    for name, field in FIELDS.items():
        if name not in values:
            raise ConfigError(f"{name}: missing; it must be {field.allowed}")
        value = values[name]
        if value is None and field.optional:
            continue
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        has_type = type(value) is field.type or (field.type is float and is_whole)
        if not has_type or not field.is_allowed(value):
            raise ConfigError(f"{name}: {value!r} must be {field.allowed}")
        most = {int: field.most, float: 1e300}.get(field.type)
        if most is not None and value > most:
            raise ConfigError(f"{name}: {value!r} must be at most {most:,}")
    _check_combinations(values)
    if values["data.label_separator"] is not None and values["model.target"] == "label":
        values["model.target"] = "labels"
    return _build(Config, values)


def _build(group: type, values: Mapping[str, Any], prefix: str = "") -> Any:
    hints = typing.get_type_hints(group)
    arguments = {
        field.name: _build(hints[field.name], values, f"{field.name}.")
        if dataclasses.is_dataclass(hints[field.name])
        else values[prefix + field.name]
        for field in dataclasses.fields(group)
    }
    return group(**arguments)


def _check_combinations(values: Mapping[str, Any]) -> None:
    """Checks fields that depend on each other; those of a head it checks itself."""
    task = values["task"]
    if values["model.recompute"] and values["model.recurrence"] == "scan":
        raise ConfigError("model.recompute: must be 0 with model.recurrence=scan")
    if values["model.segment"] and values["model.pooling"] == "last":
        raise ConfigError("model.segment: must be 0 with model.pooling=last")
    if values["train.weight_decay"] and values["train.optimizer"] == "adam":
        raise ConfigError("train.weight_decay: must be 0 with train.optimizer=adam; adamw has it")
    if values["train.label_smoothing"] and values["train.loss"] != "cross_entropy":
        raise ConfigError("train.label_smoothing: must be 0 with train.loss=squared_hinge")
    if values["train.init_from"] is not None and values["data.vectors"] is not None:
        raise ConfigError("data.vectors: must be unset with train.init_from, which brings its own")
    if values["train.refit"] and values["data.validation"] == "test":
        raise ConfigError("train.refit: must be False with data.validation=test")
    if task == "text" and values["data.path"] is None:
        raise ConfigError("data.path: missing; name a file, a folder or a TFDS dataset of texts")
    for name in ("data.path", "data.test_path", "data.validation_path", "data.label_separator"):
        if task != "text" and values[name] is not None:
            raise ConfigError(f"{name}: must be unset with task={task}; it belongs to task=text")
    if task == "text" and values["data.source"] == "synthetic":
        raise ConfigError(
            "data.source: must be auto or real with task=text, which has no synthetic counterpart"
        )
    _check_unlabelled(values)
    if values["data.text_field"] == values["data.label_field"]:
        raise ConfigError("data.text_field: must differ from data.label_field")
    if task == "brackets" and values["data.source"] == "real":
        raise ConfigError("data.source: must be auto or synthetic with task=brackets")
    if task == "brackets" and values["data.tokenizer"] != "characters":
        raise ConfigError("data.tokenizer: must be characters with task=brackets")


def _check_unlabelled(values: Mapping[str, Any]) -> None:
    """Checks what training on texts without labels needs."""
    task, value = values["task"], values["data.unlabelled"]
    if value is None:
        if values["train.teacher"] is not None:
            raise ConfigError("train.teacher: must be unset without data.unlabelled")
        return
    if task != "text" and value != "dataset":
        raise ConfigError(
            f"data.unlabelled: {value!r} must be dataset or unset with task={task}; the path of"
            " texts belongs to task=text"
        )
    if not (values["model.word_ngrams"] or values["model.character_ngrams"]):
        raise ConfigError(
            "data.unlabelled: needs model.word_ngrams or model.character_ngrams, whose classifier"
            " labels the texts"
        )
    if values["train.loss"] != "cross_entropy":
        raise ConfigError("train.loss: must be cross_entropy with data.unlabelled")


def modules(config: Config) -> set[str]:
    """The modules outside the package that a config names."""
    values = flatten(config.to_dict())
    named = {values[name] for name, field in FIELDS.items() if field.names_code}
    return {name.partition(":")[0] for name in named if plugins.PATTERN.fullmatch(name)}


def flatten(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """Field name with dots → value."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | Mapping) and value:
            flat.update({f"{key}.{name}": inner for name, inner in flatten(value).items()})
        else:
            flat[key] = value
    return flat


def with_defaults(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json of this or an earlier version, as nested dictionaries of this version.

    Fields that it lacks have their defaults, values that were renamed have their present names.

    Raises:
        ConfigError: A field and a group are exchanged.
    """
    values = flatten(saved)
    tree = default_config().to_dict()
    for name, value in values.items():
        group, _, key = name.rpartition(".")
        renamed = _RENAMED_VALUES.get(name, {})
        value = renamed.get(value, value) if isinstance(value, str) else value
        holder = tree.setdefault(group, {}) if group else tree
        if not isinstance(holder, dict) or isinstance(holder.get(key), dict):
            raise ConfigError(f"{name}: {value!r} must be a group of fields, or be in one")
        holder[key] = value
    return tree


def check_known(name: str) -> None:
    """Checks that there is a field of that name.

    Raises:
        ConfigError: There is none; the message names the nearest.
    """
    if name in FIELDS:
        return
    last_parts = {known.rpartition(".")[2]: known for known in FIELDS}
    near = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.5) or [
        last_parts[part]
        for part in difflib.get_close_matches(name.rpartition(".")[2], last_parts, n=1)
    ]
    hint = f"; did you mean {near[0]}?" if near else f"; known fields are {', '.join(FIELDS)}"
    raise ConfigError(f"{name}: there is no such field{hint}")


def to_markdown() -> str:
    """A table of every field."""
    lines = ["| field | default | what it is | must be |", "|---|---|---|---|"]
    for name, field in FIELDS.items():
        default = "unset" if field.default is None else f"`{field.default}`"
        lines.append(f"| `{name}` | {default} | {field.doc} | {field.allowed} |")
    return "\n".join(lines)

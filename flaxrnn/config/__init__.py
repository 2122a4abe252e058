"""Configs: their fields, their check, and the command line that sets them.

A config is a `ConfigDict` until `parse` turns it into a frozen `Config` with typed groups.
"""

from flaxrnn.config.fields import Config, DataConfig, ModelConfig, TrainConfig
from flaxrnn.config.parsing import (
    AUTOMATIC,
    FIELDS,
    check_known,
    default_config,
    flatten,
    modules,
    parse,
    to_markdown,
    with_defaults,
)

__all__ = [
    "AUTOMATIC",
    "FIELDS",
    "Config",
    "DataConfig",
    "ModelConfig",
    "TrainConfig",
    "check_known",
    "default_config",
    "flatten",
    "modules",
    "parse",
    "to_markdown",
    "with_defaults",
]

"""Classes and functions outside the package that a config names, as "module:Name"."""

from __future__ import annotations

import importlib
import re
from typing import Any

from flaxrnn.errors import ConfigError

PATTERN = re.compile(r"[\w.]+:\w+")


def load(field: str, name: str, base: type | None = None) -> Any:
    """Imports what "module:Name" names.

    Args:
        field: The config field, with which errors begin.
        name: "module:Name".
        base: The class it must be a subclass of; None: anything that can be called.

    Raises:
        ConfigError: The module cannot be imported, or has nothing of that name and kind.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # whatever the module's code raises
        raise ConfigError(f"{field}: {module} cannot be imported: {reason(error)}") from None
    if base is None and not callable(found):
        raise ConfigError(f"{field}: {module} has no function or class named {attribute!r}")
    if base is not None and not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(
            f"{field}: {module} has no subclass of {base.__name__} named {attribute!r}"
        )
    return found


def reason(error: Exception) -> str:
    """The message of an error in one line, or its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__

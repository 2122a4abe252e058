"""Classes of the user's that a config names as `module:Class`."""

from __future__ import annotations

import importlib
from typing import TypeVar

from flaxrnn.errors import ConfigError

T = TypeVar("T")


def load_class(field: str, name: str, base: type[T]) -> type[T]:
    """Imports the class that `module:Class` names.

    Args:
        field: The config field that holds the name, for errors.
        name: The module is looked for where Python finds modules.
        base: What the class must be a subclass of.

    Raises:
        ConfigError: The module cannot be imported, or has no such class.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # whatever the module's code raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{field}: {module} cannot be imported: {reason}") from None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(
            f"{field}: {module} has no subclass of {base.__name__} named {attribute!r}"
        )
    return found

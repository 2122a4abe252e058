"""Classes and functions outside the package that a config names, as "module:Name".

Importing a module runs it. A config that the user gives is the user's own; one that is read from a
workdir may come from anybody, so what it names is only imported if the user allows the module.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from typing import Any

from flaxrnn.errors import ConfigError

PATTERN = re.compile(r"[\w.]+:\w+")
_allowed: set[str] = set()  # modules that a config or an argument of the user's names
_foreign: set[str] = set()  # modules that a workdir names


def allow(modules: Iterable[str]) -> None:
    """Lets `load` import these modules, also where a workdir names them."""
    _allowed.update([modules] if isinstance(modules, str) else modules)


def distrust(modules: Iterable[str]) -> None:
    """Keeps `load` from importing these modules, which a workdir names, unless they are allowed."""
    _foreign.update(modules)


def load(field: str, name: str, base: type | None = None) -> Any:
    """Imports what "module:Name" names.

    Args:
        field: The config field, with which errors begin.
        name: "module:Name".
        base: The class it must be a subclass of; None: anything that can be called.

    Raises:
        ConfigError: The module is named by a workdir only and not allowed, cannot be imported, or
            has nothing of that name and kind.
    """
    module, _, attribute = name.partition(":")
    if module in _foreign - _allowed:
        raise ConfigError(
            f"{field}: {name} is code that the workdir names and that was not run; if you trust the"
            f" module, add --allow-module {module} (in Python, allow_modules=[{module!r}])"
        )
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

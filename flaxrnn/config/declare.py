"""The kinds of config fields: each declares a default, a doc and the allowed values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from flaxrnn.runtime import plugins

MOST = 2**31 - 1  # of whole numbers: what 32 bits hold
MOST_SEED = 2**32 - 1  # larger seeds of JAX are not all different


def field(
    default: Any,
    doc: str,
    allowed: str,
    is_allowed: Callable[[Any], bool],
    *,
    names_code: bool = False,
    most: int = MOST,
) -> Any:
    """Declares a field.

    Args:
        default: Its default.
        doc: What it is, for the table in docs/config.md.
        allowed: Ends the sentence "must be …".
        is_allowed: Whether a value of the field's type is allowed.
        names_code: Whether it may be "module:Name".
        most: The largest value of a whole number.
    """
    metadata = {
        "doc": doc,
        "allowed": allowed,
        "is_allowed": is_allowed,
        "names_code": names_code,
        "most": most,
    }
    return dataclasses.field(default=default, metadata=metadata)


def one_of(default: str, *others: str, doc: str) -> Any:
    """A string, one of `default` and `others`."""
    values = (default, *others)
    return field(default, doc, f"one of {', '.join(values)}", values.__contains__)


def one_of_or_module(default: str, *others: str, what: str, doc: str) -> Any:
    """A string, one of `default` and `others`, or "module:Name", a custom `what`."""
    values = (default, *others)
    names = f"one of {', '.join(values)}" if others else default
    allowed = f"{names}, or a custom {what} as module:Name"
    return field(
        default,
        doc,
        allowed,
        lambda v: v in values or plugins.PATTERN.fullmatch(v) is not None,
        names_code=True,
    )


def at_least(least: int, default: int, doc: str, most: int = MOST) -> Any:
    """A whole number of at least `least` and at most `most`."""
    allowed = f"a whole number of at least {least}"
    return field(default, doc, allowed, lambda v: v >= least, most=most)


def fraction(default: float, doc: str) -> Any:
    """A number above 0 and below 1."""
    return field(default, doc, "a number above 0 and below 1", lambda v: 0 < v < 1)


def fraction_or_zero(default: float, doc: str) -> Any:
    """A number from 0 to below 1."""
    return field(default, doc, "a number from 0 to below 1", lambda v: 0 <= v < 1)


def positive(default: float, doc: str) -> Any:
    """A finite number above 0."""
    return field(default, doc, "a number above 0", lambda v: 0 < v < math.inf)


def nonnegative(default: float, doc: str) -> Any:
    """A finite number of at least 0."""
    return field(default, doc, "a number of at least 0", lambda v: 0 <= v < math.inf)


def flag(default: bool, doc: str) -> Any:
    """True or False."""
    return field(default, doc, "True or False", lambda v: True)


def folder(doc: str) -> Any:
    """The path of a folder, unset by default."""
    return field(None, doc, "the path of a folder", bool)


def own_path(doc: str) -> Any:
    """Where custom texts are, unset by default."""
    return field(None, doc, "the path of a file or folder, or the name of a TFDS dataset", bool)


def column(default: str, doc: str) -> Any:
    """The name or number of a column of a custom table."""
    return field(default, doc, "the name of a column, or without a header its number, from 1", bool)


def is_encoding(value: str) -> bool:
    """Whether Python encodes text by that name."""
    try:
        return bool("a".encode(value))
    except (LookupError, ValueError):
        return False


def parse_weights(value: str) -> dict[str, float] | None:
    """The weights in "name=weight,name=weight"; None: it is something else."""
    weights: dict[str, float] = {}
    for part in value.split(","):
        name, _, number = part.rpartition("=")
        try:
            weights[name.strip()] = float(number)
        except ValueError:
            return None
    valid = all(name and 0 < weight < math.inf for name, weight in weights.items())
    return weights if valid else None

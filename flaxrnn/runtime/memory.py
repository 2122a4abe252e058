"""How much memory there is, known before it is asked for."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import jax

from flaxrnn.errors import OutOfMemoryError

_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def limit() -> int | None:
    """Bytes that the devices of this process may use, at most; None: unknown."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return stats.get("bytes_limit")
    limits = []
    with contextlib.suppress(ValueError, OSError, AttributeError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _CGROUPS:
        with contextlib.suppress(ValueError, OSError):  # "max": there is none
            limits.append(int(Path(path).read_text()))
    return min(limits, default=None)


def check(needed: int, message: str) -> None:
    """Refuses what cannot fit, however well it is done.

    Args:
        needed: Bytes needed at least.
        message: What to lower.

    Raises:
        OutOfMemoryError: There is less memory.
    """
    available = limit()
    if available is not None and needed > available:
        gib = 2**30
        raise OutOfMemoryError(
            f"{message}: at least {needed / gib:,.1f} GiB are needed, there are"
            f" {available / gib:,.1f} GiB"
        )

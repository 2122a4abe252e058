"""How many CPU cores this process may use, which in a container are fewer than the machine has."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable() -> int:
    """The cores of the process's affinity, and at most as many as its control group has time for.

    A quota of one and a half cores counts as two: both work until it is used up.
    """
    if hasattr(os, "sched_getaffinity"):  # Linux
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, _quotas())]))


def _quotas() -> Iterator[float]:
    """The quotas, in cores, of the control group of this process and of those it is in."""
    for folder in _groups():
        with contextlib.suppress(OSError, ValueError):  # "max": there is none
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) / int(period)
        with contextlib.suppress(OSError, ValueError):
            quota = (folder / "cpu.cfs_quota_us").read_text()
            if int(quota) > 0:  # -1: there is none
                yield int(quota) / int((folder / "cpu.cfs_period_us").read_text())


def _groups() -> Iterator[Path]:
    """The folders of the control groups that limit this process's time, version 1 and 2.

    In a container, where the path of the group may be that of its host, the root is the group.
    """
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = Path(path.lstrip("/"))
        for inner in (group, *group.parents):
            yield _CGROUPS / controllers / inner

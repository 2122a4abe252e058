"""Reads the members of a tar.gz archive into memory, without unpacking it to disk."""

from __future__ import annotations

import gzip
import os
import re
import tarfile
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from flaxrnn.errors import DataError

_MOST_BYTES = 2**30  # unpacked; the corpora have less than a quarter of it


class _Limited:
    """A stream that ends with an error where it goes on beyond all measure."""

    def __init__(self, stream: gzip.GzipFile):
        """Reads from `stream`."""
        self._stream = stream
        self._left = _MOST_BYTES

    def read(self, size: int) -> bytes:
        """The next bytes, `size` at most."""
        content = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise _HostileError(f"it unpacks to more than {_MOST_BYTES / 2**20:.0f} MiB")
        return content


class _HostileError(Exception):
    """An archive that nobody makes by accident."""


def read_members(path: str | os.PathLike[str], wanted: re.Pattern[str]) -> dict[str, bytes]:
    """Returns name → content of the plain files whose whole name matches `wanted`.

    Raises:
        DataError: The file is not a complete tar.gz archive, unpacks without end, or has a member
            that is a link, a device, or lies outside of it.
    """
    members: dict[str, bytes] = {}
    try:
        with gzip.open(path) as unzipped:
            limited: Any = _Limited(unzipped)
            tar = tarfile.open(fileobj=limited, mode="r|")  # noqa: SIM115 (closes nothing)
            for member in tar:  # a stream: one pass, nothing sought
                if not (member.isfile() or member.isdir()):
                    raise _HostileError(f"{member.name} is no plain file")
                if PurePosixPath(member.name).is_absolute() or ".." in member.name.split("/"):
                    raise _HostileError(f"{member.name} lies outside of it")
                name = member.name.removeprefix("./")
                if member.isfile() and wanted.fullmatch(name):
                    file = tar.extractfile(member)
                    assert file is not None  # it is a plain file
                    members[name] = file.read()
    except _HostileError as error:
        raise DataError(f"{path}: refused: {error}; fetch the archive from its source") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:
        raise DataError(
            f"{path}: expected a complete tar.gz archive, found one that breaks off or is something"
            f" else, after {len(members):,} readable texts ({error}); fetch it again"
        ) from None
    return members


def check_counts(
    path: str | os.PathLike[str],
    names: list[str],
    expected: dict[str, int],
    kind: Callable[[str], str],
) -> None:
    """Compares how many members of each kind there are with what there should be.

    Raises:
        DataError: A kind has too few or too many members.
    """
    found = dict.fromkeys(expected, 0)
    for name in names:
        found[kind(name)] += 1
    wrong = [
        f"{found[kind]:,} of {count:,} {kind}"
        for kind, count in expected.items()
        if found[kind] != count
    ]
    if wrong:
        raise DataError(
            f"{path}: not the complete archive: found {', '.join(wrong)}; fetch it again"
        )

"""Archives that corpora are built from, read into memory without unpacking them to disk."""

from __future__ import annotations

import gzip
import os
import re
import tarfile
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from flaxrnn.errors import DataError

_MAX_BYTES = 2**30  # unpacked; the largest corpus has less than a quarter of it
_MAX_MEMBERS = 300_000  # the largest corpus has a third of it


class Archive(NamedTuple):
    """A tar.gz file that holds a corpus."""

    name: str  # of the file
    url: str
    sha256: str | None = None  # of what `url` serves; a copy from elsewhere may be repacked


class _HostileError(Exception):
    """An archive that can only be malicious."""


class _Limited:
    """A stream that raises once it has yielded more than `_MAX_BYTES`: a decompression bomb."""

    def __init__(self, stream: gzip.GzipFile):
        """Reads from `stream`."""
        self._stream = stream
        self._left = _MAX_BYTES

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`."""
        content = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise _HostileError(f"it unpacks to more than {_MAX_BYTES / 2**20:.0f} MiB")
        return content


def read_members(path: str | os.PathLike[str], wanted: re.Pattern[str]) -> dict[str, bytes]:
    """Returns name → content of the regular files whose full name matches `wanted`.

    Raises:
        DataError: The file is not a complete tar.gz archive, unpacks to more than 1 GiB, or has a
            member that is a link, a device, sparse, or outside of the archive's own folder.
    """
    members: dict[str, bytes] = {}
    try:
        with gzip.open(path) as unzipped:
            limited: Any = _Limited(unzipped)
            tar = tarfile.open(fileobj=limited, mode="r|")  # noqa: SIM115 (closes nothing)
            for i, member in enumerate(tar):  # a stream: one pass, no seeking
                if i >= _MAX_MEMBERS:
                    raise _HostileError(f"it has more than {_MAX_MEMBERS:,} members")
                if not (member.isfile() or member.isdir()):
                    raise _HostileError(f"{member.name} is not a regular file")
                if member.issparse():  # a few bytes may stand for any number of zeros
                    raise _HostileError(f"{member.name} is a sparse file")
                if PurePosixPath(member.name).is_absolute() or ".." in member.name.split("/"):
                    raise _HostileError(f"{member.name} points outside of it")
                name = member.name.removeprefix("./")
                if member.isfile() and wanted.fullmatch(name):
                    file = tar.extractfile(member)
                    assert file is not None  # it is a regular file
                    members[name] = file.read()
    except _HostileError as error:
        raise DataError(f"{path}: refused: {error}; fetch the archive from its source") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a complete tar.gz archive: reading failed after {len(members):,} texts"
            f" ({error}); fetch it again"
        ) from None
    return members


def check_counts(
    path: str | os.PathLike[str],
    names: list[str],
    expected: dict[str, int],
    kind: Callable[[str], str],
) -> None:
    """Compares the number of members of each kind with the expected one.

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

"""Reads the members of a tar.gz archive into memory, without unpacking it to disk."""

from __future__ import annotations

import os
import re
import tarfile
import zlib
from collections.abc import Callable

from flaxrnn.errors import DataError


def read_members(path: str | os.PathLike[str], wanted: re.Pattern[str]) -> dict[str, bytes]:
    """Returns name → content of the plain files whose whole name matches `wanted`.

    Raises:
        DataError: The file is not a complete tar.gz archive.
    """
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|gz") as tar:  # a stream: one pass, nothing sought
            for member in tar:
                name = member.name.removeprefix("./")
                if member.isfile() and wanted.fullmatch(name):
                    file = tar.extractfile(member)
                    assert file is not None  # it is a plain file
                    members[name] = file.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
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

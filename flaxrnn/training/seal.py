"""The seal of a workdir: which config, vocabulary, labels and n-grams its weights belong to.

Every checkpoint records the checksums of these files. They are on disk before the first checkpoint
and do not change after it, and a checkpoint is written as a whole: whatever stops the process, the
newest intact checkpoint and the files agree. Checkpoints of earlier versions have no seal.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flaxrnn.errors import WorkdirError
from flaxrnn.runtime import files, records
from flaxrnn.training.workdir import NGRAMS, RATIOS

Seal = dict[str, str]  # file → SHA-256 of its content

# Not written again by a resumed run.
FIXED = ("config.json", f"{NGRAMS}/{files.CHECKSUMS}", f"{RATIOS}/{files.CHECKSUMS}")
_NAMES = (*FIXED, "vocabulary.json", "labels.json")
_MAX_MIB = 256


def of(progress: Mapping[str, Any]) -> Seal:
    """The seal in the progress of a checkpoint, which may be anybody's.

    Raises:
        ValueError: It is no seal.
    """
    seal = progress.get("seal", {})
    if not isinstance(seal, dict) or not seal.keys() <= set(_NAMES):
        raise ValueError("the checkpoint has no readable seal")
    return seal


def take(workdir: Path) -> Seal:
    """The seal of the files that a workdir holds now."""
    return {name: _sha256(workdir / name) for name in _NAMES if (workdir / name).exists()}


def check(workdir: Path, seal: Mapping[str, str], names: Iterable[str] = _NAMES) -> None:
    """Checks that the files of a workdir are those of a seal, which may be empty.

    Raises:
        WorkdirError: One of them was edited, exchanged, removed or added.
    """
    for name in names if seal else ():
        path = workdir / name
        if (name in seal) != path.exists() or (name in seal and _sha256(path) != seal[name]):
            raise WorkdirError(
                f"--workdir: {path} is not the one that the weights were trained with; restore it"
            )


def write_inputs(workdir: Path, contents: Mapping[str, str], seal: Mapping[str, str]) -> None:
    """Writes the vocabulary and the labels of a run, or of a resumed one, checks them.

    Args:
        workdir: The run's.
        contents: Their content by name, JSON, as the texts of the run give it.
        seal: Of the checkpoint that the run resumes from; empty if it has none.

    Raises:
        WorkdirError: The run began with other words or labels.
    """
    for name, content in contents.items():
        path, expected = workdir / name, seal.get(name)
        if expected is None:
            files.write_atomically(path, content)
        elif path.exists() and _sha256(path) == expected:
            if json.loads(path.read_bytes()) != json.loads(content):
                raise WorkdirError(
                    f"--workdir: {path} is not what the texts give: they have changed since; name"
                    " another workdir"
                )
        elif hashlib.sha256(content.encode()).hexdigest() == expected:
            print(f"warning: {path} was changed; restored", file=sys.stderr)
            files.write_atomically(path, content)
        else:
            check(workdir, seal, [name])


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(records.read_bytes(path, _MAX_MIB)).hexdigest()
    except OSError as error:
        raise WorkdirError(f"--workdir: {path} cannot be read ({error.strerror})") from None

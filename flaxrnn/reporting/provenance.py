"""Where a result comes from: devices, package versions, commit and command line."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from flaxrnn.runtime import terminal

PACKAGES = ("flaxrnn", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")


def collect() -> dict[str, Any]:
    """Devices, versions, commit and command of this process, as result.json has them."""
    return {
        "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()],
        "versions": {
            "python": sys.version.partition(" ")[0],
            **{package: metadata.version(package) for package in PACKAGES},
        },
        "commit": commit(),
        "command": command(),
    }


def command() -> str:
    """The command line of this process for a shell, the program without its folder."""
    return terminal.quoted([Path(sys.argv[0]).name, *sys.argv[1:]])


def resume_command(workdir: Path) -> str:
    """The command that resumes this process's run, whether or not its own named the workdir."""
    again = command() if command().startswith("flaxrnn ") else f"python {command()}"
    return again if "--workdir" in again else f"{again} --workdir {terminal.quoted([str(workdir)])}"


def commit() -> str | None:
    """The commit of the checkout that holds this package, with "-dirty" if files have changed.

    None if the package is installed elsewhere, perhaps inside another repository.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        git = subprocess.run(describe, cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return git.stdout.strip() or None

"""Several seeds of a config: runs of their own, one after the other, and a table of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flaxrnn import compare, loop
from flaxrnn import config as config_lib
from flaxrnn.errors import ConfigError
from flaxrnn.runtime import distributed, signals


def train(
    config: ConfigDict, seeds: int, workdir: str | Path | None = None
) -> list[dict[str, Any]]:
    """Trains a config with several seeds, from its own on, and prints mean and spread.

    Seed S is a run in the folder seed-S of the workdir, as it would be alone. The same call goes on
    with one that was stopped, and only evaluates again those that were complete.

    Args:
        config: As docs/config.md describes.
        seeds: How many.
        workdir: Where their folders are. None: a fresh folder under runs/.

    Returns:
        What `result.json` of each run holds.

    Raises:
        ConfigError: `seeds` is below 1.
        FlaxrnnError, signals.Stopped: See `loop.train_and_evaluate`; no later seed is begun.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds: {seeds} must be a whole number of at least 1")
    checked = config_lib.parse(config)
    root = Path(workdir or loop.fresh_workdir(checked)).expanduser()
    results, folders = [], []
    with signals.Listener() as listener:
        for seed in range(checked.seed, checked.seed + seeds):
            one = dataclasses.replace(checked, seed=seed)
            folders.append(f"seed-{seed}")
            # A signal that comes too late to stop a run stops the next one.
            results.append(loop.train(one, root, folders[-1], listener))
    if distributed.is_primary():
        runs = [compare.read(root / folder) for folder in folders]
        print()
        together = [runs] if len(runs) > 1 else []
        compare.show([[run] for run in runs] + together)
    return results

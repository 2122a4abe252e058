"""Checkpoints: {state, the weights to keep, progress} on disk, written by Orbax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from flaxrnn.errors import WorkdirError
from flaxrnn.steps import Params, TrainState


class Checkpoints:
    """The checkpoints of a run; the newest is kept.

    A checkpoint holds the training state, the parameters the run would end with now ("weights"),
    and its progress as JSON: history of epochs, seconds spent.
    """

    def __init__(self, folder: Path):
        """Opens or makes `folder`."""
        self._folder = folder
        self._manager = ocp.CheckpointManager(
            folder.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=1)
        )

    def save(
        self, state: TrainState, weights: Params, progress: dict[str, Any], wait: bool = False
    ) -> None:
        """Writes a checkpoint in the background, or before it returns with `wait`."""
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                weights=ocp.args.StandardSave(weights),
                progress=ocp.args.JsonSave(progress),
            ),
        )
        if wait:
            self._manager.wait_until_finished()

    def restore(self, **like: Any) -> dict[str, Any] | None:
        """The newest checkpoint, or None where there is none.

        Args:
            **like: The items to read, "state" or "weights", as arrays of the same shapes.

        Returns:
            Those items, and "progress".

        Raises:
            WorkdirError: The checkpoint cannot be read.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        trees = {name: ocp.args.StandardRestore(tree) for name, tree in like.items()}
        args = ocp.args.Composite(progress=ocp.args.JsonRestore(), **trees)
        try:
            items = self._manager.restore(step, args=args)
        except Exception as error:  # Orbax raises whatever its storage raises
            reason = str(error).partition("\n")[0]
            raise WorkdirError(f"{self._folder}/{step}: damaged checkpoint ({reason})") from error
        return {name: items[name] for name in (*like, "progress")}

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.close()

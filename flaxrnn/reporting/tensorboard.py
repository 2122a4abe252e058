"""The metrics of every epoch as TensorBoard events."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar


class EventLog:
    """An event file; whatever cannot be written raises OSError at once.

    `tensorboardX.SummaryWriter` writes in a thread instead, which ends at the first failure; ten
    events later the run would wait for it for ever.
    """

    def __init__(self, folder: Path, first_epoch: int):
        """Opens a file in `folder`; TensorBoard drops `first_epoch` and later from older files."""
        self._writer = EventsWriter(str(folder / "events"), filename_suffix=f".{os.getpid()}")
        try:
            self._write(first_epoch, session_log=SessionLog(status=SessionLog.START))
        except OSError:
            with contextlib.suppress(OSError):
                self.close()
            raise

    def epoch(self, row: Mapping[str, float]) -> None:
        """Writes a row of metrics.jsonl: `train_loss` has the tag train/loss."""
        for name, value in row.items():
            if name != "epoch":
                self._write(int(row["epoch"]), summary=scalar(name.replace("_", "/", 1), value))

    def close(self) -> None:
        """Closes the file, also where it cannot be flushed."""
        try:
            self._writer.close()
        except OSError:
            self._writer._py_recordio_writer.close()
            raise

    def _write(self, epoch: int, **content: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=epoch, **content))
        self._writer.flush()

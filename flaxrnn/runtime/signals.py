"""SIGTERM and SIGINT: a run that is asked to stop saves first."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):  # not an Exception, so that no `except Exception` swallows it
    """A signal stopped the run; the message says what was saved.

    Attributes:
        exit_code: 128 + the signal's number, the shell's convention.
    """

    def __init__(self, number: int, message: str):
        """Takes the signal's number."""
        super().__init__(message)
        self.exit_code = 128 + number


class Saved(Stopped):
    """A signal stopped every process of the run after a checkpoint was written."""


class Listener:
    """Handles SIGTERM and SIGINT inside a `with` block; outside the main thread it does nothing.

    A signal raises `Stopped` at once. While `deferred` is set, the first signal is only recorded in
    `received`, for the training loop to read between dispatches, and a second one exits the process
    immediately.

    Attributes:
        received: Number of the recorded signal; 0: none.
        deferred: Whether a signal is recorded instead of raised.
    """

    def __init__(self) -> None:
        """Installs no handler yet."""
        self.received = 0
        self.deferred = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Listener:
        """Installs the handlers."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        """Restores the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        name = signal.Signals(number).name
        if not self.deferred:
            raise Stopped(number, f"{name}: stopped before there was anything to save")
        if self.received:
            os._exit(128 + number)
        self.received = number
        print(f"\n{name}: saving; a second signal exits at once", file=sys.stderr, flush=True)

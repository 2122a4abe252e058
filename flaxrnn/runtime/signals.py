"""SIGTERM and SIGINT: a run that is asked to stop saves first."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):  # not an Exception: nothing on the way up may take it for one
    """A signal stopped the run; the message says what became of it."""

    def __init__(self, number: int, message: str):
        """Of signal `number`."""
        super().__init__(message)
        self.exit_code = 128 + number


class Saved(Stopped):
    """It was saved first, and so did all processes of the run."""


class Listener:
    """Listens for signals inside a `with` block, in the main thread.

    Until `patient` is set, a signal raises `Stopped`. After that, the first one is kept in
    `received`, for whoever asks between two dispatches, and a second one ends the process at once.

    Attributes:
        received: Number of the signal that came, 0: none.
        patient: Whether signals wait to be asked for.
    """

    def __init__(self) -> None:
        """Hears nothing yet."""
        self.received = 0
        self.deferred = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Listener:
        """Starts to listen."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        """Gives the signals back to who had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        name = signal.Signals(number).name
        if not self.deferred:
            raise Stopped(number, f"{name}: stopped before there was anything to save")
        if self.received:
            os._exit(128 + number)
        self.received = number
        print(f"\n{name}: saving; a second signal ends at once", file=sys.stderr, flush=True)

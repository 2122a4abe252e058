"""SIGTERM and SIGINT: none is lost, and a run that is asked to stop saves first.

A handler of Python runs wherever the interpreter happens to be, also in callbacks of libraries that
swallow whatever it raises. So in a command a handler only ever does one of two things: it records
the signal or, where there is nothing to save, it ends the process itself. A signal that was ignored
when the process began stays ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from flaxrnn.errors import FlaxrnnError

NOTHING = "stopped before there was anything to save"
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):  # not an Exception, so that no `except Exception` swallows it
    """A signal stopped the run; the message says what was saved.

    Attributes:
        exit_code: 128 + the signal's number, the shell's convention.
    """

    def __init__(self, number: int, what: str):
        """Takes the signal's number and what became of the run, a message without its name."""
        super().__init__(f"{signal.Signals(number).name}: {what}")
        self.exit_code = 128 + number


class Saved(Stopped):
    """A signal stopped every process of the run after a checkpoint was written."""


def end_process_when_asked() -> None:
    """Has SIGTERM and SIGINT end this process at once, with one line and the shell's exit code.

    For a command, before it imports anything that takes long; a `Listener` takes over where there
    is something to save.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end_process)


def _end_process(number: int, frame: FrameType | None) -> None:
    del frame
    _end(number, "stopped")


def _end(number: int, what: str) -> NoReturn:
    # The signal may have interrupted a write to the same stream, which then cannot be flushed.
    with contextlib.suppress(OSError, RuntimeError, ValueError, FlaxrnnError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, f"\n{signal.Signals(number).name}: {what}\n".encode(errors="replace"))
    os._exit(128 + number)


class Listener:
    """Handles SIGTERM and SIGINT inside a `with` block; outside the main thread it does nothing.

    While `deferred` is set, the first signal is only recorded in `received`, for the training loop
    to read between dispatches, and a second one exits the process immediately. Else a signal ends a
    command at once; in a library, whose process is not ours to end, it raises `Stopped`. Should
    that be swallowed, `check` and the end of the block raise it again.

    Attributes:
        received: Number of the first signal; 0: none.
        deferred: Whether a signal is only recorded.
        at_once: What is said when a signal that is not deferred stops the run.
        undo: Removes what a run leaves that ends so.
    """

    def __init__(self) -> None:
        """Installs no handler yet."""
        self.received = 0
        self.deferred = False
        self.at_once = NOTHING
        self.undo: Callable[[], None] = lambda: None
        self._previous: dict[int, Any] = {}
        self._raised = False

    def __enter__(self) -> Listener:
        """Installs the handlers, but not of signals that are ignored."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Restores the previous handlers.

        Raises:
            Stopped: A signal came, and either nothing stopped for it, or its exception became
                another one on its way here.
        """
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if isinstance(error, (FlaxrnnError, Stopped)):
            return
        if self.received and (error is None or self._raised):
            raise Stopped(self.received, "stopped") from None

    def check(self) -> None:
        """A safe point outside of the training loop.

        Raises:
            Stopped: A signal was received.
        """
        if self.received:
            raise Stopped(self.received, self.at_once)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if not self.deferred:
            self.received = self.received or number
            if self._previous[number] is _end_process:
                self.undo()
                _end(number, self.at_once)
            self._raised = True
            raise Stopped(number, self.at_once)
        if self.received:
            os._exit(128 + number)
        self.received = number
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # as in `_end`
            line = f"\n{signal.Signals(number).name}: saving; a second signal exits at once"
            print(line, file=sys.stderr, flush=True)

"""Watches the other processes of a run, over connections on which each says that it is alive."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping

BEAT_SECONDS = 5.0
SILENT_SECONDS = 40.0  # then a process counts as lost: it was stopped, or its machine was
_ALIVE, _DONE = b"+", b"."


class Watch:
    """Notices when another process ends, or falls silent, before all have finished.

    Process 0 is connected to all others, and they only to process 0.
    """

    def __init__(self, connections: Mapping[int, socket.socket], lost: Callable[[str], None]):
        """Begins to watch.

        Args:
            connections: By the index of the process that each leads to.
            lost: Called by a thread with how the other process was lost.
        """
        self._connections, self._lost = connections, lost
        self._done = {index: threading.Event() for index in connections}
        self._over = threading.Event()
        for index in connections:
            threading.Thread(target=self._listen, args=(index,), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def finish(self) -> None:
        """Waits until all processes have finished."""
        if 0 in self._connections:  # process 0 answers when it has heard this of all others
            self._say(_DONE)
        for done in self._done.values():
            done.wait()
        self._over.set()
        if 0 not in self._connections:
            self._say(_DONE)

    def _say(self, message: bytes) -> None:
        for connection in self._connections.values():
            with contextlib.suppress(OSError):  # of which the listener says what it is
                connection.sendall(message)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self._say(_ALIVE)

    def _listen(self, index: int) -> None:
        """Listens to one other process until it has finished and closes the connection."""
        how = "was lost"
        with self._connections[index] as connection:
            try:
                connection.settimeout(SILENT_SECONDS)
                while heard := connection.recv(64):
                    if _DONE in heard:
                        self._done[index].set()
                        if index == 0:
                            return
            except TimeoutError:
                how = f"has been silent for {SILENT_SECONDS:.0f} s"
            except OSError:
                pass
        if not self._over.is_set():
            self._lost(how)

"""TCP connections between the processes of a run, which nobody else can take the place of.

A process introduces itself with a token that only the processes of the run know. Whoever connects
without it, or says nothing, is disconnected and delays nobody.
"""

from __future__ import annotations

import contextlib
import hmac
import queue
import socket
import threading
import time

TOKEN_BYTES = 32
_INDEX_BYTES = 4
_HELLO_SECONDS = 10.0

_Arrival = tuple[int, socket.socket]  # the index of a process, and its connection


def listen(host: str | None) -> socket.socket:
    """A server on the interface that a host name stands for, or on all if that is not known.

    Args:
        host: That of this machine in --coordinator; None: it was not given.
    """
    family = socket.AF_INET6 if host and ":" in host else socket.AF_INET
    for address in (_interface(host), ""):
        with contextlib.suppress(OSError):
            return socket.create_server((address, 0), family=family)
    raise ConnectionError("no port to listen on")


def _interface(host: str | None) -> str:
    if host is None or ":" in host:
        return host or ""
    try:
        address = socket.gethostbyname(host)
    except OSError:
        return ""
    # Many machines resolve their own name to a loopback address that no other one can reach.
    is_own_name = address.startswith("127.") and host not in ("localhost", address)
    return "" if is_own_name else address


def connect(host: str, port: int, token: bytes, index: int, seconds: float) -> socket.socket:
    """Connects to the server of process 0 and introduces this process by its index.

    Raises:
        OSError: It cannot be reached in time.
    """
    connection = socket.create_connection((host, port), timeout=seconds)
    connection.sendall(token + index.to_bytes(_INDEX_BYTES, "big"))
    connection.settimeout(None)
    return connection


def accept(
    server: socket.socket, token: bytes, expected: set[int], seconds: float
) -> list[socket.socket]:
    """Waits until every process has introduced itself once.

    Args:
        server: Closed at the end.
        token: What the processes of the run know.
        expected: The indices of the other processes.
        seconds: How long to wait.

    Raises:
        TimeoutError: Some did not connect in time.
    """
    arrivals: queue.Queue[_Arrival] = queue.Queue()
    finished = threading.Event()
    found: dict[int, socket.socket] = {}
    end = time.monotonic() + seconds
    with server:
        greeted = (server, token, arrivals, finished)
        threading.Thread(target=_greet, args=greeted, daemon=True).start()
        while found.keys() != expected:
            try:
                index, connection = arrivals.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                missing = ", ".join(map(str, sorted(expected - found.keys())))
                raise TimeoutError(
                    f"process {missing} did not connect in {seconds:.0f} s"
                ) from None
            if index in expected - found.keys():
                found[index] = connection
            else:
                connection.close()
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)  # wakes up the thread
    finished.set()
    _disconnect(arrivals)
    return list(found.values())


def _disconnect(arrivals: queue.Queue[_Arrival]) -> None:
    """Disconnects those that came when all places were taken."""
    with contextlib.suppress(queue.Empty):
        while True:
            arrivals.get_nowait()[1].close()


def _greet(
    server: socket.socket, token: bytes, arrivals: queue.Queue[_Arrival], finished: threading.Event
) -> None:
    """Accepts connections until the server is closed; each has a thread, so none waits."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            heard = (connection, token, arrivals, finished)
            threading.Thread(target=_hear, args=heard, daemon=True).start()


def _hear(
    connection: socket.socket,
    token: bytes,
    arrivals: queue.Queue[_Arrival],
    finished: threading.Event,
) -> None:
    """Puts a process that introduces itself into the queue, and disconnects anybody else."""
    hello = b""
    with contextlib.suppress(OSError):
        connection.settimeout(_HELLO_SECONDS)
        while part := connection.recv(len(token) + _INDEX_BYTES - len(hello)):
            hello += part
        connection.settimeout(None)
    if len(hello) == len(token) + _INDEX_BYTES and hmac.compare_digest(hello[: len(token)], token):
        arrivals.put((int.from_bytes(hello[len(token) :], "big"), connection))
        if finished.is_set():  # nobody else reads the queue any more
            _disconnect(arrivals)
    else:
        connection.close()

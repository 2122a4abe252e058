"""TCP connections between the processes of a run, which nobody else can take the place of.

Process 0 listens. Each other process connects and introduces itself: with a token, its index, how
many processes it expects, and what it is to run. Process 0 lets each in once, and tells who cannot
join why. Whoever knows no token, or says nothing, is disconnected and delays nobody.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import Any

# Before the processes have anything in common; it keeps out who connects by mistake.
PUBLIC_TOKEN = hashlib.sha256(b"flaxrnn").digest()
TOKEN_BYTES = len(PUBLIC_TOKEN)
_INTRODUCTION = struct.Struct(">32sII32s")
_HELLO_SECONDS = 10.0
_RETRY_SECONDS = 0.5
_LONGEST_LINE = 500


@dataclass(frozen=True)
class Introduction:
    """What a process says of itself."""

    token: bytes
    index: int
    count: int  # of all processes
    run: str  # what it is to run, which must be the same for all


class RefusedError(ConnectionError):
    """Process 0 does not let this process join; the message names the flag and says why."""


def listen(host: str | None, port: int = 0) -> socket.socket:
    """A server on the interface that a host name stands for, or on all if that is not known.

    Args:
        host: That of this machine in --coordinator; None: it was not given.
        port: 0: any free one.

    Raises:
        OSError: The port is taken, or may not be used.
    """
    family = socket.AF_INET6 if host and ":" in host else socket.AF_INET
    with contextlib.suppress(OSError):
        return socket.create_server((interface(host), port), family=family)
    return socket.create_server(("", port), family=family)


def interface(host: str | None) -> str:
    """The address of this machine that a host name stands for; "": it is not known."""
    if host is None or ":" in host:
        return host or ""
    try:
        address = socket.gethostbyname(host)
    except OSError:
        return ""
    # Many machines resolve their own name to a loopback address that no other one can reach.
    is_own_name = address.startswith("127.") and host not in ("localhost", address)
    return "" if is_own_name else address


def connect(host: str, port: int, hello: Introduction, seconds: float) -> socket.socket:
    """Connects to process 0 and introduces this process, again and again until it answers.

    Raises:
        RefusedError: It does not let this process join.
        TimeoutError: It does not answer; the message says who.
    """
    end, reason = time.monotonic() + seconds, "no answer"
    while (left := end - time.monotonic()) > 0:
        try:
            connection = socket.create_connection((host, port), timeout=left)
            try:
                run = hashlib.sha256(hello.run.encode()).digest()
                connection.sendall(_INTRODUCTION.pack(hello.token, hello.index, hello.count, run))
                answer = receive(connection, max(0.1, end - time.monotonic()))
            except OSError:
                connection.close()
                raise
        except TimeoutError:
            continue
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(min(_RETRY_SECONDS, left))
            continue
        if "refused" in answer:
            connection.close()
            raise RefusedError(str(answer["refused"])[:_LONGEST_LINE])
        return connection
    raise TimeoutError(f"process 0 at {host}:{port} ({reason})")


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Sends what `receive` reads on the other side.

    Raises:
        OSError: It has gone.
    """
    connection.sendall(json.dumps(message).encode() + b"\n")


def receive(connection: socket.socket, seconds: float) -> dict[str, Any]:
    """Reads what the other side sends.

    Raises:
        TimeoutError: It sends nothing, since it waits for others.
        ConnectionError: It has gone, or speaks something else.
    """
    connection.settimeout(seconds)
    line = b""
    try:
        while not line.endswith(b"\n"):
            if not (byte := connection.recv(1)) or len(line) > 2 * _LONGEST_LINE:
                raise ConnectionError("another program listens there, or it has ended")
            line += byte
    except TimeoutError:
        raise TimeoutError("the other processes") from None
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(message := json.loads(line), dict):
            return message
    raise ConnectionError("another program listens there")


class Reception:
    """Lets every other process join process 0 once, and tells others why they cannot."""

    def __init__(self, server: socket.socket, hello: Introduction):
        """Begins to listen.

        Args:
            server: Of `listen`.
            hello: What process 0 would say of itself; the others must say the same.
        """
        self._server, self._hello = server, hello
        self._joined: dict[int, socket.socket] = {}
        self._complete = False
        self._changed = threading.Condition()
        threading.Thread(target=self._greet, daemon=True).start()

    def wait(self, seconds: float) -> dict[int, socket.socket]:
        """The connections to all others, by index, as soon as they have joined.

        Raises:
            TimeoutError: Some did not in time; the message names them.
        """
        others = set(range(1, self._hello.count))
        with self._changed:
            if not self._changed.wait_for(lambda: self._joined.keys() == others, seconds):
                missing = ", ".join(map(str, sorted(others - self._joined.keys())))
                raise TimeoutError(f"process {missing}")
            self._complete = True
            return dict(self._joined)

    def close(self) -> None:
        """Stops listening."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes up the thread
        self._server.close()

    def _greet(self) -> None:
        """Accepts connections until the server is closed; each has a thread, so none waits."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._hear, args=(connection,), daemon=True).start()

    def _hear(self, connection: socket.socket) -> None:
        """Lets in a process that introduces itself, and disconnects anybody else."""
        said = b""
        with contextlib.suppress(OSError):
            connection.settimeout(_HELLO_SECONDS)
            while part := connection.recv(_INTRODUCTION.size - len(said)):
                said += part
            if len(said) == _INTRODUCTION.size:
                token, index, count, run = _INTRODUCTION.unpack(said)
                if hmac.compare_digest(token, self._hello.token):
                    with self._changed:
                        if self._answer(connection, index, count, run):
                            self._changed.notify_all()
                            return
        connection.close()

    def _answer(self, connection: socket.socket, index: int, count: int, run: bytes) -> bool:
        """Tells a process whether it has joined; returns the same."""
        reason = self._refusal(index, count, run)
        send(connection, {"refused": reason} if reason else {})
        if reason is None:
            self._joined[index] = connection
        return reason is None

    def _refusal(self, index: int, count: int, run: bytes) -> str | None:
        if count != self._hello.count:
            return f"--num_processes: {count} must be {self._hello.count}, as it is at process 0"
        if index not in range(1, count):
            return f"--process_id: {index} must be from 1 to {count - 1}: process 0 is another one"
        if index in self._joined and (self._complete or _is_open(self._joined[index])):
            return f"--process_id: {index} is taken: another process has joined the run by it"
        if run != hashlib.sha256(self._hello.run.encode()).digest():
            return f"--config: process 0 and process {index} have different configs or --seeds"
        return None


def _is_open(connection: socket.socket) -> bool:
    """Whether the other side has not closed a connection on which it sends nothing."""
    ended, _, _ = select.select([connection], [], [], 0)
    return not ended

"""The processes of a run: connecting them, sharing process 0's values, noticing a lost one."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from flaxrnn.errors import ConfigError, DivergedError, ProcessError
from flaxrnn.runtime import peers
from flaxrnn.runtime.signals import Saved

_HEARTBEAT_SECONDS = 30  # JAX gives up on a process that is silent for so long
_CONNECT_SECONDS = 120
_PATIENCE_SECONDS = 10  # to wait for the others without a word
_CLOSING = b"."
_coordinator_host: str | None = None  # of --coordinator


def initialize(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Makes this process one of several that train together; call it before JAX is used.

    If all arguments are None, JAX detects a cluster (TPU pod, Slurm, Open MPI, Kubernetes); where
    there is none, this process trains alone.

    Args:
        coordinator: HOST:PORT on which process 0 listens.
        num_processes: Number of processes.
        process_id: Index of this process, from 0.

    Raises:
        ConfigError: An argument is invalid, or only some are given.
        ProcessError: The processes do not find each other within two minutes.
    """
    _check_flags(coordinator, num_processes, process_id)
    global _coordinator_host
    _coordinator_host = coordinator and coordinator.rpartition(":")[0]
    waiting = f"process {process_id} of {num_processes}: waiting for the others at {coordinator} …"
    timer = threading.Timer(
        _PATIENCE_SECONDS, print, [waiting], {"file": sys.stderr, "flush": True}
    )
    timer.daemon = True
    if coordinator is not None:  # else JAX first looks whether there are others
        timer.start()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=_CONNECT_SECONDS,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
        # When JAX's runtime aborts this process because another one was lost, it says so. absl has
        # faulthandler dump the stacks of all threads after that, which would bury the message.
        faulthandler.disable()
    except ValueError:
        if coordinator is not None:
            raise
        return  # no cluster: this is the only process
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ProcessError(
            f"process {process_id} of {num_processes}: could not connect to the others at"
            f" {coordinator} within {_CONNECT_SECONDS} s ({reason})"
        ) from None
    finally:
        timer.cancel()


def _check_flags(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    flags = {
        "--coordinator": coordinator,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    missing = [name for name, value in flags.items() if value is None]
    if len(missing) == len(flags):
        return
    if missing:
        raise ConfigError(
            f"{missing[0]}: missing; give --coordinator, --num_processes and --process_id, or none"
            " of them where JAX detects the cluster"
        )
    if not re.fullmatch(r"([^\s:]+|\[[0-9a-fA-F:]+\]):\d{1,5}", str(coordinator)):
        raise ConfigError(f"--coordinator: {coordinator!r} must be HOST:PORT of process 0")
    if not num_processes or num_processes < 1:
        raise ConfigError(f"--num_processes: {num_processes} must be at least 1")
    if process_id not in range(num_processes):
        raise ConfigError(
            f"--process_id: {process_id} must be at least 0 and less than --num_processes"
        )


def is_primary() -> bool:
    """Whether this is process 0, the only one that writes and prints."""
    return jax.process_index() == 0


def broadcast(value: Any) -> Any:
    """Process 0's value in every process; it must be JSON-serializable."""
    if jax.process_count() == 1:
        return value
    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int64(len(content))))
    content = content if is_primary() else np.zeros(size, np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(content)).tobytes())


def largest(number: int) -> int:
    """The largest of the numbers of all processes."""
    if jax.process_count() == 1:
        return number
    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def broadcast_arrays(tree: Any) -> Any:
    """Process 0's arrays in every process; the others pass arrays of the same shapes and dtypes."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


@contextlib.contextmanager
def fail_fast() -> Iterator[None]:
    """Exits this process as soon as another one is lost, instead of waiting for it forever.

    Process 0 holds a TCP connection to every other process. One that closes without a farewell
    means that its peer died. If a whole machine falls silent, JAX's heartbeat times out instead; it
    alone would not do: it is as slow as its timeout, and it aborts with a page of C++ stack.

    Raises:
        ProcessError: A collective operation failed.
    """
    if jax.process_count() == 1:
        yield
        return
    connections = _connect_processes()
    for connection in connections:
        threading.Thread(target=_exit_when_lost, args=(connection,), daemon=True).start()
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        raise ProcessError(f"{_lost()} ({str(error).partition(chr(10))[0]})") from None
    except (Saved, DivergedError):  # which every process raises at the same step
        _close_peers(connections)
        raise
    _close_peers(connections)


def _connect_processes() -> list[socket.socket]:
    """Opens the connections of process 0 to the others, or of another process to process 0.

    Raises:
        ProcessError: They do not find each other.
    """
    host = _coordinator_host and _coordinator_host.strip("[]")
    server = peers.listen(host) if is_primary() else None
    # JAX's runtime, which connects the processes already, tells them where and with which token.
    address = server and [host or socket.gethostname(), server.getsockname()[1]]
    host, port, token = broadcast(address and [*address, secrets.token_hex(peers.TOKEN_BYTES)])
    secret = bytes.fromhex(token)
    try:
        if server is None:
            return [peers.connect(host, port, secret, jax.process_index(), _CONNECT_SECONDS)]
        others = set(range(1, jax.process_count()))
        return peers.accept(server, secret, others, _CONNECT_SECONDS)
    except OSError as error:
        raise ProcessError(
            f"process {jax.process_index()} of {jax.process_count()}: could not connect to the"
            f" others by {host}:{port} ({error})"
        ) from None


def _exit_when_lost(connection: socket.socket) -> None:
    """Waits until the peer closes the connection; if it did not say so, it was lost."""
    with contextlib.suppress(OSError):
        if connection.recv(1) == _CLOSING:
            return
    print(f"error: {_lost()}", file=sys.stderr, flush=True)
    os._exit(ProcessError.exit_code)


def _close_peers(connections: list[socket.socket]) -> None:
    """Tells the peers that this process is about to end as planned."""
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.sendall(_CLOSING)


def _lost() -> str:
    return (
        f"process {jax.process_index()} of {jax.process_count()}: another process of the run was"
        " lost; restart all of them with the same command to resume from the last checkpoint"
    )

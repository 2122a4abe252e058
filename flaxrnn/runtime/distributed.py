"""The processes of a run: how they find each other, what the first one tells, when one is lost."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from flaxrnn.errors import ConfigError, DivergedError, ProcessError
from flaxrnn.runtime.signals import Saved

_HEARTBEAT_SECONDS = 30  # a process that is silent for so long is lost
_JOIN_SECONDS = 120
_GOODBYE = b"."
_coordinator_host: str | None = None  # where it was named


def initialize(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Makes this process one of several that train together, before JAX is used.

    Args:
        coordinator: HOST:PORT of process 0, which opens it.
        num_processes: How many there are.
        process_id: Which one this is, from 0.

    All None: JAX detects a cluster (TPU pod, Slurm, Open MPI, Kubernetes), or this is the only one.

    Raises:
        ConfigError: Some are None, or one is impossible.
        ProcessError: The others are not there in time.
    """
    flags = {
        "--coordinator": coordinator,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    missing = [name for name, value in flags.items() if value is None]
    if missing and len(missing) < len(flags):
        raise ConfigError(
            f"{missing[0]}: missing; give --coordinator, --num_processes and --process_id, or none"
            " of them where JAX detects the cluster"
        )
    if coordinator and not re.fullmatch(r"([^\s:]+|\[[0-9a-fA-F:]+\]):\d{1,5}", coordinator):
        raise ConfigError(f"--coordinator: {coordinator!r} must be HOST:PORT of process 0")
    if num_processes is not None and num_processes < 1:
        raise ConfigError(f"--num_processes: {num_processes} must be at least 1")
    if process_id not in range(num_processes or 0) and not missing:
        raise ConfigError(
            f"--process_id: {process_id} must be from 0 up, and below --num_processes"
        )
    global _coordinator_host
    _coordinator_host = coordinator and coordinator.rpartition(":")[0]
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=_JOIN_SECONDS,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
        # Where the runtime ends this process because another was lost, it says so; the stacks of
        # all threads, which absl has set up, would bury it.
        faulthandler.disable()
    except ValueError:
        if coordinator is not None:
            raise
        return  # no cluster: the only process
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ProcessError(
            f"process {process_id} of {num_processes}: the others were not there within"
            f" {_JOIN_SECONDS} s at {coordinator} ({reason})"
        ) from None


def is_primary() -> bool:
    """Whether this is the process that writes and speaks."""
    return jax.process_index() == 0


def broadcast(value: Any) -> Any:
    """What the first process has, as JSON."""
    if jax.process_count() == 1:
        return value
    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int64(len(content))))
    content = content if is_primary() else np.zeros(size, np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(content)).tobytes())


def broadcast_arrays(tree: Any) -> Any:
    """The arrays that the first process has; the others give some of the same shapes."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


@contextlib.contextmanager
def fail_fast() -> Iterator[None]:
    """Ends this process at once when another one of the run is lost, which it would wait for.

    Each process keeps a line open to the first one; a line that breaks before the block has ended
    tells of a loss. Should a whole machine fall silent, JAX' own heartbeats notice.

    Raises:
        ProcessError: An exchange with another process failed.
    """
    if jax.process_count() == 1:
        yield
        return
    lines = _lines()
    for line in lines:
        threading.Thread(target=_listen, args=(line,), daemon=True).start()
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        raise ProcessError(f"{_lost()} ({str(error).partition(chr(10))[0]})") from None
    except (Saved, DivergedError):  # so have all others
        _close_peers(lines)
        raise
    _close_peers(lines)


def _lines() -> list[socket.socket]:
    """Connects the first process with each other one."""
    server = socket.create_server(("", 0)) if is_primary() else None
    port = server and server.getsockname()[1]
    host, port = broadcast([_coordinator_host or socket.gethostname(), port])
    if server is None:
        return [socket.create_connection((host.strip("[]"), port))]
    with server:
        return [server.accept()[0] for _ in range(jax.process_count() - 1)]


def _listen(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        if line.recv(1) == _GOODBYE:
            return
    print(f"error: {_lost()}", file=sys.stderr, flush=True)
    os._exit(ProcessError.exit_code)


def _close_peers(lines: list[socket.socket]) -> None:
    for line in lines:
        with contextlib.suppress(OSError):
            line.sendall(_GOODBYE)


def _lost() -> str:
    return (
        f"process {jax.process_index()} of {jax.process_count()}: another process of the run was"
        " lost; start all of them again with the same command, the run goes on from its last"
        " checkpoint"
    )

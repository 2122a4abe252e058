"""The processes of a run: connecting them, sharing process 0's values, noticing a lost one."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import functools
import json
import os
import re
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from flaxrnn.errors import ConfigError, DivergedError, ProcessError
from flaxrnn.runtime import devices, peers
from flaxrnn.runtime.signals import Saved
from flaxrnn.runtime.watch import Watch

T = TypeVar("T")

_JOIN_SECONDS = 50  # for the processes to find each other
_PATIENCE_SECONDS = 10  # of which without a word
_HEARTBEAT_SECONDS = 100  # JAX gives up on a process that is silent for so long; the watch is first
_watch: Watch | None = None
_is_watching = False  # whether `fail_fast` is in use
_is_ours = False  # whether `initialize` connected the processes, and not the user of the library
_last_words = threading.Lock()  # taken by who reports that another process was lost


def initialize(
    coordinator: str | None, num_processes: int | None, process_id: int | None, run: str = ""
) -> None:
    """Makes this process one of several that train together; call it before JAX is used.

    If all flags are None, JAX detects a cluster (TPU pod, Slurm, Open MPI, Kubernetes); where there
    is none, this process trains alone. `fail_fast` comes next.

    Args:
        coordinator: HOST:PORT on which process 0 listens.
        num_processes: Number of processes.
        process_id: Index of this process, from 0.
        run: What is to be run; the same for all processes.

    Raises:
        ConfigError: A flag is invalid, or only some are given; process 0 refuses this process.
        ProcessError: The processes do not find each other in time.
    """
    _check_flags(coordinator, num_processes, process_id)
    if coordinator is None or num_processes is None or process_id is None:
        with contextlib.suppress(ValueError):  # no cluster: this is the only process
            _initialize_jax()
    elif num_processes > 1:
        host, _, port = coordinator.rpartition(":")
        hello = peers.Introduction(peers.PUBLIC_TOKEN, process_id, num_processes, run)
        address, listen_at = _join(host, int(port), hello)
        _initialize_jax(address, num_processes, process_id, listen_at)


def _initialize_jax(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    listen_at: str | None = None,
) -> None:
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=_JOIN_SECONDS,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_JOIN_SECONDS,
            coordinator_bind_address=listen_at,
        )
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ProcessError(f"the processes could not be connected ({reason})") from None
    global _is_ours
    _is_ours = True
    _delay_abort()


def _delay_abort() -> None:
    """Gives the watch the time to end this process before JAX's runtime does.

    That aborts when it notices that process 0 was lost, which may be milliseconds earlier. absl
    would have faulthandler dump the stacks of all threads, too.
    """
    faulthandler.disable()
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    # The handler is `sleep`, whose argument is the signal's number, 6; then the process aborts.
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


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


def _join(host: str, port: int, hello: peers.Introduction) -> tuple[str, str | None]:
    """Waits for the other processes, and begins to watch them.

    Returns:
        HOST:PORT of JAX's own coordinator, and for process 0 where that is to listen.
    """
    global _watch
    me, name = f"process {hello.index} of {hello.count}", host.strip("[]")
    listen_at = None
    if hello.index:
        connect = functools.partial(peers.connect, name, port, hello)
        connections = {0: _patiently(connect, me)}
        message = _patiently(functools.partial(peers.receive, connections[0]), me)
        free_port = message.get("port")
    else:
        connections = _patiently(_receive(name, port, hello).wait, me)
        with peers.listen(name) as free:
            address, free_port = free.getsockname()[:2]
        if address not in ("0.0.0.0", "::"):
            listen_at = f"[{address}]:{free_port}" if ":" in address else f"{address}:{free_port}"
        for connection in connections.values():
            with contextlib.suppress(OSError):  # it was lost, as the watch will say
                peers.send(connection, {"port": free_port})
    _watch = Watch(connections, functools.partial(_exit, me))
    return f"{host}:{free_port}", listen_at


def _receive(host: str, port: int, hello: peers.Introduction) -> peers.Reception:
    try:
        return peers.Reception(peers.listen(host, port), hello)
    except OSError as error:
        raise ConfigError(
            f"--coordinator: process 0 cannot listen on port {port} ({error.strerror}); choose"
            " another for all processes"
        ) from None


def _patiently(wait: Callable[[float], T], me: str) -> T:
    """Waits for other processes, and says so if it takes long.

    Raises:
        ConfigError: Process 0 refuses this process.
        ProcessError: They do not come in time, or process 0 has gone.
    """
    try:
        try:
            return wait(_PATIENCE_SECONDS)
        except TimeoutError as awaited:
            print(f"{me}: waiting for {awaited} …", file=sys.stderr, flush=True)
            return wait(_JOIN_SECONDS - _PATIENCE_SECONDS)
    except peers.RefusedError as error:
        raise ConfigError(str(error)) from None
    except TimeoutError as awaited:
        raise ProcessError(f"{me}: waited {_JOIN_SECONDS} s for {awaited}") from None
    except OSError:
        raise ProcessError(f"{me}: process 0 ended before all had joined") from None


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
def fail_fast(shards: int = 0) -> Iterator[None]:
    """Exits this process as soon as another one is lost, instead of waiting for it forever.

    Process 0 holds a TCP connection to every other process. One that closes, or falls silent,
    before all have left this block means that its peer died. JAX's heartbeats alone would not do:
    they abort the process, with a page of C++ stack. A block inside another one does nothing.

    Args:
        shards: See `devices.initialize`.

    Raises:
        ProcessError: A collective operation failed.
    """
    global _watch, _is_watching
    if _is_watching or not jax.distributed.is_initialized():
        yield
        return
    devices.initialize(shards)
    if jax.process_count() == 1:
        yield
        return
    watch, _is_watching = _watch or _connect_processes(), True
    try:
        yield
        _leave(watch)
    except jax.errors.JaxRuntimeError as error:
        _last_words.acquire()  # forever, if the watch is about to exit
        raise ProcessError(
            f"{_lost(_me(), 'was lost')} ({str(error).partition(chr(10))[0]})"
        ) from None
    except (Saved, DivergedError):  # which every process raises at the same step
        _leave(watch)
        raise
    finally:
        _watch, _is_watching = None, False


def _leave(watch: Watch) -> None:
    """Ends the watch, and what `initialize` began, together with the other processes."""
    watch.finish()
    if _is_ours:  # else JAX's runtime would abort those that are left when process 0 exits
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            jax.distributed.shutdown()


def _me() -> str:
    return f"process {jax.process_index()} of {jax.process_count()}"


def _connect_processes() -> Watch:
    """Connects processes that JAX alone has connected so far.

    Raises:
        ProcessError: They do not find each other.
    """
    server = peers.listen(None) if is_primary() else None
    address = server and [socket.gethostname(), server.getsockname()[1]]
    host, port, token = broadcast(address and [*address, secrets.token_hex(peers.TOKEN_BYTES)])
    hello = peers.Introduction(bytes.fromhex(token), jax.process_index(), jax.process_count(), "")
    if server is None:
        connect = functools.partial(peers.connect, host, port, hello)
        connections = {0: _patiently(connect, _me())}
    else:
        reception = peers.Reception(server, hello)
        connections = _patiently(reception.wait, _me())
        reception.close()
    return Watch(connections, functools.partial(_exit, _me()))


def _exit(me: str, how: str) -> None:
    """Ends this process because another one was lost."""
    if _last_words.acquire(blocking=False):
        print(f"error: {_lost(me, how)}", file=sys.stderr, flush=True)
        os._exit(ProcessError.exit_code)


def _lost(me: str, how: str) -> str:
    return (
        f"{me}: another process of the run {how}; restart all of them with the same command to"
        " resume from the last checkpoint"
    )

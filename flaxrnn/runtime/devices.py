"""The devices of a process: cores or accelerators, their mesh, their compiled programs, memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flaxrnn.errors import OutOfMemoryError

MIN_ROWS_PER_DEVICE = 8  # below that, a batch is spread over fewer devices


def use_all_cores() -> None:
    """Makes every core a device of JAX' CPU backend, unless their number is set or JAX at work."""
    if jax.config.values["jax_num_cpu_devices"] <= 0:
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", os.cpu_count())


def enable_compilation_cache(folder: str | None) -> None:
    """Keeps compiled programs on disk, for the next start.

    Args:
        folder: Where; None: where JAX' own settings say, else ~/.cache/flaxrnn.
    """
    if folder is None and jax.config.values["jax_compilation_cache_dir"] is None:
        folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "flaxrnn")
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(Path(folder).expanduser()))
        compilation_cache.reset_cache()  # JAX looks at its settings once, at the first compilation
    # JAX keeps only what took a second; the small ones add up.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def compiled(program: jax.stages.Wrapped, *arguments: Any) -> jax.stages.Compiled:
    """Compiles a program for arguments like these, on as little memory as can be had."""
    lowered = program.lower(*arguments)
    _trim_heap()
    # On CPU, LLVM's level 3 takes a quarter longer than 2 and gives no faster programs.
    cpu = jax.default_backend() == "cpu"
    executable = lowered.compile({"xla_backend_optimization_level": "2"} if cpu else None)
    _trim_heap()
    return executable


def _trim_heap() -> None:
    """Gives freed memory back to the system: XLA's compiler leaves hundreds of MB behind."""
    with contextlib.suppress(OSError, AttributeError):  # other systems than Linux with glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def make_mesh(batch_size: int) -> Mesh:
    """The devices to spread a batch over: all, but at least 8 rows for each.

    Of several processes, all devices of all of them: each has its share.
    """
    devices = jax.devices()
    if jax.process_count() == 1:
        devices = devices[: max(1, batch_size // MIN_ROWS_PER_DEVICE)]
    return Mesh(np.array(devices), ("data",))


def shard(tree: Any, mesh: Mesh, specs: Any) -> Any:
    """Arrays that every process has, on the devices of a mesh, each process' own part on its own.

    Args:
        tree: Of arrays.
        mesh: Devices, perhaps of several processes.
        specs: How the arrays lie on them, a tree or one for all.
    """

    def put(spec: PartitionSpec, arrays: Any) -> Any:
        sharding = NamedSharding(mesh, spec)
        if not mesh.is_multi_process:
            return jax.device_put(arrays, sharding)

        def part(x: Any) -> jax.Array:
            x = np.asarray(x)
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

        return jax.tree.map(part, arrays)

    return jax.tree.map(put, specs, tree, is_leaf=lambda x: isinstance(x, PartitionSpec))


@contextlib.contextmanager
def raise_on_oom(message: str) -> Iterator[None]:
    """Says of a lack of memory what it came to and what to lower.

    Raises:
        OutOfMemoryError: With `message`, in place of JAX' or Python's error.
    """
    try:
        yield
    except MemoryError:
        raise OutOfMemoryError(message) from None
    except jax.errors.JaxRuntimeError as error:
        if not re.search("RESOURCE_EXHAUSTED|Out of memory", str(error)):
            raise
        raise OutOfMemoryError(message) from None


def peak_memory() -> dict[str, float | None]:
    """Peaks of this process in MiB: resident memory; the fullest accelerator's, None on CPU."""
    unit = 1 if sys.platform == "darwin" else 1024
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [found["peak_bytes_in_use"] for found in stats if found]
    return {
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20,
        "peak_device_mib": max(peaks) / 2**20 if peaks else None,
    }

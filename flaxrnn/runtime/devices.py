"""CPU cores or accelerators: their mesh, compilation for them, and their memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flaxrnn.errors import ConfigError, OutOfMemoryError
from flaxrnn.runtime import compile_cache, cores, files

# A smaller batch is sharded over fewer devices. On accelerators the all-reduce then takes longer
# than the rows that a device is spared: a step of the recurrence takes as long with few rows.
MIN_ROWS_PER_DEVICE = 8
MIN_ROWS_PER_ACCELERATOR = 256

# What XLA may record in a CUDA graph: its own list, and loops. So a program is one
# graph, instead of one for each iteration of each of its loops.
_IN_GRAPH = (
    "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONVOLUTION,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"
)

# Options of XLA by platform, each unless XLA_FLAGS has it.
_COMPILER_OPTIONS = {
    # LLVM's level 2: level 3 takes a quarter longer, and the programs are no faster.
    "cpu": {"xla_backend_optimization_level": "2"},
    "gpu": {"xla_gpu_enable_command_buffer": _IN_GRAPH},
}

_THREADS = "PJRT_NPROC"  # the variable that tells XLA how many threads its CPU backend has

# Settings of JAX that must be off, and why.
_UNUSABLE = {
    "jax_enable_x64": "flaxrnn computes in float32",
    "jax_disable_jit": "flaxrnn compiles its steps",
}


def initialize(shards: int = 0) -> None:
    """Starts JAX, with each core that the process may use as a device of its CPU backend.

    Has no effect on the devices once JAX is initialized, or where `jax_num_cpu_devices` is set.

    Args:
        shards: If it is not 0, there are at most so many devices, and as many threads for the
            operations of all: XLA cuts an operation into a piece for each thread, and the bits
            depend on where. Has no effect on the threads once JAX is initialized.

    Raises:
        ConfigError: JAX has no device of the platform that it is set to, or computes in float64 or
            without compiling.
    """
    for name, reason in _UNUSABLE.items():
        if jax.config.values[name]:
            raise ConfigError(f"{name.upper()}: must be off: {reason}")
    if jax.config.values["jax_num_cpu_devices"] <= 0:
        count = cores.usable()
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", min(count, shards or count))
    try:
        with _threads(shards):
            jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts that one platform has devices
        platforms = jax.config.values["jax_platforms"]
        found = f" ({textwrap.shorten(str(error), 150)})" if str(error) else ""
        raise ConfigError(f"JAX_PLATFORMS: {platforms}: there is no such device{found}") from None


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Within it, a new CPU backend has so many threads, however many cores; 0: one per core."""
    before = os.environ.get(_THREADS)
    if count:
        os.environ[_THREADS] = str(count)
    try:
        yield
    finally:
        os.environ.pop(_THREADS, None)
        os.environ.update({} if before is None else {_THREADS: before})


def enable_compilation_cache(folder: str | None) -> None:
    """Keeps compiled programs on disk for later runs.

    Args:
        folder: Where to. None: the folder of JAX's own setting, else flaxrnn in $XDG_CACHE_HOME,
            else ~/.cache/flaxrnn.
    """
    if folder is None and jax.config.values["jax_compilation_cache_dir"] is None:
        folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "flaxrnn")
    if folder is not None:
        expanded = files.expand(folder, "compile_cache")
        jax.config.update("jax_compilation_cache_dir", str(expanded))
        compilation_cache.reset_cache()  # JAX reads the setting only once, when it first compiles
    compile_cache.check_entries()
    # By default JAX keeps only what took a second to compile; the small programs add up.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def compiled(program: jax.stages.Wrapped, *arguments: Any) -> jax.stages.Compiled:
    """Compiles a jitted function for arguments of these shapes, and returns unused memory.

    Args:
        program: The function.
        *arguments: Arguments like those that it will be called with.

    Raises:
        ConfigError: JAX is set to compile nothing.
    """
    if jax.config.values["jax_disable_jit"]:
        raise ConfigError("JAX_DISABLE_JIT: must be unset: training compiles its programs first")
    lowered = program.lower(*arguments)
    _trim_heap()
    executable = lowered.compile()
    _trim_heap()
    return executable


def platform(mesh: Mesh) -> str:
    """What the devices of a mesh are: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def compiler_options(mesh: Mesh, ynnpack: bool = True) -> dict[str, str]:
    """How XLA compiles the programs of a mesh, for `jax.jit`.

    Args:
        mesh: Devices.
        ynnpack: Whether XLA may leave products to YNNPACK on CPU. It splits a sum over the threads
            that there are, so the bits depend on their number.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    options = dict(_COMPILER_OPTIONS.get(platform(mesh), {}))
    if platform(mesh) == "cpu" and not ynnpack:
        options["xla_cpu_experimental_ynn_fusion_type"] = ""
    return {name: value for name, value in options.items() if name not in flags}


def matmul_precision(name: str) -> contextlib.AbstractContextManager[None]:
    """Within it, programs are traced with `train.precision`; "default": with JAX's setting."""
    if name == "default":
        return contextlib.nullcontext()
    return jax.default_matmul_precision(name)


def _trim_heap() -> None:
    """Returns freed memory to the system: XLA's compiler holds on to hundreds of MB of it."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux with glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def make_mesh(batch_size: int, local: bool = False, shards: int = 0) -> Mesh:
    """A mesh with one axis, "data", of the devices to shard a batch over.

    Those of all processes. If `local`, or if there is only one process, those of this process, but
    only as many as get `MIN_ROWS_PER_DEVICE` rows, or `MIN_ROWS_PER_ACCELERATOR`.

    Args:
        batch_size: Rows of a batch.
        local: Whether to use the devices of this process only.
        shards: A power of two that the number of devices must divide; 0: it may be any.

    Raises:
        ConfigError: The number of the devices of all processes does not.
    """
    devices = jax.local_devices() if local else jax.devices()
    if local or jax.process_count() == 1:
        on_cpu = devices[0].platform == "cpu"
        rows = MIN_ROWS_PER_DEVICE if on_cpu else MIN_ROWS_PER_ACCELERATOR
        devices = devices[: max(1, batch_size // rows)]
        if shards:
            devices = devices[: min(shards, 1 << len(devices).bit_length() - 1)]
    elif shards and shards % len(devices):
        raise ConfigError(
            f"train.shards: {shards} cannot be spread evenly over {len(devices)} devices"
        )
    return Mesh(np.array(devices), ("data",))


def shard(tree: Any, mesh: Mesh, specs: Any) -> Any:
    """Puts arrays that every process holds on the devices of a mesh.

    Args:
        tree: Arrays, the same in every process.
        mesh: Devices of one or several processes.
        specs: How to shard the arrays: a prefix of `tree`, or one spec for all of them.

    Returns:
        `tree` with global arrays.
    """

    def put(spec: PartitionSpec, arrays: Any) -> Any:
        sharding = NamedSharding(mesh, spec)
        if not mesh.is_multi_process:
            return jax.device_put(arrays, sharding)

        def from_local(x: Any) -> jax.Array:
            x = np.asarray(x)
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

        return jax.tree.map(from_local, arrays)

    return jax.tree.map(put, specs, tree, is_leaf=lambda x: isinstance(x, PartitionSpec))


@contextlib.contextmanager
def raise_on_oom(message: str) -> Iterator[None]:
    """Replaces an out-of-memory error of JAX or Python by one that says what to change.

    Raises:
        OutOfMemoryError: With `message`.
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
    """Peak memory of this process in MiB: resident; on its fullest accelerator, None on CPU."""
    unit = 1 if sys.platform == "darwin" else 1024
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [found["peak_bytes_in_use"] for found in stats if found]
    return {
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20,
        "peak_device_mib": max(peaks) / 2**20 if peaks else None,
    }

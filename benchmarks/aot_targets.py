"""Accelerators that programs are compiled for on a machine without any.

    pip install 'jax[tpu]'                                             for the TPUs (libtpu)
    pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12    for the GPUs

The plugins must be of JAX's version. A target is compiled for, never run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from importlib import metadata
from typing import NamedTuple

# Else libtpu asks Google's cloud, for a minute, what machine this is.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
# Else only one process at a time may compile for TPUs, as if there were one to share.
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh


class Gpu(NamedTuple):
    """What XLA asks about a GPU, from NVIDIA's data sheets and the CUDA programming guide."""

    description: str
    capability: tuple[int, int]
    cores: int  # streaming multiprocessors
    fpus_per_core: int
    shared_memory: tuple[int, int]  # bytes per core, and of them at most per block
    bandwidth: int  # of the memory, bytes per second
    cache: int  # bytes
    clock_ghz: float
    memory: int  # bytes


GPUS = {
    "a100": Gpu(
        "NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, (164 << 10, 163 << 10),
        2_039 * 10**9, 40 << 20, 1.41, 80 << 30,
    ),
    "h100": Gpu(
        "NVIDIA H100 80GB HBM3", (9, 0), 132, 128, (228 << 10, 227 << 10),
        3_352 * 10**9, 50 << 20, 1.98, 80 << 30,
    ),
}  # fmt: skip
TPUS = ("v5e", "v6e")
TARGETS = tuple(f"{chip}-{count}" for chip in (*TPUS, *GPUS) for count in (1, 4))


def platform(target: str) -> str:
    """What JAX calls the platform of a target such as "h100-4": "cuda" or "tpu"."""
    return "cuda" if target.partition("-")[0] in GPUS else "tpu"


def installed(target: str) -> bool:
    """Whether there is a compiler for a target."""
    module = {"cuda": "jax_cuda12_plugin", "tpu": "libtpu"}[platform(target)]
    return importlib.util.find_spec(module) is not None


def mesh(target: str) -> Mesh:
    """All devices of a target such as "h100-4", to compile for."""
    chip, _, count = target.partition("-")
    if platform(target) == "cuda":
        topology = topologies.get_topology_desc(
            platform="cuda",
            topology_name="",
            target_config=_target_config(GPUS[chip]),
            topology=f"1x1x{count}",
        )
    elif count == "1":  # less than a host has
        topology = topologies.get_topology_desc(
            platform="tpu",
            topology_name=f"{chip}:1x1",
            chips_per_host_bounds=(1, 1, 1),
            num_slices=1,
        )
    else:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=f"{chip}:2x2")
    return Mesh(np.array(topology.devices), ("data",))


def versions() -> dict[str, str]:
    """Versions of JAX and of the compilers that are installed."""
    names = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "nvidia-cuda-nvcc-cu12")
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _target_config(gpu: Gpu) -> str:
    """XLA's GpuTargetConfigProto, as text."""
    major, minor = gpu.capability
    per_core, per_block = gpu.shared_memory
    return f"""
        platform_name: "CUDA"
        device_description_str: "{gpu.description}"
        dnn_version_info {{ major: 9 minor: 10 }}
        gpu_device_info {{
          cuda_compute_capability {{ major: {major} minor: {minor} }}
          core_count: {gpu.cores}
          fpus_per_core: {gpu.fpus_per_core}
          clock_rate_ghz: {gpu.clock_ghz}
          device_memory_size: {gpu.memory}
          memory_bandwidth: {gpu.bandwidth}
          l2_cache_size: {gpu.cache}
          shared_memory_per_core: {per_core}
          shared_memory_per_block_optin: {per_block}
          shared_memory_per_block: {48 << 10}
          threads_per_warp: 32
          threads_per_block_limit: 1024
          threads_per_core_limit: 2048
          registers_per_core_limit: 65536
          registers_per_block_limit: 65536
          thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          driver_version: "13.0.0" runtime_version: "12.9.0"
          compile_time_toolkit_version: "12.9.0" dnn_version: "9.10.0"
        }}
    """

"""The programs of the shipped configs, lowered for accelerators that are not there.

Where the compiler for one is installed (see benchmarks/aot_targets.py), it compiles them, too.
"""

import functools
import re
from collections import Counter

import jax
import numpy as np
import pytest

from benchmarks import aot, aot_analysis, aot_programs, aot_targets
from flaxrnn.nn import fused


@functools.cache
def lowered(config, program, platform):
    """The StableHLO of a program for a platform, on a machine that need not have it."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    jitted, arguments = aot_programs.build(aot_programs.load(config), program, mesh)
    return jitted.trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("program", aot_programs.PROGRAMS)
@pytest.mark.parametrize("config", aot_programs.CONFIGS)
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_every_program_lowers_and_never_asks_the_host(config, program, platform):
    text = lowered(config, program, platform)
    assert "dot_general" in text
    assert not re.search(r"callback|infeed|outfeed|stablehlo\.(send|recv)", text)


@pytest.mark.parametrize(
    ("platform", "unroll"), [("cpu", 1), ("tpu", 1), ("cuda", fused.GPU_UNROLL)]
)
def test_only_loops_for_a_gpu_are_unrolled(platform, unroll):
    steps = Counter(re.findall(r"call @(closed_call\w*)", lowered("reuters", "train", platform)))
    assert set(steps.values()) == {unroll}


def test_only_cpu_has_the_backward_pass_of_a_convolution_as_products():
    count = {p: lowered("imdb", "train", p).count("stablehlo.convolution") for p in ("cpu", "tpu")}
    assert count == {"cpu": 1, "tpu": 4}  # one forward; of the others, XLA drops one that is unused


def test_a_loop_outside_of_a_graph_is_many_launches(tmp_path):
    (tmp_path / "x.thunk_sequence_after_thunk_passes.txt").write_text(
        """
000: kCopy    [source       | next=001 (1)] kCopy
001: kWhile         [prev=000 (1) | next=161 (1)]
condition:
    002: kCustomKernel [source | sink] compare grid: [1, 1, 1]
  body:
    000: kCommandBuffer [source       | next=023 (1)]
        009: kCustomKernel [source       | sink        ] fusion grid: [16, 1, 1]
    023: kWhile         [prev=000 (1) | next=000 (1)]
condition:
        024: kCustomKernel [source | sink] compare grid: [1, 1, 1]
      body:
        000: kCommandBuffer [source | sink]
            025: kCustomKernel [source       | next=026 (1)] gemm_fusion_dot_7 grid: [75, 1, 1]
            026: kDynamicSliceFusion [prev=025 (1) | next=027 (1)] params=1, results=1
                029: kCopy [source | sink] kCopy
    129: kConditional  [prev=088 (1)  | next=130 (1) ]
      false_branch:
        089: kCopy [source       | next=090 (1)] kCopy
      true_branch:
        103: kCopy         [source | sink] kCopy
        104: kInfeed       [source | sink] kInfeed
"""
    )
    thunks = aot_analysis.read_thunks(tmp_path)
    assert aot_analysis.time_loops(thunks) == [2]
    # A copy, and 16 times the loop's condition, a graph, 25 × (condition and graph), and a branch.
    assert aot_analysis.launches(thunks, (16, 25)) == 1 + 16 * (1 + 1 + 25 * 2 + 1 + 2)
    assert aot_analysis.to_host(thunks) == ["kInfeed"]


def needs_compiler(target):
    return pytest.mark.skipif(not aot_targets.installed(target), reason="needs its compiler")


@needs_compiler("h100-1")
@pytest.mark.parametrize(("program", "loops"), [("train", [5, 3]), ("predict", [5])])
def test_a_dispatch_on_a_gpu_is_one_graph_with_few_operations_per_time_step(program, loops):
    found = aot.compile_one("h100-1", "reuters", program, length=24)
    assert found["launches"] == 1
    assert found["host_transfers"] == 0
    assert found["temporary_mib"] < 20
    for loop, most in zip(found["loops"], loops, strict=True):
        assert loop["operations"] <= most


@needs_compiler("v5e-1")
def test_a_program_for_a_tpu_fits_its_memory():
    found = aot.compile_one("v5e-1", "reuters", "train", length=24)
    assert found["host_transfers"] == 0
    assert found["temporary_mib"] < 20
    forward, backward = found["loops"]
    assert forward["bundles"] < 600
    assert backward["bundles"] < 300

"""Measures memory and time of an LSTM's gradient over long texts, for several `recompute` values.

    python -m benchmarks.recompute

Memory is what the compiled program allocates in addition to its arguments and results. Writes
benchmarks/results/recompute-DEVICE.json.
"""

import argparse
import json
import statistics
import time

import jax

from benchmarks import throughput
from flaxrnn import nn

BATCH, LENGTH, INPUTS, FEATURES = 16, 4_000, 64, 128
SEGMENTS = (0, 16, 64, 256, 1_000)  # values of `recompute`: time steps per segment


def main() -> None:
    """Measures every value, interleaved."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="used in the name of the result file")
    arguments = parser.parse_args()
    x = jax.random.normal(jax.random.key(0), (BATCH, LENGTH, INPUTS))
    params = nn.LSTM(FEATURES).init(jax.random.key(1), x)
    programs, times = {}, {}
    for recompute in SEGMENTS:
        layer = nn.LSTM(FEATURES, recompute=recompute)

        def loss(params: dict, layer: nn.LSTM = layer) -> jax.Array:
            return layer.apply(params, x)[1][-1].sum()

        programs[recompute] = jax.jit(jax.grad(loss)).lower(params).compile()
        times[recompute] = []
    for _ in range(arguments.rounds + 1):  # the first round is a warm-up
        for recompute, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(params))
            times[recompute].append(time.perf_counter() - start)
    print(f"LSTM({FEATURES}), B={BATCH}, T={LENGTH}, D={INPUTS}: gradient of the weights")
    rows = []
    for recompute, program in programs.items():
        mib = program.memory_analysis().temp_size_in_bytes / 2**20
        milliseconds = 1e3 * statistics.median(times[recompute][1:])
        print(f"  recompute {recompute:5d}: {mib:7.1f} MiB, {milliseconds:7.1f} ms")
        rows.append({"recompute": recompute, "temporary_mib": mib, "median_ms": milliseconds})
    shape = {"batch": BATCH, "length": LENGTH, "inputs": INPUTS, "features": FEATURES}
    record = {**throughput.provenance(), "shape": shape, "rows": rows}
    path = throughput.RESULTS / f"recompute-{arguments.device}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

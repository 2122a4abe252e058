"""Memory and time of an LSTM's gradient over a long text, by `recompute`.

    python -m benchmarks.recompute

Memory is what the compiled program asks for beside its arguments and results. Writes
benchmarks/results/recompute-DEVICE.json.
"""

import argparse
import json
import statistics
import time

import jax

from benchmarks import throughput
from flaxrnn.nn import recurrence

BATCH, LENGTH, INPUTS, FEATURES = 16, 4_000, 64, 128


def main() -> None:
    """Measures each choice, in turns."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="part of the result file's name")
    arguments = parser.parse_args()
    x = jax.random.normal(jax.random.key(0), (BATCH, LENGTH, INPUTS))
    params = recurrence.LSTM(FEATURES).init(jax.random.key(1), x)
    programs, times = {}, {}
    for recompute in (0, 16, 64, 256, 1_000):
        layer = recurrence.LSTM(FEATURES, recompute=recompute)

        def loss(params: dict, layer: recurrence.LSTM = layer) -> jax.Array:
            return layer.apply(params, x)[1][-1].sum()

        programs[recompute] = jax.jit(jax.grad(loss)).lower(params).compile()
        times[recompute] = []
    for _ in range(arguments.rounds + 1):
        for recompute, program in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(params))
            times[recompute].append(time.perf_counter() - began)
    rows = []
    print(f"LSTM({FEATURES}), B={BATCH}, T={LENGTH}, D={INPUTS}: gradient of the weights")
    for recompute, program in programs.items():
        row = {
            "recompute": recompute,
            "temporary_mib": program.memory_analysis().temp_size_in_bytes / 2**20,
            "median_ms": 1e3 * statistics.median(times[recompute][1:]),
        }
        print(
            "  recompute {recompute:5d}: {temporary_mib:7.1f} MiB, {median_ms:7.1f} ms".format(
                **row
            )
        )
        rows.append(row)
    shape = {"batch": BATCH, "length": LENGTH, "inputs": INPUTS, "features": FEATURES}
    record = {**throughput.provenance(), "shape": shape, "rows": rows}
    path = throughput.RESULTS / f"recompute-{arguments.device}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

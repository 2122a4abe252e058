"""Times training steps on several devices and processes of one machine: strong and weak scaling.

    python -m benchmarks.scaling

Strong scaling keeps the batch size, weak scaling keeps the rows per device. The devices are threads
of one CPU, so beyond its number of cores the result is the cost of splitting a batch, not a
speed-up. The layouts are interleaved. Writes benchmarks/results/scaling-DEVICE.json.
"""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks import throughput
from benchmarks.cases import Case

LAYOUTS = [(1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (4, 1)]  # processes, devices per process
MODELS = {"reuters": (100, 100), "imdb": (500, 55)}  # length, hidden size
BATCH = 128  # rows, in strong scaling
ROWS_PER_DEVICE = 64  # in weak scaling
SECONDS = 3.0  # per measurement


def child(case: Case, address: str, processes: int, process: int) -> None:
    """Times steps in this process, one of several; prints the mean and the bytes all-reduced."""
    from benchmarks import baselines
    from flaxrnn.runtime import devices, distributed

    if processes > 1:
        distributed.initialize(address, processes, process)
    devices.initialize()
    with distributed.fail_fast():
        workload = baselines.flaxrnn(case)
        start = time.perf_counter()
        workload.run()
        workload.run()
        calls = max(2, round(SECONDS / ((time.perf_counter() - start) / 2)))
        calls = distributed.broadcast(calls)
        start = time.perf_counter()
        for _ in range(calls):
            workload.run()
        milliseconds = 1e3 * (time.perf_counter() - start) / calls / workload.steps
    floats = re.findall(r"f32\[(\d+)\]\S* all-reduce(?:-start)?\(", workload.hlo())
    print(json.dumps({"ms": milliseconds, "bytes": 4 * max(map(int, floats), default=0)}))


def measure(case: Case, processes: int, devices: int) -> dict[str, float]:
    """Starts the processes of a layout and waits for them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "benchmarks.scaling", "--child", json.dumps(case), address]
    started = [
        subprocess.Popen(
            [*command, str(processes), str(i)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)},
            text=True,
        )
        for i in range(processes)
    ]
    outputs = [process.communicate()[0] for process in started]
    return json.loads(outputs[0].splitlines()[-1])


def scale(model: str, scaling: str, rounds: int) -> list[dict[str, Any]]:
    """Measures every layout, interleaved; one row each."""
    length, hidden = MODELS[model]
    cases = {
        layout: Case(
            model,
            BATCH if scaling == "strong" else ROWS_PER_DEVICE * layout[0] * layout[1],
            length,
            hidden,
            "train",
        )
        for layout in LAYOUTS
    }
    found: dict[tuple[int, int], list] = {layout: [] for layout in LAYOUTS}
    for _ in range(rounds):
        for layout, case in cases.items():
            found[layout].append(measure(case, *layout))
    print(f"\n{model}, {scaling} scaling")
    rows = []
    for (processes, devices), measured in found.items():
        batch = cases[processes, devices].batch
        milliseconds = statistics.median(one["ms"] for one in measured)
        row = {
            "model": model,
            "scaling": scaling,
            "processes": processes,
            "devices_per_process": devices,
            "batch": batch,
            "median_ms": milliseconds,
            "all_ms": [one["ms"] for one in measured],
            "all_reduced_bytes": measured[0]["bytes"],
            "texts_per_second": 1e3 * batch / milliseconds,
        }
        rows.append(row)
        print(
            "  {processes} x {devices_per_process} devices, batch {batch:4}: {median_ms:7.2f} ms"
            " per step, {texts_per_second:7,.0f} texts/s, {all_reduced_bytes:,} bytes"
            " all-reduced".format(**row),
            flush=True,
        )
    return rows


def main() -> None:
    """Measures both models, strong and weak scaling."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="used in the name of the result file")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        case, address, processes, process = arguments.child
        child(Case(*json.loads(case)), address, int(processes), int(process))
        return
    rows = [
        row
        for model in MODELS
        for scaling in ("strong", "weak")
        for row in scale(model, scaling, arguments.rounds)
    ]
    path = throughput.RESULTS / f"scaling-{arguments.device}.json"
    path.write_text(json.dumps({**throughput.provenance(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

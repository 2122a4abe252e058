"""Times training steps over simulated devices and processes of one machine, at two ways to scale.

    python -m benchmarks.scaling

Strong scaling keeps the batch, weak scaling keeps the rows of each device. The devices are
threads of one CPU, so what is shown beyond its cores is the price of sharing a batch, not a gain.
The choices take turns. Writes benchmarks/results/scaling-DEVICE.json.
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

LAYOUTS = [(1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (4, 1)]  # processes, devices of each
MODELS = {"reuters": (100, 100), "imdb": (500, 55)}  # length, hidden size
BATCH, ROWS = 128, 64  # of strong scaling; of each device in weak scaling
SECONDS = 3.0


def child(spec: dict[str, Any], address: str, processes: int, process: int) -> None:
    """Times steps in this process, one of several; prints the mean, and what is added up."""
    from benchmarks import peers
    from flaxrnn.runtime import devices, distributed

    devices.use_all_cores()
    if processes > 1:
        distributed.initialize(address, processes, process)
    run = peers.flaxrnn(spec)
    began = time.perf_counter()
    run()
    run()
    calls = max(2, round(SECONDS / ((time.perf_counter() - began) / 2)))
    calls = distributed.broadcast(calls)
    began = time.perf_counter()
    for _ in range(calls):
        run()
    milliseconds = 1e3 * (time.perf_counter() - began) / calls / run.steps  # type: ignore[attr-defined]
    added_up = re.findall(r"f32\[(\d+)\]\S* all-reduce(?:-start)?\(", run.program())  # type: ignore[attr-defined]
    print(json.dumps({"ms": milliseconds, "bytes": 4 * max(map(int, added_up), default=0)}))


def measure(spec: dict[str, Any], processes: int, devices: int) -> dict[str, float]:
    """Starts the processes of a layout and waits for them."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        address = f"localhost:{found.getsockname()[1]}"
    command = [sys.executable, "-m", "benchmarks.scaling", "--child", json.dumps(spec), address]
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


def main() -> None:
    """Measures every layout."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="part of the result file's name")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        spec, address, processes, process = arguments.child
        child(json.loads(spec), address, int(processes), int(process))
        return
    rows = []
    for model, (length, hidden) in MODELS.items():
        for kind in ("strong", "weak"):
            found: dict[tuple[int, int], list] = {layout: [] for layout in LAYOUTS}
            for _ in range(arguments.rounds):
                for processes, devices in LAYOUTS:
                    size = BATCH if kind == "strong" else ROWS * processes * devices
                    spec = {"model": model, "batch": size, "length": length, "hidden": hidden}
                    spec["mode"] = "train"
                    found[processes, devices].append(measure(spec, processes, devices))
            print(f"\n{model}, {kind} scaling")
            for (processes, devices), some in found.items():
                row = {
                    "model": model,
                    "scaling": kind,
                    "processes": processes,
                    "devices_of_each": devices,
                    "batch": BATCH if kind == "strong" else ROWS * processes * devices,
                    "median_ms": statistics.median(one["ms"] for one in some),
                    "all_ms": [one["ms"] for one in some],
                    "added_up_bytes": some[0]["bytes"],
                }
                row["texts_per_second"] = 1e3 * row["batch"] / row["median_ms"]
                rows.append(row)
                print(
                    "  {processes} x {devices_of_each} devices, batch {batch:4}: {median_ms:7.2f}"
                    " ms a step, {texts_per_second:7,.0f} texts/s, {added_up_bytes:,} bytes added"
                    " up".format(**row),
                    flush=True,
                )
    path = throughput.RESULTS / f"scaling-{arguments.device}.json"
    path.write_text(json.dumps({**throughput.provenance(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Times one training step and one inference pass of the mission's models, beside the peers.

    python -m benchmarks.throughput              the mission's own shapes
    python -m benchmarks.throughput --grid       and a grid over batch, length and hidden size
    python -m benchmarks.throughput --cases imdb-40-500-55-train

Every peer runs in a process of its own, one at a time, in turns; peers that are not installed are
named. Warm-up is not counted. Writes a table, benchmarks/results/throughput-DEVICE.json and .png.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import peers
from flaxrnn.reporting.provenance import command, commit

RESULTS = Path(__file__).parent / "results"
OWN = [  # model, batch, length, hidden, mode
    ("reuters", 20, 100, 100, "train"),
    ("reuters", 128, 100, 100, "train"),
    ("imdb", 40, 500, 55, "train"),
    ("reuters", 1, 100, 100, "infer"),
    ("reuters", 128, 100, 100, "infer"),
    ("imdb", 1, 500, 55, "infer"),
    ("imdb", 128, 500, 55, "infer"),
]
GRID = [
    ("reuters", batch, length, hidden, "train")
    for batch, length, hidden in itertools.product((32, 256), (50, 400), (64, 256))
]


class Worker:
    """A peer in its own process."""

    def __init__(self, peer: str, spec: peers.Spec):
        """Starts it and waits until it is warm; raises RuntimeError where it fails."""
        command = [sys.executable, "-m", "benchmarks.peers", peer]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in close)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        if self._ask(json.dumps(spec)) != "ready\n":
            self._process.communicate()
            self._errors.seek(0)
            error = self._errors.read().strip().splitlines()
            raise RuntimeError(f"{peer} failed: {error[-1] if error else 'no word'}")

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def seconds(self, count: int) -> float:
        """Mean seconds a call over `count` calls."""
        return float(self._ask(str(count)))

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()
        self._errors.close()


def matmul_peak() -> float:
    """FLOP/s of JAX on a 2048³ float32 product: the best of several."""
    code = (
        "import time, jax, jax.numpy as jnp\n"
        "x = jnp.ones((2048, 2048)); f = jax.jit(lambda x: x @ x); f(x).block_until_ready()\n"
        "def once():\n"
        "    t = time.perf_counter(); f(x).block_until_ready(); return time.perf_counter() - t\n"
        "print(2 * 2048**3 / min(once() for _ in range(20)), jax.devices()[0].device_kind)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(out.stdout.split()[0])


def provenance() -> dict:
    """Machine, Python, commit and command."""
    return {
        "machine": {"cores": os.cpu_count(), "processor": processor()},
        "python": platform.python_version(),
        "commit": commit(),
        "command": command(),
    }


def processor() -> str:
    """Its name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def time_case(case: tuple, names: list[str], rounds: int, peak: float) -> dict:
    """Times a case on every peer, in turns."""
    spec = dict(zip(("model", "batch", "length", "hidden", "mode"), case, strict=True))
    workers, failed = {}, {}
    for name in names:
        try:
            workers[name] = Worker(name, spec)
        except RuntimeError as error:
            failed[name] = str(error)
    counts = {name: max(1, round(0.3 / worker.seconds(1))) for name, worker in workers.items()}
    times: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            times[name].append(worker.seconds(counts[name]))
    for worker in workers.values():
        worker.close()
    work = peers.flops(spec) * (3 if spec["mode"] == "train" else 1)
    own = statistics.median(times["flaxrnn"])
    rows = {}
    for name, values in times.items():
        median = statistics.median(values)
        low, _, high = statistics.quantiles(values, n=4)
        rows[name] = {
            "median_ms": 1e3 * median,
            "quartiles_ms": [1e3 * low, 1e3 * high],
            "flaxrnn_over_it": own / median,
            "share_of_peak": work / median / peak,
        }
    return {**spec, "rounds": rounds, "peers": rows, "failed": failed}


def show(result: dict) -> None:
    """Prints one case as a table."""
    print("\n{model}, B={batch}, T={length}, H={hidden}, {mode}".format(**result))
    print(f"  {'':18} {'median ms':>10} {'quartiles':>17} {'flaxrnn / it':>13} {'of peak':>8}")
    for name, row in result["peers"].items():
        low, high = row["quartiles_ms"]
        print(
            f"  {name:18} {row['median_ms']:10.2f} {low:8.2f}-{high:8.2f}"
            f" {row['flaxrnn_over_it']:13.2f} {row['share_of_peak']:8.1%}"
        )
    for name, error in result["failed"].items():
        print(f"  {name:18} {error}")


def draw(results: list[dict], path: Path) -> None:
    """A bar chart: each peer's time over flaxrnn's, a group a case."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 0.5 + 1.5 * len(results)), layout="constrained")
    for axes, result in zip(
        figure.subplots(len(results), squeeze=False)[:, 0], results, strict=True
    ):
        names = list(result["peers"])[::-1]
        values = [result["peers"][name]["median_ms"] for name in names]
        colours = ["tab:orange" if name == "flaxrnn" else "tab:grey" for name in names]
        bars = axes.barh(names, values, color=colours)
        axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.set_title("{model}, B={batch}, T={length}, H={hidden}, {mode}: ms".format(**result))
        axes.margins(x=0.1)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Times the cases."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--grid", action="store_true", help="time the grid, too")
    parser.add_argument("--cases", nargs="*", help="MODEL-BATCH-LENGTH-HIDDEN-MODE, only these")
    parser.add_argument("--peers", nargs="*", default=list(peers.PEERS), help="only these")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu", help="part of the result files' name")
    arguments = parser.parse_args()

    versions = {name: peers.versions(name) for name in arguments.peers}
    missing = [name for name, found in versions.items() if found is None]
    if missing:
        print(f"Not installed, so not timed: {', '.join(missing)} (pip install -e '.[bench]')")
    cases = OWN + (GRID if arguments.grid else [])
    if arguments.cases:
        cases = [case for case in cases + GRID if "-".join(map(str, case)) in arguments.cases]
    peak = matmul_peak()
    print(f"Peak of a 2048³ float32 product: {peak / 1e9:.0f} GFLOP/s")
    results = []
    for case in cases:
        names = [name for name in arguments.peers if name not in missing]
        results.append(time_case(case, names, arguments.rounds, peak))
        show(results[-1])
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"throughput-{arguments.device}"
    record = {
        **provenance(),
        "versions": versions,
        "missing": missing,
        "peak_gflops": peak / 1e9,
        "cases": results,
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    draw(results, path.with_suffix(".png"))


if __name__ == "__main__":
    main()

"""Times a training step and an inference pass of the chapter's models in several frameworks.

    python -m benchmarks.throughput              the chapter's shapes
    python -m benchmarks.throughput --grid       plus a grid of batch, length and hidden sizes
    python -m benchmarks.throughput --cases imdb-40-500-55-train
    python -m benchmarks.throughput --inference  only inference, against ONNX Runtime: minutes

Each framework runs in a separate process, one at a time, interleaved; frameworks that are not
installed are listed. Every case has three sets of processes, since where a process has its memory
can cost a fifth. Warm-up is not counted. Ratios are medians over the rounds of all. Writes
benchmarks/results/throughput-DEVICE.json and .png, or with `--inference`, inference-DEVICE.
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

from benchmarks import baselines, cases
from benchmarks.cases import Case
from flaxrnn.reporting import provenance as origin

RESULTS = Path(__file__).parent / "results"
STARTS = 3  # of each framework's process, for each case
CHAPTER = [
    Case("reuters", 20, 100, 100, "train"),
    Case("reuters", 128, 100, 100, "train"),
    Case("imdb", 40, 500, 55, "train"),
    Case("reuters", 1, 100, 100, "infer"),
    Case("reuters", 128, 100, 100, "infer"),
    Case("imdb", 1, 500, 55, "infer"),
    Case("imdb", 128, 500, 55, "infer"),
    Case("reuters", 10_000, 100, 100, "serve"),
    Case("imdb", 10_000, 500, 55, "serve"),
]
GRID = [
    Case("reuters", batch, length, hidden, "train")
    for batch, length, hidden in itertools.product((32, 256), (50, 400), (64, 256))
]


class Worker:
    """A framework in its own process."""

    def __init__(self, framework: str, case: Case):
        """Starts the process and waits for its warm-up.

        Raises:
            RuntimeError: The framework failed.
        """
        command = [sys.executable, "-m", "benchmarks.baselines", framework]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in close)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        if self._ask(json.dumps(case._asdict())) != "ready\n":
            self._process.communicate()
            self._errors.seek(0)
            error = self._errors.read().strip().splitlines()
            raise RuntimeError(f"{framework} failed: {error[-1] if error else 'no message'}")

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def seconds(self, count: int) -> float:
        """Mean seconds per step over at least `count` steps."""
        return float(self._ask(str(count)))

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
        self._errors.close()


def matmul_peak() -> float:
    """FLOP/s of JAX on a 2048³ float32 matrix product, the best of 20."""
    code = (
        "import time, jax, jax.numpy as jnp\n"
        "x = jnp.ones((2048, 2048)); f = jax.jit(lambda x: x @ x); f(x).block_until_ready()\n"
        "def once():\n"
        "    t = time.perf_counter(); f(x).block_until_ready(); return time.perf_counter() - t\n"
        "print(2 * 2048**3 / min(once() for _ in range(20)))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(out.stdout)


def provenance() -> dict:
    """Machine, Python version, commit and command."""
    return {
        "machine": {"cores": os.cpu_count(), "processor": processor()},
        "python": platform.python_version(),
        "commit": origin.commit(),
        "command": origin.command(),
    }


def processor() -> str:
    """Name of the processor, or of its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def start(case: Case, frameworks: list[str]) -> tuple[dict[str, Worker], dict[str, str]]:
    """Starts a process of each framework; returns those that run, and the errors of the others."""
    workers, failed = {}, {}
    for name in frameworks:
        try:
            workers[name] = Worker(name, case)
        except RuntimeError as error:
            failed[name] = str(error)
    return workers, failed


def time_case(case: Case, frameworks: list[str], rounds: int, peak: float) -> dict:
    """Times a case in every framework, interleaved."""
    names = [name for name in frameworks if case.mode in baselines.FRAMEWORKS[name].modes]
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(STARTS):
        workers, failed = start(case, list(times))
        times = {name: times[name] for name in workers}
        counts = {name: max(1, round(0.3 / worker.seconds(1))) for name, worker in workers.items()}
        for _ in range(-(-rounds // STARTS)):
            for name, worker in workers.items():
                times[name].append(worker.seconds(counts[name]))
        for worker in workers.values():
            worker.close()
    flops = cases.flops(case) * (3 if case.mode == "train" else 1)
    rows = {}
    for name, values in times.items():
        median = statistics.median(values)
        low, _, high = statistics.quantiles(values, n=4)
        ratios = [ours / its for ours, its in zip(times["flaxrnn"], values, strict=True)]
        rows[name] = {
            "median_ms": 1e3 * median,
            "quartiles_ms": [1e3 * low, 1e3 * high],
            "flaxrnn_over_it": statistics.median(ratios),
            "share_of_peak": None if case.mode == "serve" else flops / median / peak,
            "texts_per_second": case.batch / median,
        }
    return {**case._asdict(), "rounds": rounds, "frameworks": rows, "failed": failed}


def show(case: Case, result: dict) -> None:
    """Prints the table of one case."""
    print(f"\n{case}")
    print(
        f"  {'':18} {'median ms':>10} {'quartiles':>17} {'flaxrnn / it':>13} {'texts/s':>9}"
        f" {'of peak':>8}"
    )
    for name, row in result["frameworks"].items():
        low, high = row["quartiles_ms"]
        share = "" if row["share_of_peak"] is None else f"{row['share_of_peak']:.1%}"
        print(
            f"  {name:18} {row['median_ms']:10.2f} {low:8.2f}-{high:8.2f}"
            f" {row['flaxrnn_over_it']:13.2f} {row['texts_per_second']:9,.0f} {share:>8}"
        )
    for name, error in result["failed"].items():
        print(f"  {name:18} {error}")


def draw(timed: list[Case], results: list[dict], path: Path) -> None:
    """Draws one bar chart per case: the median of each framework in milliseconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 0.5 + 1.5 * len(timed)), layout="constrained")
    all_axes = figure.subplots(len(timed), squeeze=False)[:, 0]
    for axes, case, result in zip(all_axes, timed, results, strict=True):
        names = list(result["frameworks"])[::-1]
        values = [result["frameworks"][name]["median_ms"] for name in names]
        colours = ["tab:orange" if name == "flaxrnn" else "tab:grey" for name in names]
        bars = axes.barh(names, values, color=colours)
        axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.set_title(f"{case}: ms")
        axes.margins(x=0.1)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Times the cases."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--grid", action="store_true", help="time the grid as well")
    parser.add_argument(
        "--inference", action="store_true", help="only inference, and only against ONNX Runtime"
    )
    parser.add_argument("--cases", nargs="*", help="only these: MODEL-BATCH-LENGTH-HIDDEN-MODE")
    parser.add_argument(
        "--frameworks", nargs="*", default=list(baselines.FRAMEWORKS), help="only these"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu", help="used in the names of the result files")
    arguments = parser.parse_args()
    if arguments.inference:
        arguments.frameworks = ["flaxrnn", "ONNX Runtime"]

    versions = {name: baselines.versions(name) for name in arguments.frameworks}
    missing = [name for name, found in versions.items() if found is None]
    if missing:
        print(f"Not installed, not timed: {', '.join(missing)} (pip install -e '.[bench]')")
    chosen = CHAPTER + (GRID if arguments.grid else [])
    if arguments.cases:
        chosen = [case for case in CHAPTER + GRID if "-".join(map(str, case)) in arguments.cases]
    if arguments.inference:
        chosen = [case for case in chosen if case.mode != "train"]
    peak = matmul_peak()
    print(f"Peak of a 2048³ float32 product: {peak / 1e9:.0f} GFLOP/s")
    results = []
    for case in chosen:
        names = [name for name in arguments.frameworks if name not in missing]
        results.append(time_case(case, names, arguments.rounds, peak))
        show(case, results[-1])
    RESULTS.mkdir(exist_ok=True)
    kind = "inference" if arguments.inference else "throughput"
    path = RESULTS / f"{kind}-{arguments.device}"
    record = {
        **provenance(),
        "versions": versions,
        "missing": missing,
        "peak_gflops": peak / 1e9,
        "cases": results,
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    draw(chosen, results, path.with_suffix(".png"))


if __name__ == "__main__":
    main()

"""Times `train.py` from its start to the end of its first dispatch of training steps.

    python -m benchmarks.startup

The first start compiles; the later ones find the compiled programs in the cache. The corpora must
be prepared. Writes benchmarks/results/startup-DEVICE.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import throughput

STARTS = 6
TRAIN = """
import os, runpy, time
from flaxrnn.reporting import report

progress = report.Report.progress

def stop_after_the_first(self, dispatches, *arguments):
    for dispatch in progress(self, dispatches, *arguments):
        print(time.time(), flush=True)
        os._exit(0)

report.Report.progress = stop_after_the_first
runpy.run_path("train.py", run_name="__main__")
"""


def start(task: str, cache: str, workdir: str) -> float:
    """Seconds to the end of the first dispatch."""
    flags = [f"--config=configs/{task}.py", f"--workdir={workdir}"]
    flags += [f"--config.compile_cache={cache}", "--config.data.source=real"]
    began = time.time()
    command = [sys.executable, "-c", TRAIN, *flags]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return float(out.splitlines()[-1]) - began


def main() -> None:
    """Starts each task several times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu", help="used in the name of the result file")
    arguments = parser.parse_args()
    tasks = {}
    for task in ("reuters", "imdb"):
        with tempfile.TemporaryDirectory() as folder:
            cache = str(Path(folder) / "compiled")
            seconds = [start(task, cache, f"{folder}/{i}") for i in range(STARTS)]
        tasks[task] = {"first_s": seconds[0], "later_s": seconds[1:]}
        later = statistics.median(seconds[1:])
        print(f"{task}: first start {seconds[0]:.1f} s, later starts {later:.1f} s (median)")
    path = throughput.RESULTS / f"startup-{arguments.device}.json"
    path.write_text(json.dumps({**throughput.provenance(), "tasks": tasks}, indent=1) + "\n")


if __name__ == "__main__":
    main()

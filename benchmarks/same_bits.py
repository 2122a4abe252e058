"""Trains whole runs on 1, 2, 4 and 8 CPU devices and compares their final weights bit by bit.

    python -m benchmarks.same_bits
    python -m benchmarks.same_bits --configs reuters.py imdb.py     the defaults, which take longer

Needs the real corpora and `taskset`, which gives each run every core or only one. All have
`train.shards=8` and an empty compile cache. Writes benchmarks/results/same-bits-cpu.json
after each; started again at the same commit, the command goes on with the runs that are missing.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import throughput
from flaxrnn.training import checkpoint

FILE = throughput.RESULTS / "same-bits-cpu.json"
DEVICES = (1, 2, 4, 8)


def train(config: str, devices: int, cores: list[int]) -> dict:
    """Trains a run on some cores; returns the digest of its weights, its accuracy and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        flags = [f"--config=configs/{config}", f"--workdir={workdir}", "--config.train.shards=8"]
        flags += [f"--config.compile_cache={folder}/compiled", "--config.data.source=real"]
        flags += ["--config.train.baseline=False", "--config.train.explain=False"]
        subprocess.run(
            ["taskset", "-c", ",".join(map(str, cores)), sys.executable, "train.py", *flags],
            env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        result = json.loads((workdir / "result.json").read_text())
        intact = checkpoint.find_intact(workdir / "checkpoints")
        assert intact is not None
        weights = (intact / "weights.safetensors").read_bytes()
    return {
        "sha256": hashlib.sha256(weights).hexdigest(),
        "epochs": result["epochs"],
        "test_accuracy": result["test_accuracy"],
        "seconds": result["seconds"]["total"],
    }


def main() -> None:
    """Trains every run and compares."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--configs", nargs="+", default=["reuters.py:fast", "imdb.py:fast"])
    arguments = parser.parse_args()
    provenance = throughput.provenance()
    recorded = json.loads(FILE.read_text()) if FILE.exists() else {}
    found = recorded["configs"] if recorded.get("commit") == provenance["commit"] else {}
    usable = sorted(os.sched_getaffinity(0))
    for config in arguments.configs:
        runs = found.setdefault(config, {})
        for devices in DEVICES:
            for cores in (usable, usable[:1]):
                name = f"{devices} devices, {len(cores)} cores"
                if name not in runs:
                    runs[name] = train(config, devices, cores)
                print(f"{config}, {name}: {runs[name]}", flush=True)
                FILE.write_text(json.dumps({**provenance, "configs": found}, indent=1) + "\n")
        same = len({run["sha256"] for run in runs.values()}) == 1
        print(f"{config}: {'the same bits' if same else 'DIFFERENT BITS'} in {len(runs)} runs")


if __name__ == "__main__":
    main()

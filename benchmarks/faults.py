"""Kills training runs at random times and corrupts checkpoints, many times over.

    python -m benchmarks.faults
    python -m benchmarks.faults --kills 10 --corruptions 50

Needs the real corpora. Each run is killed once, at a random time between its start and its end, and
started again with the same command; its final state is compared bitwise with that of an
uninterrupted run. Each corruption damages the newer of the two checkpoints of a run. Writes
benchmarks/results/faults.json.
"""

import argparse
import collections
import contextlib
import io
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import throughput
from flaxrnn.errors import WorkdirError
from flaxrnn.training import checkpoint

TIMINGS = ("seconds", "train_examples_per_second")  # differ between equal runs
FLAGS = {  # short runs with many checkpoints
    "reuters": [
        "--config=configs/reuters.py",
        "--config.data.source=real",
        "--config.data.maxlen=40",
        "--config.train.batch_size=50",
        "--config.train.epochs=4",
        "--config.train.baseline=False",
        "--config.train.explain=False",
        "--config.train.checkpoint_steps=32",
    ],
    "imdb": [
        "--config=configs/imdb.py",
        "--config.data.source=real",
        "--config.data.maxlen=60",
        "--config.model.conv_filters=16",
        "--config.train.batch_size=100",
        "--config.train.epochs=3",
        "--config.train.baseline=False",
        "--config.train.explain=False",
        "--config.train.checkpoint_steps=32",
    ],
}


def start(flags: list[str], workdir: Path) -> subprocess.Popen:
    """Starts `train.py`."""
    command = [sys.executable, "train.py", *flags, f"--workdir={workdir}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def final_state(workdir: Path) -> dict[str, Any]:
    """All that a finished run is compared by: state, weights, history and result, without times."""
    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    result = json.loads((workdir / "result.json").read_text())
    return {
        "state": (newest / "state.safetensors").read_bytes(),
        "weights": (newest / "weights.safetensors").read_bytes(),
        "history": [
            {name: value for name, value in json.loads(line).items() if name not in TIMINGS}
            for line in lines
        ],
        "result": {name: result[name] for name in ("test_loss", "test_accuracy", "best_epoch")},
    }


def finish(flags: list[str], workdir: Path) -> float:
    """Runs to the end and returns the seconds it took."""
    start_time = time.perf_counter()
    process = start(flags, workdir)
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{workdir}: exit code {process.returncode}: {errors}")
    return time.perf_counter() - start_time


def interrupt(flags: list[str], workdir: Path, seconds: float, number: int) -> str:
    """Sends a run a signal after some seconds, then resumes it to the end.

    Returns:
        The step of the checkpoint it resumed from, or "none".
    """
    process = start(flags, workdir)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.send_signal(number)
    process.communicate()
    found = [path.name for path in workdir.glob("checkpoints/*") if path.name.isdecimal()]
    finish(flags, workdir)
    return max(found, key=int, default="none")


def corrupt(path: Path, random: random.Random) -> str:
    """Flips a bit of a file, truncates it or deletes it; returns which."""
    content = bytearray(path.read_bytes())
    kind = random.choice(("flip", "truncate", "delete"))
    if kind == "flip":
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    elif kind == "truncate":
        del content[random.randrange(len(content)) :]
    path.unlink() if kind == "delete" else path.write_bytes(content)
    return kind


def corruptions(folder: Path, count: int, random: random.Random) -> dict[str, int]:
    """Corrupts the newest checkpoint of a run, one file at a time; counts the outcomes."""
    steps = sorted(int(path.name) for path in folder.iterdir())
    names = sorted(path.name for path in (folder / str(steps[-1])).iterdir())
    intact = {step: _contents(folder / str(step)) for step in steps}
    outcomes: collections.Counter[str] = collections.Counter()
    for i in range(count):
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stderr(io.StringIO()):
            copy = Path(scratch) / "checkpoints"
            shutil.copytree(folder, copy)
            name = names[i % len(names)]
            corrupt(copy / str(steps[-1]) / name, random)
            checkpoints = checkpoint.Checkpoints(copy)
            try:
                restored = checkpoints.restore()
            except WorkdirError as error:
                outcomes["refused" if name in str(error) else "wrong"] += 1
                continue
            finally:
                checkpoints.close()
            kept = steps[-2] if (copy / f"{steps[-1]}.damaged").exists() else steps[-1]
            same = _contents(copy / str(kept)) == intact[kept]
            same &= restored["progress"] == json.loads(intact[kept]["progress.json"])
            outcome = "refused, previous one used" if kept == steps[-2] else "harmless"
            outcomes[outcome if same else "wrong"] += 1
    return dict(outcomes)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def main() -> None:
    """Kills runs, corrupts checkpoints and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="runs sent SIGKILL")
    parser.add_argument("--terminations", type=int, default=10, help="runs sent SIGTERM or SIGINT")
    parser.add_argument("--corruptions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    signals = [signal.SIGKILL] * arguments.kills
    signals += [draw.choice((signal.SIGTERM, signal.SIGINT)) for _ in range(arguments.terminations)]
    trials: list[dict[str, Any]] = []
    uninterrupted, seconds, corrupted = {}, {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for task, flags in FLAGS.items():
            workdir = Path(scratch) / task
            finish(flags, workdir)  # compiles
            shutil.rmtree(workdir)
            seconds[task] = finish(flags, workdir)
            uninterrupted[task] = final_state(workdir)
            corrupted[task] = corruptions(
                workdir / "checkpoints", arguments.corruptions // len(FLAGS), draw
            )
            print(f"{task}: {seconds[task]:.1f} s per run; corruptions {corrupted[task]}")
        for i, number in enumerate(signals):
            task = list(FLAGS)[i % len(FLAGS)]
            workdir, after = Path(scratch) / str(i), draw.uniform(0, seconds[task])
            step = interrupt(FLAGS[task], workdir, after, number)
            same = final_state(workdir) == uninterrupted[task]
            trials.append(
                {"task": task, "signal": number.name, "after_s": after, "step": step, "same": same}
            )
            print(f"{i + 1:3} {number.name} {task} after {after:.1f} s, step {step}: {same}")
            shutil.rmtree(workdir)
    counts = {
        kind: {"same": sum(same), "runs": len(same)}
        for kind in sorted({trial["signal"] for trial in trials})
        if (same := [trial["same"] for trial in trials if trial["signal"] == kind])
    }
    print(f"bitwise the same: {counts}; corruptions: {corrupted}")
    record = {
        **throughput.provenance(),
        "same": counts,
        "corruptions": corrupted,
        "seconds_per_run": seconds,
        "trials": trials,
    }
    path = throughput.RESULTS / "faults.json"
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Kills training runs at random moments, and damages checkpoints, many times.

    python -m benchmarks.faults
    python -m benchmarks.faults --kills 10 --corruptions 50

Needs the real corpora. Every run is killed once, at a moment drawn from the whole of it, from its
first instruction to its last, and started again with the same command; what it ends with is
compared, bit for bit, with a run that was left alone. Every corruption hits the newest of two
checkpoints of such a run. Writes benchmarks/results/faults.json.
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

CLOCKS = ("seconds", "train_examples_per_second")
FLAGS = {  # short runs with many checkpoints
    "reuters": [
        "--config=configs/reuters.py",
        "--config.data.source=real",
        "--config.data.maxlen=40",
        "--config.train.batch_size=50",
        "--config.train.epochs=4",
        "--config.train.checkpoint_steps=32",
    ],
    "imdb": [
        "--config=configs/imdb.py",
        "--config.data.source=real",
        "--config.data.maxlen=60",
        "--config.model.conv_filters=16",
        "--config.train.batch_size=100",
        "--config.train.epochs=3",
        "--config.train.checkpoint_steps=32",
    ],
}


def start(flags: list[str], workdir: Path) -> subprocess.Popen:
    """Starts `train.py`."""
    command = [sys.executable, "train.py", *flags, f"--workdir={workdir}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def outcome(workdir: Path) -> dict[str, Any]:
    """What a run ended with, but for its clocks: state, weights, history, result."""
    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    result = json.loads((workdir / "result.json").read_text())
    return {
        "state": (newest / "state.safetensors").read_bytes(),
        "weights": (newest / "weights.safetensors").read_bytes(),
        "history": [
            {name: value for name, value in json.loads(line).items() if name not in CLOCKS}
            for line in lines
        ],
        "result": {name: result[name] for name in ("test_loss", "test_accuracy", "best_epoch")},
    }


def finish(flags: list[str], workdir: Path) -> float:
    """Lets a run come to its end; the seconds that it took."""
    began = time.perf_counter()
    process = start(flags, workdir)
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{workdir} ended with {process.returncode}: {errors}")
    return time.perf_counter() - began


def interrupt(flags: list[str], workdir: Path, seconds: float, number: int) -> str:
    """Sends a run a signal after a while, and lets it go on; where it was: its newest step."""
    process = start(flags, workdir)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.send_signal(number)
    process.communicate()
    found = [path.name for path in workdir.glob("checkpoints/*") if path.name.isdecimal()]
    finish(flags, workdir)
    return max(found, key=int, default="none")


def corrupt(path: Path, random: random.Random) -> str:
    """Flips a bit of a file, cuts it, or deletes it."""
    content = bytearray(path.read_bytes())
    kind = random.choice(("flip", "cut", "delete"))
    if kind == "flip":
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    elif kind == "cut":
        del content[random.randrange(len(content)) :]
    path.unlink() if kind == "delete" else path.write_bytes(content)
    return kind


def corruptions(folder: Path, count: int, random: random.Random) -> dict[str, int]:
    """Corrupts the newest checkpoint of a run, file after file, and looks what comes back."""
    steps = sorted(int(path.name) for path in folder.iterdir())
    names = sorted(path.name for path in (folder / str(steps[-1])).iterdir())
    right = {step: _contents(folder / str(step)) for step in steps}
    seen: collections.Counter[str] = collections.Counter()
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
                seen["refused" if name in str(error) else "wrong"] += 1
                continue
            finally:
                checkpoints.close()
            kept = steps[-2] if (copy / f"{steps[-1]}.damaged").exists() else steps[-1]
            same = _contents(copy / str(kept)) == right[kept]
            same &= restored["progress"] == json.loads(right[kept]["progress.json"])
            what = "refused, the one before used" if kept == steps[-2] else "harmless"
            seen[what if same else "wrong"] += 1
    return dict(seen)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def main() -> None:
    """Kills and corrupts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--terminations", type=int, default=10, help="runs sent SIGTERM or SIGINT")
    parser.add_argument("--corruptions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    signals = [signal.SIGKILL] * arguments.kills
    signals += [draw.choice((signal.SIGTERM, signal.SIGINT)) for _ in range(arguments.terminations)]
    trials: list[dict[str, Any]] = []
    damage = {}
    with tempfile.TemporaryDirectory() as scratch:
        alone, seconds = {}, {}
        for task, flags in FLAGS.items():
            workdir = Path(scratch) / task
            finish(flags, workdir)  # compiles
            shutil.rmtree(workdir)
            seconds[task] = finish(flags, workdir)
            alone[task] = outcome(workdir)
            damage[task] = corruptions(
                workdir / "checkpoints", arguments.corruptions // len(FLAGS), draw
            )
            print(f"{task}: {seconds[task]:.1f} s a run; corruptions {damage[task]}", flush=True)
        for i, number in enumerate(signals):
            task = list(FLAGS)[i % len(FLAGS)]
            workdir, after = Path(scratch) / str(i), draw.uniform(0, seconds[task])
            step = interrupt(FLAGS[task], workdir, after, number)
            same = outcome(workdir) == alone[task]
            trials.append(
                {"task": task, "signal": number.name, "after_s": after, "step": step, "same": same}
            )
            print(f"{i + 1:3} {number.name} {task} after {after:.1f} s, step {step}: {same}")
            shutil.rmtree(workdir)
    counts = {
        kind: [sum(trial["same"] for trial in some), len(some)]
        for kind in sorted({trial["signal"] for trial in trials})
        if (some := [trial for trial in trials if trial["signal"] == kind])
    }
    print(f"bitwise the same, of all: {counts}; corruptions: {damage}")
    record = {
        **throughput.provenance(),
        "same_of_all": counts,
        "corruptions": damage,
        "seconds_a_run": seconds,
        "trials": trials,
    }
    path = throughput.RESULTS / "faults.json"
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Asks runs to stop at random moments, from the start of the process to its end.

    python -m benchmarks.moments
    python -m benchmarks.moments --moments 30

Trains on the embedded synthetic corpus, half of the runs with an empty compile cache. A run ends
cleanly if it does so with the exit code of its signal (or was quicker), says what became of it
without a traceback, and leaves nothing or a workdir that the same command completes, to the result
of a run that was left alone. Writes benchmarks/results/moments.json.
"""

import argparse
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

SECONDS = 300  # for a run; then it hangs
ODD = ("Traceback", "Exception ignored", "Fatal", "core dumped")
FLAGS = [
    "--config=configs/reuters.py",
    "--config.data.source=synthetic",
    "--config.data.maxlen=8",
    "--config.data.max_padding=1.0",
    "--config.model.hidden_size=8",
    "--config.train.batch_size=100",
    "--config.train.epochs=4",
    "--config.train.patience=4",
]


def command(folder: Path, workdir: Path, cache: Path) -> list[str]:
    """The command of a run; `folder` holds the prepared corpus."""
    places = [f"--workdir={workdir}", f"--config.data.data_dir={folder / 'data'}"]
    return [sys.executable, "train.py", *FLAGS, *places, f"--config.compile_cache={cache}"]


def finish(arguments: list[str], workdir: Path) -> dict[str, Any]:
    """Runs to the end; returns the seconds, and the result without times."""
    start = time.perf_counter()
    done = subprocess.run(
        arguments, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{workdir}: exit code {done.returncode}: {done.stderr}")
    result = json.loads((workdir / "result.json").read_text())
    names = ("test_loss", "test_accuracy", "best_epoch")
    return {
        "seconds": time.perf_counter() - start,
        "result": {name: result[name] for name in names},
        "baseline": result["baseline"]["test_accuracy"],
    }


def interrupt(arguments: list[str], after: float, number: signal.Signals) -> tuple[int, str]:
    """Sends a run a signal after some seconds; returns its exit code and what it said."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    time.sleep(after)
    process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(), "hangs"
    return process.returncode, errors


def judge(code: int, errors: str, number: signal.Signals, workdir: Path) -> str | None:
    """What is wrong with the end of a run; None: nothing."""
    # Outside of Python's own life in the process, the signal ends it as the shell counts it, too.
    if code not in (0, 128 + number, -number):
        return f"exit code {code}"
    if found := [odd for odd in ODD if odd in errors]:
        return f"says {found[0]}"
    if code == 0 and not is_complete(workdir):
        return "goes on"
    if code == 128 + number and f"\n{number.name}: " not in f"\n{errors}":
        return "does not say so"
    if "nothing to save" in errors and workdir.exists():
        return "leaves something"
    return None


def is_complete(workdir: Path) -> bool:
    """Whether a run was done before its signal came: the baseline is the last that it adds."""
    path = workdir / "result.json"
    return path.exists() and "baseline" in json.loads(path.read_text())


def main() -> None:
    """Interrupts runs, resumes them and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--moments", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    trials: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        warm, cold = folder / "warm", folder / "cold"
        first = finish(command(folder, folder / "first", warm), folder / "first")
        alone = finish(command(folder, folder / "alone", warm), folder / "alone")
        print(f"{first['seconds']:.1f} s cold, {alone['seconds']:.1f} s warm", flush=True)
        for i in range(arguments.moments):
            number = draw.choice((signal.SIGINT, signal.SIGTERM))
            workdir, is_cold = folder / str(i), i % 2 == 1
            after = draw.uniform(0, (first if is_cold else alone)["seconds"])
            shutil.rmtree(cold, ignore_errors=True)
            cache = cold if is_cold else warm
            code, errors = interrupt(command(folder, workdir, cache), after, number)
            problem = judge(code, errors, number, workdir)
            if workdir.exists():
                end = finish(command(folder, workdir, cache), workdir)
                same = end["result"] == alone["result"] and end["baseline"] == alone["baseline"]
                problem = problem or (None if same else "ends with another result")
            said = errors.strip().splitlines()[-1:]
            trial = {"signal": number.name, "cold": is_cold, "after_s": after, "code": code}
            trials.append({**trial, "problem": problem})
            print(i + 1, trial, problem, said, errors if problem else "", flush=True)
            shutil.rmtree(workdir, ignore_errors=True)
    survived = sum(trial["problem"] is None for trial in trials)
    print(f"{survived} of {len(trials)} ended cleanly")
    record = {**throughput.provenance(), "survived": survived, "trials": trials}
    path = throughput.RESULTS / "moments.json"
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

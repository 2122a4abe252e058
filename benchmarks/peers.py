"""Stops, kills and hangs one of two processes of a run at each phase, and watches the other.

    python -m benchmarks.peers
    python -m benchmarks.peers --only "SIGKILL of 1, training" "port in use" --hurry

Trains on the embedded synthetic corpus; the processes are forked from this one, which has imported
the libraries. A case is passed if every process ends as is documented within 60 s: the others of
one that was lost with exit code 1 and a single line of error, without a word of the C++ runtime.
Writes benchmarks/results/peers.json.
"""

import argparse
import atexit
import functools
import importlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import moments, throughput

ENVIRONMENT = {"JAX_NUM_CPU_DEVICES": "1", "TF_CPP_MIN_LOG_LEVEL": "4"}  # as a command sets it
FLAGS = (  # in addition to those of `moments`
    "--config.data.num_words=100",
    "--config.model.embedding_size=8",
    "--config.train.epochs=1",
)
SECONDS = 60  # for a process to end after what happened
SLOWEST = 300  # for a case to come so far
# Where a phase begins: in a function or method of a module.
PHASES = {
    "joining": ("flaxrnn.runtime.distributed", "_join"),
    "connecting": ("flaxrnn.runtime.distributed", "_initialize_jax"),
    "reading": ("flaxrnn.run", "load_texts"),
    "compiling": ("flaxrnn.runtime.devices", "compiled"),
    "training": ("flaxrnn.training.trainer", "MetricAccumulator.append"),
    "checkpointing": ("flaxrnn.training.checkpoint", "Checkpoints.save"),
    "validation": ("flaxrnn.loop", "_validate"),
    "test": ("flaxrnn.loop", "_test"),
    "baseline": ("flaxrnn.training.baseline", "evaluate"),
    "report": ("flaxrnn.reporting.report", "Report.finish"),
    "waiting for the others": ("flaxrnn.runtime.watch", "Watch.finish"),
}
OF_ONE = {"checkpointing": 0, "baseline": 0, "report": 0, "waiting for the others": 1}
SIGNALS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT)
RUNTIME = re.compile(r"^[EF]\d{4} |^\*\*\*|terminate called|C\+\+", re.MULTILINE)


class Case(NamedTuple):
    """What happens to two processes, and the exit codes that are right.

    Attributes:
        name: Says what happens.
        phase: When process `of` is sent `number`.
        of: The process that it happens to; it is judged first.
        number: The signal.
        flags: Flags of process `of` alone.
        processes: Those that are started, by their --process_id.
        codes: Exit codes that are right, of each of them; None: `allowed` says which.
    """

    name: str
    phase: str = ""
    of: int = 1
    number: int = 0
    flags: tuple[str, ...] = ()
    processes: tuple[int, ...] = (0, 1)
    codes: tuple[int, ...] | None = None


def cases() -> list[Case]:
    """All cases."""
    found = [
        Case("port in use", codes=(2, 1)),
        Case("process 1 never joins", processes=(0,), codes=(1,)),
        Case("process 0 never joins", processes=(1,), codes=(1,)),
        Case("refused field", flags=("--config.train.batch_size=-1",), codes=(1, 2)),
        Case("other field", flags=("--config.model.hidden_size=9",), codes=(1, 2)),
        Case("other number of seeds", flags=("--seeds=2",), codes=(1, 2)),
        Case("other number of processes", flags=("--num_processes=3",), codes=(1, 2)),
        Case("two processes 1", processes=(0, 1, 1), codes=(0, 0, 2)),
        Case("a late process 1", "training", codes=(0, 0, 2)),
    ]
    for phase in PHASES:
        for of in (0, 1):
            for number in SIGNALS:
                if OF_ONE.get(phase, of) == of:
                    name = f"{signal.Signals(number).name} of {of}, {phase}"
                    found.append(Case(name, phase, of, number))
    return found


class Process(NamedTuple):
    """A process of a case."""

    pid: int
    log: Path


def start(arguments: list[str], log: Path, prepare: Callable[[], None]) -> Process:
    """Forks a process that does what `train.py` does with these arguments."""
    if pid := os.fork():
        return Process(pid, log)
    code: Any = 1
    try:
        stream = os.open(log, os.O_CREAT | os.O_WRONLY)
        os.dup2(stream, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        prepare()
        sys.argv = ["train.py", *arguments]
        importlib.import_module("flaxrnn.cli").train(sys.argv)
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        os._exit(code)


def act_at(phase: str, act: Callable[[], None]) -> None:
    """Has this process do something when it first comes to a phase."""
    module, name = PHASES[phase]
    *parents, attribute = name.split(".")
    owner = functools.reduce(getattr, parents, importlib.import_module(module))
    original, begun = getattr(owner, attribute), []

    @functools.wraps(original)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        if not begun:
            begun.append(True)
            if phase == "compiling":
                threading.Timer(0.3, act).start()
            else:
                act()
        return original(*args, **kwargs)

    setattr(owner, attribute, replaced)


def prepare(case: Case, index: int, happened: Path) -> None:
    """Prepares process `index` of a case."""

    def act() -> None:
        happened.touch()
        if case.number:
            os.kill(os.getpid(), case.number)

    if case.phase and index == case.of:
        act_at(case.phase, act)
    if index == 0 and case.phase == "waiting for the others":
        act_at("baseline", functools.partial(time.sleep, 20))


def wait(process: Process, seconds: float) -> int | None:
    """The exit code of a process, negative for a signal; None: it does not end in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(process.pid, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    return None


def run(case: Case, folder: Path, data_dir: str) -> dict[str, Any]:
    """Runs a case; returns the exit codes, the seconds and what is wrong, if anything is."""
    root = Path(tempfile.mkdtemp(dir=folder))
    happened = root / "happened"
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        if case.name != "port in use":
            taken.close()
        started: list[Process] = []

        def begin(index: int) -> None:
            cache = root if case.phase == "compiling" else folder
            arguments = [
                *moments.FLAGS,
                *FLAGS,
                f"--config.train.baseline={case.phase in ('baseline', 'waiting for the others')}",
                f"--workdir={root / 'run'}",
                f"--config.data.data_dir={data_dir}",
                f"--config.compile_cache={cache / 'cache'}",
                f"--coordinator=localhost:{port}",
                "--num_processes=2",
                f"--process_id={index}",
                *(case.flags if index == case.of else ()),
            ]
            ready = functools.partial(prepare, case, index, happened)
            started.append(start(arguments, root / f"log-{len(started)}", ready))

        for index in case.processes:
            begin(index)
        begun = time.monotonic()
        while case.phase and not happened.exists() and time.monotonic() - begun < SLOWEST:
            time.sleep(0.02)
        if case.phase and not case.number:
            begin(case.of)
        return {"case": case.name, **follow(case, started, happened.exists())}


def follow(case: Case, started: list[Process], happened: bool) -> dict[str, Any]:
    """Waits for the end of all processes, the one that was stopped last, and judges them."""
    began = time.monotonic()
    hangs = case.number == signal.SIGSTOP
    order = sorted(range(len(started)), key=lambda i: hangs and i == case.of)
    limit = SLOWEST if case.codes and 0 in case.codes else SECONDS
    codes: dict[int, int | None] = {}
    seconds = 0.0
    for i in order:
        if hangs and i == case.of:
            os.kill(started[i].pid, signal.SIGCONT)
            began = time.monotonic()
        codes[i] = wait(started[i], began + limit - time.monotonic())
        seconds = max(seconds, time.monotonic() - began)
    for i, process in enumerate(started):
        if codes[i] is None:
            os.kill(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)
    said = [process.log.read_text(errors="replace") for process in started]
    found = [codes[i] for i in range(len(started))]
    problem = judge(case, found, said) if happened or not case.phase else "is not reached"
    return {"codes": found, "seconds": seconds, "problem": problem, "said": said}


def judge(case: Case, codes: list[int | None], said: list[str]) -> str | None:
    """What is wrong with how the processes of a case ended; None: nothing."""
    if None in codes:
        return "hangs"
    if case.codes is None:
        if codes[case.of] not in allowed(case):
            return f"exit code {codes[case.of]} of the one that was sent the signal"
        others = [code for i, code in enumerate(codes) if i != case.of]
        # A signal that is heard in time stops all processes, or none if the run is complete.
        agreed = codes[case.of] if "saved after" in said[case.of] else 0
        complete = "is complete" in said[case.of] and case.phase == "report"
        if others != [agreed if agreed or complete else 1]:
            return f"exit code {others[0]} of the other"
    elif sorted(codes) != sorted(case.codes) or (len(codes) == 2 and tuple(codes) != case.codes):
        return f"exit codes {codes}"
    for code, text in zip(codes, said, strict=True):
        if RUNTIME.search(text) or any(odd in text for odd in moments.ODD):
            return "says more than a line"
        if code in (1, 2) and len(re.findall("^error: ", text, re.MULTILINE)) != 1:
            return "does not say one line"
    return None


def allowed(case: Case) -> tuple[int, ...]:
    """The right exit codes of the process that was sent a signal."""
    if case.number == signal.SIGKILL:
        return (-signal.SIGKILL,)
    return (1,) if case.number == signal.SIGSTOP else (128 + case.number,)


def hurry() -> None:
    """Has the processes wait for one another a few seconds only."""
    from flaxrnn.runtime import distributed, watch

    distributed._PATIENCE_SECONDS, distributed._JOIN_SECONDS = 2, 12
    watch.BEAT_SECONDS, watch.SILENT_SECONDS = 1.0, 8.0


def main() -> None:
    """Runs the cases, some at a time, and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="CASE", help="writes no result file")
    parser.add_argument("--hurry", action="store_true", help="with short waits for lost processes")
    parser.add_argument("--at_once", type=int, default=3, help="cases that run side by side")
    parser.add_argument("--data_dir", help="prepared datasets")
    arguments = parser.parse_args()
    if not ENVIRONMENT.items() <= os.environ.items():  # which is read when JAX is imported
        os.environ |= ENVIRONMENT
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.peers", *sys.argv[1:]])
    chosen = [case for case in cases() if arguments.only is None or case.name in arguments.only]
    for module, _ in PHASES.values():
        importlib.import_module(module)
    if arguments.hurry:
        hurry()
    folder = Path(tempfile.mkdtemp())  # a TemporaryDirectory would be deleted by a forked process
    try:
        run_in = functools.partial(
            run, folder=folder, data_dir=arguments.data_dir or str(folder / "data")
        )
        ready = run_in(Case("ready", codes=(0, 0)))  # prepares the corpus, compiles
        print(*ready["said"], ready["problem"], sep="\n", flush=True) if ready["problem"] else None
        results = []
        with multiprocessing.get_context("fork").Pool(
            arguments.at_once, maxtasksperchild=1
        ) as pool:
            for result in pool.imap_unordered(run_in, chosen):
                said = result.pop("said")
                results.append(result)
                print(result, *(said if result["problem"] else ()), sep="\n", flush=True)
    finally:
        shutil.rmtree(folder)
    passed = sum(result["problem"] is None for result in results)
    print(f"{passed} of {len(chosen)} passed")
    if arguments.only is None:
        record = {**throughput.provenance(), "passed": passed, "cases": results}
        path = throughput.RESULTS / "peers.json"
        path.write_text(json.dumps(record, indent=1) + "\n")
    sys.exit(passed < len(chosen))


if __name__ == "__main__":
    main()

"""Compiles the programs of both tasks for accelerators that are not here, and counts what they do.

    python -m benchmarks.aot                                      everything: about an hour
    python -m benchmarks.aot --targets h100-1 --configs reuters   a part of it
    python -m benchmarks.aot --table                              the tables of docs/performance.md

`benchmarks/aot_targets.py` says what to install. Training, evaluation and prediction programs of
each config, for texts of `data.maxlen` tokens, each in its own process. Nothing runs. Writes
benchmarks/results/aot.json, in which results that are already there are replaced.
"""

import argparse
import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import aot_analysis, aot_programs, aot_targets
from flaxrnn.config import ModelConfig
from flaxrnn.nn import fused
from flaxrnn.training.trainer import STEPS_PER_DISPATCH

RESULTS = Path(__file__).parent / "results" / "aot.json"
MINUTES = 20  # of a compilation, at most


def compile_one(target: str, config: str, program: str, length: int = 0) -> dict[str, Any]:
    """Compiles a program in a process of its own; returns what is known of it.

    Raises:
        RuntimeError: The compiler failed, or took too long.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_ENABLE_COMPILATION_CACHE": "false",  # what is cached is not dumped
            "XLA_FLAGS": "",
        }
        if aot_targets.platform(target) == "cuda":
            environment["XLA_FLAGS"] = f"--xla_dump_to={folder} --xla_dump_hlo_as_text"
        else:
            environment["LIBTPU_INIT_ARGS"] = (
                f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
                " --xla_jf_dump_llo_pass_label_regex=.*final_bundles.*"
            )
        worker = [sys.executable, "-m", "benchmarks.aot", "--worker", folder, str(length)]
        try:
            done = subprocess.run(
                [*worker, "--targets", target, "--configs", config, "--programs", program],
                cwd=Path(__file__).parents[1],
                env=environment,
                capture_output=True,
                text=True,
                timeout=60 * MINUTES,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"took more than {MINUTES} minutes") from None
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _work(target: str, config_name: str, program: str, folder: Path, length: int) -> dict[str, Any]:
    """What the process of a compilation does."""
    config = aot_programs.load(config_name)
    settings = config.train
    length = length or config.data.maxlen
    mesh = aot_targets.mesh(target)
    jitted, arguments = aot_programs.build(config, program, mesh, (length,))
    start = time.perf_counter()
    lowered = jitted.lower(*arguments)
    middle = time.perf_counter()
    compiled = lowered.compile()
    end = time.perf_counter()
    memory = compiled.memory_analysis()
    hlo = compiled.as_text()
    result: dict[str, Any] = {
        "target": target,
        "config": config_name,
        "program": program,
        "device": mesh.devices.flat[0].device_kind,
        "devices": mesh.size,
        "batch_size": settings.batch_size if program == "train" else settings.eval_batch_size,
        "length": length,
        "lower_seconds": middle - start,
        "compile_seconds": end - middle,
        "arguments_mib": memory.argument_size_in_bytes / 2**20,
        "temporary_mib": memory.temp_size_in_bytes / 2**20,
        "host_transfers": len(re.findall(r" (?:infeed|outfeed|send|recv)\(|host-transfer", hlo)),
    }
    if aot_targets.platform(target) == "cuda":
        thunks = aot_analysis.read_thunks(folder)
        per_loop = _time_steps(config.model, length) // fused.GPU_UNROLL
        trips = (per_loop,) if program == "predict" else (STEPS_PER_DISPATCH, per_loop)
        loops = [count / fused.GPU_UNROLL for count in aot_analysis.time_loops(thunks)]
        result["launches"] = aot_analysis.launches(thunks, trips)
        result["host_transfers"] += len(aot_analysis.to_host(thunks))
        result["loops"] = [{"operations": count} for count in loops]
    else:
        loops = aot_analysis.tpu_time_loops(hlo, folder)
        result["loops"] = [dataclasses.asdict(loop) for loop in loops]
    return result


def _time_steps(model: ModelConfig, length: int) -> int:
    if model.conv_filters:
        length = (length - model.conv_width + 1) // model.conv_pool
    return min(length, model.segment or length)


def table(rows: list[dict[str, Any]], devices: int = 1) -> str:
    """The results for so many devices as Markdown: a row per program, a column per chip."""
    chips = list(dict.fromkeys(target.partition("-")[0] for target in aot_targets.TARGETS))
    lines = ["| | " + " | ".join(chips) + " |", "|---" * (1 + len(chips)) + "|"]
    found = {(row["config"], row["program"], row["target"]): _cell(row) for row in rows}
    for config, program in itertools.product(aot_programs.CONFIGS, aot_programs.PROGRAMS):
        cells = [found.get((config, program, f"{chip}-{devices}"), "") for chip in chips]
        lines.append(f"| {config}, {program} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    """Operations per time step of each loop, bundles or launches, memory, time to compile."""
    if "error" in row:
        return str(row["error"])
    parts = [" + ".join(f"{loop['operations']:g}" for loop in row["loops"])]
    if "launches" in row:
        parts.append("1 launch" if row["launches"] == 1 else f"{row['launches']:,} launches")
    else:
        parts.append(" + ".join(f"{loop['bundles']:,}" for loop in row["loops"]) + " bundles")
    parts.append(f"{row['arguments_mib'] + row['temporary_mib']:.0f} MiB")
    parts.append(f"{row['compile_seconds']:.0f} s")
    return "; ".join(parts)


def _key(row: dict[str, Any]) -> tuple:
    return (
        aot_programs.CONFIGS.index(row["config"]),
        aot_programs.PROGRAMS.index(row["program"]),
        aot_targets.TARGETS.index(row["target"]),
    )


def main() -> None:
    """Compiles, prints a line per program and keeps the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, known in (
        ("targets", aot_targets.TARGETS),
        ("configs", aot_programs.CONFIGS),
        ("programs", aot_programs.PROGRAMS),
    ):
        parser.add_argument(f"--{name}", nargs="+", choices=known, default=known)
    parser.add_argument("--missing", action="store_true", help="only what has no result yet")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = itertools.product(arguments.configs, arguments.programs, arguments.targets)
    if arguments.worker:
        folder, length = arguments.worker
        ((config, program, target),) = chosen
        print(json.dumps(_work(target, config, program, Path(folder), int(length))))
        return
    rows = json.loads(RESULTS.read_text())["programs"] if RESULTS.exists() else []
    if arguments.table:
        for devices in (1, 4):
            print(f"\n{devices} devices\n{table(rows, devices)}")
        return
    for config, program, target in chosen:
        name = {"target": target, "config": config, "program": program}
        others = [row for row in rows if any(row[key] != value for key, value in name.items())]
        known = any("error" not in row for row in rows if row not in others)
        if not aot_targets.installed(target) or (arguments.missing and known):
            continue
        try:
            row = compile_one(target, config, program)
        except RuntimeError as error:
            row = {**name, "error": str(error)}
        rows = sorted([*others, row], key=_key)
        print(f"{config}, {program}, {target}: {_cell(row)}", flush=True)
        record = {"versions": aot_targets.versions(), "programs": rows}
        RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

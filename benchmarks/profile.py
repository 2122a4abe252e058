"""Attributes the time of a training step on CPU to its parts, from a trace of the compiled program.

    python -m benchmarks.profile

Prints one table per model: the share of each layer, forward and backward, averaged over the
devices. Writes benchmarks/results/profile-cpu.json. Matrix products run on one thread per device
here, so that the trace records each of them whole. Tracing slows a step down: read shares, not
times.
"""

import collections
import json
import os
import re
import tempfile
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax

from benchmarks import baselines, throughput
from benchmarks.cases import Case

CASES = [case for case in throughput.CHAPTER if case.mode == "train"]
DISPATCHES = 4
RECURRENT = ("simple_", "lstm_", "gru_")


def part(op_name: str) -> str | None:
    """The part of the step that an instruction belongs to; None if it is not counted by itself."""
    inside = op_name.split("while/body/")[1:]
    if len(inside) != 1:
        return None  # once per dispatch, or within the recurrence's loop, which is counted whole
    path = inside[0]
    if "psum" in path or "all_reduce" in path:
        return "all-reduce"
    if "TextModel" not in path:
        return "loss" if "jvp" in path else "optimizer, averaging, guard, batch"
    direction = "backward" if "transpose(" in path else "forward"
    names = [name for name in path.split("/")[1:] if not name.startswith(("transpose", "jvp"))]
    layer = names[0] if names else "model"
    if layer.startswith(RECURRENT):
        what = "loop" if names[-1] == "while" else "input projection, weight gradients"
        return f"{layer.rpartition('_')[0]} {what}, {direction}"
    return f"{layer}, {direction}"


def shares(case: Case) -> dict[str, float]:
    """Share of each part in the traced time."""
    workload = baselines.flaxrnn(case)
    workload.run()
    names = dict(re.findall(r'%([\w.-]+) = [^\n]*op_name="([^"]*)"', workload.hlo()))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(DISPATCHES):
                workload.run()
        (trace,) = Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(trace)).planes
        spent: collections.Counter[str] = collections.Counter()
        for plane in planes:
            for line in plane.lines:
                for event in line.events:
                    if event.name in names and (where := part(names[event.name])):
                        spent[where] += event.duration_ns
    total = sum(spent.values())
    return {where: time / total for where, time in spent.most_common()}


def main() -> None:
    """Profiles the chapter's models."""
    record = {**throughput.provenance(), "cases": []}
    for case in CASES:
        found = shares(case)
        print(f"\n{case}")
        for where, share in found.items():
            print(f"  {share:6.1%}  {where}")
        record["cases"].append({**case._asdict(), "shares": found})
    path = throughput.RESULTS / "profile-cpu.json"
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

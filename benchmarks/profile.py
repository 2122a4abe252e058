"""Says where a training step's time goes, on CPU, from a trace of the compiled program.

    python -m benchmarks.profile

Prints a table a model, for each of the devices' mean: forward, backward and what comes after.
Writes benchmarks/results/profile-cpu.json. Products run on one thread a device here, so that the
trace shows them whole; a traced step is slower than one alone, hence shares and not times.
"""

import collections
import json
import os
import re
import tempfile
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax

from benchmarks import peers, throughput

CASES = [case for case in throughput.OWN if case[-1] == "train"]
DISPATCHES = 4
RECURRENT = ("simple_", "lstm_", "gru_")


def part(op_name: str) -> str | None:
    """The part of the step that an instruction belongs to; None: it is inside of another one."""
    inside = op_name.split("while/body/")[1:]
    if len(inside) != 1:
        return None  # once a dispatch, or inside the recurrence's loop, which counts as a whole
    path = inside[0]
    if "psum" in path or "all_reduce" in path:
        return "adding up over devices"
    if "TextModel" not in path:
        return "loss" if "jvp" in path else "optimizer, averaging, guard, batch"
    direction = "backward" if "transpose(" in path else "forward"
    names = [name for name in path.split("/")[1:] if not name.startswith(("transpose", "jvp"))]
    layer = names[0] if names else "model"
    if layer.startswith(RECURRENT):
        looped = "loop" if names[-1] == "while" else "input projection, weights' gradients"
        return f"{layer.rpartition('_')[0]} {looped}, {direction}"
    return f"{layer}, {direction}"


def shares(spec: peers.Spec) -> dict[str, float]:
    """Share of the traced time of each part."""
    run = peers.flaxrnn(spec)
    run()
    names = dict(re.findall(r'%([\w.-]+) = [^\n]*op_name="([^"]*)"', run.program()))  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(DISPATCHES):
                run()
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
    """Profiles the mission's models."""
    record = {**throughput.provenance(), "cases": []}
    for case in CASES:
        spec = dict(zip(("model", "batch", "length", "hidden", "mode"), case, strict=True))
        found = shares(spec)
        print("\n{model}, B={batch}, T={length}, H={hidden}".format(**spec))
        for where, share in found.items():
            print(f"  {share:6.1%}  {where}")
        record["cases"].append({**spec, "shares": found})
    path = throughput.RESULTS / "profile-cpu.json"
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

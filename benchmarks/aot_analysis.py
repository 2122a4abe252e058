"""What a compiled program does at each time step, read from the compilers' own dumps.

On a GPU, a device operation is a kernel or a copy. A launch is what the host starts: an operation,
or a CUDA graph of many; a loop outside of a graph starts what is in it once per iteration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Thunk:
    """An operation of XLA:GPU's runtime, with those inside of it."""

    kind: str
    name: str = ""
    parts: list[list[Thunk]] = field(default_factory=list)  # body, branches or graph


def read_thunks(folder: Path) -> list[Thunk]:
    """The operations of the program whose dump is in a folder (--xla_dump_to)."""
    (path,) = folder.glob("*thunk_sequence_after_thunk_passes.txt")
    top: list[Thunk] = []
    open_ = [(-1, top)]  # indentation of a header, and what is under it
    in_condition = False
    for line in path.read_text().splitlines():
        indent = len(line) - len(line.lstrip())
        found = re.match(r"\d+: (k\w+)\s*(?:\[.*?\])?\s*(\S*)", line.strip())
        if not found:
            in_condition = line == "condition:"
            if in_condition or not line.endswith(":"):
                continue
        elif in_condition:  # of a loop: a comparison
            continue
        while open_[-1][0] >= indent:
            open_.pop()
        inside = open_[-1][1]
        if found:
            inside.append(Thunk(found[1], found[2]))
        if not found or found[1] in ("kCommandBuffer", "kDynamicSliceFusion"):
            inside[-1].parts.append([])
            open_.append((indent, inside[-1].parts[-1]))
    return top


def launches(thunks: list[Thunk], trips: tuple[int, ...]) -> int:
    """What the host starts; `trips` are the iterations of a loop, from the outermost inwards."""
    total = 0
    for thunk in thunks:
        if thunk.kind == "kWhile":  # its condition is one more, which the host waits for
            total += trips[0] * (1 + launches(thunk.parts[0], trips[1:]))
        elif thunk.kind == "kConditional":
            total += 1 + max(launches(part, trips) for part in thunk.parts)
        else:
            total += 1
    return total


def time_loops(thunks: list[Thunk]) -> list[int]:
    """Operations per iteration of each loop that has a matrix product and no loop inside."""
    found = []
    for thunk in thunks:
        inner = [loop for part in thunk.parts for loop in time_loops(part)]
        found += inner
        if thunk.kind == "kWhile" and not inner and any("gemm" in t for t in _names(thunk)):
            found.append(_operations(thunk))
    return found


def _names(thunk: Thunk) -> list[str]:
    inside = [name for part in thunk.parts for t in part for name in _names(t)]
    return [f"{thunk.kind} {thunk.name}".lower(), *inside]


def _operations(thunk: Thunk) -> int:
    if not thunk.parts:
        return 1
    return sum(_operations(t) for part in thunk.parts for t in part)


def to_host(thunks: list[Thunk]) -> list[str]:
    """Kinds of operations with which the device waits for the host, or sends to it."""
    kinds = [k for t in thunks for k in (t.kind, *to_host([x for part in t.parts for x in part]))]
    return [k for k in kinds if re.search("Host|Infeed|Outfeed|Send|Recv|Callback", k)]


@dataclass
class TpuLoop:
    """A loop over time on a TPU, per iteration."""

    operations: int
    bundles: int  # instruction words, one per cycle: a lower bound of the cycles


def tpu_time_loops(hlo: str, folder: Path) -> list[TpuLoop]:
    """The innermost loops with a matrix product of a program.

    Args:
        hlo: The optimized program as text.
        folder: The schedules of its operations (--xla_jf_dump_to).
    """
    computations = _computations(hlo)
    bundles = _bundles(folder)
    known = {
        _code(line): bundles[name]
        for lines in computations.values()
        for name, line in lines.items()
        if name in bundles
    }
    found = []
    for lines in computations.values():
        for line in lines.values():
            if " while(" not in line:
                continue
            body = computations[re.search(r"body=%([\w.\-]+)", line)[1]]
            text = "\n".join(body.values())
            if " while(" in text or "dot_general" not in text or " conditional(" in text:
                continue
            work = {name: line for name, line in body.items() if not _is_free(line)}
            counted = [bundles.get(n) or known.get(_code(line), 0) for n, line in work.items()]
            found.append(TpuLoop(len(work), sum(counted)))
    return found


def _computations(hlo: str) -> dict[str, dict[str, str]]:
    """Name of a computation → name of an instruction → its line."""
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in hlo.splitlines():
        if header := re.match(r"(?:ENTRY )?%([\w.\-]+) \(.*\{$", line):
            current = found.setdefault(header[1], {})
        elif instruction := re.match(r"\s+(?:ROOT )?%([\w.\-]+) = ", line):
            current[instruction[1]] = line
    return found


def _bundles(folder: Path) -> dict[str, int]:
    """Name of an operation → its instruction bundles."""
    found = {}
    for path in folder.glob("*schedule-analysis_final_bundles.txt"):
        name = re.search(r"\d{10,}-(.+)-\d+-schedule", path.name)
        total = re.search(r"total scheduled bundles:\s+(\d+)", path.read_text())
        if name and total:
            found[name[1]] = int(total[1])
    return found


def _code(line: str) -> str:
    """An instruction without names: of equal ones, only one has a schedule."""
    return re.sub(r"%[\w.\-]+", "", line.split(" = ", 1)[1].split(", metadata=")[0])


def _is_free(line: str) -> bool:
    """Whether an instruction is bookkeeping, or scalar."""
    free = "parameter|get-tuple-element|tuple|constant|bitcast|after-all"
    return bool(re.search(rf" ({free})\(", line) or re.search(r" = \w+\[\]", line))

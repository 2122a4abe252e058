"""Attacks the package with files and arguments that nobody should send, many times over.

    python -m benchmarks.attacks
    python -m benchmarks.attacks --short        (every third attack)

An attack is survived if it is refused in one printable line of at most 500 characters with exit
code 1, 2 or 3, or does no harm: no traceback, no hang, no code of the attacker's run, no file read
outside of what was named, and no other prediction than before. Needs no corpus. Writes
benchmarks/results/attacks.json.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

import flaxrnn
from benchmarks import hostile_files, throughput
from configs import text as text_config
from flaxrnn import compare, export, generate, predict
from flaxrnn.config import FIELDS, parse
from flaxrnn.errors import FlaxrnnError
from flaxrnn.runtime import files, terminal

SECONDS = 30  # of the longest attack
SECRET = hostile_files.SECRET
TEXTS = ["a good film", "the plot was bad", "oil"]
JUNK = [None, True, -1, 0, 2**31, 10**400, 1.5, "", "x", "\x1b[2J", [], [1], {}, {"a": {"b": 1}}]
MODULE = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"


class Attack(NamedTuple):
    """One attempt: its kind, what it does, and the action that must survive it."""

    kind: str
    name: str
    act: Callable[[Path], Any]  # of a scratch folder; returns predictions, or nothing to compare


def train(folder: Path) -> Path:
    """A small finished run to attack."""
    rows = [f"{a} {b},{'up' if a == 'good' else 'down'}" for a in ("good", "bad")
            for b in "film plot oil grain the of and very not a".split() * 3]  # fmt: skip
    (folder / "texts.csv").write_text("\n".join(["text,label", *rows]))
    config = text_config.get_config()
    config.data.update({"path": str(folder / "texts.csv"), "maxlen": 10, "num_words": 40})
    config.data.data_dir = str(folder / "data")
    config.model.update({"embedding_size": 4, "hidden_size": 4})
    config.train.update({"epochs": 1, "batch_size": 8, "baseline": False})
    flaxrnn.train(config, folder / "run")
    return folder / "run"


def probabilities(workdir: Path) -> np.ndarray:
    """What the model in a workdir predicts."""
    return flaxrnn.load(workdir).predict(TEXTS)[1]


def unseal(workdir: Path) -> None:
    """Makes a workdir one of an earlier version, whose checkpoints have no seal."""
    for step in (workdir / "checkpoints").iterdir():
        contents = {p.name: p.read_bytes() for p in step.iterdir() if p.name != files.CHECKSUMS}
        progress = json.loads(contents["progress.json"])
        del progress["seal"]
        files.write_folder(step, {**contents, "progress.json": json.dumps(progress).encode()})


def mutate(content: bytes, draw: random.Random) -> bytes:
    """Replaces, removes or adds something in JSON, or damages its bytes."""
    kind = draw.choice(("value", "value", "value", "flip", "cut", "deep", "empty"))
    if kind == "value":
        tree = json.loads(content)
        _replace(tree, draw)
        return json.dumps(tree).encode()
    damaged = bytearray(content)
    if kind == "flip":
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del damaged[draw.randrange(len(damaged)) :]
    return {"deep": b"[" * 10_000, "empty": b""}.get(kind, bytes(damaged))


def _replace(tree: Any, draw: random.Random) -> None:
    """Replaces a random value somewhere in a tree by junk, or removes it."""
    while True:
        key = draw.choice(list(tree)) if isinstance(tree, dict) else draw.randrange(len(tree))
        if not isinstance(tree[key], dict | list) or not tree[key] or draw.random() < 0.2:
            break
        tree = tree[key]
    if draw.random() < 0.2:
        del tree[key]
    else:
        tree[key] = draw.choice(JUNK)


def code(run: Path) -> Iterator[Attack]:
    """Workdirs that name a module of the attacker's."""
    commands: dict[str, Callable[[Path], Any]] = {
        "load": lambda folder: flaxrnn.load(folder).predict(TEXTS),
        "predict": lambda folder: predict.main(["--workdir", str(folder), "a"]),
        "generate": lambda folder: generate.main(["--workdir", str(folder), "a"]),
        "export": lambda folder: export.main(
            ["--workdir", str(folder), "--out", str(folder.parent / "out")]
        ),
        "compare": lambda folder: compare.main([str(folder)]),
    }
    for field in (name for name, declared in FIELDS.items() if declared.names_code):
        for command, use in commands.items():

            def act(scratch: Path, field: str = field, use: Any = use) -> None:
                folder = shutil.copytree(run, scratch / "run")
                unseal(folder)
                name = f"sent_{scratch.name}"
                (scratch / f"{name}.py").write_text(MODULE)
                sys.path.insert(0, str(scratch))
                try:
                    _set_field(folder, field, f"{name}:Name")
                    use(folder)
                finally:
                    sys.path.remove(str(scratch))
                    _check((scratch / f"{name}.ran").exists(), "code was run")

            yield Attack("code in a workdir", f"{field}, {command}", act)


def edits(run: Path, draw: random.Random, count: int) -> Iterator[Attack]:
    """Edited files of a workdir, with and without a seal."""
    expected = probabilities(run)
    for i in range(count):
        name = ("config.json", "labels.json", "vocabulary.json")[i % 3]
        sealed = i % 2 == 0
        content = mutate((run / name).read_bytes(), draw)

        def act(
            scratch: Path, name: str = name, sealed: bool = sealed, content: bytes = content
        ) -> None:
            folder = shutil.copytree(run, scratch / "run")
            if not sealed:
                unseal(folder)
            (folder / name).write_bytes(content)
            found = probabilities(folder)
            if sealed:  # else nothing tells a possible value from the one that was trained
                _check(content != (run / name).read_bytes(), "an edit was used")
                _check(not np.array_equal(found, expected), "another prediction")

        yield Attack(f"edited workdir, {'sealed' if sealed else 'no seal'}", f"{name} {i}", act)


def records(run: Path, draw: random.Random, count: int) -> Iterator[Attack]:
    """Edited figures of finished runs."""
    for i in range(count):
        name = ("result.json", "metrics.jsonl", "seeds.json")[i % 3]

        def act(scratch: Path, name: str = name, seed: int = draw.randrange(2**32)) -> None:
            folder = shutil.copytree(run, scratch / "run")
            path = folder / name
            if name == "seeds.json":
                shutil.copytree(run, folder / "seed-0")
                (folder / "config.json").unlink()
                path.write_text('{"members": ["seed-0"], "ensemble": {"test_accuracy": 0.5}}')
            path.write_bytes(mutate(path.read_bytes(), random.Random(seed)))
            compare.main([str(folder)])

        yield Attack("edited figures", f"{name} {i}", act)


def edges() -> Iterator[Attack]:
    """Values at and beyond the edges of every field."""
    for name, field in FIELDS.items():
        for value in (-2, 2**31, 10**400, float("nan"), float("inf"), "\x1b[2J" * 1_000, [], {}):
            allowed = value == 2**31 and (field.type is float or field.most > value)
            allowed |= isinstance(value, str) and field.type is str

            def act(_: Path, name: str = name, value: Any = value, allowed: bool = allowed) -> None:
                config = text_config.get_config().to_dict()
                config["data"]["path"] = "x"
                group, _, key = name.rpartition(".")
                (config[group] if group else config)[key] = value
                parse(config)
                _check(not allowed, "a value that is none was taken")

            yield Attack("edges of fields", f"{name} {str(value)[:12]!a}", act)


def labels() -> Iterator[Attack]:
    """Names that a terminal or a shell would obey."""
    for name in (
        "\x1b[2J",
        "\x9b31m",
        "a\nb",
        "\r",
        "\u202ex",
        "\x00",
        "\ud800",
        "'; id #",
        "$(id)",
    ):

        def act(_: Path, name: str = name) -> None:
            for shown in (
                terminal.escaped(name),
                terminal.error_line(name * 1_000),
                terminal.table([["run"], [name]]).replace("\n", "", 1),
                terminal.quoted(["train.py", name]),
            ):
                _check(not shown.isprintable(), "a terminal obeys it")

        yield Attack("names in terminals", ascii(name), act)


def _set_field(folder: Path, field: str, value: str) -> None:
    content = json.loads((folder / "config.json").read_text())
    group, _, key = field.rpartition(".")
    (content[group] if group else content)[key] = value
    (folder / "config.json").write_text(json.dumps(content))


def _check(failed: bool, problem: str) -> None:
    if failed:
        raise AssertionError(problem)


def outcome(attack: Attack) -> str:
    """Runs an attack: "refused", "harmless", or what went wrong."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no end after {SECONDS} s")

    output = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
    previous = signal.signal(signal.SIGALRM, give_up)
    with tempfile.TemporaryDirectory() as scratch:
        signal.alarm(SECONDS)
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                attack.act(Path(scratch))
            result = "harmless"
        except FlaxrnnError as error:
            line = terminal.error_line(str(error))
            fine = error.exit_code in (1, 2, 3) and len(line) <= 500 and line.isprintable()
            result = "refused" if fine else f"unclear: {line}"
            result = f"leaked: {line}" if SECRET in line else result
        except BaseException as error:  # whatever it is, it was not survived
            result = f"{type(error).__name__}: {error}"
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, previous)
    output.flush()
    return "leaked" if SECRET.encode() in output.buffer.getvalue() else result  # type: ignore[attr-defined]


def attacks(run: Path, seed: int) -> list[Attack]:
    """All attacks, the same ones for the same seed."""
    draw = random.Random(seed)
    return [
        *code(run), *edits(run, draw, 240), *records(run, draw, 90), *edges(), *labels(),
        *(Attack(*found) for found in hostile_files.attacks()),
    ]  # fmt: skip


def table(outcomes: list[tuple[Attack, str]]) -> dict[str, dict[str, int]]:
    """Counts the outcomes by kind."""
    found: dict[str, dict[str, int]] = {}
    for kind in dict.fromkeys(attack.kind for attack, _ in outcomes):
        results = [result for attack, result in outcomes if attack.kind == kind]
        counts = collections.Counter(
            r if r in ("refused", "harmless") else "not survived" for r in results
        )
        found[kind] = {
            "attacks": len(results),
            **{name: counts[name] for name in ("refused", "harmless", "not survived")},
        }
    return found


def main() -> None:
    """Runs all attacks, prints a table and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="every third attack, no result file")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        with contextlib.redirect_stdout(nowhere):
            run = train(Path(folder))
        chosen = attacks(run, arguments.seed)[:: 3 if arguments.short else 1]
        outcomes = [(attack, outcome(attack)) for attack in chosen]
    counts = table(outcomes)
    rows = [["kind", *next(iter(counts.values()))]]
    rows += [[kind, *map(str, values.values())] for kind, values in counts.items()]
    print(terminal.table(rows))
    fallen = {
        f"{attack.kind}: {attack.name}": result
        for attack, result in outcomes
        if result not in ("refused", "harmless")
    }
    for name, result in fallen.items():
        print(terminal.escaped(f"{name}: {result}")[:300])
    if not arguments.short:
        record = {**throughput.provenance(), "kinds": counts, "not survived": fallen}
        path = throughput.RESULTS / "attacks.json"
        path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

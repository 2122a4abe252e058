"""Imports go one way: from the loop downwards; and a mistaken flag does not wait for JAX."""

import ast
import subprocess
import sys

import pytest
from helpers import ROOT

PACKAGE = ROOT / "flaxrnn"
ORDER = [  # from the top down: a module imports from its own room and those below it
    ["cli"],
    ["seeds", "fitting"],
    ["predict", "generate", "evaluate", "compare", "export", "from_keras"],
    ["loop"],
    ["closing"],
    ["run"],
    ["teacher"],
    ["reporting", "inference"],
    ["training"],
    ["nn"],
    ["data"],
    ["datasets"],
    ["config"],
    ["runtime"],
    ["errors"],
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def imported(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "flaxrnn":
            inner = node.module.split(".")[1:]
            found |= {inner[0]} if inner else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("flaxrnn.")}
    return found


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_go_one_way(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room != "__init__":
        above = {other for other in imported(path) - {room} if LEVEL[other] <= LEVEL[room]}
        assert not above


def test_few_see_a_config():
    users = {p.stem for p in PACKAGE.rglob("*.py") if "import ConfigDict" in p.read_text()}
    assert users == {"parsing", "flags", "from_keras", "loop", "seeds", "fitting"}


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (
            "flaxrnn, flaxrnn.config, flaxrnn.predict, flaxrnn.generate, flaxrnn.compare",
            {"jax", "matplotlib"},
        ),
        ("flaxrnn.export, flaxrnn.evaluate, flaxrnn.from_keras", {"jax", "h5py"}),
        ("flaxrnn.loop", {"jinja2", "matplotlib", "sklearn"}),
        ("flaxrnn.inference.predictor", {"tensorflow_datasets", "tensorboardX", "matplotlib"}),
    ],
)
def test_starts_without_what_it_does_not_need(modules, absent):
    code = f"import sys, {modules}; sys.exit(str({absent!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=False)
    assert done.stderr == b"set()\n"

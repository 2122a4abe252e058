"""Imports go one way: from the loop downwards; and a mistaken flag does not wait for JAX."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "flaxrnn"
ROOMS = {  # module → the modules of the package it may import
    "errors": set(),
    "files": set(),
    "interrupt": set(),
    "cluster": {"errors", "interrupt"},
    "text": {"errors", "files"},
    "config": {"errors"},
    "datasets": {"datasets", "errors", "files"},
    "data": {"datasets", "errors", "files", "text"},
    "recurrence": {"errors"},
    "models": {"recurrence", "text"},
    "metrics": set(),
    "optim": set(),
    "steps": {"data", "metrics", "models", "text"},
    "devices": {"errors"},
    "feed": {"data", "devices"},
    "checkpoint": {"errors", "files", "steps"},
    "page": {"data", "metrics", "text"},
    "plots": set(),
    "report": {"files", "page", "plots"},
    "classifier": {"checkpoint", "config", "data", "devices", "errors", "models", "steps", "text"},
    "terminal": {"errors"},
    "predict": {"classifier", "errors", "terminal"},
    "generate": {"classifier", "errors", "terminal"},
    "compare": {"config", "errors", "plots", "terminal"},
    "loader": set(),
    "program": {"metrics", "models", "text"},
    "export": {"classifier", "errors", "files", "program", "terminal"},
    "from_keras": {"checkpoint", "config", "data", "errors", "files", "models", "terminal"},
    "trainer": {"data", "devices", "feed", "metrics", "models", "steps"},
    "loop": {"checkpoint", "cluster", "config", "data", "devices", "errors", "files", "interrupt"}
    | {"metrics", "models", "optim", "page", "report", "steps", "text", "trainer"},
    "seeds": {"cluster", "compare", "config", "errors", "interrupt", "loop"},
}


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
        assert imported(path) <= ROOMS[room]


def test_few_see_a_config():
    users = {p.stem for p in PACKAGE.rglob("*.py") if "ConfigDict" in p.read_text()}
    assert users == {"classifier", "config", "from_keras", "loop", "seeds"}


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (
            "flaxrnn, flaxrnn.config, flaxrnn.predict, flaxrnn.generate, flaxrnn.compare",
            {"jax", "matplotlib"},
        ),
        ("flaxrnn.export, flaxrnn.from_keras", {"jax", "h5py"}),
        ("flaxrnn.classifier", {"tensorflow_datasets", "tensorboardX", "matplotlib"}),
    ],
)
def test_starts_without_what_it_does_not_need(modules, absent):
    code = f"import sys, {modules}; sys.exit(str({absent!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=False)
    assert done.stderr == b"set()\n"

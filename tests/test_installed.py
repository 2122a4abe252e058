"""The package as users get it: built as a wheel, and run far from any clone."""

import json
import os
import shutil
import subprocess
import sys
import tomllib

import pytest
from helpers import ROOT, ROWS, write_csv

from flaxrnn.config import flags

SHORT = "--config.train.epochs=1 --config.data.maxlen=8 --config.model.hidden_size=4".split()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment of a process that has only the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    source, site = folder / "source", folder / "site"
    for name in ("flaxrnn", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(source)]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    if built.returncode and "setuptools" in built.stderr:
        pytest.skip("needs a package index, to build with a setuptools of its own")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    return {**os.environ, "PYTHONPATH": str(site), "PATH": f"{site / 'bin'}:{os.environ['PATH']}"}


def run(installed, folder, *arguments):
    return subprocess.run(
        ["flaxrnn", *map(str, arguments)],
        cwd=folder,
        env=installed,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_command_works_in_an_empty_folder(installed, tmp_path):
    write_csv(tmp_path / "reviews.csv", ROWS)

    def output_of(*arguments):
        done = run(installed, tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    own = ["--config.data.path=reviews.csv", f"--config.data.data_dir={tmp_path / 'data'}"]
    shown = output_of("train", "--config", "text", "--workdir", "run", *own, *SHORT)
    assert "Total parameters" in shown
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["command"].startswith("flaxrnn train --config text --workdir run")
    assert result["commit"] is None
    assert json.loads(output_of("predict", "--workdir", "run", "good a"))["words"] == 2
    assert "accuracy" in output_of("evaluate", "--workdir", "run", "--file", "reviews.csv")
    assert "run" in output_of("compare", "run")
    output_of("export", "--workdir", "run", "--out", "served")
    assert (tmp_path / "served" / "load.py").exists()
    code = "import sys, flaxrnn; sys.exit(flaxrnn.__file__)"
    origin = subprocess.run(
        [sys.executable, "-c", code],
        env=installed,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert str(ROOT) not in origin.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--config", "imdb:fast", "--config.train.epochs=-1"], "train.epochs: -1 must"),
        (["train", "--config=imdb:fat"], "imdb.py:fat: variant 'fat' is not one of keras, fast"),
        (["train", "--config", "tagging", "--config.seed=-1"], "seed: -1 must"),  # built on another
        (["train", "--config", "imbd"], "there is no file imbd; those that come with flaxrnn are"),
        (["train", "--config", "own.py:x"], "own.py:x: variant x"),
        (["generate", "--workdir", "/nope", "x"], "--workdir: no trained model in /nope"),
        (["predikt"], "predikt: must be one of train, predict, evaluate, compare, export, generat"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, installed, tmp_path):
    config = (
        "from configs import imdb\n\ndef get_config(variant):\n    raise ValueError('variant x')"
    )
    (tmp_path / "own.py").write_text(config)
    (tmp_path / "imdb").mkdir()  # a folder is no config
    done = run(installed, tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_without_a_command_it_lists_them(installed, tmp_path):
    shown = run(installed, tmp_path).stdout
    assert "flaxrnn train --config imdb:fast" in shown
    done = run(installed, tmp_path, "train", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--workdir" in done.stdout


def test_packages_are_the_folders():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(path.relative_to(ROOT).parts[:-1]) for path in (ROOT / "flaxrnn").rglob("*.py")
    }
    assert set(listed) == found | {"flaxrnn.shipped.configs"}
    assert set(flags.shipped_configs()) == {path.stem for path in (ROOT / "configs").glob("*.py")}

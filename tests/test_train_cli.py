"""`python train.py` as a user runs it: one line an error, and the offline path."""

import json
import os
import shutil
import subprocess

import pytest
from helpers import ROOT, run

NO_NETWORK = ["unshare", "--user", "--map-root-user", "--net"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config: missing"),
        (["--config", "configs/nope.py"], "--config: there is no file configs/nope.py"),
        (["--config", "README.md"], "--config: README.md gives no config"),
        (["--config", "flaxrnn/errors.py"], "--config: flaxrnn/errors.py gives no config"),
        (
            ["--config", "configs/imdb.py:huge"],
            "--config: configs/imdb.py:huge: variant 'huge' is not one of keras, fast, best,"
            " unlabelled, demo",
        ),
        (["--config", "configs/tagging.py:x"], "configs/tagging.py:x: the config has no variants"),
        (["--config", "configs/imdb.py", "--worksdir=x"], "worksdir"),
        (["--config", "configs/imdb.py", "x"], "x: unexpected argument"),
        (
            ["--config", "configs/imdb.py", "--config.train.batchsize=8"],
            "train.batchsize: there is no such field; did you mean train.batch_size?",
        ),
        (["--config", "configs/imdb.py", "--config.model=7"], "model: there is no such field"),
        (
            ["--config", "configs/imdb.py", "--config.train.batch_size=many"],
            "train.batch_size=many: invalid literal for int()",
        ),
        (
            ["--config", "configs/imdb.py", "--config.train.batch_size=-1"],
            "train.batch_size: -1 must be a whole number of at least 0",
        ),
        (
            ["--config", "configs/imdb.py", "--config.model.dropout=1.5"],
            "model.dropout: 1.5 must be a number from 0 to below 1",
        ),
        (["--config", "configs/imdb.py", "--seeds=two"], "seeds=two: invalid literal for int()"),
        (["--config", "configs/imdb.py", "--seeds=0"], "--seeds: 0 must be a whole number of"),
        (["--config", "configs/imdb.py", "--workdir=/proc/x"], "/proc/x cannot be written"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_help_is_no_failure():
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--workdir" in done.stdout


def test_without_network_and_archive_the_embedded_corpus_is_used(tmp_path):
    """From a fresh home, with the network truly cut; compiled as for users, not as for tests."""
    if subprocess.run([*NO_NETWORK, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no permission to make a network namespace")
    unset = ("FLAXRNN_MANUAL_DIR", "TFDS_DATA_DIR", "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    env = {k: v for k, v in os.environ.items() if k not in unset}
    env["HOME"] = str(tmp_path)
    small = ["--config.train.epochs=1", "--config.data.maxlen=8", "--config.model.hidden_size=4"]
    small += ["--config.train.baseline=False", "--config.train.explain=False"]
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    command = ["--config", "configs/reuters.py", "--config.train.batch_size=500", *small]
    done = run(*command, cwd=tmp_path, env=env, prefix=NO_NETWORK)
    assert done.returncode == 0, done.stderr
    assert "EMBEDDED SYNTHETIC CORPUS" in done.stdout
    manual = tmp_path / "tensorflow_datasets" / "downloads" / "manual"
    assert f"no reuters21578.tar.gz in {manual} and http" in done.stdout
    assert done.stderr == "Preparing synthetic_reuters_topics/1.0.0 (once) …\n"
    (result,) = tmp_path.glob("runs/*/result.json")
    result = json.loads(result.read_text())
    assert result["data_source"] == "synthetic"
    assert result["test_examples"] == 2_246

    done = run(*command, "--config.data.source=real", cwd=tmp_path, env=env, prefix=NO_NETWORK)
    assert done.returncode == 2
    assert "no reuters21578.tar.gz in" in done.stderr
    assert "Traceback" not in done.stderr

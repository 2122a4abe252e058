"""Where a result comes from."""

import subprocess
import sys

import pytest
from helpers import ROOT

from flaxrnn.reporting import provenance


def test_commit_is_that_of_the_checkout():
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    head = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(head, cwd=ROOT, capture_output=True, text=True, check=True)
    assert provenance.commit().removesuffix("-dirty") == done.stdout.strip()


def test_command_leaves_out_the_folder_of_the_program(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/me/train.py", "--workdir", "/tmp/run"])
    assert provenance.command() == "train.py --workdir /tmp/run"


def test_the_command_can_be_given_to_a_shell(monkeypatch):
    arguments = ["--workdir", "my runs/$(id)", "it's", "a\nb\x1b[2J"]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    script = f"set -- {provenance.command()}; printf '%s|' \"$@\""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("|")[:-1] == ["train.py", *arguments]
    assert provenance.command().isprintable()


def test_versions_and_devices():
    found = provenance.collect()
    assert set(found) == {"devices", "versions", "commit", "command"}
    assert set(found["versions"]) == {"python", *provenance.PACKAGES}
    assert found["devices"][0].startswith("cpu:0 ")

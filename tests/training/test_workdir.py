"""A workdir belongs to one config and one run at a time; a run that never began leaves no trace."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import filelock
import pytest
from helpers import ROOT

from configs import default
from flaxrnn.errors import DataError, LostWorkdirError, WorkdirError
from flaxrnn.training.workdir import open_workdir


def config(**train):
    values = default.get_config().to_dict()
    values["train"].update(train)
    return values


@pytest.fixture
def begun(tmp_path):
    """A workdir in which training has begun."""
    path = tmp_path / "run"
    with open_workdir(path, config()):
        (path / "checkpoints" / "0").mkdir(parents=True)
    return path


def fail(path, error, *names):
    """A run that writes some folders and files to its workdir, then fails."""
    with open_workdir(path, config()):
        for name in names:
            if name.endswith("/"):
                (path / name).mkdir()
            else:
                (path / name).write_text("")
        raise error


def raise_(error):
    raise error


def change_config(path, change):
    recorded = json.loads((path / "config.json").read_text())
    change(recorded)
    (path / "config.json").write_text(json.dumps(recorded))


def test_the_config_is_recorded_and_the_same_one_reopens(begun):
    text = (begun / "config.json").read_text("utf-8")
    assert json.loads(text) == config()
    with open_workdir(begun, config()):
        pass
    assert (begun / "config.json").read_text("utf-8") == text


def test_another_config_is_refused(begun):
    with (
        pytest.raises(WorkdirError, match=r"run was created with train\.batch_size=20, not 9; "),
        open_workdir(begun, config(batch_size=9)),
    ):
        pytest.fail("opened")
    with open_workdir(begun, config()):  # the refused one holds no lock
        pass


def test_an_automatic_value_is_equal_to_any(begun):
    with open_workdir(begun, config(batch_size=0)):
        assert json.loads((begun / "config.json").read_text("utf-8")) == config()


def test_a_field_that_was_unknown_counts_as_the_default(begun):
    change_config(begun, lambda recorded: recorded["train"].pop("averaging"))
    with open_workdir(begun, config()):
        pass
    refused = pytest.raises(WorkdirError, match=r"train\.averaging=True, not False")
    with refused, open_workdir(begun, config(averaging=False)):
        pytest.fail("opened")


def test_a_field_that_no_longer_exists_is_refused_by_name(begun):
    change_config(begun, lambda recorded: recorded["train"].update(momentum=0.9))
    refused = pytest.raises(WorkdirError, match=r"train\.momentum=0\.9, not None")
    with refused, open_workdir(begun, config()):
        pytest.fail("opened")


@pytest.mark.parametrize("content", ["{", "[]", b"\xff"])
def test_a_broken_config_is_refused(begun, content):
    content = content if isinstance(content, bytes) else content.encode()
    (begun / "config.json").write_bytes(content)
    with (
        pytest.raises(WorkdirError, match=r"run/config\.json is not (a JSON object|valid JSON)"),
        open_workdir(begun, config()),
    ):
        pytest.fail("opened")


def test_checkpoints_without_a_config_are_refused(begun):
    (begun / "config.json").unlink()
    refused = pytest.raises(WorkdirError, match=r"run contains checkpoints but no config\.json")
    with refused, open_workdir(begun, config()):
        pytest.fail("opened")


def test_a_mistaken_config_is_replaced_where_nothing_was_trained(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config()))
    with open_workdir(tmp_path, config(batch_size=9)):
        recorded = json.loads((tmp_path / "config.json").read_text())
    assert recorded == config(batch_size=9)


def test_a_second_run_is_refused_while_the_first_is_writing(tmp_path):
    refused = pytest.raises(WorkdirError, match=f"another run is writing to {tmp_path}")
    with filelock.FileLock(tmp_path / ".lock"), refused, open_workdir(tmp_path, config()):
        pytest.fail("opened")
    with open_workdir(tmp_path, config()), refused, open_workdir(tmp_path, config()):
        pytest.fail("opened")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "run", Path("/proc/flaxrnn")):
        refused = pytest.raises(WorkdirError, match=f"{path} cannot be written")
        with refused, open_workdir(path, config()):
            pytest.fail("opened")


def test_a_failed_write_of_the_run_is_named(begun):
    message = r"run cannot be written \(.*No space left on device: 'curves\.png'\)"
    with pytest.raises(WorkdirError, match=message):
        fail(begun, OSError(28, os.strerror(28), "curves.png"))


PRINTING = """
import sys
from flaxrnn.runtime import terminal
from flaxrnn.training import workdir
def main():
    with workdir.open_workdir(workdir.Path(sys.argv[1]), {}):
        print("x" * 100_000, flush=True)
terminal.run(main)
"""


@pytest.mark.parametrize("place", ["full", "gone", "closed"])
def test_output_that_cannot_be_written_is_not_the_workdir(place, tmp_path):
    target = {"full": ">/dev/full", "gone": "| true", "closed": ">&-"}[place]
    command = f"sleep 0; {sys.executable} -c '{PRINTING}' {tmp_path / 'run'} {target}"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True)
    expected = {
        "full": "error: standard output cannot be written (No space left on device)\n",
        "gone": "",  # silent, as `head` ends other programs
        "closed": "error: standard output is closed\n",
    }
    assert done.stderr == expected[place]
    assert not (tmp_path / "run").exists() or place == "gone"


@pytest.mark.parametrize("error", [DataError("no corpus"), OSError(28, "disk full")])
def test_a_run_that_never_began_leaves_nothing(error, tmp_path):
    names = ["vocabulary.json", "events.out.tfevents.1", "ngrams/", "labels.json.part"]
    for path in (tmp_path / "runs" / "many" / "seed-0", tmp_path):
        with pytest.raises((DataError, WorkdirError)):
            fail(path, error, "checkpoints/", "checkpoints/0.part/", *names)
        assert list(tmp_path.iterdir()) == []


def test_other_files_and_folders_stay(tmp_path, begun):
    existing = tmp_path / "existing"
    (existing / "ngrams").mkdir(parents=True)
    (existing / "labels.json").write_text("mine")
    for path in (existing, begun, tmp_path / "new"):
        with pytest.raises(DataError):
            fail(path, DataError("no corpus"), "notes.txt")
        assert (path / "notes.txt").exists()
    assert (begun / "config.json").exists()
    assert {path.name for path in existing.iterdir()} == {"ngrams", "labels.json", "notes.txt"}


@pytest.mark.parametrize("error", [None, OSError(2, "No such file or directory")])
def test_a_workdir_that_is_deleted_ends_the_run_with_an_error(error, begun):
    stack = contextlib.ExitStack()
    stack.enter_context(open_workdir(begun, config()))
    if error:
        stack.callback(raise_, error)
    shutil.rmtree(begun)
    with pytest.raises(LostWorkdirError, match="run was deleted while the run was in") as lost:
        stack.close()
    assert lost.value.exit_code == 1
    assert not begun.exists()

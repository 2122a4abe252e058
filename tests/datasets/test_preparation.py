"""Where a corpus comes from, and what can go wrong on the way."""

import dataclasses
import os
import shutil
import signal
import subprocess
import tarfile
import threading
import time

import numpy as np
import pytest
from helpers import python, serve, write_archive

from flaxrnn.data import corpora
from flaxrnn.datasets import preparation, registry, reuters_topics
from flaxrnn.errors import DataError
from flaxrnn.runtime import files

REUTERS = registry.TASKS["reuters"]


@pytest.fixture
def no_web(monkeypatch):
    """Makes every download address one that refuses connections."""
    for name, task in registry.TASKS.items():
        archive = task.archive._replace(url="http://127.0.0.1:9/archive.tar.gz")
        monkeypatch.setitem(registry.TASKS, name, dataclasses.replace(task, archive=archive))


def test_auto_without_archive_or_network_is_synthetic_within_15_s(data_dir, no_web, tmp_path):
    began = time.monotonic()
    task = registry.TASKS["reuters"]
    builder = preparation.prepare(task, "auto", data_dir, str(tmp_path))
    if "synthetic" not in builder.name:  # an earlier test prepared the real one
        builder = preparation.prepare(task, "auto", str(tmp_path), str(tmp_path))
    assert task.is_synthetic(builder)
    assert time.monotonic() - began < 15


def test_a_download_that_is_no_archive_is_refused_and_not_kept(tmp_path, monkeypatch):
    server = serve(b"<html>Please log in</html>")
    url = f"http://127.0.0.1:{server.server_port}/a.tar.gz"
    archive = REUTERS.archive._replace(url=url, sha256=None)
    monkeypatch.delenv(preparation.MANUAL_DIR_VARIABLE, raising=False)
    try:
        with pytest.raises(DataError, match="not a complete tar"):
            preparation.prepare(
                dataclasses.replace(REUTERS, archive=archive), "auto", str(tmp_path)
            )
    finally:
        server.shutdown()
        server.server_close()
    assert not list(tmp_path.rglob("*.tar.gz*"))


def test_a_tfds_dataset_without_network_is_refused_within_15_s(tmp_path, monkeypatch):
    """TFDS itself would try for many minutes."""
    import tensorflow_datasets as tfds

    addresses = ("http://127.0.0.1:9/a.zip", "http://127.0.0.1:9/b.zip", "http://127.0.0.2:9/c.zip")
    glue = tfds.builder_cls("glue")
    monkeypatch.setattr(glue, "url_infos", dict.fromkeys(addresses))
    began = time.monotonic()
    message = (
        r"the TFDS dataset glue/sst2 is not in .*, and http://127\.0\.0\.1:9/b\.zip,.* reached"
    )
    with pytest.raises(DataError, match=message):
        preparation.prepare_named("glue/sst2", str(tmp_path))
    assert time.monotonic() - began < 15


def test_a_manual_dir_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataError, match=r"data\.manual_dir: there is no folder .*nope"):
        preparation.prepare(REUTERS, "auto", str(tmp_path), str(tmp_path / "nope"))


def test_real_never_falls_back(no_web, tmp_path):
    with pytest.raises(DataError, match=r"no aclImdb_v1\.tar\.gz in .*data\.manual_dir"):
        preparation.prepare(registry.TASKS["imdb"], "real", str(tmp_path), str(tmp_path))


def test_auto_without_a_counterpart_does_not_fall_back(no_web, tmp_path):
    task = dataclasses.replace(registry.TASKS["imdb"], synthetic=None)
    with pytest.raises(DataError, match=r"data\.source=auto: no aclImdb_v1\.tar\.gz in"):
        preparation.prepare(task, "auto", str(tmp_path), str(tmp_path))


def damaged_archives(folder):
    """Archives that are truncated, foreign, incomplete or not archives at all."""
    story = "<TOPICS><D>oil</D></TOPICS><TEXT><BODY>{}</BODY></TEXT></REUTERS>"
    good = {f"reut2-{i:03d}.sgm": story.format(os.urandom(2_000).hex()).encode() for i in range(22)}
    path = folder / reuters_topics.ARCHIVE.name
    write_archive(path, good)
    whole = path.read_bytes()
    write_archive(path, {"README": b"x"})
    foreign = path.read_bytes()
    write_archive(path, dict(list(good.items())[:21]))
    incomplete = path.read_bytes()
    return path, {
        "truncated": (whole[: len(whole) // 2], "not a complete"),
        "damaged": (whole[:5000] + os.urandom(100) + whole[5100:], "not a complete|found"),
        "foreign": (foreign, "found 0 of 22"),
        "incomplete": (incomplete, "found 21 of 22"),
        "no archive": (b"<html>Not found</html>", "not a complete"),
        "empty": (b"", "not a complete|found 0"),
    }


@pytest.mark.parametrize("source", ["auto", "real"])
def test_bad_archive_is_one_clear_line_and_leaves_nothing(tmp_path, no_web, source):
    manual = tmp_path / "manual"
    manual.mkdir()
    path, cases = damaged_archives(manual)
    for content, message in cases.values():
        path.write_bytes(content)
        root = tmp_path / "data"
        with pytest.raises(DataError, match=message) as caught:
            preparation.prepare(registry.TASKS["reuters"], source, str(root), str(manual))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        left = {p.name for p in root.rglob("*") if p.is_file()}
        assert left <= {".lock", "metadata.json"}  # of the builder config, not of the data


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("reut2-000.sgm", tarfile.SYMTYPE, "reut2-000.sgm is not a regular file"),
        ("reut2-000.sgm", tarfile.LNKTYPE, "reut2-000.sgm is not a regular file"),
        ("reut2-000.sgm", tarfile.CHRTYPE, "reut2-000.sgm is not a regular file"),
        ("/tmp/reut2-000.sgm", tarfile.REGTYPE, "/tmp/reut2-000.sgm points outside of it"),
        ("a/../../reut2-000.sgm", tarfile.REGTYPE, "reut2-000.sgm points outside of it"),
    ],
)
def test_hostile_archive_is_refused_and_nothing_written(tmp_path, no_web, name, kind, message):
    path = tmp_path / reuters_topics.ARCHIVE.name
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(DataError, match=f"{path}: refused: .*{message}"):
        preparation.prepare(
            registry.TASKS["reuters"], "real", str(tmp_path / "data"), str(tmp_path)
        )
    left = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert left <= {path.name, ".lock", "metadata.json"}


def test_damaged_dataset_is_prepared_again(few_texts, tmp_path, capsys):
    first = corpora.load_corpus("reuters", "synthetic", str(tmp_path))
    rng = np.random.default_rng(0)
    dataset = tmp_path / "synthetic_reuters_topics" / "1.0.0"
    for name in sorted(path.name for path in dataset.iterdir()):
        shutil.rmtree(tmp_path / "encoded")
        path = dataset / name
        content = bytearray(path.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        again = corpora.load_corpus("reuters", "synthetic", str(tmp_path))
        np.testing.assert_array_equal(first.train.ids, again.train.ids)
        assert f"{name} is damaged; preparing it again" in capsys.readouterr().err


PREPARE = """
import sys
from flaxrnn.datasets import preparation, registry
builder = preparation.prepare(registry.TASKS["reuters"], "synthetic", sys.argv[1])
assert builder.info.splits["train"].num_examples == 8982
assert len(list(builder.as_data_source("test"))) == 2246
"""


def start(tmp_path):
    return subprocess.Popen(
        [*python(), "-c", PREPARE, str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=os.getcwd(),
    )


def test_a_preparation_killed_midway_ends_in_a_good_dataset(tmp_path):
    process = start(tmp_path)
    while not list(tmp_path.glob("*/incomplete.*")):  # it is at work
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(tmp_path.glob("*/incomplete.*"))
    process = start(tmp_path)
    _, error = process.communicate()
    assert process.returncode == 0, error
    assert not list(tmp_path.glob("*/incomplete.*"))


def test_two_preparations_at_once_end_in_one_good_dataset(tmp_path):
    processes = [start(tmp_path) for _ in range(2)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert "".join(errors).count("Preparing") == 1
    assert "".join(errors).count("Waiting for another process that prepares") == 1


def test_two_starts_on_a_damaged_dataset_end_in_one_good_one(few_texts, tmp_path, capsys):
    """Each finds the damage; the second must not remove what the first has prepared anew."""
    dataset = tmp_path / "synthetic_reuters_topics" / "1.0.0"
    find, found = files.find_corruption, threading.Barrier(2, timeout=60)
    outcomes = []

    def prepare():
        preparation.prepare(REUTERS, "synthetic", str(tmp_path))
        outcomes.append(files.find_corruption(dataset))

    def find_together(folder):
        problem = find(folder)
        if problem and threading.current_thread() not in waited:
            waited.add(threading.current_thread())
            found.wait()
        return problem

    waited = set()
    prepare()
    next(dataset.glob("*test*")).write_bytes(b"damaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "find_corruption", find_together)
        starts = [threading.Thread(target=prepare) for _ in range(2)]
        for start in starts:
            start.start()
        for start in starts:
            start.join()
    assert outcomes == [None] * 3
    assert capsys.readouterr().err.count("preparing it again") == 1

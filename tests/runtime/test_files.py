import json

import numpy as np
import pytest

from flaxrnn.runtime import files


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    files.write_folder(folder, {"a.bin": bytes(range(256)), "b.json": b"{}"})
    return folder


def test_a_written_folder_is_intact(folder):
    assert files.find_corruption(folder) is None
    assert sorted(path.name for path in folder.iterdir()) == ["a.bin", "b.json", files.CHECKSUMS]
    files.write_folder(folder, {"c": b"new"})  # replaces it
    assert files.find_corruption(folder) is None
    assert sorted(path.name for path in folder.iterdir()) == ["c", files.CHECKSUMS]
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]


@pytest.mark.parametrize("name", ["a.bin", "b.json", files.CHECKSUMS])
def test_any_corruption_is_named(folder, name):
    path = folder / name
    content = path.read_bytes()
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        assert files.find_corruption(folder) == f"{name} is damaged"
    for bit in np.random.default_rng(0).integers(0, 8 * len(content), 100):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert files.find_corruption(folder) == f"{name} is damaged"
    path.unlink()
    assert files.find_corruption(folder) == f"{name} is missing"
    path.mkdir()
    assert name in files.find_corruption(folder) or "cannot be read" in files.find_corruption(
        folder
    )


def test_an_extra_file_and_missing_checksums_are_named(folder):
    (folder / "c").write_bytes(b"")
    assert files.find_corruption(folder) == "c does not belong there"
    assert files.find_corruption(folder.parent) == f"{files.CHECKSUMS} is missing"


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"files": 3, "all": ""}', "{"])
def test_malformed_checksums_are_corruption(folder, content):
    (folder / files.CHECKSUMS).write_text(content)
    assert files.find_corruption(folder) == f"{files.CHECKSUMS} is damaged"


def test_a_file_is_replaced_atomically(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    files.write_atomically(path, json.dumps("é"))
    assert json.loads(path.read_text("utf-8")) == "é"

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(path, "other")
    assert json.loads(path.read_text("utf-8")) == "é"
    assert [found.name for found in tmp_path.iterdir()] == ["x.json"]

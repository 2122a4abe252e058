import io
import re
import tarfile

import pytest

from flaxrnn.datasets import archive
from flaxrnn.errors import DataError


def test_a_sparse_member_is_refused(tmp_path):
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("x.txt")
        info.size = 512  # of the map of its parts: none
        sparse = {"major": 1, "minor": 0, "name": "x.txt", "realsize": 2**40}
        info.pax_headers = {f"GNU.sparse.{name}": str(value) for name, value in sparse.items()}
        tar.addfile(info, io.BytesIO(b"0\n".ljust(512, b"\0")))
    assert path.stat().st_size < 1_000
    with pytest.raises(DataError, match=r"refused: x\.txt is a sparse file"):
        archive.read_members(path, re.compile(r"x\.txt"))


def test_members_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_MAX_MEMBERS", 100)
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for i in range(101):
            tar.addfile(tarfile.TarInfo(f"{i}"))
    with pytest.raises(DataError, match="more than 100 members"):
        archive.read_members(path, re.compile("0"))


@pytest.mark.parametrize("where", ["a member", "members between", "a header"])
def test_archive_that_inflates_without_end_is_refused(tmp_path, monkeypatch, where):
    monkeypatch.setattr(archive, "_MAX_BYTES", 10_000_000)
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for i in range(20):
            info = tarfile.TarInfo("x.txt" if where == "a member" else f"y{i}")
            info.size = 1_000_000
            if where == "a header":
                info.pax_headers = {"comment": "x" * 1_000_000}
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(DataError, match="unpacks to more than 10 MiB"):
        archive.read_members(path, re.compile(r"x\.txt"))

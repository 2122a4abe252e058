import io
import re
import tarfile

import pytest

from flaxrnn.datasets import archive
from flaxrnn.errors import DataError


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

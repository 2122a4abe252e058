import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from helpers import serve

from flaxrnn.datasets import download, registry
from flaxrnn.datasets.archive import Archive
from flaxrnn.errors import DataError


def test_a_server_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(download, "_CONNECT_SECONDS", 0.3)
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # accepts, answers nothing
    try:
        began = time.monotonic()
        assert not download.reachable(f"http://127.0.0.1:{server.server_port}/")
        assert time.monotonic() - began < 2
    finally:
        server.server_close()


def test_an_error_is_an_answer_of_a_server_that_is_there():
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # 501: it knows no GET
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    try:
        assert not download.reachable(url)
        assert download.reachable(url, any_status=True)
        assert download.reachable("http://127.0.0.1:9/", url, any_status=True)
    finally:
        server.shutdown()
        server.server_close()


CONTENT = bytes(range(250)) * 1_200


def test_a_download_without_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_MAX_BYTES", 200_000)
    server = serve(CONTENT)
    archive = Archive("a.tar.gz", f"http://127.0.0.1:{server.server_port}/a.tar.gz")
    try:
        with pytest.raises(DataError, match=r"download failed \(it has more than 0 MiB"):
            download.download(archive, tmp_path)
        assert not list(tmp_path.iterdir())
    finally:
        server.shutdown()
        server.server_close()


def test_archives_are_fetched_with_encryption():
    for task in registry.TASKS.values():
        assert task.archive.url.startswith("https://")


@pytest.mark.parametrize(
    ("announced", "sha256", "problem"),
    [
        (None, None, None),
        (None, hashlib.sha256(CONTENT).hexdigest(), None),
        (400_000, None, "connection closed after 300,000 of 400,000 bytes"),
        (None, "0" * 64, f"its SHA-256 is {hashlib.sha256(CONTENT).hexdigest()}, not 0000"),
    ],
)
def test_download_is_complete_or_absent(announced, sha256, problem, tmp_path):
    server = serve(CONTENT, announced)
    archive = Archive("a.tar.gz", f"http://127.0.0.1:{server.server_port}/a.tar.gz", sha256)
    try:
        if problem is None:
            assert download.download(archive, tmp_path).read_bytes() == CONTENT
        else:
            with pytest.raises(DataError, match=f"{archive.url}: download failed .{problem}"):
                download.download(archive, tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ([] if problem else ["a.tar.gz"])
    finally:
        server.shutdown()
        server.server_close()

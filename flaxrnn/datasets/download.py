"""Downloads the archive of a corpus."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from flaxrnn.datasets.archive import Archive
from flaxrnn.errors import DataError

_CONNECT_SECONDS = 10.0
_MAX_BYTES = 2**30


def reachable(*urls: str, any_status: bool = False) -> bool:
    """Whether a server answers within 10 s; resolving its name has no time-out of its own.

    Args:
        *urls: Of which one is enough.
        any_status: Whether an answer that is an error will do.
    """
    answers: queue.Queue[bool] = queue.Queue()

    def ask(url: str) -> None:
        try:
            urllib.request.urlopen(url, timeout=_CONNECT_SECONDS).close()
            answers.put(True)
        except urllib.error.HTTPError:
            answers.put(any_status)
        except OSError:
            answers.put(False)

    for url in urls:
        threading.Thread(target=ask, args=(url,), daemon=True).start()
    end = time.monotonic() + _CONNECT_SECONDS
    with contextlib.suppress(queue.Empty):
        return any(answers.get(timeout=max(0.0, end - time.monotonic())) for _ in urls)
    return False


def download(archive: Archive, folder: Path) -> Path:
    """Downloads an archive into a folder; the file exists only once it is complete.

    Raises:
        DataError: The download failed, or its SHA-256 is not that of the archive.
    """
    path = folder / archive.name
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(archive.url, timeout=60) as response, part.open("wb") as file:
            size = int(response.headers.get("Content-Length", 0)) or None
            with tqdm.wrapattr(response, "read", total=size, desc=path.name, disable=None) as body:
                _copy(body, file)
            if size and file.tell() != size:
                raise OSError(f"connection closed after {file.tell():,} of {size:,} bytes")
        if archive.sha256 and archive.sha256 != (found := _sha256(part)):
            raise OSError(f"its SHA-256 is {found}, not {archive.sha256}")
        part.replace(path)
    except OSError as error:
        raise DataError(
            f"{archive.url}: download failed ({error}); try again, or put the archive into {folder}"
        ) from None
    finally:
        part.unlink(missing_ok=True)
    return path


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    """Copies a stream, which may never end, up to a limit."""
    while content := source.read(2**20):
        target.write(content)
        if target.tell() > _MAX_BYTES:
            raise OSError(f"it has more than {_MAX_BYTES / 2**20:,.0f} MiB")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

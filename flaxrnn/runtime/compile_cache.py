"""JAX's cache of compiled programs, with a checksum in each entry: a damaged one is replaced.

JAX itself would warn of an entry that it cannot read, compile, and keep the damaged entry for the
next start; and it would run whatever else it can read, such as the program of another entry.
"""

from __future__ import annotations

import contextlib
import hashlib

from jax._src import compilation_cache, lru_cache  # JAX has no public way to exchange its cache

_PREFIX = "flaxrnn-"  # of keys: entries that JAX itself wrote have no checksum


def check_entries() -> None:
    """Has JAX keep its programs in a `CheckedCache`, from the next time that it opens its cache."""
    compilation_cache.get_file_cache = _open


def _open(path: str) -> tuple[CheckedCache, str]:
    maximum = compilation_cache.config.compilation_cache_max_size.value
    return CheckedCache(path, max_size=maximum), path


class CheckedCache(lru_cache.LRUCache):
    """Entries are the SHA-256 of key and program, then the program."""

    def get(self, key: str) -> bytes | None:
        """The program of a key; None: there is none, or it was damaged and is removed."""
        entry = super().get(_PREFIX + key)
        if entry is None:
            return None
        size = hashlib.sha256().digest_size
        if entry[:size] == _checksum(key, entry[size:]):
            return entry[size:]
        with contextlib.suppress(OSError):
            (self.path / f"{_PREFIX}{key}{lru_cache._CACHE_SUFFIX}").unlink()
        return None

    def put(self, key: str, value: bytes) -> None:
        """Adds a program."""
        super().put(_PREFIX + key, _checksum(key, value) + value)


def _checksum(key: str, program: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + program).digest()

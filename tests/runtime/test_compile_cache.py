"""Compiled programs on disk: a damaged one is compiled again, and replaced."""

import os
import subprocess

from helpers import ROOT, python

COMPILE = """
import sys
import jax
from flaxrnn.runtime import devices
devices.enable_compilation_cache(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
double = devices.compiled(jax.jit(lambda x: 2 * x), 1.0)
halve = devices.compiled(jax.jit(lambda x: x / 2), 1.0)
print(double(8.0), halve(8.0))
"""


def compile_programs(folder):
    done = subprocess.run(
        [*python(), "-c", COMPILE, str(folder)],
        cwd=ROOT,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("16.0 4.0\n", "")
    return {path: path.read_bytes() for path in folder.glob("*-cache")}


def exchange(entries):
    one, other = entries
    return {one: entries[other], other: entries[one]}


DAMAGES = (
    lambda entries: dict.fromkeys(entries, b"garbage"),
    lambda entries: {path: content[:-9] for path, content in entries.items()},
    exchange,
)


def test_damaged_entries_are_replaced(tmp_path):
    entries = compile_programs(tmp_path)
    assert len(entries) == 2
    for damage in DAMAGES:
        damaged = damage(entries)
        for path, content in damaged.items():
            path.write_bytes(content)
        replaced = compile_programs(tmp_path)
        assert replaced.keys() == entries.keys()
        assert all(replaced[path] != damaged[path] for path in entries)
        entries = replaced
    assert compile_programs(tmp_path) == entries  # read, not written

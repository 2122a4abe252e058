import os

import pytest

from flaxrnn.runtime import cores


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes the control groups of a machine with 8 cores: membership, then files."""

    def write(membership, **contents):
        monkeypatch.setattr(cores, "_CGROUPS", tmp_path)
        monkeypatch.setattr(cores, "_MEMBERSHIP", tmp_path / "membership")
        (tmp_path / "membership").write_text(membership)
        for name, content in contents.items():
            path = tmp_path / name.replace("__", "/").replace("cpu_", "cpu.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return write


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000\n", 8), ("300000 100000\n", 3), ("150000 100000\n", 2), ("5000 100000\n", 1)],
)
def test_quota_of_version_2(quota, expected, groups):
    groups("0::/\n", cpu_max=quota)
    assert cores.usable() == expected


def test_the_tightest_of_nested_groups_counts(groups):
    groups("0::/a/b\n", a__cpu_max="200000 100000", a__b__cpu_max="400000 100000")
    assert cores.usable() == 2


@pytest.mark.parametrize(
    ("folder", "path"), [("cpu", "/"), ("cpu,cpuacct", "/"), ("cpu", "/docker/of-the-host")]
)
@pytest.mark.parametrize(("quota", "expected"), [("-1\n", 8), ("250000\n", 3)])
def test_quota_of_version_1(folder, path, quota, expected, groups):
    files = {f"{folder}__cpu_cfs_quota_us": quota, f"{folder}__cpu_cfs_period_us": "100000\n"}
    groups(f"4:memory:/x\n1:{folder}:{path}\n0::/\n", **files)
    assert cores.usable() == expected


def test_affinity_counts_and_no_quota_is_none(groups, monkeypatch):
    groups("0::/nowhere\n")
    assert cores.usable() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    assert cores.usable() == 1
    monkeypatch.setattr(cores, "_MEMBERSHIP", cores._CGROUPS / "missing")  # not Linux
    assert cores.usable() == 1


def test_where_there_is_no_affinity_the_machine_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(cores, "_MEMBERSHIP", tmp_path / "missing")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert cores.usable() == 5

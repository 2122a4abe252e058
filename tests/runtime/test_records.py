"""JSON is valid when it is written, and bounded when it is read."""

import json
import math
import os

import pytest

from flaxrnn.runtime import records


def test_what_is_written_is_valid_whatever_the_numbers():
    value = {"a": [math.nan, {"b": (math.inf, -math.inf, 1.5, 2, None, True, "NaN")}]}

    def refuse(token):
        pytest.fail(f"{token} is no JSON")

    text = records.to_text(value)
    found = json.loads(text, parse_constant=refuse)
    assert found == {"a": [None, {"b": [None, None, 1.5, 2, None, True, "NaN"]}]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not valid JSON"),
        (b"{", "is not valid JSON"),
        (b"\xff\xfe{}", "is not valid JSON"),
        (b"[]", "file is not a JSON object"),
        (b"3", "is not a JSON object"),
        (b'{"a": ' + b"1" * 5000 + b"}", "is not valid JSON"),
        (b'{"a": ' * 30 + b"1" + b"}" * 30, "is nested too deeply"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is nested too deeply"),
    ],
)
def test_what_is_no_small_object_is_refused(content, problem, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(records.RecordError, match=problem):
        records.read(tmp_path / "file", dict)


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(3 * 2**20)
    with pytest.raises(OSError, match="it has more than 2 MiB"):
        records.read(tmp_path / "large", dict, max_mib=2)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name, problem in [
        ("pipe", "it is no regular file"),  # nobody writes to it: opening it would block
        ("endless", "it is no regular file"),
        ("folder", "Is a directory"),
    ]:
        with pytest.raises(OSError, match=problem):
            records.read(tmp_path / name, dict)


def test_lines_are_objects(tmp_path):
    path = tmp_path / "lines"
    path.write_text('{"a": 1}\n\n{"a": NaN}\n')
    first, second = records.read_lines(path)
    assert first == {"a": 1}
    assert math.isnan(second["a"])  # as earlier versions wrote it
    path.write_text('{"a": 1}\n[]\n')
    with pytest.raises(records.RecordError, match="lines: line 2 is not a JSON object"):
        records.read_lines(path)

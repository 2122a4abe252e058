import io
import sys

import pytest

from flaxrnn.errors import DataError
from flaxrnn.inference import sources
from flaxrnn.inference.sources import Record

MISSING, INVALID = Record("", "no text in 'body'"), Record("", "invalid JSON")


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize(
    ("name", "content", "records"),
    [
        ("a.txt", "good film\n\nbad\r\nnot\rvery", ["good film", "", "bad", "not\rvery"]),
        ("a.txt", b"\xef\xbb\xbfgood\nbad \xff\n", ["good", "bad \ufffd"]),
        ("a.txt", "", []),
        ("a.csv", 'id,body\n1,"good\nfilm"\n2\n3,\n', ["good\nfilm", MISSING, ""]),
        ("a.csv", "id,body\n1," + "bad" * 100_000 + "\n", ["bad" * 100_000]),
        ("a.csv", "id,body\n", []),
        (
            "a.jsonl",
            '{"body": "good"}\n{"body": 7}\n{\n[]\n{"id": 1}\n' + "[" * 100_000 + '\n{"body": "a"}',
            ["good", MISSING, INVALID, MISSING, MISSING, INVALID, "a"],
        ),
    ],
)
def test_records_of_files(name, content, records, tmp_path):
    with sources.open_file(write(tmp_path / name, content), "body") as found:
        expected = [record if isinstance(record, Record) else Record(record) for record in records]
        assert list(found) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x,y\n1,2\n", "first line of .*a.csv has no field 'body'; it has x, y"),
        ("a.csv", "", "it has none"),
        ("a.jsonl", '{"x": 1}\n', "first line of .*a.jsonl has no field 'body'; it has x"),
        ("a.jsonl", "[1]\n", "it has none"),
        ("a.txt", None, r"--file: .*a\.txt cannot be read \(No such file"),
    ],
)
def test_a_wrong_file_is_refused_when_it_is_opened(name, content, message, tmp_path):
    path = str(tmp_path / name) if content is None else write(tmp_path / name, content)
    with pytest.raises(DataError, match=message), sources.open_file(path, "body"):
        pytest.fail("opened")


def test_records_are_read_as_they_are_needed(tmp_path, monkeypatch):
    parsed = []

    def loads(line):
        parsed.append(line)
        return {"body": "good"}

    monkeypatch.setattr(sources.json, "loads", loads)
    with sources.open_file(write(tmp_path / "a.jsonl", "{}\n" * 9), "body") as records:
        assert len(parsed) == 1
        assert [next(records) for _ in range(3)] == [Record("good")] * 3
        assert len(parsed) == 3


def test_stdin_has_one_text_per_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"good\nbad \xff\n\n")))
    assert list(sources.from_stdin()) == [Record("good"), Record("bad \ufffd"), Record("")]
    assert capsys.readouterr().err == ""  # it is no terminal

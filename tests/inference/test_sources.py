import argparse
import io
import sys

import pytest

from flaxrnn.config import DataConfig
from flaxrnn.errors import ConfigError, DataError
from flaxrnn.inference import sources


def read(file, *flags, **own):
    parser = argparse.ArgumentParser()
    sources.add_flags(parser)
    flags = parser.parse_args(["--file", str(file), *flags])
    return sources.from_file(flags, DataConfig(**{"text_field": "body", **own}))


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.txt", "good film\n\nbad\r\nnot\rvery", ["good film", "", "bad", "not\rvery"]),
        ("a.txt", b"\xef\xbb\xbfgood\n", ["good"]),
        ("a.txt", "__label__up good\n__label__a __label__b bad\n__label__u\n", ["good", "bad", ""]),
        ("a.csv", 'id,body\n1,"good\nfilm"\n\n3,\n', ["good\nfilm", ""]),
        ("a.CSV", "id, body \n1," + "bad" * 100_000 + "\n", ["bad" * 100_000]),
        ("a.tsv", 'label\tbody\nup\t"good" film\n', ['"good" film']),
        ("a.json", '[{"label": 1, "body": "good"},\n{"body": "bad"}]', ["good", "bad"]),
        ("a.jsonl", '{"body": "good"}\n\n{"body": "bad", "label": null}', ["good", "bad"]),
    ],
)  # fmt: skip
def test_texts_of_files(name, content, texts, tmp_path):
    assert read(write(tmp_path / name, content)) == texts


def test_the_flags_come_before_what_the_model_was_trained_on(tmp_path):
    path = write(tmp_path / "a.csv", "한글;body\n좋다;bad\n".encode("cp949"))
    model = {"path": "b.csv", "text_field": "2", "delimiter": ";", "header": False}
    assert read(path, "--encoding", "cp949", **model) == ["body", "bad"]
    with_header = ["--encoding", "cp949", "--header", "--field", "body"]
    assert read(path, *with_header, **model) == ["bad"]
    assert read(path, "--encoding", "cp949", "--field=1", "--delimiter=;", "--no-header") == [
        "한글",
        "좋다",
    ]
    with pytest.raises(DataError, match=r"is not UTF-8; .* or set --encoding \(cp949 fits\)"):
        read(path, **model)
    path = write(tmp_path / "a.txt", "good;bad\n")  # not as the .csv
    assert read(path, **model) == ["good;bad"]
    assert read(path, "--delimiter=;", "--no-header", **model) == ["bad"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x,y\n1,2\n", r"--field: .*a.csv has no column 'body'; it has x, y"),
        ("a.csv", "x;body\n1;2\n", r"'body'; it has x;body; set --delimiter=';'"),
        ("a.csv", "id,body\n1,a\n2\n", r"--file: .*a.csv: line 3: 1 fields, but the header has 2"),
        ("a.csv", 'id,body\n1,"bad\n2,b\n', r"--file: .*a.csv: line 2: a quotation mark opens"),
        ("a.csv", "", r"--file: .*a.csv is empty"),
        ("a.csv", "id,body\n", r"--file: .*a.csv has no row of data"),
        ("a.jsonl", '{"x": 1}\n', r"--field: .*a.jsonl: line 1 has no key 'body'; it has x"),
        ("a.jsonl", '{"body": "a"}\n{\n', r"--file: .*a.jsonl: line 2: invalid JSON"),
        ("a.jsonl", '{"body": 7}\n', r"--file: .*a.jsonl: line 1: body must be a string, not 7"),
        ("a.txt", b"good\nbad \xff\n", r"--file: .*a.txt: line 2: byte 9 \(0xff\) is not UTF-8"),
        ("a.txt", None, r"--file: .*a\.txt cannot be read \(No such file"),
        ("a.xlsx", "PK", r"--file: .*a\.xlsx must end in \.csv"),
        ("a.csv.gz", "id,body\n1,a\n", r"--file: .*a\.csv\.gz is not a complete \.gz file"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_flag(name, content, message, tmp_path):
    path = tmp_path / name
    if content is not None:
        write(path, content)
    with pytest.raises(DataError, match=message):
        read(path)


def test_lines_have_no_fields(tmp_path):
    with pytest.raises(ConfigError, match=r"--field: .*a\.txt has one text per line"):
        read(write(tmp_path / "a.txt", "good\n"), "--field", "body")


def stdin(monkeypatch, content, encoding="utf-8"):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    return sources.from_stdin(encoding)


def test_stdin_has_one_text_per_line(monkeypatch, capsys):
    content = "\ufeffgood\nbad 좋\r\n\n__label__up fine".encode()
    assert list(stdin(monkeypatch, content)) == ["good", "bad 좋", "", "fine"]
    assert list(stdin(monkeypatch, "a\n\n좋다".encode("utf-16"), "utf-16")) == ["a", "", "좋다"]
    assert list(stdin(monkeypatch, b"")) == []
    assert capsys.readouterr().err == ""  # it is no terminal


def test_stdin_in_another_encoding_is_refused(monkeypatch):
    read = stdin(monkeypatch, "good\n좋다\n".encode("cp949"))
    assert next(read) == "good"
    message = r"--file: stdin: line 2: byte 0 \(0xc1\) is not UTF-8; .*--encoding \(cp949 fits\)"
    with pytest.raises(DataError, match=message):
        next(read)
    with pytest.raises(DataError, match="--encoding: 'nope' must be the name of a Python text en"):
        list(stdin(monkeypatch, b"good", "nope"))

"""One reader: every format that holds the same rows is read the same, or refused by name."""

import gzip
import io
import json
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from flaxrnn.datasets.reading import Format, read_rows
from flaxrnn.datasets.rows import Fields
from flaxrnn.errors import DataError

FIELDS = Fields("text", "label")
VALUES = [("good, film", "up", "train"), ("bad", "7", "test")]


def read(name, content, fields=FIELDS, **how):
    content = content if isinstance(content, bytes) else content.encode()
    return [
        (row.text, row.label, row.split)
        for row in read_rows(Path(name), content, fields, Format(**how))
    ]


def to_parquet(**columns):
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


OBJECTS = [dict(zip(("text", "label", "split"), row, strict=True)) for row in VALUES]
COLUMNS = dict(zip(("text", "label", "split"), map(list, zip(*VALUES, strict=True)), strict=True))
TAB = "text\tlabel\tsplit\ngood, film\tup\ttrain\nbad\t7\ttest\n"


@pytest.mark.parametrize(
    ("name", "content", "how"),
    [
        ("a.csv", 'split,text , label\ntrain,"good, film",up\ntest,bad,7\n', {}),
        ("a.CSV", 'text,label,split\r\n"good, film",up,train\r\n\r\nbad,7,test', {}),
        ("a.csv", TAB.replace("\t", ";"), {"delimiter": ";"}),
        ("a.tsv", TAB, {}),
        ("a.TSV", TAB.replace("\t", "|"), {"delimiter": "|"}),
        ("a.txt", TAB, {"delimiter": "tab"}),
        ("sms", TAB, {"delimiter": r"\t"}),
        ("a.tsv", TAB.replace("\n", '"\n"').replace("\t", '"\t"').join('""')[:-2], {}),
        ("a.json", json.dumps(OBJECTS, indent=1), {}),
        ("a.json", "\n".join(map(json.dumps, OBJECTS)), {}),
        ("a.jsonl", "\r\n\r\n".join(map(json.dumps, OBJECTS)) + "\r\n", {}),
        ("a.ndjson", "\n".join(map(json.dumps, OBJECTS)).replace("text", " text "), {}),
        ("a.parquet", to_parquet(**COLUMNS), {}),
        ("a.PARQUET", to_parquet(id=[1, 2], **COLUMNS), {}),
    ],
)  # fmt: skip
def test_every_format_has_the_same_rows(name, content, how):
    found = read(name, content, **how)
    assert found == VALUES
    zipped = gzip.compress(content if isinstance(content, bytes) else content.encode())
    assert read(f"{name}.gz", zipped, **how) == found
    unlabelled = read(name, content, Fields("text", None), **how)
    assert unlabelled == [(text, None, split) for text, _, split in found]


def test_lines():
    labelled = "__label__up  good film\n\n__label__a __label__b bad\r\n__label__up\n"
    found = read("cooking.train", labelled)
    assert found == [("good film", "up", None), ("", "", None), ("bad", "a,b", None),
                     ("", "up", None)]  # fmt: skip
    texts = Fields("text", None)
    assert [row[0] for row in read("a.txt", labelled, texts)] == ["good film", "", "bad", ""]
    plain = "good\n\u2028 film\n\n__labels__ are bad"
    assert [row[0] for row in read("a.txt", plain, texts)] == [
        "good", "\u2028 film", "", "__labels__ are bad"
    ]  # fmt: skip


def test_columns_by_number():
    content = "up,good\ndown,bad\n"
    assert read("a.csv", content, Fields("2", "1"), header=False) == [
        ("good", "up", None), ("bad", "down", None)
    ]  # fmt: skip
    assert read("a.csv", "2,1\n" + content, Fields("1", "2"))[0] == ("good", "up", None)  # names
    for fields, how, message in [
        (FIELDS, {"header": False}, "data.text_field: a.csv has no column 'text'; it has 1, 2"),
        (FIELDS, {}, "no column 'text'; it has up, good; of a file without a header"),
        (Fields("2", "1"), {}, "no column '2'; it has up, good; of a file without a header"),
        (Fields("0", "1"), {"header": False}, "data.text_field: a.csv has no column '0'; it has"),
        (Fields("3", "1"), {"header": False}, "data.text_field: a.csv has no column '3'; it has"),
    ]:  # fmt: skip
        with pytest.raises(DataError) as caught:
            read("a.csv", content, fields, **how)
        assert message in str(caught.value)
    with pytest.raises(DataError, match="line 2: 1 fields, but the first line has 2"):
        read("a.csv", "up,good\ndown\n", Fields("2", "1"), header=False)


def test_tabs_within_quotes():
    """Quotation marks in a .tsv are part of the text, if it can be read like that."""
    assert read("a.tsv", 'text\tlabel\n"so\ta\n"it is"\tb\n')[1][0] == '"it is"'
    quoted = 'text\tlabel\n"so\t\tit\nis ""it"""\ta\nno\tb\n'
    assert [row[0] for row in read("a.tsv", quoted)] == ['so\t\tit\nis "it"', "no"]
    with pytest.raises(DataError, match=r"a\.tsv: line 2: 3 fields, but the header has 2"):
        read("a.tsv", 'text\tlabel\nso\tit\ta\n"no\tb\n')


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", "PK", "a.xlsx must end in .csv, .tsv, .json, .jsonl, .txt or .parquet, each"),
        ("a.xlsx.gz", "PK", "a.xlsx.gz must end in .csv"),
        ("reviews", "text,label\na,b", "with .gz; or set data.delimiter if it is a table"),
        ("a.csv", "text,label,text\na,b,c", "a.csv has 'text' twice; rename or remove one of them"),
        ("a.csv", "text, label,label\na,b,c", "a.csv has 'label' twice"),
        ("a.json", '{"text": "a", "text": "b"}', "line 1: invalid JSON (the key 'text' is there"),
        ("a.json", '{"text": "a", " text": "b"}', "a.json: line 1 has 'text' twice"),
        ("a.json", '[{"text": "a", "label": 1},\n\n{"label": 1}]', "line 3 has no key 'text'"),
        ("a.json", '[\n{"text": "a", "label": 1},\n]', "line 3: invalid JSON (Expecting value)"),
        ("a.json", '[\n{"text": "a", "label": 1}\n{}]', "line 3: invalid JSON (Expecting ',')"),
        ("a.json", '[{"text": "a", "label": 1}\n', "line 2: invalid JSON (Expecting ',')"),
        ("a.json", '[{"text": "a", "label": 1}]\n[]', "line 1: invalid JSON (more after the arr"),
        ("a.json", "[ ]", "a.json has no row of data"),
        ("a.json", '{"data": [\n1]}', "line 1: invalid JSON"),
        ("a.json", '["good", "bad"]', "a.json: line 1: must be an object with keys"),
        ("a.txt", "good\n", "a.txt: line 1: has no class; write __label__CLASS before each text"),
        ("a.txt", "__label__up good\n\nbad\n", "a.txt: line 3: has no class"),
        ("a.txt", "bad\n__label__up good\n", "a.txt: line 1: has no class"),
        ("a.parquet", "PAR1", "data.path: a.parquet is not a Parquet file ("),
        ("a.parquet", to_parquet(text=["a"]), "data.label_field: a.parquet has no column 'label'"),
        ("a.parquet", to_parquet(text=[None], label=[1]), "row 1: text must be a string, not None"),
    ],
)
def test_what_is_refused(name, content, message):
    with pytest.raises(DataError) as caught:
        read(name, content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_delimiter_that_would_fit_is_named():
    with pytest.raises(DataError, match=r"it has text;label; set data\.delimiter=';'"):
        read("a.csv", "text;label\na;b\n")
    with pytest.raises(DataError, match=r"it has text label; set data\.delimiter='\\t'"):
        read("a.csv", "text\tlabel\na\tb\n")
    with pytest.raises(DataError, match=r"it has body;label; set data\.delimiter=';'"):
        read("a.csv", 'body;label\n"a;b"; c;up\n')
    with pytest.raises(DataError, match=r"data\.delimiter: ';;' must be a single character"):
        read("a.csv", "text\tlabel\na\tb\n", delimiter=";;")


def test_parquet_without_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs pyarrow, which is not installed"):
        read("a.parquet", b"")

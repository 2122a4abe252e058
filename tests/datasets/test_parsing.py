import json
from pathlib import Path

import pytest
from helpers import everything, load_custom, write_csv

from flaxrnn.datasets import parsing
from flaxrnn.datasets.reading import Format
from flaxrnn.datasets.rows import Fields
from flaxrnn.errors import DataError

FIELDS = Fields("text", "label")
GOOD = "text,label\ngood a,up\ngood b,up\nbad a,down\nbad b,down\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "data.path: a.csv is empty"),
        ("a.csv", "\ufeff\n \n", "data.path: a.csv is empty"),
        ("a.jsonl", " \n", "data.path: a.jsonl is empty"),
        ("a.csv", "text,label\n", "data.path: a.csv has no row of data"),
        ("a.csv", "text,stars\nx,1\n", "data.label_field: a.csv has no column 'label'; it has"),
        ("a.csv", "body,label\nx,1\n", "data.text_field: a.csv has no column 'text'; it has"),
        ("a.csv", GOOD + "alone\n", "data.path: a.csv: line 6: 1 fields, but the header has 2"),
        ("a.csv", GOOD + "a,b,up\n", "data.path: a.csv: line 6: 3 fields, but the header has 2"),
        ("a.csv", GOOD + '"x\ny",up\nx\n', "data.path: a.csv: line 8: 1 fields, but"),
        ("a.csv", GOOD + '"open,up\nx,up\n', "data.path: a.csv: line 6: a quotation mark opens"),
        ("a.csv", GOOD + '"a"b,up\n', "data.path: a.csv: line 6: ',' expected after '\"'"),
        ("a.csv", GOOD + "x, \n", "data.path: a.csv: line 6: label is empty"),
        ("a.csv", GOOD + "x\0y,up\n", "data.path: a.csv: line 6: NUL, which no text contains"),
        ("a.csv", GOOD.encode() + b"\xc1\xc1,up\n", "a.csv: line 6: byte 53 (0xc1) is not UTF-8"),
        (
            "a.csv",
            b"\xef\xbb\xbf" + GOOD.encode() + b"ab\xff,up\n",
            "data.path: a.csv: line 6: byte 58 (0xff) is not UTF-8; save it as UTF-8",
        ),
        ("a.csv", GOOD.encode("utf-16"), "data.path: a.csv: line 1: byte 0 (0xff) is not UTF-8"),
        ("a.csv", "text,label,split\nx,up,fold1\n", "line 2: split must be one of train, val"),
        ("a.jsonl", '{"text": "x"}\n', "data.label_field: a.jsonl: line 1 has no key 'label'"),
        ("a.jsonl", "\n{nope}\n", "data.path: a.jsonl: line 2: invalid JSON (Expecting property n"),
        ("a.jsonl", "[1]\n", "data.path: a.jsonl: line 1: must be an object with keys"),
        ("a.jsonl", '{"text": 5, "label": "a"}', "line 1: text must be a string, not 5"),
        ("a.jsonl", '{"text": "x", "label": 1.5}', "label must be a string or a whole number"),
        ("a.jsonl", '{"text": "\\ud800", "label": 1}', "line 1: unpaired surrogate, which no"),
    ],
)  # fmt: skip
def test_mistake_is_named_with_its_line(name, content, message):
    content = content if isinstance(content, bytes) else content.encode()
    with pytest.raises(DataError) as caught:
        parsing.parse(Path(name), content, FIELDS, Format())
    assert message in str(caught.value)
    assert str(caught.value).startswith("data.")
    assert "\n" not in str(caught.value)


def test_columns_and_keys_are_read_by_name():
    wanted = [parsing.Example("a b", "7", "test"), parsing.Example("c", "up", "train")]
    table = "split,id, label,text \ntest,1,7,a b\n\ntrain,2, up ,c\n"
    assert parsing.parse(Path("a.csv"), table.encode(), FIELDS, Format()) == wanted
    assert (
        parsing.parse(Path("a.TSV"), table.replace(",", "\t").encode(), FIELDS, Format()) == wanted
    )
    lines = [
        {"text": "a b", "label": 7, "split": "test"},
        {"label": "up", "split": "train", "text": "c"},
    ]
    content = "\n\n".join(map(json.dumps, lines)).encode()
    assert parsing.parse(Path("a.jsonl"), content, FIELDS, Format()) == wanted


def test_texts_of_any_length_and_with_line_breaks(tmp_path):
    rows = [('one\ntwo, "three"', "a"), ("x " * 100_000, "a"), ("y", "b"), ("z", "b")] * 2
    corpus = load_custom(write_csv(tmp_path / "a.csv", rows), tmp_path, test_fraction=0.2)
    assert ("one two three", "a") in everything(corpus)
    assert max(corpus.train.lengths) == 100_001
    (tmp_path / "b.tsv").write_text('text\tlabel\n"so\ta\nit\'s "so\ta\nno\tb\noh\tb\n')
    assert ("it's so", "a") in everything(
        load_custom(tmp_path / "b.tsv", tmp_path, test_fraction=0.3)
    )

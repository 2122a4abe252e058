"""Files as people have them: every command reads the same texts, or refuses with one line."""

import argparse
import gzip
import io
import json
from typing import NamedTuple

import pyarrow
import pytest
from helpers import korean, write_csv
from pyarrow import parquet

import flaxrnn
from configs import text as text_config
from flaxrnn import evaluate, predict
from flaxrnn.config import DataConfig
from flaxrnn.datasets import custom
from flaxrnn.datasets.reading import Format
from flaxrnn.datasets.rows import Fields
from flaxrnn.errors import DataError
from flaxrnn.inference import sources


class File(NamedTuple):
    name: str
    content: str | bytes
    expected: list | str  # the examples (text, class, split), or the error
    data: dict = {}  # fields of the config's data group  # noqa: RUF012


def table(*rows, delimiter=",", end="\n"):
    return "".join(delimiter.join(row) + end for row in rows)


def to_parquet(**columns):
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


ROWS = [("영화가 좋다", "긍정"), ("별로였다", "부정")]
READ = [(*row, "") for row in ROWS]
CSV = table(("text", "label"), *ROWS)
TSV = table(("text", "label"), *ROWS, delimiter="\t")
WESTERN = "text,label\ncafé très bon,sí\nça va,no\n"
OBJECTS = [{"text": text, "label": label} for text, label in ROWS]
SPLIT = [(*row, split) for row, split in zip(ROWS * 2, "train test val TRAIN".split(), strict=True)]
SPLIT_READ = [(*row, split) for row, split in zip(
    ROWS * 2, "train test validation train".split(), strict=True
)]  # fmt: skip

FILES = [
    # Encodings
    File("utf8.csv", CSV, READ),
    File("bom.csv", CSV.encode("utf-8-sig"), READ),
    File("bom-named.csv", CSV.encode("utf-8-sig"), READ, {"encoding": "utf-8-sig"}),
    File("cp949.csv", CSV.encode("cp949"), READ, {"encoding": "cp949"}),
    File("utf16.csv", CSV.encode("utf-16"), READ, {"encoding": "utf-16"}),
    File("excel.txt", TSV.encode("utf-16"), READ, {"encoding": "utf-16", "delimiter": "tab"}),
    File("latin1.csv", WESTERN.encode("latin-1"),
         [("café très bon", "sí", ""), ("ça va", "no", "")], {"encoding": "latin-1"}),
    File("cp949-unsaid.csv", CSV.encode("cp949"),
         "line 2: byte 11 (0xbf) is not UTF-8; save it as UTF-8, or set data.encoding (cp949 fit"),
    File("utf16-unsaid.csv", CSV.encode("utf-16"), "line 1: byte 0 (0xff) is not UTF-8; save it as"
         " UTF-8, or set data.encoding (utf-16 fits)"),
    File("latin1-unsaid.csv", WESTERN.encode("latin-1"), "(latin-1 fits)"),
    File("utf8-as-cp949.csv", CSV, "is not CP949; save it as UTF-8, or set data.encoding (utf-8",
         {"encoding": "cp949"}),
    File("binary.csv", b"\x89PNG\r\n\x1a\n\0\0", "line 1: byte 0 (0x89) is not UTF-8; save it as"),
    # Formats
    File("a.TSV", TSV, READ),
    File("a.json", json.dumps(OBJECTS, indent=2), READ),
    File("lines.json", "\n".join(map(json.dumps, OBJECTS)), READ),
    File("a.JSONL", "\n".join(map(json.dumps, OBJECTS)) + "\n\n", READ),
    File("a.csv.gz", gzip.compress(CSV.encode()), READ),
    File("a.jsonl.GZ", gzip.compress("\n".join(map(json.dumps, OBJECTS)).encode()), READ),
    File("cp949.tsv.gz", gzip.compress(TSV.encode("cp949")), READ, {"encoding": "cp949"}),
    File("a.parquet", to_parquet(label=[0, 1], text=["good", "bad"]),
         [("good", "0", ""), ("bad", "1", "")]),
    File("cooking.train", "__label__긍정 영화가 좋다\n__label__부정 별로였다\n", READ),
    File("ft.txt", "__label__a __label__b good\n__label__a bad\n", [("good", "a,b", ""),
         ("bad", "a", "")]),
    File("late.txt", "bad\n__label__a good\n", "late.txt: line 1: has no class; write __label__CL"),
    File("semicolon.csv", CSV.replace(",", ";"), READ, {"delimiter": ";"}),
    File("nsmc.txt", "id\tdocument\tlabel\n1\t좋다\t1\n2\t별로\t0\n", [("좋다", "1", ""),
         ("별로", "0", "")], {"delimiter": "tab", "text_field": "document"}),
    File("SMSSpamCollection", "ham\tgood, film\nspam\tbad\n", [("good, film", "ham", ""),
         ("bad", "spam", "")], {"delimiter": "tab", "header": False, "text_field": "2",
         "label_field": "1"}),
    File("numbers.csv", "3,Film,Good\n1,Plot,Bad\n", [("Good", "3", ""), ("Bad", "1", "")],
         {"header": False, "text_field": "3", "label_field": "1"}),
    File("semicolon-unsaid.csv", CSV.replace(",", ";"),
         "has no column 'text'; it has text;label; set data.delimiter=';'"),
    File("headerless-unsaid.csv", "영화가 좋다,긍정\n", "has no column 'text'; it has 영화가 좋다,"
         " 긍정; of a file without a header, set data.header=False"),
    File("case.csv", CSV.replace("text", "Text"), "has no column 'text'; it has Text, label; set"
         " data.text_field='Text'"),
    File("a.xlsx", b"PK\3\4", "a.xlsx must end in .csv, .tsv, .json, .jsonl, .txt or .parquet"),
    File("a.csv.zip", b"PK\3\4", "a.csv.zip must end in .csv"),
    File("a.csv.gz", CSV, "is not a complete .gz file"),
    File("a.parquet", CSV, "is not a Parquet file"),
    File("empty.csv", "\ufeff\n", "empty.csv is empty"),
    File("header.csv", "text,label\n", "header.csv has no row of data"),
    # Quotes and line ends
    File("quoted.csv", 'text,label\r\n"so, ""it""\nis",a\r\nno,b\r\n', [('so, "it"\nis', "a", ""),
         ("no", "b", "")]),
    File("mac.csv", CSV.replace("\n", "\r"), READ),
    File("inner.csv", 'text,label\na 5" disk,a\nb,b\n', [('a 5" disk', "a", ""), ("b", "b", "")]),
    File("stray.csv", 'text,label\ngood,a\n"bad,b\nso,a\nla,b\n',
         "line 3: a quotation mark opens a field that does not end"),
    File("stray.tsv", 'text\tlabel\n"bad\tb\nso\ta\n', [('"bad', "b", ""), ("so", "a", "")]),
    File("quoted.tsv", '"text"\t"label"\n"so ""it"" is"\t"a"\n"no"\t"b"\n',
         [('so "it" is', "a", ""), ("no", "b", "")]),
    File("tab.tsv", 'text\tlabel\n"so\tit"\ta\nno\tb\n', [("so\tit", "a", ""), ("no", "b", "")]),
    File("ragged.csv", CSV + "x\n", "line 4: 1 fields, but the header has 2"),
    File("spaces.csv", " label , text\n긍정,영화가 좋다\n부정,별로였다\n", READ),
    File("nfd.csv", "내용,분류\n좋다,a\n".replace("내", "\u1102\u1162"), [("좋다", "a", "")],
         {"text_field": "내용", "label_field": "분류"}),
    File("twice.csv", "text,label,text\na,b,c\n", "twice.csv has 'text' twice; rename or remove"),
    File("twice.jsonl", '{"text": "a", "text": "b", "label": 1}', "the key 'text' is there twice"),
    File("null.jsonl", '{"text": null, "label": 1}', "line 1: text must be a string, not None"),
    File("broken.jsonl", '{"text": "a", "label": 1}\n{"text": "b', "line 2: invalid JSON (Unt"),
    # Splits
    File("split.csv", table(("text", "label", "split"), *SPLIT), SPLIT_READ),
    File("split.jsonl", "".join(
        json.dumps(dict(zip(("text", "label", "split"), row, strict=True))) + "\n" for row in SPLIT
    ), SPLIT_READ),
    # Classes
    File("floats.csv", "text,label\na,1\nb,1.0\nc,-1.00\nd,1.50\n", [("a", "1", ""),
         ("b", "1", ""), ("c", "-1", ""), ("d", "1.50", "")]),
    File("floats.jsonl", '{"text": "a", "label": 1.0}\n{"text": "b", "label": " 1 "}',
         [("a", "1", ""), ("b", "1", "")]),
    File("floats.parquet", to_parquet(text=["a", "b"], label=[0.0, 1.0]),
         [("a", "0", ""), ("b", "1", "")]),
    File("spaces.csv", "text,label\na,up \nb, up\nc,\"\tup\"\n", [(t, "up", "") for t in "abc"]),
    File("joined.csv", 'text,label\na,neg\nb,"neg,spoiler"\n', [("a", "neg", ""),
         ("b", "neg,spoiler", "")]),
]  # fmt: skip


def train_reads(path, data):
    fields = Fields(data.text_field, data.label_field)
    file_format = Format(data.encoding, data.delimiter, data.header)
    source = custom.find_sources(str(path), {}, fields, file_format)
    return [tuple(example[:3]) for example in source.read()]


def predict_reads(path, data):
    parser = argparse.ArgumentParser()
    sources.add_flags(parser)
    flags = parser.parse_args(["--file", str(path), "--encoding", data.encoding])
    return sources.from_file(flags, data)


def evaluate_reads(path, data):
    arguments = ["--workdir", "run", "--file", str(path), "--encoding", data.encoding]
    return [tuple(example[:3]) for example in evaluate._read(evaluate._parse(arguments), data)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_training_predict_and_evaluate_read_the_same_or_refuse_with_the_same_line(file, tmp_path):
    content = file.content if isinstance(file.content, bytes) else file.content.encode()
    path = tmp_path / file.name
    path.write_bytes(content)
    data = DataConfig(path=str(path), **file.data)
    if isinstance(file.expected, list):
        assert train_reads(path, data) == evaluate_reads(path, data) == file.expected
        assert predict_reads(path, data) == [text for text, _, _ in file.expected]
        return
    errors = []
    for reads in (train_reads, predict_reads, evaluate_reads):
        with pytest.raises(DataError) as caught:
            reads(path, data)
        errors.append(str(caught.value))
    assert file.expected in errors[0]
    for field, flag in sources.FLAGS.items():
        errors[0] = errors[0].replace(field, flag)
    assert errors[0] == errors[1] == errors[2]
    assert "\n" not in errors[0]


def test_there_are_enough():
    assert len(FILES) > 50


def test_a_file_from_an_old_spreadsheet_trains_and_is_predicted(tmp_path, capsys):
    rows = korean(120)
    plain = write_csv(tmp_path / "a", rows, ("문장", "분류"), encoding="cp949", delimiter=";")
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(plain.read_bytes()))
    config = text_config.get_config()
    config.data.update({"path": str(path), "data_dir": str(tmp_path / "data"), "maxlen": 20})
    config.data.update({"encoding": "cp949", "delimiter": ";", "tokenizer": "words"})
    config.data.update({"text_field": "문장", "label_field": "분류"})
    config.model.update({"embedding_size": 8, "hidden_size": 8})
    config.train.update({"epochs": 1, "baseline": False})
    result = flaxrnn.train(config, tmp_path / "run")
    assert result["test_examples"] == 12
    capsys.readouterr()
    predict.main(["--workdir", str(tmp_path / "run"), "--file", str(path), "--encoding", "cp949"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    labels, _ = flaxrnn.load(tmp_path / "run").predict([text for text, _ in rows])
    assert [row["label"] for row in found] == labels
    assert max(row["unknown"] for row in found) < 0.5

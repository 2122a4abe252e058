import gzip
from pathlib import Path

import pytest

from flaxrnn.datasets import decoding
from flaxrnn.errors import DataError

KOREAN = "영화가 좋다\n별로였다\n"
FRENCH = "c'était très bien\nça va\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp949", "utf-16-le"]
)
def test_every_encoding_is_read(encoding):
    for told in {encoding, "utf-8" if encoding == "utf-8-sig" else encoding}:
        assert decoding.decode("a.csv", KOREAN.encode(encoding), told) == KOREAN
    marked = f"\ufeff{KOREAN}".encode("utf-16-le")
    assert decoding.decode("a.csv", marked, "utf-16-le") == KOREAN


@pytest.mark.parametrize(
    ("content", "encoding", "problem", "likely"),
    [
        (KOREAN.encode("cp949"), "utf-8", "line 1: byte 0 (0xbf) is not UTF-8", "cp949"),
        (b"good\n" + KOREAN.encode("cp949"), "utf-8", "line 2: byte 5 (0xbf) is not", "cp949"),
        (FRENCH.encode("latin-1"), "utf-8", "line 1: byte 2 (0xe9) is not UTF-8", "latin-1"),
        ("so\n“good”".encode("cp1252"), "utf-8", "line 2: byte 3 (0x93) is not UTF-8", "cp1252"),
        (KOREAN.encode("utf-16"), "utf-8", "line 1: byte 0 (0xff) is not UTF-8", "utf-16"),
        ("good\n".encode("utf-16-le"), "utf-8", "line 1: NUL, which no text", "utf-16-le"),
        ("good\n".encode("utf-16-be"), "utf-8", "line 1: NUL, which no text", "utf-16-be"),
        (KOREAN.encode(), "cp949", "line 1: byte 0 (0xec) is not CP949", "utf-8"),
        (KOREAN.encode("utf-8-sig"), "ascii", "line 1: byte 0 (0xef) is not ASCII", "utf-8"),
        (b"\xef\xbb\xbfgood\nbad \xff", "utf-8", "line 2: byte 12 (0xff) is not UTF-8", "latin-1"),
        (b"good\n\0\1\2\xff\x80", "utf-8", "line 2: byte 8 (0xff) is not UTF-8", None),
        (b"a" * 2**21 + KOREAN.encode("cp949"), "utf-8", "line 1: byte 2097152 (0xbf)", "cp949"),
        (b"good\nb\0d\n", "utf-8", "line 2: NUL, which no text contains", None),
        ("ㅋㅋㅋ 정말 좋다 ㅠㅠ 大".encode("cp949"), "utf-8", "line 1: byte 0 (0xa4)", "cp949"),
        # What would be read as other words is no guess.
        ("text,label\nЖдём дня дождя,1".encode("cp1251"), "utf-8", "line 2: byte 11", None),
        ("今天天气很好我们去公园散步。".encode("gbk"), "utf-8", "line 1: byte 0 (0xbd)", None),
        ("今日はとても良い天気です。".encode("shift_jis"), "utf-8", "line 1: byte 0 (0x8d)", None),
    ],
)  # fmt: skip
def test_other_bytes_are_named_with_a_likely_encoding(content, encoding, problem, likely):
    with pytest.raises(DataError) as caught:
        decoding.decode("a.csv", content, encoding)
    fits = f" ({likely} fits)" if likely else ""
    message = str(caught.value)
    assert message.startswith(f"data.path: a.csv: {problem}")
    assert message.endswith(f"; save it as UTF-8, or set data.encoding{fits}")


def test_utf8_is_not_misread_in_an_encoding_that_has_all_bytes():
    with pytest.raises(DataError, match=r"data\.encoding: a\.csv is in UTF-8, not LATIN-1; un"):
        decoding.decode("a.csv", "c'était déjà, là-bas, très âgé, à l'été".encode(), "latin-1")
    assert decoding.decode("a.csv", "Â© 크".encode("cp1252", "replace"), "cp1252") == "Â© ?"


def test_no_text_encoding():
    for name in ("nope", "hex"):
        with pytest.raises(DataError, match=f"data.encoding: '{name}' must be the name of a"):
            decoding.decode("a.csv", b"good", name)


def test_a_gz_file_that_unpacks_to_too_much_is_refused(monkeypatch):
    zipped = gzip.compress(b"good")
    monkeypatch.setattr(decoding, "_MAX_BYTES", 4)
    assert decoding.unzip(Path("a.csv.gz"), zipped) == b"good"
    monkeypatch.setattr(decoding, "_MAX_BYTES", 3)
    with pytest.raises(DataError, match=r"data\.path: a\.csv\.gz unpacks to more than"):
        decoding.unzip(Path("a.csv.gz"), zipped)


def test_a_gz_file_is_unzipped_by_its_name():
    zipped = gzip.compress(b"good")
    assert decoding.unzip(Path("a.csv.GZ"), zipped) == b"good"
    assert decoding.unzip(Path("a.csv"), zipped) == zipped
    assert decoding.suffix_of(Path("b.c/a.CSV.gz")) == ".csv"
    for content in (b"good", zipped[:-4], zipped[:12] + b"\xff\xff" + zipped[14:]):
        with pytest.raises(DataError, match=r"data\.path: a\.gz is not a complete \.gz file"):
            decoding.unzip(Path("a.gz"), content)

"""Word vectors in text files."""

import gzip

import numpy as np
import pytest

from flaxrnn.data import vectors
from flaxrnn.data.vocabulary import FIRST_WORD, START, UNKNOWN, Vocabulary
from flaxrnn.errors import ConfigError, DataError

WORDS = Vocabulary(["the", "영화", ".", "rare"])
LINES = """the 1 2 -3e-1
영화 4 5 6 \r
unknown 0 0 0
broken 1 2
. . . 9 9 9
\u3000 1 1 1
the 7 7 7
. 0.5 0 0
"""


def write(path, content):
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


@pytest.mark.parametrize("name", ["vectors.txt", "vectors.vec.gz"])
@pytest.mark.parametrize("first_line", ["", "8 3\n"])
def test_vectors_of_the_vocabulary(name, first_line, tmp_path):
    ids, found = vectors.read(write(tmp_path / name, first_line + LINES), WORDS, 3)
    assert (ids - FIRST_WORD).tolist() == [0, 1, 2]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.float32([[1, 2, -0.3], [4, 5, 6], [0.5, 0, 0]]))


def test_bytes_that_are_no_text_belong_to_words_that_are_not_there(tmp_path):
    path = write(tmp_path / "v.txt", b"the 1 2\n\xff\xfe 1 2\nrare 3 4\n")
    assert len(vectors.read(path, WORDS, 2)[0]) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 1 2\nrare 1\n", r"v.txt: line 2 has 1 numbers, not 2"),
        ("the 1 2\nrare 1 2 3\n", r"v.txt: line 2 has 3 numbers, not 2"),
        ("the 1 x\n", r"v.txt: line 1 is malformed \(could not convert string to float: 'x'\)"),
        ("3 2\nthe 1 nan\n", r"v.txt: line 2 has a number that is not finite"),
        ("other 1 2\n", r"v.txt has none of the 4 words"),
        ("", r"v.txt has none of the 4 words"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(content, message, tmp_path):
    with pytest.raises(DataError, match=rf"data\.vectors: .*{message}") as caught:
        vectors.read(write(tmp_path / "v.txt", content), WORDS, 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["the 1 2 3\n", "1000 3\nthe 1 2 3\n"])
def test_vectors_of_another_size_name_the_field(content, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.embedding_size: must be 3, not 2: the size of"):
        vectors.read(write(tmp_path / "v.txt", content), WORDS, 2)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"v\.txt cannot be read \(No such file or directory\)"):
        vectors.read(str(tmp_path / "v.txt"), WORDS, 2)
    path = tmp_path / "v.gz"
    path.write_bytes(gzip.compress(b"the 1 2\n" * 1_000)[:-20])
    with pytest.raises(DataError, match=r"v\.gz cannot be read"):
        vectors.read(str(path), WORDS, 2)
    path.write_bytes(b"the 1 2\n")
    with pytest.raises(DataError, match=r"v\.gz cannot be read .*Not a gzipped file"):
        vectors.read(str(path), WORDS, 2)


def test_coverage_does_not_count_the_start_of_a_text():
    tokens = np.array([START, 4, 4, UNKNOWN, 5, START, 4])
    assert vectors.describe_coverage("vectors", np.array([4, 7]), WORDS, tokens) == (
        "vectors: 2 of 4 words (60% of the training tokens)"
    )

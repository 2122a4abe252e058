import pytest
from flaxrnn.text import Vocabulary
from hypothesis import given
from hypothesis import strategies as st

from flaxrnn.data import tokenizers
from flaxrnn.errors import DataError, WorkdirError


def test_tokenize_follows_keras():
    assert (
        tokenizers.tokenize("It's GOOD,\tnot  bad!\n(4.5-star)")
        == "it's good not bad 4 5 star".split()
    )
    assert tokenizers.tokenize(" .,;\n") == []
    # Only the space, the tab and the newline separate words.
    assert tokenizers.tokenize("a\u00a0b c\rd") == ["a\u00a0b", "c\rd"]


def test_vocabulary_ranks_by_frequency_then_first_appearance():
    vocabulary = Vocabulary.build([["b", "a", "c"], ["c", "a"], ["c"]])
    assert vocabulary.words == ["c", "a", "b"]
    assert vocabulary.encode(["c", "a", "b", "new"]) == [1, 4, 5, 6, 2]


def test_limit_keeps_the_ids_below_num_words():
    vocabulary = Vocabulary(["c", "a", "b"]).limit(6)
    assert vocabulary.encode(["c", "a", "b"]) == [1, 4, 5, 2]


def test_decode_reverses_encode():
    vocabulary = Vocabulary(["c", "a", "b"])
    assert vocabulary.decode([0, 0, *vocabulary.encode(["b", "new", "c"])]) == "b ? c"


def test_empty_texts_build_no_vocabulary():
    with pytest.raises(DataError, match="empty"):
        Vocabulary.build([[], []])


def test_save_and_load_keep_odd_words(tmp_path):
    words = ["평", "a\u2028b", "x\ry", "\x85"]
    Vocabulary(words).save(tmp_path / "v.json")
    assert Vocabulary.load(tmp_path / "v.json").words == words


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"other": 1}'])
def test_load_refuses_what_is_no_vocabulary(tmp_path, content):
    path = tmp_path / "v.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(WorkdirError, match="no readable vocabulary"):
        Vocabulary.load(path)


SUBWORDS = tokenizers.Tokenizer.learn(
    ["a banana, an ananas", "바나나 한 개", "what a joy"] * 30, 40
)


@given(st.text())
@pytest.mark.parametrize(
    "tokenizer",
    [tokenizers.KERAS, tokenizers.Tokenizer("words"), tokenizers.Tokenizer("characters"), SUBWORDS],
    ids=lambda tokenizer: tokenizer.kind,
)
def test_every_token_has_its_place_in_the_text(tokenizer, raw):
    seen, spans = tokenizer.locate(raw)
    assert len(spans) == len(tokenizer(raw))
    ends = [0, *(end for _, end in spans)]
    for (begin, end), before in zip(spans, ends, strict=False):
        assert before <= begin <= end <= len(seen)


def test_texts_are_put_together_again():
    for kind, joined in [("words", "what a joy"), ("characters", "what a joy")]:
        tokenizer = tokenizers.Tokenizer(kind)
        assert tokenizer.join(tokenizer("What a joy")) == joined
    assert SUBWORDS.join(SUBWORDS("What a joy")) == "what a joy"

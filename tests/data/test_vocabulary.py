import pytest
from helpers import korean

from flaxrnn.data import tokenizers
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.errors import DataError, WorkdirError


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


def test_a_loaded_vocabulary_gives_the_ids_of_the_run(tmp_path):
    texts = [row for row, _ in korean()]
    for kind in ("keras", "words", "characters", "subword"):
        tokenizer = tokenizers.Tokenizer(kind)
        if kind == "subword":
            tokenizer = tokenizers.Tokenizer.learn(texts, 200)
        vocabulary = Vocabulary.build(map(tokenizer, texts), tokenizer)
        vocabulary.save(tmp_path / "v.json")
        again = Vocabulary.load(tmp_path / "v.json")
        assert again.tokenizer == tokenizer
        for raw in (*texts[:5], "An UNSEEN café, don't!"):
            assert again.encode(again.tokenizer(raw)) == vocabulary.encode(tokenizer(raw))
    (tmp_path / "v.json").write_text('{"tokenizer": {"kind": "odd", "model": ""}, "words": []}')
    with pytest.raises(WorkdirError, match="unknown tokenizer 'odd'"):
        Vocabulary.load(tmp_path / "v.json")


@pytest.mark.parametrize("kind", ["keras", "words", "characters"])
def test_what_stands_for_an_unknown_word_is_unknown(kind):
    tokenizer = tokenizers.Tokenizer(kind)
    vocabulary = Vocabulary.build([tokenizer("a \ufffd \ufffd b")], tokenizer)
    assert "\ufffd" not in vocabulary.words
    known = vocabulary.encode(tokenizer("a"))[1]
    ids = vocabulary.encode(tokenizer("a \ufffd"))
    assert (ids[1], ids[-1]) == (known, 2)
    assert vocabulary.decode(ids, "\ufffd") == "a \ufffd"


def test_every_token_is_found_in_the_text_that_is_spelled():
    words = Vocabulary(["good", "film"])
    assert words.spell([1, 4, 2, 5]) == ("good ? film", [(0, 4), (5, 6), (7, 11)])
    pieces = Vocabulary(["▁good", "ness"], tokenizers.Tokenizer("subword"))
    assert pieces.spell([1, 4, 5, 4]) == (" goodness good", [(0, 5), (5, 9), (9, 14)])
    letters = Vocabulary(["a", " "], tokenizers.Tokenizer("characters"))
    assert letters.spell([4, 5, 2]) == ("a ?", [(0, 1), (1, 2), (2, 3)])

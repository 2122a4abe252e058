import sys
import unicodedata

import pytest
from helpers import korean
from hypothesis import given
from hypothesis import strategies as st

from flaxrnn.data import splitting, tokenizers
from flaxrnn.data.vocabulary import FIRST_WORD, UNKNOWN, Vocabulary
from flaxrnn.errors import ConfigError, DataError

SUBWORDS = tokenizers.Tokenizer.learn(
    ["a banana, an ananas", "바나나 한 개", "what a joy"] * 30, 40
)


def test_tokenize_follows_keras():
    assert (
        splitting.tokenize("It's GOOD,\tnot  bad!\n(4.5-star)")
        == "it's good not bad 4 5 star".split()
    )
    assert splitting.tokenize(" .,;\n") == []
    # Only the space, the tab and the newline separate words.
    assert splitting.tokenize("a\u00a0b c\rd") == ["a\u00a0b", "c\rd"]


def test_words_of_any_script():
    assert splitting.words("It\u2019s GOOD,\u3000“정말”　좋다。\u200b¡Sí! 5€") == [
        "it's", "good", "정말", "좋다", "sí", "5",
    ]  # fmt: skip
    assert splitting.words("좋아요😍❤️굿") == ["좋아요", "😍", "❤", "굿"]
    assert splitting.words("हिन्दी\u00a0में") == ["हिन्दी", "में"]
    assert splitting.words(unicodedata.normalize("NFD", "한국")) == ["한국"]
    assert tokenizers.Tokenizer("characters")(" 가  A\n!") == ["가", " ", "a", " ", "!"]
    assert splitting.words("\n …") == tokenizers.Tokenizer("characters")("\n ") == []


def test_subwords_share_pieces_and_stay_within_the_vocabulary():
    texts = [row for row, _ in korean()]
    tokenizer = tokenizers.Tokenizer.learn(texts, 150)
    vocabulary = Vocabulary.build(map(tokenizer, texts), tokenizer)
    assert 60 < len(vocabulary) <= 150 - FIRST_WORD
    assert "".join(tokenizer("최고였어요")).removeprefix("▁") == "최고였어요"
    assert UNKNOWN not in vocabulary.encode(tokenizer("최고였어요"))  # not a word of any text
    assert tokenizer("") == []
    assert tokenizers.Tokenizer.learn(texts, 150) == tokenizer
    with pytest.raises(DataError, match=r"data\.num_words: 20 is too few .* at least \d+"):
        tokenizers.Tokenizer.learn(texts, 20)
    needed = [row for row, _ in korean(40)]
    with pytest.raises(DataError) as caught:
        tokenizers.Tokenizer.learn(needed, 20)
    tokenizers.Tokenizer.learn(needed, int(str(caught.value).split()[-1]))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("A film. हिन्दी में भी।", "words"),
        ("오늘은 비가 온다, rain", "subword"),
        ("今日は雨が降る", "subword"),
        ("วันนี้ฝนตก", "subword"),
        ("123 :-)", "words"),
    ],
)
def test_the_script_decides_what_suits(text, kind, monkeypatch):
    assert tokenizers.suitable(["", text]) == kind
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert tokenizers.suitable([text]) == {"subword": "characters"}.get(kind, kind)


def test_subword_without_sentencepiece_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ConfigError, match=r"pip install 'flaxrnn\[subword\]'"):
        tokenizers.Tokenizer.learn(["a b"], 50)


@given(st.text())
@pytest.mark.parametrize(
    "tokenizer",
    [tokenizers.KERAS, tokenizers.Tokenizer("words"), tokenizers.Tokenizer("characters"), SUBWORDS],
    ids=lambda tokenizer: tokenizer.kind,
)
def test_every_token_has_its_place_in_the_text(tokenizer, raw):
    seen, spans = tokenizer.locate(raw)
    assert len(spans) == len(tokenizer(raw))
    if tokenizer.kind == "characters":
        assert len(spans) == len(seen)
    ends = [0, *(end for _, end in spans)]
    for (begin, end), before in zip(spans, ends, strict=False):
        assert before <= begin <= end <= len(seen)


def test_a_located_text_keeps_its_case():
    assert SUBWORDS.locate("The  FILM,\né")[0] == "The FILM, é"
    text, spans = tokenizers.Tokenizer("characters").locate(" İst DAS ")
    assert (text, spans) == ("i̇st DAS", [(i, i + 1) for i in range(8)])


def test_texts_are_put_together_again():
    for kind, joined in [("words", "what a joy"), ("characters", "what a joy")]:
        tokenizer = tokenizers.Tokenizer(kind)
        assert tokenizer.join(tokenizer("What a joy")) == joined
    assert SUBWORDS.join(SUBWORDS("What a joy")) == "what a joy"

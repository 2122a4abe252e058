"""Text → tokens, by default as in Keras."""

from __future__ import annotations

import functools
import io
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flaxrnn.errors import ConfigError, DataError

TOKENIZERS = ("words", "characters", "subword")
_SPECIAL_IDS = 4  # before the first word, as in Keras
_SPACE = "▁"  # SentencePiece's mark of a space

_TO_SPACE = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', " "))


def tokenize(text: str) -> list[str]:
    """Lower-cases, replaces punctuation other than the apostrophe by spaces, splits on spaces.

    Equivalent to `keras.preprocessing.text.text_to_word_sequence` with its default arguments. Only
    space, tab and newline separate words, so other Unicode white space stays inside them.
    """
    return [word for word in text.lower().translate(_TO_SPACE).split(" ") if word]


class _Spacing(dict[int, str]):
    """Code point → its replacement before text of any script is split; filled on demand."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if character in "'\u2019":
            spaced = "'"
        elif category == "So":  # an emoji is a word, with or without spaces around it
            spaced = f" {character} "
        elif category == "Cf" or 0xFE00 <= code <= 0xFE0F:
            spaced = ""  # joiners and variation selectors only affect how text is drawn
        else:
            spaced = " " if category[0] in "PSZC" else character
        self[code] = spaced
        return spaced


_SPACING = _Spacing()


def words(text: str) -> list[str]:
    """The words of a text, in any script that separates words: NFC, lower case.

    White space, punctuation other than the apostrophe, and mathematical and currency signs separate
    words; any other symbol is a word by itself.
    """
    return unicodedata.normalize("NFC", text).lower().translate(_SPACING).split()


def _word_spans(text: str) -> list[tuple[int, int]]:
    """Where the words that `words` finds begin and end in a text in NFC."""
    found: list[tuple[int, int]] = []
    begin = None
    for i, character in enumerate(f"{text} "):
        spaced = _SPACING[ord(character)]
        if not spaced.startswith(" "):
            begin = i if begin is None and spaced else begin
            continue
        if begin is not None:
            found.append((begin, i))
            begin = None
        if spaced.strip():  # a symbol that is a word by itself
            found.append((i, i + 1))
    return found


def _normalize(text: str) -> str:
    """NFC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


_SPLITTERS = {
    "keras": tokenize,
    "words": words,
    "characters": lambda text: list(_normalize(text)),
}


@dataclass(frozen=True)
class Tokenizer:
    """Text → tokens."""

    kind: str = "keras"  # keras: `tokenize` | words | characters | subword
    model: bytes = b""  # of subword: a serialized SentencePiece model

    def __call__(self, text: str) -> list[str]:
        """The tokens of a text."""
        if self.kind == "subword":
            return self._pieces.encode(_normalize(text), out_type=str)
        return _SPLITTERS[self.kind](text)

    def locate(self, text: str) -> tuple[str, list[tuple[int, int]]]:
        """The text as this tokenizer sees it, and where its tokens begin and end there.

        Words keep their spelling, characters and subwords are in lower case.
        """
        if self.kind == "keras":
            spaced = text.translate(_TO_SPACE)
            return text, [word.span() for word in re.finditer("[^ ]+", spaced)]
        if self.kind == "words":
            text = unicodedata.normalize("NFC", text)
            return text, _word_spans(text)
        text = _normalize(text)
        if self.kind == "characters":
            return text, [(i, i + 1) for i in range(len(text))]
        return text, self._pieces.encode(text, return_type="offset_mapping")["offsets"]

    def join(self, tokens: Iterable[str]) -> str:
        """The text that these tokens spell."""
        if self.kind == "subword":
            return "".join(tokens).replace(_SPACE, " ").strip()
        return ("" if self.kind == "characters" else " ").join(tokens)

    @functools.cached_property
    def _pieces(self) -> Any:
        return _sentencepiece().SentencePieceProcessor(model_proto=self.model)

    @classmethod
    def learn(cls, texts: Iterable[str], num_words: int) -> Tokenizer:
        """Learns subwords: a unigram language model (Kudo, 2018), by SentencePiece.

        Args:
            texts: To learn from.
            num_words: Largest size of the vocabulary, special ids included.

        Raises:
            ConfigError: SentencePiece is not installed.
            DataError: `num_words` is below the number of different characters in the texts.
        """
        model = io.BytesIO()
        try:
            _sentencepiece().SentencePieceTrainer.train(
                sentence_iterator=map(_normalize, texts),
                model_writer=model,
                vocab_size=num_words - _SPECIAL_IDS + 1,  # with its own unknown piece
                hard_vocab_limit=False,  # few texts have fewer subwords
                normalization_rule_name="identity",  # the texts are normalized already
                max_sentence_length=1 << 30,  # bytes; longer texts would be skipped
                bos_id=-1,
                eos_id=-1,
                minloglevel=2,
            )
        except RuntimeError as error:
            if needed := re.search(r"\d+ vs (\d+)", str(error)):
                least = int(needed[1]) - 1 + _SPECIAL_IDS
                raise DataError(
                    f"data.num_words: {num_words} is too few for data.tokenizer=subword; the texts"
                    f" have so many different characters that it must be at least {least}"
                ) from None
            raise DataError(f"data.tokenizer: no subwords can be learned ({error})") from None
        return cls("subword", model.getvalue())


KERAS = Tokenizer()


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ModuleNotFoundError:
        raise ConfigError(
            "data.tokenizer: subword needs SentencePiece; pip install 'flaxrnn[subword]'"
        ) from None
    return sentencepiece

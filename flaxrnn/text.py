"""Text to integer ids: the tokenizers and the vocabulary, by default compatible with Keras' own.

The ids are those of `keras.datasets`: 0 pads, 1 starts every text, 2 stands for a word outside the
vocabulary, and the word of frequency rank r (from 1) is r + 3.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flaxrnn import files
from flaxrnn.errors import ConfigError, DataError, WorkdirError

PAD, START, UNKNOWN = 0, 1, 2
FIRST_WORD = 4
TOKENIZERS = ("words", "characters", "subword")
_SPACE = "▁"  # SentencePiece's

_TO_SPACE = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', " "))


def tokenize(text: str) -> list[str]:
    """Lower-cases, turns punctuation other than the apostrophe into spaces, splits on spaces.

    Equal to `keras.preprocessing.text.text_to_word_sequence` with its default arguments. Only the
    space, tab and newline separate words, so other Unicode white space stays inside them.
    """
    return [word for word in text.lower().translate(_TO_SPACE).split(" ") if word]


class _Spacing(dict[int, str]):
    """Code point → what stands for it where texts of any script are split into words."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if character in "'\u2019":
            spaced = "'"
        elif category == "So":  # an emoji says much, also where no space sets it off
            spaced = f" {character} "
        elif category == "Cf" or 0xFE00 <= code <= 0xFE0F:
            spaced = ""  # joiners and variation selectors only say how to draw
        else:
            spaced = " " if category[0] in "PSZC" else character
        self[code] = spaced
        return spaced


_SPACING = _Spacing()


def words(text: str) -> list[str]:
    """The words of a text in any script that sets them apart: NFC, lower case.

    White space, punctuation other than the apostrophe, and mathematical and currency signs separate
    words; any other symbol is a word of its own.
    """
    return unicodedata.normalize("NFC", text).lower().translate(_SPACING).split()


def _word_spans(text: str) -> list[tuple[int, int]]:
    """Where the words of `words` begin and end in a text in NFC."""
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
        if spaced.strip():  # a symbol that is a word of its own
            found.append((i, i + 1))
    return found


def _plain(text: str) -> str:
    """NFC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


_WAYS = {"keras": tokenize, "words": words, "characters": lambda text: list(_plain(text))}


@dataclass(frozen=True)
class Tokenizer:
    """Text → tokens."""

    kind: str = "keras"  # keras: `tokenize` | words | characters | subword
    model: bytes = b""  # of subword: SentencePiece's

    def __call__(self, text: str) -> list[str]:
        """The tokens of a text; of one without any, none."""
        if self.kind == "subword":
            return self._pieces.encode(_plain(text), out_type=str)
        return _WAYS[self.kind](text)

    def locate(self, text: str) -> tuple[str, list[tuple[int, int]]]:
        """A text as this tokenizer sees it, and where its tokens begin and end there.

        Words are seen as they are spelled, characters and subwords in lower case.
        """
        if self.kind == "keras":
            spaced = text.translate(_TO_SPACE)
            return text, [word.span() for word in re.finditer("[^ ]+", spaced)]
        if self.kind == "words":
            text = unicodedata.normalize("NFC", text)
            return text, _word_spans(text)
        text = _plain(text)
        if self.kind == "characters":
            return text, [(i, i + 1) for i in range(len(text))]
        return text, self._pieces.encode(text, return_type="offset_mapping")["offsets"]

    def join(self, tokens: Iterable[str]) -> str:
        """A text of these tokens."""
        if self.kind == "subword":
            return "".join(tokens).replace(_SPACE, " ").strip()
        return ("" if self.kind == "characters" else " ").join(tokens)

    @functools.cached_property
    def _pieces(self) -> Any:
        return _sentencepiece().SentencePieceProcessor(model_proto=self.model)

    @classmethod
    def learn(cls, texts: Iterable[str], num_words: int) -> Tokenizer:
        """Subwords: a unigram language model (Kudo, 2018), learned by SentencePiece.

        Args:
            texts: To learn from.
            num_words: Size of the vocabulary to stay within, special ids included.

        Raises:
            ConfigError: SentencePiece is not installed.
            DataError: `num_words` is below the number of characters of the texts.
        """
        model = io.BytesIO()
        try:
            _sentencepiece().SentencePieceTrainer.train(
                sentence_iterator=map(_plain, texts),
                model_writer=model,
                vocab_size=num_words - FIRST_WORD + 1,  # it counts its own unknown piece
                hard_vocab_limit=False,  # few texts have fewer subwords
                normalization_rule_name="identity",  # the texts are plain
                max_sentence_length=1 << 30,  # bytes; what is longer would be left out
                bos_id=-1,
                eos_id=-1,
                minloglevel=2,
            )
        except RuntimeError as error:
            if needed := re.search(r"\d+ vs (\d+)", str(error)):
                least = int(needed[1]) - 1 + FIRST_WORD
                raise DataError(
                    f"data.num_words: {num_words} is too few for data.tokenizer=subword; the texts"
                    f" have so many characters that it must be at least {least}"
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


class Vocabulary:
    """The words of a corpus, most frequent first, their ids, and the tokenizer that gives them."""

    def __init__(self, words: Iterable[str], tokenizer: Tokenizer = KERAS):
        self.words = list(words)
        self.tokenizer = tokenizer
        self._ids = {word: i for i, word in enumerate(self.words, FIRST_WORD)}

    @classmethod
    def build(cls, tokenized: Iterable[list[str]], tokenizer: Tokenizer = KERAS) -> Vocabulary:
        """Ranks words by frequency; ties keep the order of first appearance.

        Raises:
            DataError: There is not a single word.
        """
        counts: Counter[str] = Counter()
        for words in tokenized:
            counts.update(words)
        if not counts:
            raise DataError("the texts to build a vocabulary from are empty: not a single word")
        return cls((word for word, _ in counts.most_common()), tokenizer)

    def __len__(self) -> int:
        """Number of words, the three special ids not counted."""
        return len(self.words)

    @property
    def num_words(self) -> int:
        """The ids of the words, and the special ones, are below it."""
        return FIRST_WORD + len(self.words)

    def limit(self, num_words: int) -> Vocabulary:
        """Keeps the words whose id is below `num_words`, as Keras' `num_words` does."""
        return Vocabulary(self.words[: num_words - FIRST_WORD], self.tokenizer)

    def encode(self, words: Iterable[str]) -> list[int]:
        """Ids of `words` behind the start id; unknown words become `UNKNOWN`."""
        get = self._ids.get
        return [START, *(get(word, UNKNOWN) for word in words)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`: unknown words show as '?', start and padding not at all."""
        shown = (int(i) for i in ids if i not in (PAD, START))
        return self.tokenizer.join(
            self.words[i - FIRST_WORD] if i >= FIRST_WORD else "?" for i in shown
        )

    def to_json(self) -> str:
        """The tokenizer and the words, in order of rank."""
        model = base64.b64encode(self.tokenizer.model).decode()
        tokenizer = {"kind": self.tokenizer.kind, "model": model}
        return json.dumps({"tokenizer": tokenizer, "words": self.words}, ensure_ascii=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `to_json`."""
        files.write_atomically(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Reads what `save` wrote.

        Raises:
            WorkdirError: The file is missing or holds something else.
        """
        try:
            content = json.loads(Path(path).read_text("utf-8"))
            words, tokenizer = content["words"], KERAS
            if "tokenizer" in content:  # older runs knew no other than Keras' own
                kind, model = content["tokenizer"]["kind"], content["tokenizer"]["model"]
                if kind not in ("keras", *TOKENIZERS):
                    raise ValueError(f"no tokenizer is called {kind!r}")
                tokenizer = Tokenizer(kind, base64.b64decode(model))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WorkdirError(f"{path}: no readable vocabulary ({error})") from None
        return cls(words, tokenizer)


def pad(rows: list[np.ndarray], maxlen: int) -> np.ndarray:
    """Lays id arrays into `[len(rows), maxlen]`, padded and cut on the left, as Keras does."""
    out = np.full((len(rows), maxlen), PAD, np.int32)
    for i, row in enumerate(rows):
        kept = row[-maxlen:]
        out[i, maxlen - len(kept) :] = kept
    return out

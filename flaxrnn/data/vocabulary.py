"""Tokens → integer ids, numbered as in `keras.datasets`.

0 is padding, 1 starts every text, 2 replaces a word outside the vocabulary, and the word of
frequency rank r (from 1) is r + 3.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from flaxrnn.data.tokenizers import KERAS, TOKENIZERS, Tokenizer
from flaxrnn.errors import DataError, WorkdirError
from flaxrnn.runtime import files, records

PAD, START, UNKNOWN = 0, 1, 2
FIRST_WORD = 4
UNKNOWN_WORD = "\ufffd"  # in a text, stands for a word that is not known; tokenizers keep it


class Vocabulary:
    """The words of a corpus, most frequent first, their ids, and the tokenizer that finds them."""

    def __init__(self, words: Iterable[str], tokenizer: Tokenizer = KERAS):
        self.words = list(words)
        self.tokenizer = tokenizer
        self._ids = {word: i for i, word in enumerate(self.words, FIRST_WORD)}

    @classmethod
    def build(cls, tokenized: Iterable[list[str]], tokenizer: Tokenizer = KERAS) -> Vocabulary:
        """Ranks words by frequency; ties keep the order of first appearance.

        Raises:
            DataError: The texts have no word.
        """
        counts: Counter[str] = Counter()
        for words in tokenized:
            counts.update(words)
        counts.pop(UNKNOWN_WORD, None)
        if not counts:
            raise DataError("the texts to build a vocabulary from are empty: they have no word")
        return cls((word for word, _ in counts.most_common()), tokenizer)

    def __len__(self) -> int:
        """Number of words, without the special ids."""
        return len(self.words)

    @property
    def num_words(self) -> int:
        """One more than the largest id."""
        return FIRST_WORD + len(self.words)

    def limit(self, num_words: int) -> Vocabulary:
        """Keeps the words whose id is below `num_words`, as in Keras."""
        return Vocabulary(self.words[: num_words - FIRST_WORD], self.tokenizer)

    def encode(self, words: Iterable[str]) -> list[int]:
        """The start id, then the ids of `words`; unknown words become `UNKNOWN`."""
        return [START, *map(self._ids.get, words, itertools.repeat(UNKNOWN))]

    def decode(self, ids: Iterable[int], unknown: str = "?") -> str:
        """The text of `ids`: unknown words become `unknown`, start and padding are dropped."""
        return self.tokenizer.join(self._tokens(ids, unknown))

    def spell(self, ids: Iterable[int]) -> tuple[str, list[tuple[int, int]]]:
        """The text of `ids`, as `decode` has it, and where each token begins and ends in it."""
        return self.tokenizer.spell(self._tokens(ids, "?"))

    def _tokens(self, ids: Iterable[int], unknown: str) -> Iterator[str]:
        shown = (int(i) for i in ids if i not in (PAD, START))
        return (self.words[i - FIRST_WORD] if i >= FIRST_WORD else unknown for i in shown)

    def to_json(self) -> str:
        """The tokenizer and the words in order of rank, as JSON."""
        model = base64.b64encode(self.tokenizer.model).decode()
        tokenizer = {"kind": self.tokenizer.kind, "model": model}
        return json.dumps({"tokenizer": tokenizer, "words": self.words}, ensure_ascii=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `to_json` to a file."""
        files.write_atomically(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Reads a file that `save` wrote.

        Raises:
            WorkdirError: The file is missing or not a vocabulary.
        """
        try:
            content = records.read(Path(path), dict, max_mib=256)
            words, tokenizer = content["words"], KERAS
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise ValueError("its words are no list of strings")
            if "tokenizer" in content:  # older runs had only Keras's tokenizer
                kind, model = content["tokenizer"]["kind"], content["tokenizer"]["model"]
                if kind not in ("keras", *TOKENIZERS):
                    raise ValueError(f"unknown tokenizer {kind!r}")
                tokenizer = Tokenizer(kind, base64.b64decode(model, validate=True))
                tokenizer.check()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WorkdirError(f"{path}: no readable vocabulary ({error})") from None
        return cls(words, tokenizer)

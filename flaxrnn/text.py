"""Text to integer ids: the tokenizer and the vocabulary, compatible with Keras' own.

The ids are those of `keras.datasets`: 0 pads, 1 starts every text, 2 stands for a word outside the
vocabulary, and the word of frequency rank r (from 1) is r + 3.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from flaxrnn import files
from flaxrnn.errors import DataError, WorkdirError

PAD, START, UNKNOWN = 0, 1, 2
FIRST_WORD = 4

_TO_SPACE = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', " "))


def tokenize(text: str) -> list[str]:
    """Lower-cases, turns punctuation other than the apostrophe into spaces, splits on spaces.

    Equal to `keras.preprocessing.text.text_to_word_sequence` with its default arguments. Only the
    space, tab and newline separate words, so other Unicode white space stays inside them.
    """
    return [word for word in text.lower().translate(_TO_SPACE).split(" ") if word]


def spans(text: str) -> list[tuple[int, int]]:
    """Where the words of `tokenize` begin and end in the text, as it is spelled."""
    return [word.span() for word in re.finditer("[^ ]+", text.translate(_TO_SPACE))]


class Vocabulary:
    """The words of a corpus, most frequent first, and their ids."""

    def __init__(self, words: Iterable[str]):
        self.words = list(words)
        self._ids = {word: i for i, word in enumerate(self.words, FIRST_WORD)}

    @classmethod
    def build(cls, tokenized: Iterable[list[str]]) -> Vocabulary:
        """Ranks words by frequency; ties keep the order of first appearance.

        Raises:
            DataError: There is not a single word.
        """
        counts: Counter[str] = Counter()
        for words in tokenized:
            counts.update(words)
        if not counts:
            raise DataError("the texts to build a vocabulary from are empty: not a single word")
        return cls(word for word, _ in counts.most_common())

    def __len__(self) -> int:
        """Number of words, the three special ids not counted."""
        return len(self.words)

    def limit(self, num_words: int) -> Vocabulary:
        """Keeps the words whose id is below `num_words`, as Keras' `num_words` does."""
        return Vocabulary(self.words[: num_words - FIRST_WORD])

    def encode(self, words: Iterable[str]) -> list[int]:
        """Ids of `words` behind the start id; unknown words become `UNKNOWN`."""
        get = self._ids.get
        return [START, *(get(word, UNKNOWN) for word in words)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`: unknown words show as '?', start and padding not at all."""
        shown = (int(i) for i in ids if i not in (PAD, START))
        return " ".join(self.words[i - FIRST_WORD] if i >= FIRST_WORD else "?" for i in shown)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the words, in order of rank, as JSON."""
        content = json.dumps({"words": self.words}, ensure_ascii=False)
        files.write_atomically(Path(path), content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Reads what `save` wrote.

        Raises:
            WorkdirError: The file is missing or holds something else.
        """
        try:
            words = json.loads(Path(path).read_text("utf-8"))["words"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WorkdirError(f"{path}: no readable vocabulary ({error})") from None
        return cls(words)


def pad(rows: list[np.ndarray], maxlen: int) -> np.ndarray:
    """Lays id arrays into `[len(rows), maxlen]`, padded and cut on the left, as Keras does."""
    out = np.full((len(rows), maxlen), PAD, np.int32)
    for i, row in enumerate(rows):
        kept = row[-maxlen:]
        out[i, maxlen - len(kept) :] = kept
    return out

"""Raw texts as a trained model reads them: token ids, and what it is told of their n-grams."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from flaxrnn.data.ragged import RaggedTexts
from flaxrnn.data.tokenizers import Tokenizer
from flaxrnn.data.vocabulary import UNKNOWN
from flaxrnn.errors import DataError
from flaxrnn.inference.saved import SavedModel

_MOST_SCORED = 1_024  # texts whose n-grams are counted at once


class EncodedText(NamedTuple):
    """A text as the model reads it: all of it or its last `data.maxlen` tokens."""

    text: str  # the part that is read; see `Tokenizer.locate`
    spans: list[tuple[int, int]]  # begin and end in `text` of each token that is read
    ids: np.ndarray  # int32 [n]: the start id, unless the text fills `maxlen`, then the tokens
    total_words: int  # tokens of the whole text
    raw: str  # the whole text, as given
    scores: np.ndarray | None  # of the n-gram classifier for the whole text, float32 [C]
    features: np.ndarray | None = None  # of each id, float16 [n, F]

    @property
    def unknown_fraction(self) -> float:
        """Fraction of the tokens read that are not in the vocabulary; 0 if there are none."""
        ids = self.ids[-len(self.spans) :]
        return float((ids == UNKNOWN).mean())


class Encoder:
    """Tokenizes texts and looks up their ids in the vocabulary of a model."""

    def __init__(self, saved: SavedModel):
        self._vocabulary, self._classifier = saved.vocabulary, saved.ngrams
        self._ratios = saved.ratios
        self._maxlen = saved.config.data.maxlen

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Encodes texts, and finds their tokens in them."""
        scores: Iterable[np.ndarray | None] | None = self._scores(texts)
        scores = itertools.repeat(None) if scores is None else scores
        return [self._locate(text, of_text) for text, of_text in zip(texts, scores, strict=False)]

    def ragged_texts(self, texts: Sequence[str]) -> RaggedTexts:
        """Encodes texts that have words, without finding them, which takes as long again.

        Raises:
            DataError: A text has no words.
        """
        rows, features = [], []
        for i, text in enumerate(texts):
            tokens = self._vocabulary.tokenizer(text)
            if not tokens:
                raise DataError(f"text {i} contains no words: {text[:40]!r}")
            rows.append(self._ids(tokens))
            features.append(self._features(tokens))
        return _ragged(rows, self._scores(texts), features)

    def _ids(self, tokens: list[str]) -> np.ndarray:
        return np.array(self._vocabulary.encode(tokens)[-self._maxlen :], np.int32)

    def _features(self, tokens: list[str]) -> np.ndarray | None:
        """The features of the ids that are read; those of the start of the text are 0."""
        if self._ratios is None:
            return None
        of_start = np.zeros((1, self._ratios.num_features), np.float16)
        return np.concatenate([of_start, self._ratios.of_tokens(tokens)])[-self._maxlen :]

    def _locate(self, text: str, scores: np.ndarray | None) -> EncodedText:
        maxlen = self._maxlen
        tokens = self._vocabulary.tokenizer(text)
        located, spans = self._vocabulary.tokenizer.locate(text)
        start = spans[-maxlen][0] if len(spans) > maxlen else 0
        read = [(begin - start, end - start) for begin, end in spans[-maxlen:]]
        ids, features = self._ids(tokens), self._features(tokens)
        return EncodedText(located[start:], read, ids, len(spans), text, scores, features)

    def _scores(self, texts: Sequence[str]) -> np.ndarray | None:
        """The scores of the n-gram classifier, float32 [N, C], if the model has one."""
        if self._classifier is None or not texts:
            return None
        tokenizers = [Tokenizer(view.kind) for view in self._classifier.views]
        scores = []
        for begin in range(0, len(texts), _MOST_SCORED):
            chunk = texts[begin : begin + _MOST_SCORED]
            views = [list(map(tokenizer, chunk)) for tokenizer in tokenizers]
            scores.append(self._classifier.score_tokens(views))
        return np.concatenate(scores)


def ragged_texts(encoded: Sequence[EncodedText]) -> RaggedTexts:
    """Texts without labels."""
    scores = [text.scores for text in encoded if text.scores is not None]
    return _ragged(
        [text.ids for text in encoded],
        np.stack(scores) if scores else None,
        [text.features for text in encoded],
    )


def _ragged(
    rows: Sequence[np.ndarray], scores: np.ndarray | None, features: Sequence[np.ndarray | None]
) -> RaggedTexts:
    offsets = np.cumsum([0, *map(len, rows)])
    ids = np.concatenate([np.zeros(0, np.int32), *rows])
    labels = np.zeros(len(rows), np.int32)
    found = [of_text for of_text in features if of_text is not None]
    of_ids = np.concatenate(found) if found else None
    return RaggedTexts(ids, offsets, labels, scores=scores, features=of_ids)

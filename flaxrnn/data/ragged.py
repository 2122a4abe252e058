"""Texts of different lengths as one array of ids."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from flaxrnn.data.vocabulary import PAD, UNKNOWN


@dataclass(frozen=True)
class RaggedTexts:
    """N texts as concatenated ids: text i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: np.ndarray  # int32 [tokens]
    offsets: np.ndarray  # int64 [N + 1]
    labels: np.ndarray  # int32: of each text [N], or of each token [tokens]; or uint8 [N, C], 0, 1
    per_token: bool = False
    scores: np.ndarray | None = None  # float32 [N, C]: logits of an n-gram classifier
    features: np.ndarray | None = None  # float16 [tokens, F]: what the model reads beside the ids

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per text, int64 [N]."""
        return np.diff(self.offsets)

    def texts(self) -> list[np.ndarray]:
        """The ids of each text, as views."""
        return np.split(self.ids, self.offsets[1:-1])[: len(self)]  # without texts, not one of 0

    def clip(self, num_words: int, maxlen: int | None) -> RaggedTexts:
        """Replaces ids from `num_words` on by unknown; keeps the last `maxlen` tokens per text."""
        ids, labels, lengths, features = self.ids, self.labels, self.lengths, self.features
        if maxlen is not None:
            lengths = np.minimum(lengths, maxlen)
            kept = _ranges(self.offsets[1:] - lengths, lengths)
            ids, labels = ids[kept], labels[kept] if self.per_token else labels
            features = None if features is None else features[kept]
        ids = np.where(ids < num_words, ids, np.int32(UNKNOWN))
        offsets = np.append(0, np.cumsum(lengths))
        return dataclasses.replace(self, ids=ids, offsets=offsets, labels=labels, features=features)

    def padded(self, maxlen: int, padding: str, dtype: Any = np.int32) -> dict[str, np.ndarray]:
        """The texts as arrays of one length T = `maxlen`.

        Args:
            maxlen: T, which no text exceeds.
            padding: "post": on the right, and `lengths` says where each text ends. "pre": on the
                left, and every length is T, so that padding is read as if it were text.
            dtype: Dtype of the tokens.

        Returns:
            tokens [N, T]; lengths int32 [N]; labels int32, of each text [N] or each token [N, T],
            or uint8 [N, C]; and if the texts have them, scores float32 [N, C] and features float16
            [N, T, F].
        """
        tokens = np.full((len(self), maxlen), PAD, dtype)
        lengths = self.lengths.astype(np.int32)
        position = np.arange(maxlen, dtype=np.int32)
        mask = position < lengths[:, None]
        if padding == "pre":
            mask = position >= maxlen - lengths[:, None]
            lengths[:] = maxlen
        tokens[mask] = self.ids
        labels = self.labels
        if self.per_token:
            labels = np.zeros(mask.shape, np.int32)
            labels[mask] = self.labels
        arrays = {"tokens": tokens, "lengths": lengths, "labels": labels}
        if self.scores is not None:
            arrays["scores"] = self.scores
        if self.features is not None:
            arrays["features"] = np.zeros((*mask.shape, self.features.shape[1]), np.float16)
            arrays["features"][mask] = self.features
        return arrays

    def take(self, rows: np.ndarray) -> RaggedTexts:
        """The texts `rows`, int [n], in that order."""
        lengths = self.lengths[rows]
        kept = _ranges(self.offsets[rows], lengths)
        return dataclasses.replace(
            self,
            ids=self.ids[kept],
            offsets=np.append(0, np.cumsum(lengths)),
            labels=self.labels[kept if self.per_token else rows],
            scores=None if self.scores is None else self.scores[rows],
            features=None if self.features is None else self.features[kept],
        )

    def __add__(self, other: RaggedTexts) -> RaggedTexts:
        """These texts, then those of `other`, without scores; with features if both have them."""
        features = None
        if self.features is not None and other.features is not None:
            features = np.concatenate([self.features, other.features])
        return RaggedTexts(
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.offsets, self.offsets[-1] + other.offsets[1:]]),
            np.concatenate([self.labels, other.labels]),
            self.per_token,
            features=features,
        )


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The ranges from each start to start + length - 1, concatenated: one cumulative sum, int32."""
    steps = np.ones(lengths.sum(), np.int32)  # from each number to the next
    firsts = np.append(0, np.cumsum(lengths))[:-1][lengths > 0]
    starts, lengths = starts[lengths > 0], lengths[lengths > 0]
    steps[firsts] = starts - np.append(0, starts[:-1] + lengths[:-1] - 1)
    return np.cumsum(steps, dtype=np.int32, out=steps)

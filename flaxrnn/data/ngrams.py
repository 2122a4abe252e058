"""N-grams of words and of characters, the linear classifier that scores texts by them, and ratios.

An n-gram is known by 40 bits of a hash of its tokens: no string is kept, and all texts are counted
by one sort. Among five million n-grams, about a dozen pairs share their hash.

Needs only NumPy and safetensors: a copy of this module is part of an export.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

_TEXT_BITS = np.uint64(24)  # of a sort key; the other 40 are the n-gram's
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplication loses nothing

_KINDS, _LONGEST = ("keras", "words", "characters"), 100  # of a view

FILES = ARRAYS, VIEWS = ("ngrams.safetensors", "ngrams.json")  # of a saved classifier
RATIOS = "ratios.safetensors"  # of a saved table


class Counts(NamedTuple):
    """How often each text contains each n-gram, where it does: M pairs, sorted by n-gram."""

    codes: np.ndarray  # uint64 [M], the n-grams
    rows: np.ndarray  # int64 [M], the texts, ascending for each n-gram
    counts: np.ndarray  # int64 [M]


class View(NamedTuple):
    """What the n-grams of a text are made of."""

    kind: str  # name of a tokenizer: keras, words or characters
    longest: int  # tokens of the longest n-grams; the shortest are single tokens


@functools.lru_cache(maxsize=1 << 20)
def _digest(token: str) -> bytes:
    return hashlib.blake2b(token.encode("utf-8", "replace"), digest_size=8).digest()


def hash_tokens(tokens: Iterable[str]) -> np.ndarray:
    """64 bits of BLAKE2 of each token, uint64 [n]."""
    return np.frombuffer(b"".join(map(_digest, tokens)), "<u8")


def count(hashes: np.ndarray, lengths: np.ndarray, view: View) -> Counts:
    """Counts the n-grams of N texts.

    Args:
        hashes: `hash_tokens` of all tokens of the texts, concatenated, uint64 [tokens].
        lengths: Tokens of each text, int [N]; N is at most 2²⁴.
        view: Which n-grams to count.
    """
    rows = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
    keys: Any = []
    for codes in _codes(hashes, view.longest):
        first, last = rows[: len(codes)], rows[len(rows) - len(codes) :]
        whole = first == last  # not across the end of a text
        keys.append(codes[whole] << _TEXT_BITS | first[whole])
    keys, counts = _runs(np.sort(np.concatenate(keys)))
    texts = keys & ((np.uint64(1) << _TEXT_BITS) - np.uint64(1))
    return Counts(keys >> _TEXT_BITS, texts.astype(np.int64), counts)


def _codes(hashes: np.ndarray, longest: int) -> Iterator[np.ndarray]:
    """The n-grams that begin at each token, of one token, of two, …, uint64 [tokens − n + 1]."""
    code = np.zeros(len(hashes), np.uint64)
    for n in range(1, longest + 1):
        starts = max(0, len(hashes) - n + 1)
        code = (code[:starts] + hashes[n - 1 :]) * _MULTIPLIER
        code ^= code >> np.uint64(32)
        yield code >> _TEXT_BITS


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values of a sorted array, and how often each occurs."""
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])[: len(values)])
    return values[starts], np.diff(np.append(starts, len(values)))


def document_frequencies(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """The distinct n-grams, uint64 [G], ascending, and how many texts contain each, int [G]."""
    return _runs(counts.codes)


@dataclass(frozen=True)
class NgramClassifier:
    """A linear classifier of texts by the TF-IDF of their n-grams.

    A text's score for a class is the bias, plus for each view the sum over its n-grams of weight ·
    idf · (1 + log count), divided by the Euclidean norm of idf · (1 + log count) over the view's
    n-grams in the text that are known. Scores are logits: one column for two classes.

    Attributes:
        views: What the n-grams are made of.
        codes: For each view, the known n-grams, uint64 [G], ascending.
        idf: For each view, the inverse document frequencies, float32 [G].
        weights: For each view, float32 [G, C].
        bias: float32 [C].
    """

    views: tuple[View, ...]
    codes: tuple[np.ndarray, ...]
    idf: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]
    bias: np.ndarray

    def scores(self, counts: Sequence[Counts], num_texts: int) -> np.ndarray:
        """The scores of N texts.

        Args:
            counts: `count` of each view.
            num_texts: N.

        Returns:
            float32 [N, C]; that of a text does not depend on the others.
        """
        total = np.tile(self.bias.astype(np.float64), (num_texts, 1))
        tables = zip(self.codes, self.idf, self.weights, counts, strict=True)
        for codes, idf, weights, view_counts in tables:
            rows, ids, values = tf_idf(codes, idf, view_counts, num_texts)
            for c in range(total.shape[1]):
                total[:, c] += np.bincount(rows, values * weights[ids, c], minlength=num_texts)
        return total.astype(np.float32)

    def score_tokens(self, views: Sequence[Sequence[list[str]]]) -> np.ndarray:
        """The scores of N texts, float32 [N, C].

        Args:
            views: For each view, the tokens of each text.
        """
        counts = []
        for view, texts in zip(self.views, views, strict=True):
            hashes = np.concatenate([hash_tokens(tokens) for tokens in texts])
            counts.append(count(hashes, np.array([len(tokens) for tokens in texts]), view))
        return self.scores(counts, len(views[0]))

    def contributions(self, views: Sequence[list[str]], column: int) -> list[np.ndarray]:
        """What the tokens of a text contribute to one of its scores.

        Args:
            views: For each view, the tokens.
            column: Of the score.

        Returns:
            For each view, float64 [n]: of each n-gram's contribution, each of its tokens has an
            equal share. All together they are the score without its bias.
        """
        return [self._shares(i, hash_tokens(tokens), column) for i, tokens in enumerate(views)]

    def _shares(self, i: int, hashes: np.ndarray, column: int) -> np.ndarray:
        """`contributions` of the tokens of view `i`, float64 [n]."""
        counts = count(hashes, np.array([len(hashes)]), self.views[i])
        _, ids, values = tf_idf(self.codes[i], self.idf[i], counts, 1)
        shares = np.zeros(len(hashes))
        if not len(ids):
            return shares
        known = self.codes[i][ids]
        occurrences = counts.counts[np.isin(counts.codes, known)]
        of_each = values * self.weights[i][ids, column] / occurrences
        for n, codes in enumerate(_codes(hashes, self.views[i].longest), 1):
            found = np.searchsorted(known, codes).clip(max=len(known) - 1)
            share = np.where(known[found] == codes, of_each[found] / n, 0)
            for offset in range(n):
                shares[offset : offset + len(codes)] += share
        return shares

    def check(self, num_outputs: int) -> None:
        """Checks that the arrays fit each other and a model's number of outputs.

        Raises:
            ValueError: They do not.
        """
        if self.bias.shape != (num_outputs,) or not self.views:
            raise ValueError(f"its bias is {list(self.bias.shape)}, not [{num_outputs}]")
        tables = zip(self.views, self.codes, self.idf, self.weights, strict=True)
        for view, codes, idf, weights in tables:
            if view.kind not in _KINDS or view.longest not in range(1, _LONGEST + 1):
                raise ValueError(f"n-grams of {view.longest!r} {view.kind!r}")
            G = len(codes)
            if (codes.dtype, codes.shape) != (np.uint64, (G,)) or not G:
                raise ValueError("its n-grams are no list of hashes")
            if idf.shape != (G,) or weights.shape != (G, num_outputs):
                raise ValueError("its arrays do not fit each other")

    def to_files(self) -> dict[str, bytes]:
        """File name → content, as `from_files` reads them."""
        arrays = {"bias": self.bias}
        for i in range(len(self.views)):
            arrays[f"{i}/codes"] = self.codes[i]
            arrays[f"{i}/idf"] = self.idf[i]
            arrays[f"{i}/weights"] = self.weights[i]
        views = [view._asdict() for view in self.views]
        return {ARRAYS: safetensors.numpy.save(arrays), VIEWS: json.dumps(views).encode()}

    @classmethod
    def from_files(cls, contents: Mapping[str, bytes]) -> NgramClassifier:
        """Reads what `to_files` returned."""
        views = tuple(View(**view) for view in json.loads(contents[VIEWS]))
        arrays = safetensors.numpy.load(contents[ARRAYS])

        def tables(name: str) -> tuple[np.ndarray, ...]:
            return tuple(arrays[f"{i}/{name}"] for i in range(len(views)))

        return cls(views, tables("codes"), tables("idf"), tables("weights"), arrays["bias"])


def tf_idf(
    codes: np.ndarray, idf: np.ndarray, counts: Counts, num_texts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sublinear TF-IDF of known n-grams, of norm 1 for each text.

    Args:
        codes: The known n-grams, uint64 [G], ascending.
        idf: Their inverse document frequencies, [G].
        counts: Counts of N texts.
        num_texts: N.

    Returns:
        The entries of a sparse matrix [N, G]: rows, columns and values.
    """
    ids = np.minimum(np.searchsorted(codes, counts.codes), len(codes) - 1)
    known = codes[ids] == counts.codes
    rows, ids = counts.rows[known], ids[known]
    values = (1 + np.log(counts.counts[known])) * idf[ids]
    norms = np.sqrt(np.bincount(rows, values**2, minlength=num_texts))
    return rows, ids, values / norms[rows]


@dataclass(frozen=True)
class RatioTable:
    """How much each n-gram speaks for each class: its log-count ratios (Wang & Manning, 2012).

    The ratio of an n-gram and a class is the logarithm of how much more frequent it is in the texts
    of the class than in the others.

    Attributes:
        longest: Tokens of the longest n-grams; the shortest are single tokens.
        codes: The known n-grams, uint64 [G], ascending.
        ratios: float32 [G, C]; of two classes, one column, that of the second.
    """

    longest: int
    codes: np.ndarray
    ratios: np.ndarray

    @property
    def num_features(self) -> int:
        """F, features of a token."""
        return self.longest * self.ratios.shape[1]

    def of_tokens(self, tokens: Sequence[str]) -> np.ndarray:
        """`features` of the tokens of a text, float16 [n, F]."""
        return self.features(hash_tokens(tokens), np.array([len(tokens)]))

    def features(self, hashes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The ratios of the n-grams that end at each token, those of single tokens first.

        Args:
            hashes: `hash_tokens` of all tokens of the texts, concatenated, uint64 [tokens].
            lengths: Tokens of each text, int [N].

        Returns:
            float16 [tokens, longest · C]; 0 where an n-gram is not known, or would begin before its
            text.
        """
        texts = np.repeat(np.arange(len(lengths)), lengths)
        features = np.zeros((len(hashes), self.longest, self.ratios.shape[1]), np.float16)
        for i, codes in enumerate(_codes(hashes, self.longest)):
            ids = np.searchsorted(self.codes, codes).clip(max=len(self.codes) - 1)
            whole = texts[: len(codes)] == texts[len(texts) - len(codes) :]
            known = np.flatnonzero(whole & (self.codes[ids] == codes))
            features[known + i, i] = self.ratios[ids[known]]
        return features.reshape(len(hashes), -1)

    def check(self, longest: int, num_outputs: int) -> None:
        """Checks that the table is that of a model.

        Raises:
            ValueError: It is not.
        """
        G = len(self.codes)
        if (self.codes.dtype, self.codes.shape) != (np.uint64, (G,)) or not G:
            raise ValueError("its n-grams are no list of hashes")
        if self.longest != longest or self.ratios.shape != (G, num_outputs):
            raise ValueError("its ratios are not those of the model")

    def to_file(self) -> bytes:
        """What `from_file` reads."""
        longest = np.array(self.longest)
        arrays = {"codes": self.codes, "ratios": self.ratios, "longest": longest}
        return safetensors.numpy.save(arrays)

    @classmethod
    def from_file(cls, content: bytes) -> RatioTable:
        """Reads what `to_file` returned."""
        arrays = safetensors.numpy.load(content)
        return cls(int(arrays["longest"]), arrays["codes"], arrays["ratios"])

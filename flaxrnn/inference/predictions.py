"""A stream of texts → a stream of predictions."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flaxrnn.data.vocabulary import UNKNOWN

if TYPE_CHECKING:
    from flaxrnn.inference.predictor import EncodedText, TextPredictor


NOT_FINITE = "the output is not finite"
_DECIDING = 5  # words

# Scripts without spaces between words: Thai and Lao, Burmese, Khmer, kana, Chinese characters.
_SPACELESS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


@dataclass(frozen=True)
class Prediction:
    """What the model predicts for one text."""

    index: int  # of the text in the input, from 0
    encoded: EncodedText
    note: str | None  # why there is no label, or what was not read or not known
    top: list[tuple[str, float]]  # likeliest labels and their probabilities; empty: there is none
    attributions: np.ndarray | None  # of the words read, float32 [n], if requested
    unsure: bool = False  # whether the likeliest label is below the threshold, and withheld
    labels: list[tuple[str, float]] | None = None  # where a text may have several: those it gets

    @property
    def places(self) -> list[tuple[int, int, float]]:
        """Begin and end in `encoded.text` of each word read, and its attribution, if it has one."""
        if self.attributions is None:
            return []
        return merged(self.encoded.text, self.encoded.spans, self.attributions)

    @property
    def words(self) -> list[tuple[str, float]]:
        """The words read, as spelled in the text, and their attributions, if there are any."""
        return [(self.encoded.text[begin:end], weight) for begin, end, weight in self.places]


def classify(
    predictor: TextPredictor,
    texts: Iterator[str],
    chunk_size: int,
    *,
    top: int,
    explain: bool,
    threshold: float = 0.0,
) -> Iterator[Prediction]:
    """Predicts the labels of all texts, in order.

    Args:
        predictor: A text classifier.
        texts: The texts.
        chunk_size: Texts to read, and hold in memory, at a time.
        top: Number of labels per text.
        explain: Whether to compute attributions.
        threshold: Probability below which the model is unsure; where a text may have several labels
            and it is above 0, it takes the place of the thresholds of all labels.
    """
    index = itertools.count()
    while chunk := predictor.encode_all(list(itertools.islice(texts, chunk_size))):
        not_empty = [encoded for encoded in chunk if encoded.total_words]
        attributions: Iterable[np.ndarray | None] = itertools.repeat(None)
        if explain:
            probabilities, attributions = predictor.explain(not_empty)
        else:
            probabilities = predictor.probabilities(not_empty)
        results = zip(probabilities, attributions, strict=False)
        for encoded in chunk:
            if not encoded.total_words:
                yield Prediction(next(index), encoded, "no words", [], None)
                continue
            of_labels, of_words = next(results)
            if not _is_finite(of_labels) or (of_words is not None and not _is_finite(of_words)):
                yield Prediction(next(index), encoded, NOT_FINITE, [], None)
                continue
            notes = []
            limits = predictor.thresholds
            if unsure := limits is None and of_labels.max() < threshold:
                notes.append(f"unsure: below {threshold:g}")
            if (read := len(encoded.spans)) < encoded.total_words:
                notes.append(f"the last {read:,} of {encoded.total_words:,} words were read")
            if not knows_a_word(encoded):
                notes.append("every word is unknown")
            order = (-of_labels).argsort(kind="stable")
            ranked = [(predictor.label_names[i], float(of_labels[i])) for i in order]
            best, labels = ranked[:top], None
            if limits is not None:
                above = of_labels[order] > (threshold or limits[order])
                labels = [label for label, is_above in zip(ranked, above, strict=True) if is_above]
                best = labels if top == 1 else best
                notes += [] if labels else ["no label is above its threshold"]
            note = "; ".join(notes) or None
            yield Prediction(next(index), encoded, note, best, of_words, bool(unsure), labels)


def merged(
    text: str, spans: list[tuple[int, int]], weights: np.ndarray
) -> list[tuple[int, int, float]]:
    """Begin and end in a text of each word, and its attribution.

    The attribution of a word is the sum of those of its pieces, where a token is only that, and of
    the white space before it, where that is a token.

    Args:
        text: The text.
        spans: Begin and end of each token.
        weights: Attributions of the tokens, float [n].
    """
    places: list[tuple[int, int, float]] = []
    for (begin, end), weight in zip(spans, weights.tolist(), strict=True):
        if places and places[-1][1] == begin and _is_same_word(text, places[-1][0], begin):
            begin, _, earlier = places.pop()
            weight += earlier
        places.append((begin, end, weight))
    return [(end - len(text[begin:end].lstrip()), end, weight) for begin, end, weight in places]


def deciding(words: Iterable[tuple[str, float]]) -> tuple[str, ...]:
    """The different words that speak most for a label, at most five, the strongest first."""
    total: defaultdict[str, float] = defaultdict(float)
    for word, weight in words:
        total[word] += weight
    strongest = sorted(total, key=lambda word: -total[word])[:_DECIDING]
    return tuple(word for word in strongest if total[word] > 0 and word.strip())


def knows_a_word(encoded: EncodedText) -> bool:
    """Whether a word read is in the vocabulary; spaces, which may be tokens, are no words."""
    ids = encoded.ids[len(encoded.ids) - len(encoded.spans) :].tolist()
    words = (encoded.text[begin:end].strip() for begin, end in encoded.spans)
    return any(word and i != UNKNOWN for word, i in zip(words, ids, strict=True))


def _is_same_word(text: str, begin: int, end: int) -> bool:
    """Whether what is between two places is white space, or a part of the word that goes on."""
    around = text[max(begin, end - 1) : end + 1]
    is_spelled = [c in "'\u2019" or unicodedata.category(c)[0] in "LMN" for c in around]
    goes_on = len(around) == 2 and all(is_spelled) and not _SPACELESS.search(around)
    return goes_on or text[begin:end].isspace()


def _is_finite(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all())

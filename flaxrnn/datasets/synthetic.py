"""Synthetic counterparts of the corpora: embedded, deterministic, and sensitive to word order.

Sizes, length distribution, Zipf vocabulary and label balance are those of the real corpora, so
throughput on them is representative. The label depends on the *order* of cue words:

* topics: a story repeats ordered pairs of word groups. Topic k is "a word of group a, then one of
  group b"; the same groups the other way round are another topic, of about the same frequency.
* sentiment: a review repeats events of a cue word with a polarity, a negator and a filler. A
  negator before the cue flips it, after it does nothing; every event has exactly one of each.

A bag of words therefore sees which groups and cues occur, but not what they say.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from flaxrnn.datasets import imdb_sentiment, reuters_topics

# Stories per topic, in the order of reuters_topics.LABELS, as in the real corpus.
# fmt: off
TOPIC_COUNTS = {
    "train": [55, 432, 74, 3159, 1949, 17, 48, 16, 139, 101, 124, 390, 49, 172, 26, 20, 444, 39, 66,
              549, 269, 100, 15, 41, 62, 92, 24, 15, 48, 19, 45, 39, 32, 11, 50, 10, 49, 19, 19, 24,
              36, 30, 13, 21, 12, 18],
    "test": [12, 105, 20, 813, 474, 5, 14, 3, 38, 25, 30, 83, 13, 37, 2, 9, 99, 12, 20, 133, 70, 27,
             7, 12, 19, 31, 8, 4, 10, 4, 12, 13, 10, 5, 7, 6, 11, 2, 3, 5, 10, 8, 3, 6, 5, 1],
}
# fmt: on
REVIEW_COUNTS = {"train": 25_000, "test": 25_000, "unsupervised": 50_000}

_CUES = slice(40, 104)  # frequency ranks that only events use
_BLOCK = 16  # tokens, at most one event in each


def _words(count: int) -> np.ndarray:
    """Pronounceable words by frequency rank; frequent ones are short."""
    syllables = np.array([c + v for c in "bdfgklmnprstvz" for v in "aeiou"], dtype=object)
    words: list[str] = []
    grown = syllables
    while len(words) < count:
        words.extend(grown)
        grown = (grown[:, None] + syllables[None, : max(2, count // len(grown) // 8)]).ravel()
    return np.array(words[:count], dtype=object)


def _zipf(vocabulary: int) -> np.ndarray:
    """Cumulative Zipf-Mandelbrot distribution over ranks, without the cue words."""
    p = 1.0 / (np.arange(vocabulary) + 2.7)
    p[_CUES] = 0
    return np.cumsum(p / p.sum())


def _lengths(rng: np.random.Generator, n: int, log_mean: float, log_std: float) -> np.ndarray:
    """Text lengths in tokens, log-normal as in the real corpora."""
    return np.clip(np.exp(rng.normal(log_mean, log_std, n)).astype(np.int64), 10, 2_400)


def _event_starts(rng: np.random.Generator, lengths: np.ndarray, width: int) -> tuple:
    """Places at most one event per block of `_BLOCK` tokens, and always one in a text's first.

    Returns:
        The events' positions in the concatenated texts, and the text that each belongs to.
    """
    blocks = (lengths + _BLOCK - 1) // _BLOCK
    text = np.repeat(np.arange(len(lengths)), blocks)
    block = np.arange(len(text)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    room = np.minimum(_BLOCK, lengths[text] - block * _BLOCK) - width
    kept = (room >= 0) & ((block == 0) | (rng.random(len(text)) < 0.8))
    offset = (rng.random(len(text)) * (room + 1)).astype(np.int64)
    starts = (np.cumsum(lengths) - lengths)[text] + block * _BLOCK + offset
    return starts[kept], text[kept]


def _texts(words: np.ndarray, stream: np.ndarray, lengths: np.ndarray) -> Iterator[str]:
    tokens = words[stream]
    end = 0
    for length in lengths:
        begin, end = end, end + length
        yield " ".join(tokens[begin:end])


def _background(rng: np.random.Generator, vocabulary: int, size: int) -> np.ndarray:
    """`size` word ranks drawn from the Zipf distribution."""
    return np.searchsorted(_zipf(vocabulary), rng.random(size), side="right").clip(
        max=vocabulary - 1
    )


class SyntheticReutersTopics(tfds.core.GeneratorBasedBuilder):
    """The counterpart of `ReutersTopics`: 8,982 train and 2,246 test stories in 46 topics."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, reuters_topics.LABELS)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        return {"train": self._generate_examples("train"), "test": self._generate_examples("test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        rng = np.random.default_rng([21578, split == "test"])
        labels = rng.permutation(np.repeat(np.arange(46), TOPIC_COUNTS[split]))
        lengths = _lengths(rng, len(labels), log_mean=4.62, log_std=0.84)
        starts, story = _event_starts(rng, lengths, width=2)
        topic = labels[story]
        noise = rng.random(len(topic)) < 0.1
        topic[noise] = rng.integers(0, 46, noise.sum())

        # Neighbours in frequency share a pair of groups, in opposite orders.
        pairs = [pair for a in range(8) for b in range(a) for pair in ((a, b), (b, a))]
        by_frequency = np.argsort(-np.array(TOPIC_COUNTS["train"]), kind="stable")
        groups = np.empty((46, 2), np.int64)
        groups[by_frequency] = pairs[:46]
        cues = np.arange(_CUES.start, _CUES.stop).reshape(8, 8)[:, :4]

        stream = _background(rng, 31_000, lengths.sum())
        for i in range(2):
            stream[starts + i] = cues[groups[topic, i], rng.integers(0, 4, len(topic))]
        for i, text in enumerate(_texts(_words(31_000), stream, lengths)):
            yield i, {"text": text, "label": int(labels[i])}


class SyntheticImdbSentiment(tfds.core.GeneratorBasedBuilder):
    """The counterpart of `ImdbSentiment`: 25,000 train, 25,000 test, 50,000 unlabelled reviews."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, imdb_sentiment.LABELS)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        return {
            split: self._generate_examples(split, seed, n)
            for seed, (split, n) in enumerate(REVIEW_COUNTS.items())
        }

    def _generate_examples(self, split: str, seed: int, n: int) -> Iterator[tuple[int, dict]]:
        rng = np.random.default_rng([50_000, seed])
        labels = rng.permutation(np.arange(n) % 2)
        lengths = _lengths(rng, n, log_mean=5.26, log_std=0.65)
        starts, review = _event_starts(rng, lengths, width=3)
        says = labels[review] ^ (rng.random(len(review)) < 0.1)  # one event in ten misleads
        flipped = rng.random(len(review)) < 0.4
        cues = np.arange(_CUES.start, _CUES.stop).reshape(4, 16)
        negative, positive, negators, fillers = cues

        def draw(group: np.ndarray) -> np.ndarray:
            return group[rng.integers(0, len(group), len(review))]

        stream = _background(rng, 90_000, lengths.sum())
        stream[starts] = np.where(flipped, draw(negators), draw(fillers))
        stream[starts + 1] = np.where(says ^ flipped, draw(positive), draw(negative))
        stream[starts + 2] = np.where(flipped, draw(fillers), draw(negators))
        for i, text in enumerate(_texts(_words(90_000), stream, lengths)):
            yield i, {"text": text, "label": -1 if split == "unsupervised" else int(labels[i])}


def _info(builder: tfds.core.DatasetBuilder, labels: list[str]) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
        builder=builder,
        description=builder.__doc__,
        features=tfds.features.FeaturesDict(
            {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=labels)}
        ),
        supervised_keys=("text", "label"),
        disable_shuffling=True,
    )

"""The texts of a run, and its batches of texts of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flaxrnn.data.ragged import RaggedTexts
from flaxrnn.errors import DataError

if TYPE_CHECKING:
    from flaxrnn.data.corpora import Corpus

_MAX_BUCKETS = 16  # each is compiled


class Batch(NamedTuple):
    """Texts of similar length."""

    bucket: int  # index of the length to pad them to
    rows: np.ndarray  # int [n], n ≤ B


class BatchGroup(NamedTuple):
    """S batches of one shape, for one program: arrays of NumPy or JAX, or their shardings."""

    rows: Any  # int32 [S, B]
    weights: Any  # float32 [S, B]; 0: a row that fills up the batch
    buckets: Any  # int32 [S]
    used: Any  # int32, how many of the S batches count


@dataclass(frozen=True)
class TrainingData:
    """The texts of a run: clipped, and assigned to splits and to lengths to pad them to."""

    texts: RaggedTexts  # of all splits
    lengths: np.ndarray  # tokens of each text that the model reads, int [N]
    padding: str  # "post" or "pre"
    buckets: tuple[int, ...]  # lengths to pad to, rising; the last one is the longest text's
    rows: dict[str, np.ndarray]  # the texts of "train", "val" and "test", int [n]

    def batches(self, split: str, batch_size: int) -> list[Batch]:
        """The batches of "train", "val" or "test", in a fixed order."""
        return batches(self.rows[split], self.lengths, self.buckets, batch_size)

    def epoch_batches(self, batch_size: int, seed: int, epoch: int) -> list[Batch]:
        """The shuffled training batches of an epoch: a pure function of its arguments."""
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(self.rows["train"])
        found = batches(order, self.lengths, self.buckets, batch_size)
        return [found[i] for i in random.permutation(len(found))]

    def num_batches(self, batch_size: int) -> int:
        """Training batches per epoch; buckets add none, for only the last batch is not full."""
        return -(-len(self.rows["train"]) // batch_size)


def prepare_data(
    corpus: Corpus,
    *,
    num_words: int,
    maxlen: int,
    padding: str,
    max_padding: float,
    validation: str,
    validation_fraction: float,
) -> TrainingData:
    """Clips a corpus to a vocabulary and a length, and splits it; see docs/config.md.

    Raises:
        DataError: `validation_fraction` leaves no text to train on, or none to validate on.
    """
    count = len(corpus.train)
    train, test = np.arange(count), count + np.arange(len(corpus.test))
    val = test
    if validation == "train":
        cut = count - round(count * validation_fraction)
        train, val = train[:cut], train[cut:]
        if not (len(train) and len(val)):
            raise DataError(
                f"data.validation_fraction: {validation_fraction} of {count:,} texts"
                " leaves none to train on or none to validate on"
            )
    texts = corpus.train.clip(num_words, maxlen) + corpus.test.clip(num_words, maxlen)
    lengths = texts.lengths if padding == "post" else np.full(len(texts), maxlen)
    # Short texts need no bucket of `maxlen`: every evaluation ends with a batch of the longest.
    buckets = bucket_lengths(lengths[train], int(lengths.max()), max_padding)
    return TrainingData(
        texts, lengths, padding, buckets, {"train": train, "val": val, "test": test}
    )


def bucket_lengths(lengths: np.ndarray, maxlen: int, max_padding: float) -> tuple[int, ...]:
    """Lengths to pad texts to: as few as keep the share of padding below `max_padding`.

    Of all choices of that number of lengths, the one with the least padding; at most 16 of them.

    Args:
        lengths: Tokens of each text, int [N], none above `maxlen`.
        maxlen: The longest bucket.
        max_padding: Padding tokens over all tokens; 1: one bucket.

    Returns:
        The lengths, rising; the last one is `maxlen`.
    """
    ends = np.unique(np.quantile(lengths, np.linspace(0, 1, 257), method="higher"))
    ends = np.unique(np.append(ends, maxlen)).astype(np.int64)
    texts = np.searchsorted(np.sort(lengths), ends, side="right")  # that fit into each
    # between[a, b]: padded tokens of the texts longer than ends[a], up to ends[b].
    between = np.triu(ends[None, :] * (texts[None, :] - texts[:, None]).astype(float))
    between[np.tril_indices(len(ends), -1)] = np.inf
    least = ends * texts.astype(float)  # padded tokens of the texts up to ends[b], in one bucket
    previous: list[np.ndarray] = []  # index of the last bucket but one, for 2, 3, … buckets
    while 1 - lengths.sum() / least[-1] >= max_padding and len(previous) < _MAX_BUCKETS - 1:
        candidates = least[:, None] + between
        previous.append(candidates.argmin(axis=0))
        least = candidates.min(axis=0)
    chosen = [len(ends) - 1]
    for choice in reversed(previous):
        chosen.append(choice[chosen[-1]])
    return tuple(sorted({int(ends[i]) for i in chosen}))


def batches(
    order: np.ndarray, lengths: np.ndarray, buckets: Sequence[int], batch_size: int
) -> list[Batch]:
    """Cuts an order of texts into batches of similar length, all but the last one full.

    A text goes to the shortest bucket that holds it; those that do not fill a batch there go to the
    next longer one.

    Args:
        order: Rows to visit, int [n].
        lengths: Tokens of each text, by row.
        buckets: As returned by `bucket_lengths`.
        batch_size: Texts per batch.
    """
    found = []
    bucket = np.searchsorted(buckets, lengths[order])
    left = order[:0]
    for i in range(len(buckets)):
        left = np.append(left, order[bucket == i])
        end = len(left) - (len(left) % batch_size if i + 1 < len(buckets) else 0)
        found += [
            Batch(i, left[at : min(at + batch_size, end)]) for at in range(0, end, batch_size)
        ]
        left = left[end:]
    return found


def group_batches(
    batches: Sequence[Batch], batch_size: int, steps: int, devices: int = 1
) -> Iterator[BatchGroup]:
    """Groups batches, several at a time and all of one shape.

    Args:
        batches: None larger than `batch_size`.
        batch_size: B; a smaller batch is filled up with rows of weight 0.
        steps: S, batches per group; the last group is filled up with unused batches.
        devices: D; B is rounded up to a multiple of it with rows of weight 0.
    """
    width = -(-batch_size // devices) * devices
    for begin in range(0, len(batches), steps):
        some = batches[begin : begin + steps]
        group = BatchGroup(
            np.zeros((steps, width), np.int32),
            np.zeros((steps, width), np.float32),
            np.zeros(steps, np.int32),
            np.int32(len(some)),
        )
        for i, batch in enumerate(some):
            group.rows[i, : len(batch.rows)] = batch.rows
            group.weights[i, : len(batch.rows)] = 1
            group.buckets[i] = batch.bucket
        yield group

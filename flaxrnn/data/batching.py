"""The texts of a run, and batches of texts of similar length."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flaxrnn.data.ragged import RaggedTexts
from flaxrnn.data.validation import stratified_split
from flaxrnn.errors import DataError

if TYPE_CHECKING:
    from flaxrnn.data.corpora import Corpus

_MAX_BUCKETS = 16  # each takes time to compile


class Batch(NamedTuple):
    """Texts of similar length."""

    bucket: int  # index of the length to pad them to
    rows: np.ndarray  # int [n], n ≤ B


class BatchGroup(NamedTuple):
    """S batches of one shape for one dispatch: NumPy or JAX arrays, or their shardings."""

    rows: Any  # int32 [S, B]
    weights: Any  # float32 [S, B]; 0: a row of padding
    buckets: Any  # int32 [S]
    used: Any  # int32, how many of the S batches are real


@dataclass(frozen=True)
class TrainingData:
    """The clipped texts of a run, their splits, and the lengths to pad them to."""

    texts: RaggedTexts  # of all splits
    lengths: np.ndarray  # tokens that the model reads of each text, int [N]
    padding: str  # "post" or "pre"
    buckets: tuple[int, ...]  # lengths to pad to, ascending; the last one is the longest text's
    rows: dict[str, np.ndarray]  # indices of the texts of "train", "val" and "test", int [n], and
    # of the "unlabelled" ones to train on, if there are any

    @property
    def fitted_to(self) -> np.ndarray:
        """Indices of all texts to train on, with and without labels, int [n]."""
        train, unlabelled = self.rows["train"], self.rows.get("unlabelled")
        return train if unlabelled is None else np.concatenate([train, unlabelled])

    def with_validation(self) -> TrainingData:
        """The same texts, with those to validate on among those to train on."""
        train = np.union1d(self.rows["train"], self.rows["val"])
        return dataclasses.replace(self, rows={**self.rows, "train": train})

    def batches(self, split: str, batch_size: int) -> list[Batch]:
        """The batches of "train", "val" or "test", in a fixed order."""
        return batches(self.rows[split], self.lengths, self.buckets, batch_size)

    def epoch_batches(self, batch_size: int, seed: int, epoch: int) -> list[Batch]:
        """The shuffled training batches of an epoch: a pure function of its arguments."""
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(self.fitted_to)
        ordered = batches(order, self.lengths, self.buckets, batch_size)
        return [ordered[i] for i in random.permutation(len(ordered))]

    def num_batches(self, batch_size: int) -> int:
        """Training batches per epoch; buckets add none, since only the last batch can be short."""
        return -(-len(self.fitted_to) // batch_size)


def prepare_data(
    corpus: Corpus,
    *,
    num_words: int,
    maxlen: int,
    padding: str,
    max_padding: float,
    validation: str,
    validation_fraction: float,
    seed: int = 0,
) -> TrainingData:
    """Clips a corpus to a vocabulary and a length, and splits it; see docs/config.md.

    Raises:
        DataError: `validation_fraction` leaves no text to train on, or none to validate on.
    """
    count = len(corpus.train)
    held_out = count + np.arange(len(corpus.held_out))
    train, test = np.arange(count), held_out[len(held_out) - len(corpus.test) :]
    clipped, val = corpus.train.clip(num_words, maxlen), test
    if validation != "test" and corpus.validation is not None:
        val = held_out[: len(corpus.validation)]
    elif validation == "train":
        cut = count - round(count * validation_fraction)
        train, val = train[:cut], train[cut:]
    elif validation == "stratified":
        train, val = stratified_split(clipped, validation_fraction, seed)
    if not (len(train) and len(val)):
        raise DataError(
            f"data.validation_fraction: {validation_fraction} of {count:,} texts"
            " leaves none to train on or none to validate on"
        )
    texts = clipped + corpus.others.clip(num_words, maxlen)
    lengths = texts.lengths if padding == "post" else np.full(len(texts), maxlen)
    # Not up to `maxlen` if all texts are shorter: every evaluation has a batch in the last bucket.
    buckets = bucket_lengths(lengths[train], int(lengths.max()), max_padding)
    rows = {"train": train, "val": val, "test": test}
    if corpus.unlabelled is not None:
        rows["unlabelled"] = np.arange(count + len(held_out), len(texts))
    return TrainingData(texts, lengths, padding, buckets, rows)


def bucket_lengths(lengths: np.ndarray, maxlen: int, max_padding: float) -> tuple[int, ...]:
    """Chooses the fewest lengths to pad texts to that keep padding below `max_padding`, at most 16.

    Of all sets of that size, it is the one with the least padding.

    Args:
        lengths: Tokens of each text, int [N], none above `maxlen`.
        maxlen: The longest bucket.
        max_padding: Fraction of all tokens that are padding; 1: a single bucket.

    Returns:
        The lengths, ascending; the last one is `maxlen`.
    """
    ends = np.unique(np.quantile(lengths, np.linspace(0, 1, 257), method="higher"))
    ends = np.unique(np.append(ends, maxlen)).astype(np.int64)
    texts = np.searchsorted(np.sort(lengths), ends, side="right")  # how many fit into each
    # between[a, b]: tokens, padding included, of the texts longer than ends[a], up to ends[b].
    between = np.triu(ends[None, :] * (texts[None, :] - texts[:, None]).astype(float))
    between[np.tril_indices(len(ends), -1)] = np.inf
    least = ends * texts.astype(float)  # tokens of the texts up to ends[b], in one bucket
    previous: list[np.ndarray] = []  # index of the second-to-last bucket, for 2, 3, … buckets
    while 1 - lengths.sum() / least[-1] >= max_padding and len(previous) < _MAX_BUCKETS - 1:
        candidates = least[:, None] + between
        previous.append(candidates.argmin(axis=0))
        least = candidates.min(axis=0)
    chosen = [len(ends) - 1]
    for choice in reversed(previous):
        chosen.append(choice[chosen[-1]])
    return tuple(sorted({int(ends[i]) for i in chosen}))


def suitable_batch_size(num_texts: int) -> int:
    """A power of two from 4 to 32, about a sixtieth of the training texts.

    With few texts, larger batches leave too few steps per epoch to learn from.
    """
    return 2 ** round(np.clip(np.log2(num_texts / 60), 2, 5))


def suitable_epochs(num_batches: int) -> int:
    """4 to 20 epochs, for about 1,000 training steps: fewer batches must be seen more often."""
    return int(np.clip(-(-1_000 // num_batches), 4, 20))


def batches(
    order: np.ndarray, lengths: np.ndarray, buckets: Sequence[int], batch_size: int
) -> list[Batch]:
    """Cuts a sequence of texts into batches of similar length; all but the last are full.

    A text goes to the shortest bucket that holds it; texts left over there, too few for a batch,
    move up to the next longer one.

    Args:
        order: Indices of the texts, in order, int [n].
        lengths: Tokens of each text, by index.
        buckets: As returned by `bucket_lengths`.
        batch_size: Texts per batch.
    """
    result = []
    bucket = np.searchsorted(buckets, lengths[order])
    pending = order[:0]
    for i in range(len(buckets)):
        pending = np.append(pending, order[bucket == i])
        end = len(pending) - (len(pending) % batch_size if i + 1 < len(buckets) else 0)
        result += [
            Batch(i, pending[start : min(start + batch_size, end)])
            for start in range(0, end, batch_size)
        ]
        pending = pending[end:]
    return result


def group_batches(
    batches: Sequence[Batch], batch_size: int, steps: int, devices: int = 1
) -> Iterator[BatchGroup]:
    """Groups batches, `steps` at a time, padded to one shape.

    Args:
        batches: None larger than `batch_size`.
        batch_size: B; a smaller batch is padded with rows of weight 0.
        steps: S, batches per group; the last group is padded with unused batches.
        devices: D; B is rounded up to a multiple of it with rows of weight 0.
    """
    width = -(-batch_size // devices) * devices
    for begin in range(0, len(batches), steps):
        members = batches[begin : begin + steps]
        group = BatchGroup(
            np.zeros((steps, width), np.int32),
            np.zeros((steps, width), np.float32),
            np.zeros(steps, np.int32),
            np.int32(len(members)),
        )
        for i, batch in enumerate(members):
            group.rows[i, : len(batch.rows)] = batch.rows
            group.weights[i, : len(batch.rows)] = 1
            group.buckets[i] = batch.bucket
        yield group

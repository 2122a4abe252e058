"""A corpus as encoded arrays in memory, and its batches.

A TFDS corpus is tokenized once; the ids of all its texts, laid end to end, are cached beside the
prepared dataset, so a second start reads no text. `num_words` and `maxlen` are applied on top, so
every config shares that cache.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flaxrnn import text
from flaxrnn.errors import ConfigError

_CACHE_VERSION = 1  # of the tokenizer and of the layout below


@dataclass(frozen=True)
class Split:
    """N texts as ids, laid end to end: text i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: np.ndarray  # int32 [tokens]
    offsets: np.ndarray  # int64 [N + 1]
    labels: np.ndarray  # int32 [N]

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens a text, int64 [N]."""
        return np.diff(self.offsets)

    def texts(self) -> list[np.ndarray]:
        """The ids of each text, as views."""
        return np.split(self.ids, self.offsets[1:-1])

    def clip(self, num_words: int, maxlen: int | None) -> Split:
        """Ids from `num_words` on become unknown; of each text the last `maxlen` tokens stay."""
        ids = np.where(self.ids < num_words, self.ids, text.UNKNOWN)
        if maxlen is None:
            return Split(ids, self.offsets, self.labels)
        from_end = np.repeat(self.offsets[1:], self.lengths) - np.arange(len(ids))
        lengths = np.minimum(self.lengths, maxlen)
        return Split(ids[from_end <= maxlen], np.append(0, np.cumsum(lengths)), self.labels)

    def padded(self, maxlen: int, padding: str) -> dict[str, np.ndarray]:
        """The texts, none longer than `maxlen`, as arrays of one length T = `maxlen`.

        Args:
            maxlen: T.
            padding: "post": on the right, and `lengths` says where a text ends. "pre": on the left,
                and `lengths` is T throughout, so that padding is read as if it were text.

        Returns:
            tokens uint16 or int32 [N, T], lengths int32 [N], labels int32 [N].
        """
        small = self.ids.max(initial=0) < 2**16
        tokens = np.full((len(self), maxlen), text.PAD, np.uint16 if small else np.int32)
        lengths = self.lengths.astype(np.int32)
        place = np.arange(maxlen, dtype=np.int32)
        if padding == "post":
            tokens[place < lengths[:, None]] = self.ids
        else:
            tokens[place >= maxlen - lengths[:, None]] = self.ids
            lengths[:] = maxlen
        return {"tokens": tokens, "lengths": lengths, "labels": self.labels}

    def slice(self, begin: int, end: int) -> Split:
        """The texts from `begin` to before `end`."""
        first, last = self.offsets[begin], self.offsets[end]
        offsets = self.offsets[begin : end + 1] - first
        return Split(self.ids[first:last], offsets, self.labels[begin:end])


@dataclass(frozen=True)
class Corpus:
    """The labelled splits of a task, encoded with all the words of its vocabulary."""

    name: str  # of the TFDS dataset, with config and version
    synthetic: bool
    label_names: list[str]
    vocabulary: text.Vocabulary
    train: Split
    test: Split


def load_corpus(
    task: str, source: str = "auto", data_dir: str | None = None, manual_dir: str | None = None
) -> Corpus:
    """Loads a task's corpus, from the cache of encoded arrays where there is one.

    Args:
        task: "reuters", "reuters_clean" or "imdb".
        source: "auto", "real" or "synthetic", see `flaxrnn.datasets.prepare`.
        data_dir: Where prepared datasets and the cache are kept; default: TFDS' own.
        manual_dir: Where archives lie; default: `FLAXRNN_MANUAL_DIR`, else TFDS' own.

    Raises:
        ConfigError: `task` or `source` is unknown.
        DataError: The corpus cannot be had, or its archive is damaged.
    """
    from flaxrnn import datasets  # TFDS takes a while to import

    if task not in datasets.TASKS:
        raise ConfigError(f"task: {task!r} is not one of {', '.join(datasets.TASKS)}")
    if source not in datasets.SOURCES:
        raise ConfigError(f"data.source: {source!r} is not one of {', '.join(datasets.SOURCES)}")
    builder = datasets.prepare(datasets.TASKS[task], source, data_dir, manual_dir)
    cache = builder.data_path / f"encoded-{_CACHE_VERSION}-{task}.npz"
    arrays = _read_cache(cache)
    if arrays is None:
        arrays = _encode(builder, datasets.TASKS[task].vocabulary_splits)
        _write_cache(cache, arrays)
    train, test = (
        Split(*(arrays[f"{split}_{field}"] for field in ("ids", "offsets", "labels")))
        for split in ("train", "test")
    )
    return Corpus(
        name=builder.info.full_name,
        synthetic=datasets.is_synthetic(builder),
        label_names=builder.info.features["label"].names,
        vocabulary=text.Vocabulary(arrays["words"].tobytes().decode().split("\n")),
        train=train,
        test=test,
    )


def _encode(builder: Any, vocabulary_splits: tuple[str, ...]) -> dict[str, np.ndarray]:
    tokenized, arrays, positions = {}, {}, {}
    for split in ("train", "test"):
        examples = list(builder.as_data_source(split))
        arrays[f"{split}_labels"] = np.array([e["label"] for e in examples], np.int32)
        tokenized[split] = [text.tokenize(e["text"].decode()) for e in examples]
        positions[split] = [e.get("position", 0) for e in examples]
    # Words as frequent as each other rank by their first place in the archive, where it is known.
    counted = [
        pair
        for split in vocabulary_splits
        for pair in zip(positions[split], tokenized[split], strict=True)
    ]
    counted.sort(key=lambda pair: pair[0])
    vocabulary = text.Vocabulary.build(words for _, words in counted)
    for split, texts in tokenized.items():
        rows = [np.array(vocabulary.encode(words), np.int32) for words in texts]
        arrays[f"{split}_ids"] = np.concatenate(rows)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, rows)])
    # No word holds a newline: the tokenizer splits there.
    arrays["words"] = np.frombuffer("\n".join(vocabulary.words).encode(), np.uint8)
    return arrays


def _read_cache(path: Path) -> dict[str, np.ndarray] | None:
    try:
        with (
            open(path, "rb") as raw,
            np.load(raw, allow_pickle=False) as file,
        ):  # zip members carry a CRC-32
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # absent or damaged: made anew


def _write_cache(path: Path, arrays: dict[str, np.ndarray]) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(part, path)
    except OSError:
        Path(part).unlink(missing_ok=True)  # a read-only or full disk costs time, not the run


def load_data(
    task: str,
    num_words: int | None = None,
    maxlen: int | None = None,
    *,
    source: str = "auto",
    data_dir: str | None = None,
    manual_dir: str | None = None,
) -> tuple[tuple[Any, np.ndarray], tuple[Any, np.ndarray]]:
    """The corpus as `keras.datasets` users know it.

    Args:
        task: "reuters", "reuters_clean" or "imdb".
        num_words: Ids from this on become 2, "unknown"; None keeps all.
        maxlen: None: lists of int32 arrays. A number: int32 `[N, maxlen]`, padded and cut on the
            left, as `keras.utils.pad_sequences` does.
        source: See `load_corpus`; so are `data_dir` and `manual_dir`.
        data_dir: Where prepared datasets are kept.
        manual_dir: Where archives lie.

    Returns:
        `(x_train, y_train), (x_test, y_test)`, the labels as int32 `[N]`.

    Raises:
        ConfigError: `task`, `source`, `num_words` or `maxlen` is impossible.
        DataError: The corpus cannot be had, or its archive is damaged.
    """
    if num_words is not None and num_words < text.FIRST_WORD:
        raise ConfigError(f"num_words: {num_words} is below {text.FIRST_WORD}, the first word's id")
    if maxlen is not None and maxlen < 1:
        raise ConfigError(f"maxlen: {maxlen} is below 1")
    corpus = load_corpus(task, source, data_dir, manual_dir)

    def arrays(split: Split) -> tuple[Any, np.ndarray]:
        limit = num_words or len(corpus.vocabulary) + text.FIRST_WORD
        rows = split.clip(limit, maxlen).texts()
        return (rows if maxlen is None else text.pad(rows, maxlen)), split.labels

    return arrays(corpus.train), arrays(corpus.test)


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits `n` texts: a pure function of its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def chunks(
    order: np.ndarray, batch_size: int, steps: int, multiple: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray, np.int32]]:
    """The batches of an order, several at a time and all of one shape; no text is left out.

    Args:
        order: Rows to visit, int [n].
        batch_size: B; the last batch is filled up with rows of weight 0.
        steps: S, batches a chunk; the last chunk is filled up with batches not to be used.
        multiple: B is rounded up to it with rows of weight 0.

    Yields:
        Rows int32 [S, B], their weights float32 [S, B], and how many of the S batches to use.
    """
    count = -(-len(order) // batch_size)
    width = -(-batch_size // multiple) * multiple
    rows = np.zeros((-(-count // steps) * steps, width), np.int32)
    weights = np.zeros(rows.shape, np.float32)
    batch, place = np.divmod(np.arange(len(order)), batch_size)
    rows[batch, place] = order
    weights[batch, place] = 1
    for begin in range(0, count, steps):
        chosen = slice(begin, begin + steps)
        yield rows[chosen], weights[chosen], np.int32(min(steps, count - begin))

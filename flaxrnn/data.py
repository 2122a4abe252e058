"""A corpus as encoded arrays in memory, and its batches of texts of like length.

A TFDS corpus is tokenized once; the ids of all its texts, laid end to end, are cached beside the
prepared datasets, so a second start reads no text. `num_words` and `maxlen` are applied on top, so
every config shares that cache.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from flaxrnn import files, text
from flaxrnn.errors import ConfigError, DataError

_CACHE_VERSION = 2  # of the tokenizer and of the layout below
OWN = "text"  # the task of the user's own texts
BRACKETS = "brackets"  # the task that is generated, with a label a token
_MOST_BUCKETS = 16  # each is compiled


@dataclass(frozen=True)
class Split:
    """N texts as ids, laid end to end: text i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: np.ndarray  # int32 [tokens]
    offsets: np.ndarray  # int64 [N + 1]
    labels: np.ndarray  # int32 [N], or of each token, laid end to end like the ids
    per_token: bool = False

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens a text, int64 [N]."""
        return np.diff(self.offsets)

    def texts(self) -> list[np.ndarray]:
        """The ids of each text, as views."""
        return np.split(self.ids, self.offsets[1:-1])

    def clip(self, num_words: int, maxlen: int | None) -> Split:
        """Ids from `num_words` on become unknown; of each text the last `maxlen` tokens stay."""
        ids, labels, lengths = self.ids, self.labels, self.lengths
        if maxlen is not None:
            lengths = np.minimum(lengths, maxlen)
            kept = _ranges(self.offsets[1:] - lengths, lengths)
            ids, labels = ids[kept], labels[kept] if self.per_token else labels
        ids = np.where(ids < num_words, ids, np.int32(text.UNKNOWN))
        return Split(ids, np.append(0, np.cumsum(lengths)), labels, self.per_token)

    def padded(self, maxlen: int, padding: str, dtype: Any = np.int32) -> dict[str, np.ndarray]:
        """The texts, none longer than `maxlen`, as arrays of one length T = `maxlen`.

        Args:
            maxlen: T.
            padding: "post": on the right, and `lengths` says where a text ends. "pre": on the left,
                and `lengths` is T throughout, so that padding is read as if it were text.
            dtype: Of the tokens.

        Returns:
            tokens [N, T], lengths int32 [N], labels int32 [N], or of each token [N, T].
        """
        tokens = np.full((len(self), maxlen), text.PAD, dtype)
        lengths = self.lengths.astype(np.int32)
        place = np.arange(maxlen, dtype=np.int32)
        inside = place < lengths[:, None]
        if padding == "pre":
            inside = place >= maxlen - lengths[:, None]
            lengths[:] = maxlen
        tokens[inside] = self.ids
        labels = self.labels
        if self.per_token:
            labels = np.zeros(inside.shape, np.int32)
            labels[inside] = self.labels
        return {"tokens": tokens, "lengths": lengths, "labels": labels}

    def take(self, rows: np.ndarray) -> Split:
        """The texts `rows`, int [n], in that order."""
        lengths = self.lengths[rows]
        kept = _ranges(self.offsets[rows], lengths)
        labels = self.labels[kept if self.per_token else rows]
        return Split(self.ids[kept], np.append(0, np.cumsum(lengths)), labels, self.per_token)

    def __add__(self, other: Split) -> Split:
        """These texts, then those of `other`."""
        return Split(
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.offsets, self.offsets[-1] + other.offsets[1:]]),
            np.concatenate([self.labels, other.labels]),
            self.per_token,
        )


def _ranges(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The whole numbers from each begin on, `lengths` of them, end to end, int32."""
    steps = np.ones(lengths.sum(), np.int32)  # from each number to the next
    firsts = np.append(0, np.cumsum(lengths))[:-1][lengths > 0]
    begins, lengths = begins[lengths > 0], lengths[lengths > 0]
    steps[firsts] = begins - np.append(0, begins[:-1] + lengths[:-1] - 1)
    return np.cumsum(steps, dtype=np.int32, out=steps)


@dataclass(frozen=True)
class Corpus:
    """The labelled splits of a task, encoded with all the words of its vocabulary."""

    name: str  # of the TFDS dataset, with config and version
    synthetic: bool
    label_names: list[str]
    vocabulary: text.Vocabulary
    train: Split
    test: Split


@dataclass(frozen=True)
class OwnTexts:
    """Which texts a run of task "text" reads, see `flaxrnn.datasets.own`."""

    path: str
    text_field: str = "text"
    label_field: str | None = "label"  # None: no class is asked for
    test_fraction: float = 0.1  # where the source has no test split
    seed: int = 0  # of that split and of the order of the training texts


def load_corpus(
    task: str,
    source: str = "auto",
    data_dir: str | None = None,
    manual_dir: str | None = None,
    *,
    tokenizer: str = "words",
    num_words: int = 10_000,
    own: OwnTexts | None = None,
) -> Corpus:
    """Loads a task's corpus, from the cache of encoded arrays where there is one.

    Args:
        task: "reuters", "reuters_clean", "imdb", "brackets", or "text": the user's own.
        source: "auto", "real" or "synthetic", see `flaxrnn.datasets.prepare`.
        data_dir: Where prepared datasets and the cache are kept; default: TFDS' own.
        manual_dir: Where archives lie; default: `FLAXRNN_MANUAL_DIR`, else TFDS' own.
        tokenizer: "words", "characters" or "subword".
        num_words: Size of the vocabulary that subwords are learned for, special ids included.
        own: Of task "text", which texts.

    Raises:
        ConfigError: An argument is impossible.
        DataError: The corpus cannot be had, or its archive or file is damaged.
    """
    from flaxrnn import datasets  # TFDS takes a while to import

    tasks = (*datasets.TASKS, BRACKETS, OWN)
    if task not in tasks:
        raise ConfigError(f"task: {task!r} is not one of {', '.join(tasks)}")
    if source not in datasets.SOURCES:
        raise ConfigError(f"data.source: {source!r} is not one of {', '.join(datasets.SOURCES)}")
    if tokenizer not in text.TOKENIZERS:
        raise ConfigError(
            f"data.tokenizer: {tokenizer!r} is not one of {', '.join(text.TOKENIZERS)}"
        )
    if task == OWN:
        if own is None:
            raise ConfigError("data.path: missing; it says where the texts are")
        return _load_own(own, data_dir, tokenizer, num_words)
    if task == BRACKETS:
        return _load_brackets()
    builder = datasets.prepare(datasets.TASKS[task], source, data_dir, manual_dir)
    name = builder.info.full_name.replace("/", "-")
    root = Path(builder.data_dir).parents[builder.info.full_name.count("/")]
    kind = {"words": "keras"}.get(tokenizer, tokenizer)
    suffix = {"words": "", "subword": f"-subword{num_words}"}.get(tokenizer, f"-{tokenizer}")
    arrays = _cached(
        root / "encoded" / f"{name}-{task}{suffix}-{_CACHE_VERSION}",
        lambda: _encode(builder, datasets.TASKS[task].vocabulary_splits, kind, num_words),
    )
    label_names = builder.info.features["label"].names
    synthetic = datasets.is_synthetic(builder)
    return _corpus(builder.info.full_name, synthetic, label_names, kind, arrays)


def _encode(
    builder: Any, vocabulary_splits: tuple[str, ...], kind: str, num_words: int
) -> dict[str, np.ndarray]:
    texts, labels, positions = {}, {}, {}
    for split in ("train", "test"):
        examples = list(builder.as_data_source(split))
        labels[split] = [e["label"] for e in examples]
        texts[split] = [e["text"].decode() for e in examples]
        positions[split] = [e.get("position", 0) for e in examples]
    tokenizer = _tokenizer(kind, texts["train"], num_words)
    tokenized = {split: [tokenizer(t) for t in texts[split]] for split in texts}
    # Words as frequent as each other rank by their first place in the archive, where it is known.
    counted = [
        pair
        for split in vocabulary_splits
        for pair in zip(positions[split], tokenized[split], strict=True)
    ]
    counted.sort(key=lambda pair: pair[0])
    vocabulary = text.Vocabulary.build((words for _, words in counted), tokenizer)
    return _arrays(vocabulary, tokenized, labels)


def _load_brackets() -> Corpus:
    """The generated corpus; it takes less time to make than to read."""
    from flaxrnn.datasets import brackets

    tokenizer = text.Tokenizer("characters")
    vocabulary = text.Vocabulary(brackets.CHARACTERS, tokenizer)
    splits = []
    for split in brackets.SIZES:
        texts = brackets.texts(split)
        rows = [np.array(vocabulary.encode(tokenizer(t)), np.int32) for t in texts]
        tags = [np.array([0, *brackets.tags(t)], np.int32) for t in texts]  # the start id has one
        offsets = np.cumsum([0, *map(len, rows)])
        splits.append(Split(np.concatenate(rows), offsets, np.concatenate(tags), per_token=True))
    names = [str(opened) for opened in range(brackets.PAIRS + 1)]
    return Corpus(BRACKETS, True, names, vocabulary, *splits)


def _load_own(own: OwnTexts, data_dir: str | None, kind: str, num_words: int) -> Corpus:
    from flaxrnn import datasets
    from flaxrnn.datasets import own as own_texts

    source = own_texts.find(own.path, own.text_field, own.label_field, data_dir)
    made_of = [source.digest, *dataclasses.astuple(own)[1:], kind, kind == "subword" and num_words]
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    arrays = _cached(
        datasets.data_root(data_dir) / "encoded" / f"text-{key}-{_CACHE_VERSION}",
        lambda: _encode_own(source, own, kind, num_words),
    )
    label_names = json.loads(arrays["label_names"].tobytes())
    corpus = _corpus(source.name, False, label_names, kind, arrays)
    empty = int(arrays["empty"][0])
    print(
        f"{source.name}: {len(corpus.train):,} texts to train on, {len(corpus.test):,} to test"
        + (
            f", {len(label_names):,} classes: {own_texts.listed(label_names)}"
            if own.label_field
            else ""
        )
        + (f"; {empty:,} without a word left out" if empty else ""),
        file=sys.stderr,
    )
    return corpus


def _encode_own(source: Any, own: OwnTexts, kind: str, num_words: int) -> dict[str, np.ndarray]:
    from flaxrnn.datasets import own as own_texts

    examples = source.read()
    plain = text.Tokenizer("characters" if kind == "subword" else kind)
    tokens = [plain(example.text) for example in examples]
    full = [row for row, found in enumerate(tokens) if found]
    kept = [examples[row] for row in full]
    names, *parts = own_texts.divide(kept, source.name, own.test_fraction, own.seed)
    rows = dict(zip(("train", "test"), parts, strict=True))
    if kind == "subword":
        tokenizer = _tokenizer(kind, [kept[row].text for row in rows["train"]], num_words)
        tokenized = {s: [tokenizer(kept[row].text) for row in rows[s]] for s in rows}
    else:
        tokenizer = plain
        tokenized = {s: [tokens[full[row]] for row in rows[s]] for s in rows}
    ids = {name: i for i, name in enumerate(names)}
    labels = {split: [ids[kept[row].label] for row in rows[split]] for split in rows}
    return {
        **_arrays(text.Vocabulary.build(tokenized["train"], tokenizer), tokenized, labels),
        "label_names": np.frombuffer(json.dumps(names).encode(), np.uint8),
        "empty": np.array([len(examples) - len(kept)]),
    }


def _tokenizer(kind: str, texts: list[str], num_words: int) -> text.Tokenizer:
    return text.Tokenizer.learn(texts, num_words) if kind == "subword" else text.Tokenizer(kind)


def _arrays(
    vocabulary: text.Vocabulary,
    tokenized: dict[str, list[list[str]]],
    labels: dict[str, list[int]],
) -> dict[str, np.ndarray]:
    """Encodes splits; what `_corpus` reads back."""
    arrays = {}
    for split, texts in tokenized.items():
        rows = [np.array(vocabulary.encode(words), np.int32) for words in texts]
        arrays[f"{split}_labels"] = np.array(labels[split], np.int32)
        arrays[f"{split}_ids"] = np.concatenate(rows)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, rows)])
    # No word holds a newline: every tokenizer splits there.
    arrays["words"] = np.frombuffer("\n".join(vocabulary.words).encode(), np.uint8)
    if vocabulary.tokenizer.model:
        arrays["tokenizer"] = np.frombuffer(vocabulary.tokenizer.model, np.uint8)
    return arrays


def _corpus(
    name: str, synthetic: bool, label_names: list[str], kind: str, arrays: dict[str, np.ndarray]
) -> Corpus:
    train, test = (
        Split(arrays[f"{split}_ids"], arrays[f"{split}_offsets"], arrays[f"{split}_labels"])
        for split in ("train", "test")
    )
    model = arrays["tokenizer"].tobytes() if "tokenizer" in arrays else b""
    words = arrays["words"].tobytes().decode().split("\n")
    vocabulary = text.Vocabulary(words, text.Tokenizer(kind, model))
    return Corpus(name, synthetic, label_names, vocabulary, train, test)


def _cached(folder: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    arrays = _read_cache(folder)
    if arrays is None:
        arrays = make()
        _write_cache(folder, arrays)
    return arrays


def _read_cache(folder: Path) -> dict[str, np.ndarray] | None:
    if files.damage(folder):
        return None  # absent or damaged: made anew
    return safetensors.numpy.load_file(folder / "arrays.safetensors")


def _write_cache(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    # A read-only or full disk costs time, not the run.
    with contextlib.suppress(OSError):
        files.write_folder(folder, {"arrays.safetensors": safetensors.numpy.save(arrays)})


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
    if task == BRACKETS:
        raise ConfigError(f"task: {task!r} has a label a token; load_corpus has them")
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


class Batch(NamedTuple):
    """Texts of like length."""

    bucket: int  # index of the length to pad them to
    rows: np.ndarray  # int [n], n ≤ B


class Chunk(NamedTuple):
    """S batches of one shape, for one program: arrays of NumPy or JAX, or their shardings."""

    rows: Any  # int32 [S, B]
    weights: Any  # float32 [S, B]; 0: a row that fills up the batch
    buckets: Any  # int32 [S]
    used: Any  # int32, how many of the S batches count
    stop: Any  # int32 [D], one a device: the signal that asks its process to stop, 0: none


@dataclass(frozen=True)
class Material:
    """The texts of a run: clipped, assigned to splits and to lengths to pad them to."""

    texts: Split  # of all splits
    lengths: np.ndarray  # tokens that are read of each text, int [N]
    padding: str  # "post" or "pre"
    buckets: tuple[int, ...]  # lengths to pad to, rising; the last one is the longest text's
    rows: dict[str, np.ndarray]  # which texts are "train", "val" and "test"


def arrange(
    corpus: Corpus,
    *,
    num_words: int,
    maxlen: int,
    padding: str,
    max_padding: float,
    validation: str,
    validation_fraction: float,
) -> Material:
    """Prepares a corpus for a run, see `configs/default.py`.

    Raises:
        DataError: `validation_fraction` leaves nothing to train on, or nothing to validate with.
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
                " leaves none to train on or none to validate with"
            )
    texts = corpus.train.clip(num_words, maxlen) + corpus.test.clip(num_words, maxlen)
    lengths = texts.lengths if padding == "post" else np.full(len(texts), maxlen)
    # Short texts need no bucket of `maxlen`: every evaluation ends with a batch of the longest.
    buckets = bucket_lengths(lengths[train], int(lengths.max()), max_padding)
    return Material(texts, lengths, padding, buckets, {"train": train, "val": val, "test": test})


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
    before: list[np.ndarray] = []  # where the bucket before the last begins, for 2, 3, … buckets
    while 1 - lengths.sum() / least[-1] >= max_padding and len(before) < _MOST_BUCKETS - 1:
        candidates = least[:, None] + between
        before.append(candidates.argmin(axis=0))
        least = candidates.min(axis=0)
    chosen = [len(ends) - 1]
    for choice in reversed(before):
        chosen.append(choice[chosen[-1]])
    return tuple(sorted({int(ends[i]) for i in chosen}))


def batches(
    order: np.ndarray, lengths: np.ndarray, buckets: Sequence[int], batch_size: int
) -> list[Batch]:
    """Cuts an order of texts into batches of like length, all but the last one full.

    A text goes to the shortest bucket that holds it; those that do not fill a batch there go to the
    next longer one.

    Args:
        order: Rows to visit, int [n].
        lengths: Tokens of each text, by row.
        buckets: As `bucket_lengths` gives them.
        batch_size: Texts a batch.
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


def epoch_batches(
    rows: np.ndarray,
    lengths: np.ndarray,
    buckets: Sequence[int],
    batch_size: int,
    seed: int,
    epoch: int,
) -> list[Batch]:
    """The batches of an epoch, shuffled: a pure function of its arguments, see `batches`."""
    random = np.random.default_rng([seed, epoch])
    found = batches(random.permutation(rows), lengths, buckets, batch_size)
    return [found[i] for i in random.permutation(len(found))]


def chunks(
    batches: Sequence[Batch], batch_size: int, steps: int, devices: int = 1
) -> Iterator[Chunk]:
    """Batches, several at a time and all of one shape.

    Args:
        batches: None larger than `batch_size`.
        batch_size: B; a smaller batch is filled up with rows of weight 0.
        steps: S, batches a chunk; the last chunk is filled up with batches not to be used.
        devices: D; B is rounded up to a multiple of it with rows of weight 0.
    """
    width = -(-batch_size // devices) * devices
    for begin in range(0, len(batches), steps):
        some = batches[begin : begin + steps]
        chunk = Chunk(
            np.zeros((steps, width), np.int32),
            np.zeros((steps, width), np.float32),
            np.zeros(steps, np.int32),
            np.int32(len(some)),
            np.zeros(devices, np.int32),
        )
        for i, batch in enumerate(some):
            chunk.rows[i, : len(batch.rows)] = batch.rows
            chunk.weights[i, : len(batch.rows)] = 1
            chunk.buckets[i] = batch.bucket
        yield chunk

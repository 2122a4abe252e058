"""A corpus as encoded arrays in memory.

A TFDS corpus is tokenized once; the concatenated ids of all its texts are cached next to the
prepared datasets, so a second start reads no text. `num_words` and `maxlen` are applied on top, so
every config shares that cache.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from flaxrnn.data import tokenizers
from flaxrnn.data.ragged import RaggedTexts
from flaxrnn.data.vocabulary import FIRST_WORD, Vocabulary
from flaxrnn.errors import ConfigError
from flaxrnn.runtime import files

_CACHE_VERSION = 2  # of the tokenizer and of the layout below
OWN = "text"  # the task of the user's own texts
BRACKETS = "brackets"  # the task that is generated, with one label per token


@dataclass(frozen=True)
class Corpus:
    """The labelled splits of a task, encoded with all the words of its vocabulary."""

    name: str  # of the TFDS dataset, with config and version
    synthetic: bool
    label_names: list[str]
    vocabulary: Vocabulary
    train: RaggedTexts
    test: RaggedTexts


@dataclass(frozen=True)
class CustomTexts:
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
    own: CustomTexts | None = None,
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
    from flaxrnn import datasets

    tasks = (*datasets.TASKS, BRACKETS, OWN)
    if task not in tasks:
        raise ConfigError(f"task: {task!r} is not one of {', '.join(tasks)}")
    if source not in datasets.SOURCES:
        raise ConfigError(f"data.source: {source!r} is not one of {', '.join(datasets.SOURCES)}")
    if tokenizer not in tokenizers.TOKENIZERS:
        raise ConfigError(
            f"data.tokenizer: {tokenizer!r} is not one of {', '.join(tokenizers.TOKENIZERS)}"
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
    vocabulary = Vocabulary.build((words for _, words in counted), tokenizer)
    return _arrays(vocabulary, tokenized, labels)


def _load_brackets() -> Corpus:
    """The generated corpus; it takes less time to make than to read."""
    from flaxrnn.datasets import brackets

    tokenizer = tokenizers.Tokenizer("characters")
    vocabulary = Vocabulary(brackets.CHARACTERS, tokenizer)
    splits = []
    for split in brackets.SIZES:
        texts = brackets.texts(split)
        rows = [np.array(vocabulary.encode(tokenizer(t)), np.int32) for t in texts]
        tags = [np.array([0, *brackets.tags(t)], np.int32) for t in texts]  # the start id has one
        offsets = np.cumsum([0, *map(len, rows)])
        splits.append(
            RaggedTexts(np.concatenate(rows), offsets, np.concatenate(tags), per_token=True)
        )
    names = [str(opened) for opened in range(brackets.PAIRS + 1)]
    return Corpus(BRACKETS, True, names, vocabulary, *splits)


def _load_own(own: CustomTexts, data_dir: str | None, kind: str, num_words: int) -> Corpus:
    from flaxrnn import datasets
    from flaxrnn.datasets import custom

    source = custom.find(own.path, own.text_field, own.label_field, data_dir)
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
            f", {len(label_names):,} classes: {custom.listed(label_names)}"
            if own.label_field
            else ""
        )
        + (f"; {empty:,} without a word left out" if empty else ""),
        file=sys.stderr,
    )
    return corpus


def _encode_own(source: Any, own: CustomTexts, kind: str, num_words: int) -> dict[str, np.ndarray]:
    from flaxrnn.datasets import custom

    examples = source.read()
    plain = tokenizers.Tokenizer("characters" if kind == "subword" else kind)
    tokens = [plain(example.text) for example in examples]
    full = [row for row, found in enumerate(tokens) if found]
    kept = [examples[row] for row in full]
    names, *parts = custom.train_test_split(kept, source.name, own.test_fraction, own.seed)
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
        **_arrays(Vocabulary.build(tokenized["train"], tokenizer), tokenized, labels),
        "label_names": np.frombuffer(json.dumps(names).encode(), np.uint8),
        "empty": np.array([len(examples) - len(kept)]),
    }


def _tokenizer(kind: str, texts: list[str], num_words: int) -> tokenizers.Tokenizer:
    return (
        tokenizers.Tokenizer.learn(texts, num_words)
        if kind == "subword"
        else tokenizers.Tokenizer(kind)
    )


def _arrays(
    vocabulary: Vocabulary,
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
        RaggedTexts(arrays[f"{split}_ids"], arrays[f"{split}_offsets"], arrays[f"{split}_labels"])
        for split in ("train", "test")
    )
    model = arrays["tokenizer"].tobytes() if "tokenizer" in arrays else b""
    words = arrays["words"].tobytes().decode().split("\n")
    vocabulary = Vocabulary(words, tokenizers.Tokenizer(kind, model))
    return Corpus(name, synthetic, label_names, vocabulary, train, test)


def _cached(folder: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    arrays = _read_cache(folder)
    if arrays is None:
        arrays = make()
        _write_cache(folder, arrays)
    return arrays


def _read_cache(folder: Path) -> dict[str, np.ndarray] | None:
    if files.find_corruption(folder):
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
    if num_words is not None and num_words < FIRST_WORD:
        raise ConfigError(f"num_words: {num_words} is below {FIRST_WORD}, the first word's id")
    if maxlen is not None and maxlen < 1:
        raise ConfigError(f"maxlen: {maxlen} is below 1")
    corpus = load_corpus(task, source, data_dir, manual_dir)

    def arrays(split: RaggedTexts) -> tuple[Any, np.ndarray]:
        limit = num_words or len(corpus.vocabulary) + FIRST_WORD
        clipped = split.clip(limit, maxlen)
        if maxlen is None:
            return clipped.texts(), split.labels
        return clipped.padded(maxlen, "pre")["tokens"], split.labels

    return arrays(corpus.train), arrays(corpus.test)

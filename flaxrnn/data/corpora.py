"""A task's corpus as encoded arrays in memory.

Texts are tokenized once and all their ids are cached. `num_words` and `maxlen` are applied
afterwards, so all configs share the cache.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flaxrnn.data import cache
from flaxrnn.data.arrays import encode_custom, to_arrays
from flaxrnn.data.ragged import RaggedTexts
from flaxrnn.data.tokenizers import TOKENIZERS, Tokenizer
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.datasets.reading import Format
from flaxrnn.datasets.rows import Fields, abbreviated
from flaxrnn.errors import ConfigError, DataError
from flaxrnn.runtime import terminal

if TYPE_CHECKING:
    from flaxrnn.datasets.registry import Task

SOURCES = ("auto", "real", "synthetic")
_SPLITS = ("train", "test")
_UNLABELLED = "unsupervised"  # as TFDS calls the split


@dataclass(frozen=True)
class Corpus:
    """The labelled splits of a task, encoded with its full vocabulary."""

    name: str  # of the TFDS dataset, with config and version
    synthetic: bool
    label_names: list[str]
    vocabulary: Vocabulary
    train: RaggedTexts
    test: RaggedTexts
    validation: RaggedTexts | None = None  # None: it is a part of train
    unlabelled: RaggedTexts | None = None  # texts to train on whose labels are -1
    findings: tuple[str, ...] = ()  # what is suspicious, in sentences

    @property
    def held_out(self) -> RaggedTexts:
        """The validation texts, if there are any of their own, then the test texts."""
        return self.test if self.validation is None else self.validation + self.test

    @property
    def others(self) -> RaggedTexts:
        """All but the texts of the train split: `held_out`, then those without labels."""
        return self.held_out if self.unlabelled is None else self.held_out + self.unlabelled

    @property
    def labelled(self) -> RaggedTexts:
        """The train split, then the texts that a teacher has labelled, each with its likeliest."""
        if self.unlabelled is None or self.unlabelled.scores is None:
            return self.train
        scores = self.unlabelled.scores
        likeliest = scores.argmax(axis=1) if scores.shape[1] > 1 else scores[:, 0] > 0
        labels = likeliest.astype(self.train.labels.dtype)
        return self.train + dataclasses.replace(self.unlabelled, labels=labels)

    def teach(self, scores: np.ndarray | None) -> Corpus:
        """The corpus with a teacher's logits of its texts without labels; None: without a teacher.

        Args:
            scores: float32 [N, C], or of two classes [N, 1].
        """
        if scores is None:
            return self
        assert self.unlabelled is not None
        return dataclasses.replace(
            self, unlabelled=dataclasses.replace(self.unlabelled, scores=scores)
        )


@dataclass(frozen=True)
class CustomTexts:
    """Where the texts of task "text" come from; see docs/config.md."""

    path: str
    test_path: str | None = None
    validation_path: str | None = None
    text_field: str = "text"
    label_field: str | None = "label"  # None: the texts need no labels
    rare_classes: str = "error"
    test_fraction: float = 0.1  # if the source has no test split
    seed: int = 0  # of that split and of the order of the training texts
    format: Format = Format()  # noqa: RUF009 (frozen)
    kept_by: str | None = None  # tokenizer that must find a token in a text; None: the corpus's
    several: bool = False  # whether a text may have several labels; see `rows.Fields`
    separator: str | None = None
    unlabelled_path: str | None = None


@dataclass(frozen=True)
class _Request:
    """The arguments of `load_corpus`."""

    task: str
    source: str
    data_dir: str | None
    manual_dir: str | None
    tokenizer: str
    num_words: int
    custom: CustomTexts | None
    subwords: bytes
    unlabelled: bool


def load_corpus(
    task: str,
    source: str = "auto",
    data_dir: str | None = None,
    manual_dir: str | None = None,
    *,
    tokenizer: str = "words",
    num_words: int = 10_000,
    custom: CustomTexts | None = None,
    subwords: bytes = b"",
    unlabelled: bool = False,
) -> Corpus:
    """Loads a task's corpus, from the cache of encoded arrays if it is there.

    Args:
        task: "reuters", "reuters_clean", "imdb", "brackets"; "text", custom texts; or
            "module:Builder", a custom TFDS dataset.
        source: "auto", "real" or "synthetic"; see `flaxrnn.datasets.preparation.prepare`.
        data_dir: Where prepared datasets and the cache are kept; default: TFDS's own.
        manual_dir: Where archives are; default: `FLAXRNN_MANUAL_DIR`, else TFDS's own.
        tokenizer: "words", "characters" or "subword"; "auto": for custom texts, the one that suits
            their script, else "words".
        num_words: Size of the vocabulary that subwords are learned for, special ids included.
        custom: The texts of task "text".
        subwords: The model of subwords, see `Tokenizer`; empty: it is learned from the texts.
        unlabelled: Whether to load the dataset's texts without labels, too.

    Raises:
        ConfigError: An argument is invalid, or the dataset has no texts without labels.
        DataError: The corpus is not available, or its archive or file is corrupt.
    """
    if source not in SOURCES:
        raise ConfigError(f"data.source: {source!r} is not one of {', '.join(SOURCES)}")
    if tokenizer not in ("auto", *TOKENIZERS):
        raise ConfigError(f"data.tokenizer: {tokenizer!r} is not one of {', '.join(TOKENIZERS)}")
    request = _Request(
        task, source, data_dir, manual_dir, tokenizer, num_words, custom, subwords, unlabelled
    )
    return _LOADERS.get(task, _load_dataset)(request)


def _load_dataset(request: _Request) -> Corpus:
    """The corpus of a task that a TFDS builder prepares."""
    from flaxrnn.datasets import custom, preparation, registry  # TFDS takes long to import

    task = registry.get_task(request.task)
    builder = preparation.prepare(task, request.source, request.data_dir, request.manual_dir)
    tokenizer = "words" if request.tokenizer == "auto" else request.tokenizer
    kind = task.word_tokenizer if tokenizer == "words" else tokenizer
    # A custom dataset may change without a new version, so its content is part of the name.
    is_built_in = task.name in registry.TASKS
    content = task.name if is_built_in else custom.digest_of_files(Path(builder.data_path))[:16]
    subwords = _digest(request.subwords) if request.subwords else request.num_words
    suffix = {"words": "", "subword": f"-subword{subwords}"}.get(tokenizer, f"-{tokenizer}")
    if request.unlabelled:
        if _UNLABELLED not in builder.info.splits:
            raise ConfigError(
                f"data.unlabelled: {builder.info.full_name} has no texts without labels, which"
                f" would be its split {_UNLABELLED!r}"
            )
        suffix += "-unlabelled"
    arrays = cache.cached(
        preparation.data_root(request.data_dir),
        f"{builder.info.full_name.replace('/', '-')}-{content}{suffix}",
        lambda: _encode_dataset(task, builder, kind, request),
    )
    label_names = builder.info.features["label"].names
    synthetic = task.is_synthetic(builder)
    return _to_corpus(builder.info.full_name, synthetic, label_names, kind, arrays)


def _encode_dataset(
    task: Task, builder: Any, kind: str, request: _Request
) -> dict[str, np.ndarray]:
    from flaxrnn.datasets import preparation

    texts, labels, positions = {}, {}, {}
    splits = {split: split for split in _SPLITS}
    if request.unlabelled:
        splits["unlabelled"] = _UNLABELLED
    for split, name in splits.items():
        examples = list(preparation.examples(builder, name, "task"))
        labels[split] = np.array([e["label"] for e in examples], np.int32)
        if split not in _SPLITS:
            labels[split][:] = -1
        elif labels[split].min() < 0:
            raise DataError(f"task: {task.name} has a text without a label in {split}")
        try:
            texts[split] = [e["text"].decode() for e in examples]
        except UnicodeDecodeError as error:
            raise DataError(f"task: {task.name} has a text that is not UTF-8 ({error})") from None
        positions[split] = [e.get("position", 0) for e in examples]
    tokenizer = Tokenizer(kind, request.subwords if kind == "subword" else b"")
    if kind == "subword" and not request.subwords:
        tokenizer = Tokenizer.learn(texts["train"], request.num_words)
    tokenized = {split: [tokenizer(t) for t in texts[split]] for split in texts}
    # Words of equal frequency are ranked by their first position in the archive, where known.
    counted = [
        pair
        for split in task.vocabulary_splits
        for pair in zip(positions[split], tokenized[split], strict=True)
    ]
    counted.sort(key=lambda pair: pair[0])
    vocabulary = Vocabulary.build((words for _, words in counted), tokenizer)
    return to_arrays(vocabulary, tokenized, labels)


def _load_brackets(request: _Request) -> Corpus:
    """The generated corpus, which is not cached: generating it is faster than reading it."""
    from flaxrnn.datasets import brackets

    tokenizer = Tokenizer("characters")
    vocabulary = Vocabulary(brackets.CHARACTERS, tokenizer)
    splits = []
    for split in _SPLITS:
        texts = brackets.texts(split)
        rows = [np.array(vocabulary.encode(tokenizer(t)), np.int32) for t in texts]
        tags = [np.array([0, *brackets.tags(t)], np.int32) for t in texts]  # START has one, too
        offsets = np.cumsum([0, *map(len, rows)])
        splits.append(
            RaggedTexts(np.concatenate(rows), offsets, np.concatenate(tags), per_token=True)
        )
    names = [str(opened) for opened in range(brackets.PAIRS + 1)]
    return Corpus(request.task, True, names, vocabulary, train=splits[0], test=splits[1])


def _load_custom(request: _Request) -> Corpus:
    """The corpus of custom texts; prints a summary of what was read to standard error."""
    from flaxrnn.datasets import custom, preparation

    texts, kind = request.custom, request.tokenizer
    if texts is None:
        raise ConfigError("data.path: missing; name a file, a folder or a TFDS dataset of texts")
    fields = Fields(texts.text_field, texts.label_field, texts.several, texts.separator)
    held_out = {"validation": texts.validation_path, "test": texts.test_path}
    source = custom.find_sources(texts.path, held_out, fields, texts.format, request.data_dir)
    unlabelled = None
    if texts.unlabelled_path is not None:
        unlabelled = custom.find_unlabelled(
            texts.unlabelled_path, texts.text_field, texts.format, request.data_dir
        )
    key_parts = [source.digest, *dataclasses.astuple(texts)[3:-1], kind]
    if unlabelled:
        key_parts.append(unlabelled.digest)
    key_parts.append(kind in ("auto", "subword") and request.num_words)
    if request.subwords:
        key_parts.append(_digest(request.subwords))
    arrays = cache.cached(
        preparation.data_root(request.data_dir),
        f"text-{_digest(json.dumps(key_parts).encode())}",
        lambda: encode_custom(source, texts, kind, request.num_words, request.subwords, unlabelled),
    )
    label_names = json.loads(arrays["label_names"].tobytes())
    kind = arrays["kind"].tobytes().decode()
    corpus = _to_corpus(source.name, False, label_names, kind, arrays)
    findings = tuple(json.loads(arrays["findings"].tobytes()))
    corpus = dataclasses.replace(corpus, findings=findings)
    if texts.kept_by is None:  # else the same texts have been reported, as other tokens
        _report(corpus, texts, arrays)
    return corpus


def _report(corpus: Corpus, texts: CustomTexts, arrays: Mapping[str, np.ndarray]) -> None:
    """Prints what was read, and what is suspicious about it."""
    report = f"{corpus.name}: {len(corpus.train):,} texts to train on, "
    if corpus.validation:
        report += f"{len(corpus.validation):,} to validate on, "
    report += f"{len(corpus.test):,} to test"
    if corpus.unlabelled:
        report += f", {len(corpus.unlabelled):,} without labels"
    if texts.label_field:
        report += f", {len(corpus.label_names):,} classes: {abbreviated(corpus.label_names)}"
    left_out = arrays["left_out"].tolist()
    for count, why in zip(left_out, ("without a word", "of rare classes"), strict=True):
        report += f"; left out {count:,} {why}" if count else ""
    repeats, others = arrays["repeats"].tolist()
    if repeats and texts.label_field:  # the lines that a language model learns from may well repeat
        report += f"; repeated texts: {repeats:,}"
        report += f", {others:,} of them with another label" if others else ""
    print(terminal.escaped(report), file=sys.stderr)
    for finding in corpus.findings:
        print(terminal.escaped(f"warning: {corpus.name}: {finding}"), file=sys.stderr)


_LOADERS = {"brackets": _load_brackets, "text": _load_custom}  # all other tasks have a builder


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _to_corpus(
    name: str, synthetic: bool, label_names: list[str], kind: str, arrays: Mapping[str, np.ndarray]
) -> Corpus:
    splits = {
        split: RaggedTexts(
            arrays[f"{split}_ids"], arrays[f"{split}_offsets"], arrays[f"{split}_labels"]
        )
        for split in (*_SPLITS, "validation", "unlabelled")
        if f"{split}_ids" in arrays
    }
    model = arrays["tokenizer"].tobytes() if "tokenizer" in arrays else b""
    words = arrays["words"].tobytes().decode().split("\n")
    vocabulary = Vocabulary(words, Tokenizer(kind, model))
    return Corpus(
        name,
        synthetic,
        label_names,
        vocabulary,
        splits["train"],
        splits["test"],
        splits.get("validation"),
        splits.get("unlabelled"),
    )

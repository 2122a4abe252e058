"""Texts → the arrays that are cached."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from flaxrnn.data.tokenizers import Tokenizer, suitable
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.datasets import checks, splits
from flaxrnn.datasets.parsing import Example

if TYPE_CHECKING:
    from flaxrnn.data.corpora import CustomTexts
    from flaxrnn.datasets.custom import Source


def encode_custom(
    source: Source,
    texts: CustomTexts,
    kind: str,
    num_words: int,
    subwords: bytes = b"",
    unlabelled: Source | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of custom texts, their classes, and what there is to say about them.

    Args:
        source: The texts.
        texts: How to split them.
        kind: See `corpora.load_corpus`.
        num_words: See `corpora.load_corpus`.
        subwords: See `corpora.load_corpus`.
        unlabelled: Texts without labels.

    Raises:
        DataError: The texts cannot be read or split.
    """
    examples = source.read()
    if kind == "auto":
        kind = suitable(example.text for example in examples)
    keeper = texts.kept_by or kind
    has_token = Tokenizer("characters" if keeper == "subword" else keeper)
    keyed = [(example, " ".join(has_token(example.text))) for example in examples]
    keyed = [(example, key) for example, key in keyed if key]
    empty = len(examples) - len(keyed)
    rare = splits.rare_classes([example for example, _ in keyed], source.name, texts.rare_classes)
    left = ((_without(rare, example), key) for example, key in keyed)
    keyed = [(example, key) for example, key in left if example is not None]
    kept, keys = [example for example, _ in keyed], [key for _, key in keyed]
    parts = splits.split_examples(kept, keys, source.name, texts.test_fraction, texts.seed)
    rows = {split: part for split, part in parts._asdict().items() if len(part)}
    others = [] if unlabelled is None else [example.text for example in unlabelled.read()]
    others = [text for text in others if has_token(text)]
    tokenizer = Tokenizer(kind, subwords if kind == "subword" else b"")
    if kind == "subword" and not subwords:
        known = [kept[row].text for row in rows["train"]]
        tokenizer = Tokenizer.learn([*known, *others], num_words)
    tokenized = {split: [tokenizer(kept[row].text) for row in rows[split]] for split in rows}
    names = sorted({name for example in kept for name in example.names})
    labels = {split: _label_ids([kept[row] for row in rows[split]], names) for split in rows}
    if others:
        tokenized["unlabelled"] = [tokenizer(text) for text in others]
        labels["unlabelled"] = np.full(len(others), -1, np.int32)
    counted = [*tokenized["train"], *tokenized.get("unlabelled", [])]
    return {
        **to_arrays(Vocabulary.build(counted, tokenizer), tokenized, labels),
        "label_names": np.frombuffer(json.dumps(names).encode(), np.uint8),
        "left_out": np.array([empty, len(examples) - empty - len(kept)]),
        "repeats": np.array(checks.count_repeats(kept, keys)),
        "findings": np.frombuffer(
            json.dumps(checks.find_suspicious(kept, keys, parts)).encode(), np.uint8
        ),
        "kind": np.frombuffer(kind.encode(), np.uint8),
    }


def _without(rare: set[str], example: Example) -> Example | None:
    """A text without the classes that are left out; None: its only one is."""
    if example.labels is None:
        return None if example.label in rare else example
    return example.with_labels(tuple(name for name in example.labels if name not in rare))


def _label_ids(examples: list[Example], names: list[str]) -> np.ndarray:
    """The class of each text, int32 [N]; where it may have several, 0 or 1 for each, [N, C]."""
    ids = {name: i for i, name in enumerate(names)}
    if examples[0].labels is None:
        return np.array([ids[example.label] for example in examples], np.int32)
    found = np.zeros((len(examples), len(names)), np.uint8)
    for row, example in enumerate(examples):
        found[row, [ids[name] for name in example.names]] = 1
    return found


def to_arrays(
    vocabulary: Vocabulary,
    tokenized: Mapping[str, list[list[str]]],
    labels: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Encodes splits as arrays that `corpora` reads back."""
    arrays = {}
    for split, texts in tokenized.items():
        rows = [np.array(vocabulary.encode(words), np.int32) for words in texts]
        arrays[f"{split}_labels"] = labels[split]
        arrays[f"{split}_ids"] = np.concatenate(rows)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, rows)])
    # No word contains a newline: every tokenizer splits there.
    arrays["words"] = np.frombuffer("\n".join(vocabulary.words).encode(), np.uint8)
    if vocabulary.tokenizer.model:
        arrays["tokenizer"] = np.frombuffer(vocabulary.tokenizer.model, np.uint8)
    return arrays

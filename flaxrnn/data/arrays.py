"""Texts → the arrays that are cached."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from flaxrnn.data.tokenizers import Tokenizer, suitable
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.datasets import checks, splits

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
    keyed = [(example, key) for example, key in keyed if example.label not in rare]
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
    names = sorted({example.label for example in kept})
    ids = {name: i for i, name in enumerate(names)}
    labels = {split: [ids[kept[row].label] for row in rows[split]] for split in rows}
    if others:
        tokenized["unlabelled"] = [tokenizer(text) for text in others]
        labels["unlabelled"] = [-1] * len(others)
    counted = [*tokenized["train"], *tokenized.get("unlabelled", [])]
    return {
        **to_arrays(Vocabulary.build(counted, tokenizer), tokenized, labels),
        "label_names": np.frombuffer(json.dumps(names).encode(), np.uint8),
        "left_out": np.array([empty, len(examples) - empty - len(kept)]),
        "findings": np.frombuffer(
            json.dumps(checks.find_suspicious(kept, keys, parts)).encode(), np.uint8
        ),
        "kind": np.frombuffer(kind.encode(), np.uint8),
    }


def to_arrays(
    vocabulary: Vocabulary,
    tokenized: Mapping[str, list[list[str]]],
    labels: Mapping[str, list[int]],
) -> dict[str, np.ndarray]:
    """Encodes splits as arrays that `corpora` reads back."""
    arrays = {}
    for split, texts in tokenized.items():
        rows = [np.array(vocabulary.encode(words), np.int32) for words in texts]
        arrays[f"{split}_labels"] = np.array(labels[split], np.int32)
        arrays[f"{split}_ids"] = np.concatenate(rows)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, rows)])
    # No word contains a newline: every tokenizer splits there.
    arrays["words"] = np.frombuffer("\n".join(vocabulary.words).encode(), np.uint8)
    if vocabulary.tokenizer.model:
        arrays["tokenizer"] = np.frombuffer(vocabulary.tokenizer.model, np.uint8)
    return arrays

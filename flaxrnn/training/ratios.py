"""Counts the n-grams of each class, and gives every token the ratios of those that end there.

The ratios of a text's own label would tell it: the texts of the train split, those to validate on
included, are therefore cross-fitted. Each has the ratios of texts in other folds.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from flaxrnn.data.corpora import Corpus
from flaxrnn.data.ngrams import RATIOS, Counts, RatioTable, View, count
from flaxrnn.data.ragged import RaggedTexts
from flaxrnn.runtime import distributed, files
from flaxrnn.training import ngrams, workdir


def with_features(corpus: Corpus, longest: int, folder: Path) -> Corpus:
    """A corpus whose tokens have the ratios of the n-grams that end there, as features.

    Every process computes them; the primary one saves the table, unless an earlier start has.

    Args:
        corpus: The corpus.
        longest: Tokens of the longest n-grams.
        folder: The workdir.
    """
    hashes, labels = ngrams.hash_ids(corpus.vocabulary), corpus.train.labels
    words, lengths = ngrams.find_words(corpus.train)
    counts = count(hashes[corpus.train.ids[words]], lengths, View("words", longest))
    num_labels = len(corpus.label_names)
    num_classes = len(_classes(labels[:1], num_labels))
    folds = ngrams.random_folds(len(labels))
    of_train = np.zeros((len(words), longest * num_classes), np.float16)
    for fold in range(folds.max() + 1):
        table = fit(counts, labels, num_labels, longest, folds != fold)
        rows = np.flatnonzero(folds == fold)
        of_train[np.repeat(folds == fold, corpus.train.lengths)] = _features(
            table, corpus.train.take(rows), hashes
        )
    table = fit(counts, labels, num_labels, longest, np.ones(len(labels), bool))
    if distributed.is_primary() and files.find_corruption(folder / workdir.RATIOS):
        files.write_folder(folder / workdir.RATIOS, {RATIOS: table.to_file()})

    splits: dict[str, Any] = {"train": dataclasses.replace(corpus.train, features=of_train)}
    for name in ("validation", "test", "unlabelled"):
        texts = getattr(corpus, name)
        if texts is not None:
            features = _features(table, texts, hashes)
            splits[name] = dataclasses.replace(texts, features=features)
    return dataclasses.replace(corpus, **splits)


def fit(
    counts: Counts, labels: np.ndarray, num_labels: int, longest: int, fitted_to: np.ndarray
) -> RatioTable:
    """The ratios of the n-grams that occur in at least two texts.

    Args:
        counts: Of N texts.
        labels: int [N], or 0 or 1 for each class, [N, C].
        num_labels: Number of classes.
        longest: Tokens of the longest n-grams.
        fitted_to: Whether each text is counted, bool [N].
    """
    used = fitted_to[counts.rows]
    codes, rows = counts.codes[used], counts.rows[used]
    new = np.concatenate([[True], codes[1:] != codes[:-1]])[: len(codes)]
    ids, known = np.cumsum(new) - 1, codes[new]
    texts = np.bincount(ids, minlength=len(known))
    often = texts >= 2
    if not often.any():
        often[:] = True
    columns = []
    for in_class in _classes(labels, num_labels):
        inside = 1.0 + np.bincount(ids[in_class[rows]], minlength=len(known))
        outside = 2.0 + texts - inside
        columns.append(np.log(inside / inside.sum() / (outside / outside.sum()))[often])
    return RatioTable(longest, known[often], np.stack(columns, axis=1).astype(np.float32))


def _classes(labels: np.ndarray, num_labels: int) -> list[np.ndarray]:
    """Which texts are in each class, bool [N]; of two classes, in the second."""
    if labels.ndim == 2:
        return list(labels.T > 0)
    return [labels == label for label in ([1] if num_labels == 2 else range(num_labels))]


def _features(table: RatioTable, texts: RaggedTexts, hashes: np.ndarray) -> np.ndarray:
    """The features of every id, float16 [tokens, F]; those of START are 0."""
    words, lengths = ngrams.find_words(texts)
    features = np.zeros((len(words), table.num_features), np.float16)
    features[words] = table.features(hashes[texts.ids[words]], lengths)
    return features

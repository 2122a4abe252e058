"""Counts the n-grams of each class, and gives every token the ratios of those that end there.

The ratios of a text's own label would tell it: the texts of the train split, those to validate on
included, and those that a teacher has labelled are therefore cross-fitted. Each has the ratios of
texts in other folds.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from flaxrnn.data.corpora import Corpus
from flaxrnn.data.ngrams import RATIOS, Counts, RatioTable, View, document_frequencies
from flaxrnn.data.ragged import RaggedTexts
from flaxrnn.runtime import distributed, files
from flaxrnn.training import ngrams, workdir
from flaxrnn.training.svm import in_column, num_columns


def with_features(corpus: Corpus, longest: int, folder: Path) -> Corpus:
    """A corpus whose tokens have the ratios of the n-grams that end there, as features.

    Every process computes them; the primary one saves the table, unless an earlier start has.

    Args:
        corpus: The corpus.
        longest: Tokens of the longest n-grams.
        folder: The workdir.
    """
    hashes, labelled = ngrams.hash_ids(corpus.vocabulary), corpus.labelled
    labels = labelled.labels
    counts = ngrams.count_texts(labelled, hashes, View("words", longest))
    num_labels = len(corpus.label_names)
    columns = num_columns(labels, num_labels)
    folds = ngrams.random_folds(len(labels))
    of_labelled = np.zeros((len(labelled.ids), longest * columns), np.float16)
    for fold in range(folds.max() + 1):
        table = fit(counts, labels, num_labels, longest, folds != fold)
        rows = np.flatnonzero(folds == fold)
        of_labelled[np.repeat(folds == fold, labelled.lengths)] = _features(
            table, labelled.take(rows), hashes
        )
    table = fit(counts, labels, num_labels, longest, np.ones(len(labels), bool))
    if distributed.is_primary() and files.find_corruption(folder / workdir.RATIOS):
        files.write_folder(folder / workdir.RATIOS, {RATIOS: table.to_file()})

    of_train, taught = np.split(of_labelled, [len(corpus.train.ids)])
    splits: dict[str, Any] = {"train": dataclasses.replace(corpus.train, features=of_train)}
    for name in ("validation", "test", "unlabelled"):
        texts = getattr(corpus, name)
        if texts is not None:
            is_taught = name == "unlabelled" and len(labelled) > len(corpus.train)
            features = taught if is_taught else _features(table, texts, hashes)
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
    used = Counts(*(array[fitted_to[counts.rows]] for array in counts))
    known, texts = document_frequencies(used)
    ids = np.repeat(np.arange(len(known)), texts)
    often = texts >= 2
    if not often.any():
        often[:] = True
    columns = []
    for column in range(num_columns(labels, num_labels)):
        in_class = in_column(labels, num_labels, column)
        inside = 1.0 + np.bincount(ids[in_class[used.rows]], minlength=len(known))
        outside = 2.0 + texts - inside
        columns.append(np.log(inside / inside.sum() / (outside / outside.sum()))[often])
    return RatioTable(longest, known[often], np.stack(columns, axis=1).astype(np.float32))


def _features(table: RatioTable, texts: RaggedTexts, hashes: np.ndarray) -> np.ndarray:
    """The features of every id, float16 [tokens, F]; those of START are 0."""
    words, lengths = ngrams.find_words(texts)
    features = np.zeros((len(words), table.num_features), np.float16)
    features[words] = table.features(hashes[texts.ids[words]], lengths)
    return features

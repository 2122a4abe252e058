"""Fits the linear classifier of n-grams, and chooses how it is blended with the network.

Both learn by themselves, and validation chooses the weights of their logits. Trained together, the
network would only learn what the classifier has left over, which on small data is noise.

A linear classifier is nearly perfect on the texts it was fitted to. The texts of the train split,
those to validate on included, are therefore cross-fitted: each is scored by a classifier that has
not seen its label.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
import scipy.sparse

from flaxrnn.config import ModelConfig
from flaxrnn.data.corpora import Corpus
from flaxrnn.data.ngrams import (
    FILES,
    Counts,
    NgramClassifier,
    View,
    count,
    document_frequencies,
    hash_tokens,
    tf_idf,
)
from flaxrnn.data.ragged import RaggedTexts
from flaxrnn.data.vocabulary import FIRST_WORD, START
from flaxrnn.runtime import distributed, files
from flaxrnn.training.calibration import calibrate
from flaxrnn.training.workdir import NGRAMS

_FOLDS = 5
_ALWAYS_FITTED = -1  # instead of the number of a fold
_SCORES = "scores.safetensors"
_FILES = (*FILES, _SCORES)
_MANY = 1_000_000  # n-grams; of more, those that occur in a single text are left out


def scores(
    config: ModelConfig,
    corpus: Corpus,
    load: Callable[[str], Corpus],
    validation: np.ndarray,
    workdir: Path,
    key: str,
) -> np.ndarray:
    """The scores of a corpus's texts, train split first, float32 [N, C].

    The primary process fits the classifier, unless an earlier start of the run or, of several
    seeds, another one has done so.

    Args:
        config: Which n-grams to use, and how to fit to them.
        corpus: The corpus.
        load: Loads it as the tokens of a tokenizer, "words" or "characters".
        validation: Which texts of the train split to validate on, int [n].
        workdir: Where the classifier is saved.
        key: Fingerprint of all that the classifier depends on.
    """
    num_labels = len(corpus.label_names)
    shape = (len(corpus.train) + len(corpus.held_out), 1 if num_labels == 2 else num_labels)
    found = np.zeros(shape, np.float32)
    if distributed.is_primary():
        folder = workdir / NGRAMS
        saved = _find_scores(folder, key)
        if saved is None:
            longest = {"words": config.word_ngrams, "characters": config.character_ngrams}
            parts = [(load(kind), n) for kind, n in longest.items() if n]
            quick = config.ngram_fit == "quick"
            size = len(corpus.train)
            folds = _one_fold(size, validation) if quick else _random_folds(size)
            saved = _fit_and_save(parts, folds, _QUICK if quick else _SETTINGS, folder, key)
        found = saved
    return np.asarray(distributed.broadcast_arrays(found))


def _find_scores(folder: Path, key: str) -> np.ndarray | None:
    """The scores that a run with the same key saved; None: there are none, or they are damaged."""
    others = sorted(folder.parent.parent.glob(f"seed-*/{NGRAMS}"))
    for saved in (folder, *others):
        if files.find_corruption(saved):
            continue
        arrays = safetensors.numpy.load_file(saved / _SCORES)
        if bytes(arrays["key"]).decode() == key:
            if saved != folder:
                files.write_folder(folder, {name: (saved / name).read_bytes() for name in _FILES})
            return arrays["scores"]
    return None


def _random_folds(size: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(size) % _FOLDS


def _one_fold(size: int, validation: np.ndarray) -> np.ndarray:
    """The texts to validate on as the only fold; if there are none, a random one."""
    if not len(validation):
        return np.where(_random_folds(size) == 0, 0, _ALWAYS_FITTED)
    folds = np.full(size, _ALWAYS_FITTED)
    folds[validation] = 0
    return folds


def _fit_and_save(
    parts: list[tuple[Corpus, int]],
    folds: np.ndarray,
    settings: Sequence[Setting],
    folder: Path,
    key: str,
) -> np.ndarray:
    """Fits the classifier to n-grams of a corpus as different tokens, each up to some length."""
    views: list[View] = []
    of_train, of_test = [], []
    for corpus, longest in parts:
        view = View(corpus.vocabulary.tokenizer.kind, longest)
        specials = np.zeros(FIRST_WORD, np.uint64)
        hashes = np.concatenate([specials, hash_tokens(corpus.vocabulary.words)])
        views.append(view)
        with ThreadPoolExecutor(2) as pool:  # NumPy sorts outside of Python's lock
            splits = [corpus.train, corpus.held_out]
            train, test = pool.map(lambda texts: _count(texts, hashes, view), splits)  # noqa: B023
        of_train.append(train)
        of_test.append(test)
    pairs = list(zip(views, of_train, strict=True))
    fitted = fit(pairs, corpus.train.labels, len(corpus.label_names), folds, settings)
    test_scores = fitted.classifier.scores(of_test, len(corpus.held_out))
    all_scores = np.concatenate([fitted.scores, test_scores])
    arrays = {"scores": all_scores, "key": np.frombuffer(key.encode(), np.uint8)}
    contents = {**fitted.classifier.to_files(), _SCORES: safetensors.numpy.save(arrays)}
    files.write_folder(folder, contents)
    return all_scores


def _count(texts: RaggedTexts, hashes: np.ndarray, view: View) -> Counts:
    words = texts.ids != START  # which is in every text
    lengths = np.diff(np.append(0, np.cumsum(words))[texts.offsets])
    return count(hashes[texts.ids[words]], lengths, view)


@dataclass(frozen=True)
class Fitted:
    """A fitted classifier.

    Attributes:
        classifier: Fitted to all training texts.
        scores: Cross-fitted scores of the training texts, float32 [N, C].
        accuracy: Accuracy of those scores.
    """

    classifier: NgramClassifier
    scores: np.ndarray
    accuracy: float


class Setting(NamedTuple):
    """How an SVM is fitted."""

    C: float  # inverse strength of the L2 penalty
    ratio: bool  # whether n-grams are weighted by their naive-Bayes log-count ratio


_SETTINGS = [Setting(C, False) for C in (0.3, 1.0, 3.0)] + [
    Setting(C, True) for C in (0.15, 0.5, 2.0)
]
_QUICK = [Setting(0.5, True)]


def fit(
    views: list[tuple[View, Counts]],
    labels: np.ndarray,
    num_labels: int,
    folds: np.ndarray,
    settings: Sequence[Setting],
) -> Fitted:
    """Fits linear SVMs to the n-grams of each view, and weighs their scores.

    Each view has SVMs of several penalties, without and with n-grams weighted by their log-count
    ratios, as in NB-SVM (Wang & Manning, 2012). The weights of their scores are those with the
    least cross-entropy on cross-fitted scores; most become 0.

    Args:
        views: The n-grams of the training texts.
        labels: int [N].
        num_labels: Number of classes.
        folds: The fold of each text, int [N]; -1: in none, its score is 0.
        settings: Of the SVMs of each view.
    """
    problems, scores = [], []
    scored = folds != _ALWAYS_FITTED
    for view, counts in views:
        start = time.perf_counter()
        problem = _Problem(counts, labels, num_labels, settings)
        of_view = problem.cross_fit(folds)
        alone = np.tensordot(calibrate(of_view[:, scored], labels[scored]), of_view, 1)
        print(
            f"{len(problem.codes):,} n-grams of"
            f" {'characters' if view.kind == 'characters' else 'words'}, 1 to {view.longest}:"
            f" cross-validated accuracy {_accuracy(alone[scored], labels[scored]):.4f};"
            f" {time.perf_counter() - start:.1f} s",
            file=sys.stderr,
        )
        problems.append(problem)
        scores.append(of_view)
    stacked = np.concatenate(scores)
    scales = calibrate(stacked[:, scored], labels[scored])
    parts = [
        problem.solve(of_view)
        for problem, of_view in zip(problems, np.split(scales, len(views)), strict=True)
    ]
    classifier = NgramClassifier(
        views=tuple(view for view, _ in views),
        codes=tuple(problem.codes for problem in problems),
        idf=tuple(problem.idf for problem in problems),
        weights=tuple(weights.astype(np.float32) for weights, _ in parts),
        bias=np.sum([bias for _, bias in parts], axis=0).astype(np.float32),
    )
    combined = np.tensordot(scales, stacked, 1)
    accuracy = _accuracy(combined[scored], labels[scored])
    return Fitted(classifier, combined.astype(np.float32), accuracy)


class _Problem:
    """The texts of a view and their labels, to fit SVMs to: one per class, or one for two."""

    def __init__(
        self, counts: Counts, labels: np.ndarray, num_labels: int, settings: Sequence[Setting]
    ):
        self._settings = settings
        codes, frequencies = document_frequencies(counts)
        known = frequencies >= (1 if len(codes) <= _MANY else 2)
        self.codes = codes[known]
        self.idf = (np.log((1 + len(labels)) / (1 + frequencies[known])) + 1).astype(np.float32)
        rows, ids, values = tf_idf(self.codes, self.idf, counts, len(labels))
        shape = (len(labels), len(self.codes))
        self._matrix = scipy.sparse.csr_matrix((values.astype(np.float64), (rows, ids)), shape)
        self._labels = labels
        self._classes = [1] if num_labels == 2 else list(range(num_labels))

    def cross_fit(self, folds: np.ndarray) -> np.ndarray:
        """Scores of the texts of each fold, int [N], by fits to the others: float64 [S, N, C]."""
        scores = np.zeros((len(self._settings), len(folds), len(self._classes)))
        for fold in range(folds.max() + 1):
            held_out = np.flatnonzero(folds == fold)
            matrix = self._matrix[held_out]
            everywhere = np.ones(len(self._settings))
            for s, column, weights, bias in self._fits(np.flatnonzero(folds != fold), everywhere):
                scores[s, held_out, column] = matrix @ weights + bias
        return scores

    def solve(self, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights [G, C] and bias [C] of the sum of all SVMs, each times its scale, [S]."""
        weights = np.zeros((len(self.codes), len(self._classes)))
        bias = np.zeros(len(self._classes))
        for s, column, of_fit, bias_of_fit in self._fits(np.arange(len(self._labels)), scales):
            weights[:, column] += scales[s] * of_fit
            bias[column] += scales[s] * bias_of_fit
        return weights, bias

    def _fits(
        self, rows: np.ndarray, scales: np.ndarray
    ) -> Iterator[tuple[int, int, np.ndarray, float]]:
        """Fits to the texts `rows`: setting, column of the class, weights [G] and bias of each.

        Settings whose scale is 0 are left out.
        """
        from sklearn.svm import LinearSVC  # takes long to import

        matrix, labels = self._matrix[rows], self._labels[rows]
        for column, label in enumerate(self._classes):
            of_class = labels == label
            trivial = of_class.all() or not of_class.any()
            ratios = np.ones(matrix.shape[1]) if trivial else _log_count_ratios(matrix, of_class)
            scaled = _scale_columns(matrix, ratios)
            for s in map(int, np.flatnonzero(scales)):
                setting = self._settings[s]
                if trivial:
                    yield s, column, np.zeros(matrix.shape[1]), 1.0 if of_class.all() else -1.0
                    continue
                svm = LinearSVC(C=setting.C, tol=0.01, random_state=0)
                svm.fit(scaled if setting.ratio else matrix, of_class)
                weights = svm.coef_[0] * ratios if setting.ratio else svm.coef_[0]
                yield s, column, weights, svm.intercept_[0]


def _scale_columns(matrix: Any, scale: np.ndarray) -> Any:
    values = matrix.data * scale[matrix.indices]
    return scipy.sparse.csr_matrix((values, matrix.indices, matrix.indptr), matrix.shape)


def _log_count_ratios(matrix: Any, of_class: np.ndarray) -> np.ndarray:
    """How much more frequent each n-gram is in texts of a class than in others, as logarithms."""
    contains = matrix.astype(bool).astype(np.float64)
    inside, outside = 1 + contains.T @ of_class, 1 + contains.T @ ~of_class
    return np.log(inside / inside.sum() / (outside / outside.sum()))


def _accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    binary = scores.shape[1] == 1
    predicted = scores[:, 0] > 0 if binary else scores.argmax(axis=1)
    return float((predicted == labels).mean())

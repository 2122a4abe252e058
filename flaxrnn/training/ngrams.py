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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
_PENALTIES = {False: (0.3, 1.0, 4.0), True: (0.15, 0.5, 2.0)}  # C, without and with ratios
_ENOUGH = 1_000  # held-out texts that penalties are chosen by, unless that takes too long
_TOO_LONG = 50_000_000  # entries of the matrix, times classes, times fits
_SCORES = "scores.safetensors"
_FILES = (*FILES, _SCORES)
_MANY = 1_000_000  # n-grams; of more, those that occur in a single text are left out


def scores(
    config: ModelConfig, corpus: Corpus, load: Callable[[str], Corpus], workdir: Path, key: str
) -> np.ndarray:
    """The scores of a corpus's texts, train split first, float32 [N, C].

    The primary process fits the classifier, unless an earlier start of the run or, of several
    seeds, another one has done so.

    Args:
        config: Which n-grams to use.
        corpus: The corpus.
        load: Loads it as the tokens of a tokenizer, "words" or "characters".
        workdir: Where the classifier is saved.
        key: Fingerprint of all that the classifier depends on.
    """
    num_labels = len(corpus.label_names)
    shape = (len(corpus.train) + len(corpus.test), 1 if num_labels == 2 else num_labels)
    found = np.zeros(shape, np.float32)
    if distributed.is_primary():
        folder = workdir / NGRAMS
        saved = _find_scores(folder, key)
        if saved is None:
            longest = {"words": config.word_ngrams, "characters": config.character_ngrams}
            parts = [(load(kind), n) for kind, n in longest.items() if n]
            saved = _fit_and_save(parts, folder, key)
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


def _fit_and_save(parts: list[tuple[Corpus, int]], folder: Path, key: str) -> np.ndarray:
    """Fits the classifier to n-grams of a corpus as different tokens, each up to some length."""
    views: list[View] = []
    of_train, of_test = [], []
    for corpus, longest in parts:
        view = View(corpus.vocabulary.tokenizer.kind, longest)
        specials = np.zeros(FIRST_WORD, np.uint64)
        hashes = np.concatenate([specials, hash_tokens(corpus.vocabulary.words)])
        views.append(view)
        of_train.append(_count(corpus.train, hashes, view))
        of_test.append(_count(corpus.test, hashes, view))
    pairs = list(zip(views, of_train, strict=True))
    fitted = fit(pairs, corpus.train.labels, len(corpus.label_names))
    test_scores = fitted.classifier.scores(of_test, len(corpus.test))
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


@dataclass(frozen=True)
class _Setting:
    """How a view's classifier is fitted."""

    C: float  # inverse strength of the L2 penalty
    ratio: bool  # whether n-grams are weighted by their naive-Bayes log-count ratio


def fit(views: list[tuple[View, Counts]], labels: np.ndarray, num_labels: int) -> Fitted:
    """Fits linear SVMs to the n-grams of each view, and a logistic regression to their scores.

    Each view has two SVMs, one of them with n-grams weighted by their log-count ratios, as in
    NB-SVM (Wang & Manning, 2012). Cross-validation chooses the penalties.

    Args:
        views: The n-grams of the training texts.
        labels: int [N].
        num_labels: Number of classes.
    """
    folds = np.random.default_rng(0).permutation(len(labels)) % _FOLDS
    tables, scores, weights, bias = [], [], [], []
    for view, counts in views:
        start = time.perf_counter()
        features = _Features(counts, len(labels))
        problem = _Problem(features.matrix, labels, num_labels)
        tables.append(features)
        settings = [_choose(problem, folds, ratio) for ratio in _PENALTIES]
        for setting in settings:
            scores.append(problem.cross_fit(folds, setting))
            of_view, bias_of_view = problem.solve(np.arange(len(labels)), setting)
            weights.append(of_view)
            bias.append(bias_of_view)
        _report(view, len(features.codes), settings, scores[-2:], labels, start)
    scales = calibrate(np.stack(scores), labels)
    combined = np.tensordot(scales, np.stack(scores), 1)
    scaled = [scale * each for scale, each in zip(scales, weights, strict=True)]
    classifier = NgramClassifier(
        views=tuple(view for view, _ in views),
        codes=tuple(features.codes for features in tables),
        idf=tuple(features.idf for features in tables),
        weights=tuple(
            (scaled[i] + scaled[i + 1]).astype(np.float32) for i in range(0, len(scaled), 2)
        ),
        bias=np.tensordot(scales, np.stack(bias), 1).astype(np.float32),
    )
    return Fitted(classifier, combined.astype(np.float32), _accuracy(combined, labels))


def _report(
    view: View,
    count: int,
    settings: list[_Setting],
    scores: list[np.ndarray],
    labels: np.ndarray,
    start: float,
) -> None:
    """Prints what was fitted to a view, how well, and in which time."""
    kind = "characters" if view.kind == "characters" else "words"
    accuracies = [
        f"{_accuracy(each, labels):.4f} ({'NB-' if setting.ratio else ''}SVM, C {setting.C:g})"
        for setting, each in zip(settings, scores, strict=True)
    ]
    print(
        f"{count:,} n-grams of {kind}, 1 to {view.longest}: cross-validated accuracy"
        f" {', '.join(accuracies)}; {time.perf_counter() - start:.1f} s",
        file=sys.stderr,
    )


class _Features:
    """The TF-IDF matrix of the training texts, and what it takes to compute that of others."""

    def __init__(self, counts: Counts, num_texts: int):
        codes, frequencies = document_frequencies(counts)
        known = frequencies >= (1 if len(codes) <= _MANY else 2)
        self.codes = codes[known]
        self.idf = (np.log((1 + num_texts) / (1 + frequencies[known])) + 1).astype(np.float32)
        rows, ids, values = tf_idf(self.codes, self.idf, counts, num_texts)
        shape = (num_texts, len(self.codes))
        self.matrix = scipy.sparse.csr_matrix((values.astype(np.float64), (rows, ids)), shape)


class _Problem:
    """One linear SVM per class, or one for two classes."""

    def __init__(self, matrix: Any, labels: np.ndarray, num_labels: int):
        self._matrix, self.labels = matrix, labels
        self._classes = [1] if num_labels == 2 else list(range(num_labels))

    @property
    def columns(self) -> int:
        """Scores per text."""
        return len(self._classes)

    def solve(self, rows: np.ndarray, setting: _Setting) -> tuple[np.ndarray, np.ndarray]:
        """Weights [G, C] and biases [C] fitted to some texts."""
        from sklearn.svm import LinearSVC  # takes long to import

        matrix, labels = self._matrix[rows], self.labels[rows]
        weights, bias = np.zeros((matrix.shape[1], self.columns)), np.full(self.columns, -1.0)
        for column, label in enumerate(self._classes):
            of_class = labels == label
            if of_class.all() or not of_class.any():
                bias[column] = 1.0 if of_class.all() else -1.0
                continue
            scale = _log_count_ratios(matrix, of_class) if setting.ratio else None
            scaled = matrix if scale is None else _scale_columns(matrix, scale)
            svm = LinearSVC(C=setting.C, tol=0.01, random_state=0).fit(scaled, of_class)
            weights[:, column] = svm.coef_[0] if scale is None else svm.coef_[0] * scale
            bias[column] = svm.intercept_[0]
        return weights, bias

    def cross_fit(self, folds: np.ndarray, setting: _Setting, all_folds: bool = True) -> Any:
        """Scores of the texts of each fold by a fit to the others, float64 [N, C].

        Args:
            folds: Of each text, int [N].
            setting: How to fit.
            all_folds: If not, enough folds to choose a setting by; other scores are NaN.
        """
        scores = np.full((len(folds), self.columns), np.nan)
        for fold in range(_FOLDS):
            scored = np.isfinite(scores[:, 0]).sum()
            work = fold * self._matrix.nnz * self.columns
            if not all_folds and (scored >= _ENOUGH or work >= _TOO_LONG):
                break
            held_out = np.flatnonzero(folds == fold)
            weights, bias = self.solve(np.flatnonzero(folds != fold), setting)
            scores[held_out] = self._matrix[held_out] @ weights + bias
        return scores


def _scale_columns(matrix: Any, scale: np.ndarray) -> Any:
    values = matrix.data * scale[matrix.indices]
    return scipy.sparse.csr_matrix((values, matrix.indices, matrix.indptr), matrix.shape)


def _log_count_ratios(matrix: Any, of_class: np.ndarray) -> np.ndarray:
    """How much more frequent each n-gram is in texts of a class than in others, as logarithms."""
    contains = matrix.astype(bool).astype(np.float64)
    inside, outside = 1 + contains.T @ of_class, 1 + contains.T @ ~of_class
    return np.log(inside / inside.sum() / (outside / outside.sum()))


def _choose(problem: _Problem, folds: np.ndarray, ratio: bool) -> _Setting:
    """The penalty with the highest accuracy on held-out texts."""

    def accuracy(setting: _Setting) -> float:
        scores = problem.cross_fit(folds, setting, all_folds=False)
        scored = np.isfinite(scores[:, 0])
        return _accuracy(scores[scored], problem.labels[scored])

    return max((_Setting(C, ratio) for C in _PENALTIES[ratio]), key=accuracy)


def _accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    binary = scores.shape[1] == 1
    predicted = scores[:, 0] > 0 if binary else scores.argmax(axis=1)
    return float((predicted == labels).mean())

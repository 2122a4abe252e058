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
import scipy.optimize
import scipy.sparse
import scipy.special

from flaxrnn.config import ModelConfig
from flaxrnn.data.batching import TrainingData
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
from flaxrnn.training.workdir import NGRAMS

_FOLDS = 5
_ENOUGH = 1_000  # held-out texts that settings are chosen by
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
    """Fits a linear SVM to the n-grams of each view, and a logistic regression to their scores.

    The penalty, and whether n-grams are weighted as in NB-SVM (Wang & Manning, 2012), are chosen
    for each view by cross-validation.

    Args:
        views: The n-grams of the training texts.
        labels: int [N].
        num_labels: Number of classes.
    """
    folds = np.random.default_rng(0).permutation(len(labels)) % _FOLDS
    parts, scores = [], []
    for view, counts in views:
        start = time.perf_counter()
        features = _Features(counts, len(labels))
        problem = _Problem(features.matrix, labels, num_labels)
        setting = _choose(problem, folds)
        held_out = np.zeros((len(labels), problem.columns))
        for fold in range(_FOLDS):
            problem.score(held_out, folds == fold, setting)
        weights, bias = problem.solve(np.arange(len(labels)), setting)
        scores.append(held_out)
        parts.append((features, weights, bias))
        accuracy = (_predictions(held_out) == labels).mean()
        print(
            f"n-grams of {'characters' if view.kind == 'characters' else 'words'}, up to"
            f" {view.longest}: {len(features.codes):,}, cross-validated accuracy {accuracy:.4f}"
            f" (C {setting.C:g}{', naive-Bayes weights' if setting.ratio else ''};"
            f" {time.perf_counter() - start:.1f} s)",
            file=sys.stderr,
        )
    scales = calibrate(np.stack(scores), labels)
    combined = np.tensordot(scales, np.stack(scores), 1)
    classifier = NgramClassifier(
        views=tuple(view for view, _ in views),
        codes=tuple(features.codes for features, _, _ in parts),
        idf=tuple(features.idf for features, _, _ in parts),
        weights=tuple(
            (scale * weights).astype(np.float32)
            for scale, (_, weights, _) in zip(scales, parts, strict=True)
        ),
        bias=sum(scale * bias for scale, (_, _, bias) in zip(scales, parts, strict=True)).astype(
            np.float32
        ),
    )
    accuracy = float((_predictions(combined) == labels).mean())
    return Fitted(classifier, combined.astype(np.float32), accuracy)


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
        self._matrix, self._labels = matrix, labels
        self._classes = [1] if num_labels == 2 else list(range(num_labels))

    @property
    def columns(self) -> int:
        """Scores per text."""
        return len(self._classes)

    def solve(self, rows: np.ndarray, setting: _Setting) -> tuple[np.ndarray, np.ndarray]:
        """Weights [G, C] and biases [C] fitted to some texts."""
        from sklearn.svm import LinearSVC  # takes long to import

        matrix, labels = self._matrix[rows], self._labels[rows]
        weights, bias = np.zeros((matrix.shape[1], self.columns)), np.full(self.columns, -1.0)
        for column, label in enumerate(self._classes):
            of_class = labels == label
            if of_class.all() or not of_class.any():
                bias[column] = 1.0 if of_class.all() else -1.0
                continue
            scale = _log_count_ratios(matrix, of_class) if setting.ratio else None
            scaled = matrix if scale is None else _scale_columns(matrix, scale)
            svm = LinearSVC(C=setting.C, random_state=0).fit(scaled, of_class)
            weights[:, column] = svm.coef_[0] if scale is None else svm.coef_[0] * scale
            bias[column] = svm.intercept_[0]
        return weights, bias

    def score(self, out: np.ndarray, held_out: np.ndarray, setting: _Setting) -> float:
        """Fits to the other texts, and writes the scores of those held out; their accuracy."""
        weights, bias = self.solve(np.flatnonzero(~held_out), setting)
        out[held_out] = self._matrix[np.flatnonzero(held_out)] @ weights + bias
        return float((_predictions(out[held_out]) == self._labels[held_out]).sum())


def _scale_columns(matrix: Any, scale: np.ndarray) -> Any:
    values = matrix.data * scale[matrix.indices]
    return scipy.sparse.csr_matrix((values, matrix.indices, matrix.indptr), matrix.shape)


def _log_count_ratios(matrix: Any, of_class: np.ndarray) -> np.ndarray:
    """How much more frequent each n-gram is in texts of a class than in others, as logarithms."""
    contains = matrix.astype(bool).astype(np.float64)
    inside, outside = 1 + contains.T @ of_class, 1 + contains.T @ ~of_class
    return np.log(inside / inside.sum() / (outside / outside.sum()))


def _choose(problem: _Problem, folds: np.ndarray) -> _Setting:
    """The setting with the highest accuracy on enough held-out texts."""
    out = np.zeros((len(folds), problem.columns))

    def correct(setting: _Setting) -> float:
        total, held_out = 0.0, 0
        for fold in range(_FOLDS):
            total += problem.score(out, folds == fold, setting)
            held_out += (folds == fold).sum()
            if held_out >= _ENOUGH:
                break
        return total

    plain, ratio = _Setting(0.5, False), _Setting(0.5, True)
    results = {setting: correct(setting) for setting in (plain, ratio)}
    best = max(results, key=results.__getitem__)
    for C in (0.15, 2.0):
        setting = _Setting(C, best.ratio)
        results[setting] = correct(setting)
    return max(results, key=results.__getitem__)


def _predictions(scores: np.ndarray) -> np.ndarray:
    return scores.argmax(axis=1) if scores.shape[1] > 1 else (scores[:, 0] > 0).astype(int)


def blend(logits: np.ndarray, data: TrainingData) -> dict[str, np.ndarray]:
    """The weights of the network's logits and the n-gram classifier's scores that suit validation.

    Args:
        logits: Of the validation texts, float32 [n, C].
        data: The texts, with scores.

    Returns:
        The parameters of `flaxrnn.nn.layers.Blend`.
    """
    rows = data.rows["val"]
    assert data.texts.scores is not None
    chosen = calibrate(np.stack([logits, data.texts.scores[rows]]), data.texts.labels[rows])
    return {"weights": np.array(distributed.broadcast(chosen.tolist()), np.float32)}


def calibrate(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The positive weights of scores that make their sum the best logits: least cross-entropy.

    Args:
        scores: float [V, N, C] of V classifiers.
        labels: int [N].

    Returns:
        float64 [V].
    """

    def loss(log_scales: np.ndarray) -> float:
        logits = np.tensordot(np.exp(log_scales), scores, 1)
        if logits.shape[1] == 1:
            return float(np.logaddexp(0, np.where(labels == 1, -1, 1) * logits[:, 0]).mean())
        likelihood = scipy.special.log_softmax(logits, axis=1)
        return float(-likelihood[np.arange(len(labels)), labels].mean())

    found = scipy.optimize.minimize(loss, np.zeros(len(scores)), method="Nelder-Mead")
    return np.exp(found.x)

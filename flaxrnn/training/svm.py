"""Linear SVMs of a matrix of n-grams, as scikit-learn fits them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from tqdm import tqdm

from flaxrnn.data.ngrams import Counts, document_frequencies, tf_idf

_MANY = 1_000_000  # n-grams; of more, those that occur in a single text are left out
_SHOWN = 20  # classes from which a line says that they are fitted to


class Setting(NamedTuple):
    """How an SVM is fitted."""

    C: float  # inverse strength of the L2 penalty
    ratio: bool  # whether n-grams are weighted by their naive-Bayes log-count ratio


class Problem:
    """The texts of a view and their labels, to fit SVMs to: one per class, or one for two.

    Labels are int [N]; or of several per text, 0 or 1, [N, C], with an SVM for each label.
    """

    def __init__(
        self,
        counts: Counts,
        labels: np.ndarray,
        num_labels: int,
        settings: Sequence[Setting],
        title: str = "n-grams",
    ):
        """Weights the n-grams; `title` is what the progress of fits is shown as."""
        self._settings, self._title = settings, title
        codes, frequencies = document_frequencies(counts)
        known = frequencies >= (1 if len(codes) <= _MANY else 2)
        self.codes = codes[known]
        self.idf = (np.log((1 + len(labels)) / (1 + frequencies[known])) + 1).astype(np.float32)
        rows, ids, values = tf_idf(self.codes, self.idf, counts, len(labels))
        shape = (len(labels), len(self.codes))
        self._matrix = scipy.sparse.csr_matrix((values.astype(np.float64), (rows, ids)), shape)
        self._labels, self._num_labels = labels, num_labels
        self._columns = num_columns(labels, num_labels)

    def cross_fit(self, folds: np.ndarray) -> np.ndarray:
        """Scores of the texts of each fold, int [N], by fits to the others: float64 [S, N, C]."""
        scores = np.zeros((len(self._settings), len(folds), self._columns))
        everywhere = np.ones(len(self._settings))
        with self._progress(folds.max() + 1) as bar:
            for fold in range(folds.max() + 1):
                held_out, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
                for s, column, weights, bias in self._fits(others, everywhere, bar):
                    scores[s, held_out, column] = self.scores(held_out, weights, bias)
        return scores

    def scores(self, rows: np.ndarray, weights: np.ndarray, bias: np.ndarray | float) -> np.ndarray:
        """Scores of the texts `rows`, for weights [G] or [G, C]."""
        return self._matrix[rows] @ weights + bias

    def solve(self, scales: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights [G, C] and bias [C] of the sum of all SVMs, each times its scale, [S].

        They are fitted to the texts `rows`.
        """
        weights = np.zeros((len(self.codes), self._columns))
        bias = np.zeros(self._columns)
        with self._progress(1) as bar:
            for s, column, of_fit, bias_of_fit in self._fits(rows, scales, bar):
                weights[:, column] += scales[s] * of_fit
                bias[column] += scales[s] * bias_of_fit
        return weights, bias

    def _progress(self, rounds: int) -> Any:
        """A progress bar of the classes of so many rounds, on a terminal; else a line, if many."""
        total = rounds * self._columns
        if self._columns >= _SHOWN and not sys.stderr.isatty():
            print(f"{self._title}: fitting to a class {total:,} times…", file=sys.stderr)
        return tqdm(desc=self._title, total=total, unit=" fits", leave=False, disable=None)

    def _fits(
        self, rows: np.ndarray, scales: np.ndarray, bar: Any
    ) -> Iterator[tuple[int, int, np.ndarray, float]]:
        """Fits to the texts `rows`: setting, column of the class, weights [G] and bias of each.

        Settings whose scale is 0 are left out; the bar is advanced with each class.
        """
        from sklearn.svm import LinearSVC  # takes long to import

        matrix, labels = self._matrix[rows], self._labels[rows]
        for column in range(self._columns):
            of_class = in_column(labels, self._num_labels, column)
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
            bar.update()


def num_columns(labels: np.ndarray, num_labels: int) -> int:
    """Scores per text: one for each class, or of two only one, that of the second.

    Args:
        labels: int [N]; or of several per text, each with a score, 0 or 1, [N, C].
        num_labels: Number of classes.
    """
    return 1 if num_labels == 2 and labels.ndim == 1 else num_labels


def in_column(labels: np.ndarray, num_labels: int, column: int) -> np.ndarray:
    """Which texts are in the class that a score is for, bool [N]; see `num_columns`."""
    if labels.ndim == 2:
        return labels[:, column] > 0
    return labels == (1 if num_labels == 2 else column)


def _scale_columns(matrix: Any, scale: np.ndarray) -> Any:
    values = matrix.data * scale[matrix.indices]
    return scipy.sparse.csr_matrix((values, matrix.indices, matrix.indptr), matrix.shape)


def _log_count_ratios(matrix: Any, of_class: np.ndarray) -> np.ndarray:
    """How much more frequent each n-gram is in texts of a class than in others, as logarithms."""
    contains = matrix.astype(bool).astype(np.float64)
    inside, outside = 1 + contains.T @ of_class, 1 + contains.T @ ~of_class
    return np.log(inside / inside.sum() / (outside / outside.sum()))

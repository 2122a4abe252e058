"""Fits the linear classifier of n-grams, and chooses how it is blended with the network.

Both learn by themselves, and validation chooses the weights of their logits. Trained together, the
network would only learn what the classifier has left over, which on small data is noise.

A linear classifier is nearly perfect on the texts it was fitted to. The texts of the train split,
those to validate on included, are therefore cross-fitted: each is scored by a classifier that has
not seen its label. Texts that a teacher has labelled are among those to fit to.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy

from flaxrnn.config import ModelConfig
from flaxrnn.data.corpora import Corpus
from flaxrnn.data.ngrams import (
    FILES,
    Counts,
    NgramClassifier,
    View,
    count,
    hash_tokens,
)
from flaxrnn.data.ragged import RaggedTexts
from flaxrnn.data.vocabulary import FIRST_WORD, START, Vocabulary
from flaxrnn.runtime import distributed, files
from flaxrnn.training import metrics
from flaxrnn.training.calibration import calibrate
from flaxrnn.training.svm import Problem, Setting, num_columns
from flaxrnn.training.workdir import NGRAMS, find_kept

_FOLDS = 5
_SCORES = "scores.safetensors"
_FILES = (*FILES, _SCORES)


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
    columns = num_columns(corpus.train.labels, num_labels)
    shape = (len(corpus.train) + len(corpus.others), columns)
    found = np.zeros(shape, np.float32)
    if distributed.is_primary():
        folder = workdir / NGRAMS
        kept = find_kept(folder, _FILES, key)
        if kept is not None:
            found = kept["scores"]
        else:
            longest = {"words": config.word_ngrams, "characters": config.character_ngrams}
            parts = [(load(kind), n) for kind, n in longest.items() if n]
            method: Callable = fit
            if config.ngram_fit == "quick":
                method = functools.partial(fit_quickly, held_out=validation)
            found = _fit_and_save(parts, method, folder, key)
    return np.asarray(distributed.broadcast_arrays(found))


def _fit_and_save(
    parts: list[tuple[Corpus, int]], method: Callable[..., Fitted], folder: Path, key: str
) -> np.ndarray:
    """Fits the classifier to n-grams of a corpus as different tokens, each up to some length."""
    views: list[View] = []
    of_labelled, of_others = [], []
    for corpus, longest in parts:
        view = View(corpus.vocabulary.tokenizer.kind, longest)
        hashes = hash_ids(corpus.vocabulary)
        views.append(view)
        with ThreadPoolExecutor(2) as pool:  # NumPy sorts outside of Python's lock
            splits = [corpus.labelled, corpus.others]
            labelled, others = pool.map(lambda texts: count_texts(texts, hashes, view), splits)  # noqa: B023
        of_labelled.append(labelled)
        of_others.append(others)
    pairs = list(zip(views, of_labelled, strict=True))
    fitted = method(pairs, corpus.labelled.labels, len(corpus.label_names))
    other_scores = fitted.classifier.scores(of_others, len(corpus.others))
    all_scores = np.concatenate([fitted.scores[: len(corpus.train)], other_scores])
    arrays = {"scores": all_scores, "key": np.frombuffer(key.encode(), np.uint8)}
    contents = {**fitted.classifier.to_files(), _SCORES: safetensors.numpy.save(arrays)}
    files.write_folder(folder, contents)
    return all_scores


def hash_ids(vocabulary: Vocabulary) -> np.ndarray:
    """The hash of each id, uint64 [V]; of the special ones 0."""
    return np.concatenate([np.zeros(FIRST_WORD, np.uint64), hash_tokens(vocabulary.words)])


def find_words(texts: RaggedTexts) -> tuple[np.ndarray, np.ndarray]:
    """Which ids are words, all but the START of each text, bool [tokens]; words per text, [N]."""
    words = texts.ids != START
    return words, np.diff(np.append(0, np.cumsum(words))[texts.offsets])


def count_texts(texts: RaggedTexts, hashes: np.ndarray, view: View) -> Counts:
    """Counts the n-grams of texts whose ids have these hashes; see `hash_ids`."""
    words, lengths = find_words(texts)
    return count(hashes[texts.ids[words]], lengths, view)


@dataclass(frozen=True)
class Fitted:
    """A fitted classifier.

    Attributes:
        classifier: Fitted to all training texts.
        scores: Cross-fitted scores of the training texts, float32 [N, C].
        accuracy: Accuracy of those scores; of several labels per text, micro-F1.
    """

    classifier: NgramClassifier
    scores: np.ndarray
    accuracy: float


_SETTINGS = [Setting(C, False) for C in (0.3, 1.0, 3.0)] + [
    Setting(C, True) for C in (0.15, 0.5, 2.0)
]
_QUICK = [Setting(0.5, True)]


def fit(views: list[tuple[View, Counts]], labels: np.ndarray, num_labels: int) -> Fitted:
    """Fits linear SVMs to the n-grams of each view, and weighs their scores.

    Each view has SVMs of several penalties, without and with n-grams weighted by their log-count
    ratios, as in NB-SVM (Wang & Manning, 2012). The weights of their scores are those with the
    least cross-entropy on cross-fitted scores; most become 0.

    Args:
        views: The n-grams of the training texts.
        labels: int [N]; or of several per text, 0 or 1, [N, C].
        num_labels: Number of classes.
    """
    everything = np.arange(len(labels))
    folds = random_folds(len(labels))
    problems, scores = [], []
    for view, counts in views:
        start = time.perf_counter()
        problem = Problem(counts, labels, num_labels, _SETTINGS, _title(view))
        of_view = problem.cross_fit(folds)
        alone = np.tensordot(calibrate(of_view, labels), of_view, 1)
        _report(view, problem, alone, labels, time.perf_counter() - start)
        problems.append(problem)
        scores.append(of_view)
    stacked = np.concatenate(scores)
    scales = calibrate(stacked, labels)
    parts = [
        problem.solve(of_view, everything)
        for problem, of_view in zip(problems, np.split(scales, len(views)), strict=True)
    ]
    combined = np.tensordot(scales, stacked, 1)
    classifier = _classifier([view for view, _ in views], problems, parts)
    return Fitted(classifier, combined.astype(np.float32), _accuracy(combined, labels))


def fit_quickly(
    views: list[tuple[View, Counts]], labels: np.ndarray, num_labels: int, held_out: np.ndarray
) -> Fitted:
    """Like `fit`, but with one NB-SVM for each view, fitted once.

    Args:
        views: The n-grams of the training texts.
        labels: See `fit`.
        num_labels: Number of classes.
        held_out: Texts to weigh the views by, int [n], which are not fitted to; the scores of all
            others are 0. If there are none, a fifth of all texts is held out.
    """
    if not len(held_out):
        held_out = np.flatnonzero(random_folds(len(labels)) == 0)
    fitted_to = np.setdiff1d(np.arange(len(labels)), held_out)
    problems, parts, scores = [], [], []
    for view, counts in views:
        start = time.perf_counter()
        problem = Problem(counts, labels, num_labels, _QUICK, _title(view))
        parts.append(problem.solve(np.ones(1), fitted_to))
        scores.append(problem.scores(held_out, *parts[-1]))
        _report(view, problem, scores[-1], labels[held_out], time.perf_counter() - start)
        problems.append(problem)
    scales = calibrate(np.stack(scores), labels[held_out])
    parts = [(s * weights, s * bias) for s, (weights, bias) in zip(scales, parts, strict=True)]
    combined = np.tensordot(scales, np.stack(scores), 1)
    all_scores = np.zeros((len(labels), combined.shape[1]), np.float32)
    all_scores[held_out] = combined
    classifier = _classifier([view for view, _ in views], problems, parts)
    return Fitted(classifier, all_scores, _accuracy(combined, labels[held_out]))


def random_folds(size: int) -> np.ndarray:
    """The fold of each text, int [N], always the same."""
    return np.random.default_rng(0).permutation(size) % _FOLDS


def _title(view: View) -> str:
    kind = "characters" if view.kind == "characters" else "words"
    return f"n-grams of {kind}, 1 to {view.longest}"


def _report(
    view: View, problem: Problem, scores: np.ndarray, labels: np.ndarray, seconds: float
) -> None:
    metric = "accuracy" if labels.ndim == 1 else "micro-F1"
    print(
        f"{len(problem.codes):,} {_title(view)}: cross-validated {metric}"
        f" {_accuracy(scores, labels):.4f}; {seconds:.1f} s",
        file=sys.stderr,
    )


def _classifier(
    views: list[View], problems: list[Problem], parts: list[tuple[np.ndarray, np.ndarray]]
) -> NgramClassifier:
    """The classifier of weights and bias for each view."""
    return NgramClassifier(
        views=tuple(views),
        codes=tuple(problem.codes for problem in problems),
        idf=tuple(problem.idf for problem in problems),
        weights=tuple(weights.astype(np.float32) for weights, _ in parts),
        bias=np.sum([bias for _, bias in parts], axis=0).astype(np.float32),
    )


def _accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    if labels.ndim == 2:
        return metrics.of_predictions(labels, scores > 0, labels.shape[1])["micro_f1"]
    binary = scores.shape[1] == 1
    predicted = scores[:, 0] > 0 if binary else scores.argmax(axis=1)
    return float((predicted == labels).mean())

"""Fitting the n-gram classifier: against scikit-learn, without leaks, and the blend."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from flaxrnn.data.ngrams import View, count, hash_tokens
from flaxrnn.training import ngrams, svm
from flaxrnn.training.calibration import calibrate

VIEW = View("words", 1)


def corpus(n, classes, signal, seed=0):
    """Texts of ten words of fifty; `signal` of the words are of the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    words = np.where(
        rng.random((n, 10)) < signal,
        labels[:, None] + classes * rng.integers(3, size=(n, 10)),
        rng.integers(50, size=(n, 10)),
    )
    return [[f"w{word}" for word in row] for row in words], labels


def counted(texts):
    hashes = hash_tokens([word for text in texts for word in text])
    return count(hashes, np.array([len(text) for text in texts]), VIEW)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_classifier_is_a_linear_svm_on_tf_idf(classes, monkeypatch):
    texts, labels = corpus(300, classes, 0.2)
    monkeypatch.setattr(ngrams, "_SETTINGS", [svm.Setting(1.0, ratio=False)])
    fitted = ngrams.fit([(VIEW, counted(texts))], labels, classes)
    matrix = TfidfVectorizer(analyzer=list, sublinear_tf=True).fit_transform(texts)
    expected = LinearSVC(C=1, random_state=0).fit(matrix, labels).decision_function(matrix)
    found = fitted.classifier.score_tokens([texts])
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999
    predicted = found.argmax(1) if classes > 2 else found[:, 0] > 0
    assert (predicted == labels).mean() > fitted.accuracy > 1.2 / classes


def test_naive_bayes_ratios_are_log_odds():
    texts, labels = corpus(200, 2, 0.5)
    problem = svm.Problem(counted(texts), labels, 2, ngrams._QUICK)
    ratios = svm._log_count_ratios(problem._matrix, labels == 1)
    has = np.array(["w1" in text for text in texts])  # a word of class 1
    of_class = (labels == 1, labels == 0)
    sizes = [len(ratios) + sum(len(set(texts[i])) for i in np.flatnonzero(c)) for c in of_class]
    odds = [(1 + has[c].sum()) / size for c, size in zip(of_class, sizes, strict=True)]
    place = np.searchsorted(problem.codes, counted([["w1"]]).codes[0])
    np.testing.assert_allclose(ratios[place], np.log(odds[0] / odds[1]))
    assert ratios[place] > 1


def test_cross_fitted_scores_do_not_know_the_labels():
    """Of labels at random, they are no better than chance, and so the classifier is not trusted."""
    texts, _ = corpus(400, 2, 0.0)
    labels = np.random.default_rng(1).integers(2, size=400)
    fitted = ngrams.fit([(VIEW, counted(texts))], labels, 2)
    assert 0.4 < fitted.accuracy < 0.6
    assert np.abs(fitted.scores).mean() < 0.3


def test_a_quick_fit_does_not_know_the_labels_it_is_judged_by():
    texts, labels = corpus(300, 2, 0.3)
    held_out = np.arange(240, 300)
    flipped = labels.copy()
    flipped[held_out] = 1 - labels[held_out]
    fitted, misled = (
        ngrams.fit_quickly([(VIEW, counted(texts))], each, 2, held_out)
        for each in (labels, flipped)
    )
    right = (fitted.scores[held_out, 0] > 0) == labels[held_out]
    assert right.mean() == fitted.accuracy > 0.8
    assert not fitted.scores[:240].any()
    assert not misled.scores.any()  # of weight 0, since they are wrong
    found = fitted.classifier.score_tokens([texts])
    np.testing.assert_allclose(found[held_out], fitted.scores[held_out], rtol=1e-4, atol=1e-5)


def test_a_quick_fit_without_texts_to_judge_by_holds_out_a_fifth():
    texts, labels = corpus(100, 4, 0.3)
    fitted = ngrams.fit_quickly([(VIEW, counted(texts))], labels, 4, np.zeros(0, int))
    assert fitted.scores.any(axis=1).sum() == 20


def test_a_class_with_a_single_text_is_fitted():
    texts, labels = corpus(60, 2, 0.5)
    labels[-1] = 2
    fitted = ngrams.fit([(VIEW, counted(texts))], labels, 4)  # and one class without any
    assert fitted.scores.shape == (60, 4)
    assert np.isfinite(fitted.scores).all()
    assert (fitted.scores[:, 3] < fitted.scores[:, :2].max(axis=1)).all()


@pytest.mark.parametrize("outputs", [1, 3])
def test_calibration_finds_the_weights_with_the_least_loss(outputs):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 2_000, outputs))
    logits = 2.0 * scores[0] + 0.5 * scores[1]
    if outputs == 1:
        labels = (rng.random(2_000) < 1 / (1 + np.exp(-logits[:, 0]))).astype(int)
        model = LogisticRegression(C=1e6, fit_intercept=False).fit(scores[:, :, 0].T, labels)
        np.testing.assert_allclose(calibrate(scores, labels), model.coef_[0], rtol=0.01)
    else:
        labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
        np.testing.assert_allclose(calibrate(scores, labels), [2, 0.5], rtol=0.2)


@pytest.mark.parametrize("several", [False, True])
def test_few_labels_leave_the_weights_near_those_expected(several):
    """Ten texts on which one classifier happens to be right say little; thousands say much."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 3_000, 3))
    labels = scores[0] > 0 if several else scores[0].argmax(axis=1)
    expected = np.array([0.0, 1.0])
    near, far = (
        calibrate(scores[:, :size], labels[:size].astype(int), expected) for size in (10, 3_000)
    )
    alone = calibrate(scores, labels.astype(int))
    assert np.linalg.norm(near - expected) < 1.5
    assert far[0] > 5 * near[0]
    assert alone[0] > far[0]
    assert near[1] > 0.3 > far[1]


def test_a_useless_classifier_counts_for_nothing():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 300, 3))
    scores[1] = -scores[0]
    weights = calibrate(scores, scores[0].argmax(axis=1))
    assert weights[1] == 0
    assert 1 < weights[0] <= 100

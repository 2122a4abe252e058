"""Fitting the n-gram classifier: against scikit-learn, without leaks, and the blend."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from flaxrnn.data.ngrams import View, count, hash_tokens
from flaxrnn.training import ngrams

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
def test_the_classifier_is_a_linear_svm_on_tf_idf(classes, capsys):
    texts, labels = corpus(300, classes, 0.2)
    fitted = ngrams.fit([(VIEW, counted(texts))], labels, classes)
    shown = capsys.readouterr().err
    C = float(shown.partition("(C ")[2].split(",")[0].split(";")[0])
    matrix = TfidfVectorizer(analyzer=list, sublinear_tf=True).fit_transform(texts)
    expected = LinearSVC(C=C, random_state=0).fit(matrix, labels).decision_function(matrix)
    found = fitted.classifier.score_tokens([texts])
    if "naive-Bayes" not in shown:
        expected = expected.reshape(len(texts), -1)
        slope = (found * expected).sum() / (expected**2).sum()
        assert slope > 0
        np.testing.assert_allclose(found, slope * expected, atol=0.05)
    correct = fitted.classifier.score_tokens([texts])
    predicted = correct.argmax(1) if classes > 2 else correct[:, 0] > 0
    assert (predicted == labels).mean() > fitted.accuracy > 1.2 / classes


def test_cross_fitted_scores_do_not_know_the_labels():
    """Of texts with labels at random, they are no better than chance."""
    texts, _ = corpus(400, 2, 0.0)
    labels = np.random.default_rng(1).integers(2, size=400)
    fitted = ngrams.fit([(VIEW, counted(texts))], labels, 2)
    assert 0.4 < fitted.accuracy < 0.6
    known = fitted.classifier.score_tokens([texts])[:, 0] > 0
    assert (known == labels).mean() > fitted.accuracy + 0.05


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
        np.testing.assert_allclose(ngrams.calibrate(scores, labels), model.coef_[0], rtol=0.01)
    else:
        labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
        np.testing.assert_allclose(ngrams.calibrate(scores, labels), [2, 0.5], rtol=0.2)

"""Thresholds of labels: those that F1 is highest at, on texts that have enough of them."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import f1_score

from flaxrnn.training import metrics, thresholds


def best_f1(scores, labels):
    cuts = [*np.unique(scores), scores.min() - 1]
    return max(f1_score(labels, scores > cut, zero_division=0) for cut in cuts)


def test_f1_is_highest_of_all_thresholds():
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 4)) < [0.2, 0.3, 0.5, 0.9]).astype(np.uint8)
    scores = (2.0 * labels - 3 + rng.normal(size=labels.shape)).round(1)  # with equal scores
    chosen = thresholds.choose(scores, labels)
    for c in range(4):
        found = f1_score(labels[:, c], scores[:, c] > chosen[c])
        assert found == pytest.approx(best_f1(scores[:, c], labels[:, c]))
    assert (chosen < 0).all()  # the scores are too low


def test_a_half_stays_where_it_is_as_good_or_labels_are_few():
    scores = np.array([[3.0, -1.0]] * 5 + [[-2.0, -2.0]] * 5)
    labels = np.array([[1, 1]] * 4 + [[1, 0]] + [[0, 0]] * 5)
    assert thresholds.choose(scores, labels).tolist() == [0, 0]
    labels[4, 1] = 1
    assert thresholds.choose(scores, labels).tolist() == [0, -1.5]
    scores[0] = np.nan
    assert thresholds.choose(scores, labels).tolist() == [0, 0]


def test_probabilities_and_logits_of_a_temperature():
    chosen = np.array([0.0, -1.5, 90.0])
    limits = thresholds.from_scores(chosen, 2.0)
    assert limits[:2] == [0.5, pytest.approx(expit(-0.75))]
    assert 0 < limits[2] < 1


def test_scores_at_thresholds_are_scikit_learns():
    rng = np.random.default_rng(1)
    labels = (rng.random((50, 3)) < 0.4).astype(np.uint8)
    logits = rng.normal(size=(50, 3)) + labels
    chosen = np.array([0.0, 0.5, -0.5])
    limits = thresholds.from_scores(chosen, 1.0)
    sums = thresholds.rescore({"loss": 1.0, "count": 50.0}, logits, labels, limits)
    found = metrics.scores(sums, metrics.class_scores(*sums["class_counts"]), several=True)
    predicted = logits > chosen
    assert found["accuracy"] == pytest.approx((predicted == labels).all(axis=1).mean())
    for average in ("micro", "macro"):
        expected = f1_score(labels, predicted, average=average)
        assert found[f"{average}_f1"] == pytest.approx(expected)
    assert "micro_f1" not in metrics.of_predictions(labels[:, 0], predicted[:, 0], 2)

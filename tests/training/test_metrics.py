import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss, precision_recall_fscore_support

from flaxrnn.training import metrics


def test_softmax_and_sigmoid_losses_are_the_log_loss():
    rng = np.random.default_rng(0)
    logits = jnp.array(rng.normal(size=(9, 4)), jnp.float32)
    labels = jnp.array(rng.integers(0, 4, 9))
    p = np.asarray(metrics.probabilities(logits), np.float64)
    p /= p.sum(axis=1, keepdims=True)  # scikit-learn asks for float64 sums of 1
    want = log_loss(labels, p, labels=range(4))
    np.testing.assert_allclose(metrics.losses(logits, labels).mean(), want, rtol=1e-5)

    logits, labels = logits[:, :1], labels % 2
    p = np.asarray(metrics.probabilities(logits), np.float64)
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        metrics.losses(logits, labels).mean(), log_loss(labels, p), rtol=1e-5
    )
    np.testing.assert_array_equal(metrics.predictions(logits), p.argmax(axis=1))


@pytest.mark.parametrize("outputs", [1, 4])
def test_sums_count_only_rows_with_weight(outputs):
    rng = np.random.default_rng(0)
    logits = jnp.array(rng.normal(size=(6, outputs)), jnp.float32)
    labels = jnp.array(rng.integers(0, max(2, outputs), 6))
    weights = jnp.array([1, 1, 1, 1, 0, 0], jnp.float32)
    whole = metrics.sums(logits, labels, weights)
    part = metrics.sums(logits[:4], labels[:4], weights[:4])
    for name in part:
        np.testing.assert_allclose(whole[name], part[name], rtol=1e-6)
    confusion = metrics.confusion(logits, labels, weights)
    assert confusion.sum() == whole["weight"] == 4
    assert jnp.trace(confusion) == whole["hits"]


def test_scores_of_classes_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 5, 60), rng.integers(0, 7, 60)  # 7 and 8 never occur
    confusion = np.zeros((9, 9))
    np.add.at(confusion, (labels, predicted), 1)
    want = f1_score(labels, predicted, average="macro")
    np.testing.assert_allclose(metrics.macro_f1(metrics.by_class(confusion)), want)

    found = metrics.by_class(confusion)
    names = ("precision", "recall", "f1", "support")
    want = precision_recall_fscore_support(labels, predicted, labels=range(9), zero_division=0)
    for name, values in zip(names, want, strict=True):
        np.testing.assert_allclose(found[name], values, err_msg=name)
    np.testing.assert_array_equal(found["predicted"], np.bincount(predicted, minlength=9))

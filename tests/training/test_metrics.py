import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

from flaxrnn.nn.heads import LabelHead
from flaxrnn.training import metrics


@pytest.mark.parametrize("num_outputs", [1, 4])
def test_sums_count_only_examples_with_weight(num_outputs):
    rng = np.random.default_rng(0)
    logits = jnp.array(rng.normal(size=(6, num_outputs)), jnp.float32)
    labels = jnp.array(rng.integers(0, max(2, num_outputs), 6))
    weights = jnp.array([1, 1, 1, 1, 0, 0], jnp.float32)
    head = LabelHead()
    whole = metrics.batch_sums(head, logits, labels, weights)
    part = metrics.batch_sums(head, logits[:4], labels[:4], weights[:4])
    for name in part:
        np.testing.assert_allclose(whole[name], part[name], rtol=1e-6)
    assert whole["count"] == 4
    assert whole["accuracy"] == (head.predictions(logits[:4]) == labels[:4]).sum()


def test_sums_are_divided_once_at_the_end():
    total = metrics.add({}, {"loss": 1.0, "accuracy": 1.0, "count": 1.0})
    total = metrics.add(total, {"loss": 3.0, "accuracy": 2.0, "count": 3.0})
    assert metrics.means(total) == {"loss": 1.0, "accuracy": 0.75}


def test_class_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 5, 60), rng.integers(0, 7, 60)  # 7 and 8 never occur
    found = metrics.class_scores(*metrics.class_totals(labels, predicted, 9))
    want = f1_score(labels, predicted, average="macro")
    np.testing.assert_allclose(metrics.macro_f1(found), want)
    names = ("precision", "recall", "f1", "support")
    want = precision_recall_fscore_support(labels, predicted, labels=range(9), zero_division=0)
    for name, values in zip(names, want, strict=True):
        np.testing.assert_allclose(found[name], values, err_msg=name)
    np.testing.assert_array_equal(found["predicted"], np.bincount(predicted, minlength=9))


def test_confusion_lists_the_pairs_that_occur():
    labels, predicted = np.array([2, 0, 2, 2, 1], np.int32), np.array([2, 1, 5, 2, 1], np.int32)
    pairs = [[0, 1, 1], [1, 1, 1], [2, 2, 2], [2, 5, 1]]
    np.testing.assert_array_equal(metrics.confusion(labels, predicted), pairs)
    many = np.arange(50_000, dtype=np.int32)  # whose matrix would take 20 GB
    assert len(metrics.confusion(many, many[::-1])) == len(many)
    assert metrics.of_predictions(many, many, len(many))["macro_f1"] == 1

import re

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss

from configs import language_model, tagging
from flaxrnn.config import parse
from flaxrnn.errors import ConfigError
from flaxrnn.nn.heads import LabelHead, LabelsHead, NextTokenHead, TagHead, get_head

HEAD = LabelHead()


def test_softmax_and_sigmoid_losses_are_the_log_loss():
    rng = np.random.default_rng(0)
    logits = jnp.array(rng.normal(size=(9, 4)), jnp.float32)
    labels = jnp.array(rng.integers(0, 4, 9))
    p = np.asarray(HEAD.probabilities(logits), np.float64)
    p /= p.sum(axis=1, keepdims=True)  # scikit-learn asks for float64 sums of 1
    want = log_loss(labels, p, labels=range(4))
    np.testing.assert_allclose(HEAD.losses(logits, labels).mean(), want, rtol=1e-5)

    logits, labels = logits[:, :1], labels % 2
    p = np.asarray(HEAD.probabilities(logits), np.float64)
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(HEAD.losses(logits, labels).mean(), log_loss(labels, p), rtol=1e-5)
    np.testing.assert_array_equal(HEAD.predictions(logits), p.argmax(axis=1))


def test_each_of_several_labels_has_its_own_log_loss_and_counts():
    rng = np.random.default_rng(0)
    head = LabelsHead()
    logits = jnp.array(rng.normal(size=(6, 3)), jnp.float32)
    labels = rng.integers(0, 2, (6, 3)).astype(np.uint8)
    p = np.asarray(head.probabilities(logits), np.float64)
    want = [
        log_loss(labels[i], np.stack([1 - p[i], p[i]], axis=1), labels=[0, 1]) for i in range(6)
    ]
    np.testing.assert_allclose(head.losses(logits, jnp.array(labels)), want, rtol=1e-5)
    weights = jnp.array([1, 1, 1, 1, 0, 0], jnp.float32)
    counts = np.asarray(head.class_counts(logits, jnp.array(labels), weights))
    assert counts.shape == head.empty_counts(3).shape
    predicted, true = p[:4] > 0.5, labels[:4] > 0
    for found, each in zip(counts, (predicted & true, true, predicted), strict=True):
        np.testing.assert_array_equal(found, each.sum(axis=0))
    correct = head.correct(logits, jnp.array(labels))[:4]
    np.testing.assert_array_equal(correct, (predicted == true).all(axis=1))
    assert head.num_outputs(2, 99) == 2
    expected = jnp.full((1, 7), head.initial_bias(7))
    np.testing.assert_allclose(head.probabilities(expected).sum(), 1, rtol=1e-6)


@pytest.mark.parametrize("head", [LabelHead(), TagHead(), NextTokenHead()])
@pytest.mark.parametrize("num_outputs", [2, 4])
def test_class_counts_hold_only_examples_with_weight(head, num_outputs):
    rng = np.random.default_rng(0)
    logits = jnp.array(rng.normal(size=(6, num_outputs)), jnp.float32)
    labels = np.array(rng.integers(0, num_outputs, 6))
    weights = jnp.array([1, 1, 1, 1, 0, 0], jnp.float32)
    counts = np.asarray(head.class_counts(logits, labels, weights))
    assert counts.shape == head.empty_counts(num_outputs).shape
    correct, support, predicted = head.class_totals(counts)
    best = np.asarray(logits).argmax(axis=1)[:4]
    np.testing.assert_array_equal(support, np.bincount(labels[:4], minlength=num_outputs))
    np.testing.assert_array_equal(predicted, np.bincount(best, minlength=num_outputs))
    assert correct.sum() == (best == labels[:4]).sum()


def test_one_logit_counts_two_classes():
    counts = HEAD.class_counts(jnp.array([[1.0], [-1.0]]), jnp.array([1, 1]), jnp.ones(2))
    np.testing.assert_array_equal(counts, [[0, 1], [0, 2], [1, 1]])


def test_tags_count_pairs_of_classes():
    head = TagHead()
    logits = jnp.array([[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]])
    counts = head.class_counts(logits, jnp.array([0, 1, 2, 2]), jnp.array([1.0, 1, 1, 0]))
    np.testing.assert_array_equal(
        head.confusion(np.asarray(counts)), [[0, 0, 1], [1, 1, 1], [2, 1, 1]]
    )
    np.testing.assert_array_equal(
        head.class_totals(np.asarray(counts)), [[1, 1, 0], [1, 1, 1], [1, 2, 0]]
    )


@pytest.mark.parametrize(
    ("module", "changes", "message"),
    [
        (language_model, {"model.bidirectional": True}, "model.bidirectional: must be False with"),
        (language_model, {"model.conv_filters": 8}, "model.conv_filters: must be 0 with model.tar"),
        (tagging, {"data.padding": "pre"}, "data.padding: must be post with model.target=tags"),
        (tagging, {"model.target": "label"}, "model.target: must be tags or next with task=bracke"),
        (tagging, {"task": "imdb"}, "model.target: must be label or next with task=imdb"),
    ],
)
def test_heads_name_the_fields_that_do_not_fit(module, changes, message):
    config = module.get_config()
    config.update_from_flattened_dict(changes)
    parsed = parse(config)
    with pytest.raises(ConfigError, match=re.escape(message)):
        get_head(parsed.model.target).check(parsed)


def test_tags_may_be_read_in_both_directions():
    config = tagging.get_config()
    config.model.bidirectional = True
    get_head("tags").check(parse(config))


def test_a_head_of_your_own_is_found_by_its_module(tmp_path, monkeypatch):
    (tmp_path / "custom_head.py").write_text(
        "from flaxrnn.nn.heads import Head\nclass Custom(Head):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert type(get_head("custom_head:Custom")).__name__ == "Custom"
    with pytest.raises(
        ConfigError, match=r"model.target: custom_head has no subclass of Head named"
    ):
        get_head("custom_head:Other")

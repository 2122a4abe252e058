import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from configs import default
from flaxrnn.config import parse
from flaxrnn.errors import ConfigError
from flaxrnn.nn.heads import LabelHead, LabelsHead
from flaxrnn.training import objective

HEAD = LabelHead()


def examples(num_outputs):
    rng = np.random.default_rng(0)
    logits = jnp.array(rng.normal(size=(6, num_outputs)), jnp.float32)
    labels = jnp.array(rng.integers(0, max(2, num_outputs), 6))
    return logits, labels, jnp.array([1, 1, 0, 1, 1, 1], jnp.float32)


@pytest.mark.parametrize("num_outputs", [1, 4])
def test_without_changes_it_is_the_loss_of_the_head(num_outputs):
    logits, labels, weights = examples(num_outputs)
    want = weights @ HEAD.losses(logits, labels)
    assert objective.Objective()(HEAD, logits, labels, weights) == want


@pytest.mark.parametrize("num_outputs", [1, 4])
def test_label_smoothing_is_the_cross_entropy_with_smoothed_targets(num_outputs):
    logits, labels, weights = examples(num_outputs)
    probabilities = np.asarray(HEAD.probabilities(logits), np.float64)
    classes = probabilities.shape[1]
    targets = 0.8 * np.eye(classes)[np.asarray(labels)] + 0.2 / classes
    want = -(targets * np.log(probabilities)).sum(axis=1) @ np.asarray(weights)
    smoothed = objective.Objective(label_smoothing=0.2)
    np.testing.assert_allclose(smoothed(HEAD, logits, labels, weights), want, rtol=1e-5)


@pytest.mark.parametrize("num_outputs", [1, 4])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_texts_without_labels_have_the_targets_of_the_classifier(num_outputs, smoothing):
    logits, labels, weights = examples(num_outputs)
    scores = jnp.asarray(np.random.default_rng(1).normal(size=logits.shape), jnp.float32)
    batch = {"labels": labels.at[:3].set(-1), "scores": scores}
    taught, targets = objective.with_teacher(HEAD, batch)
    np.testing.assert_array_equal(taught["labels"][3:], labels[3:])
    np.testing.assert_array_equal(taught["labels"][:3], HEAD.predictions(scores)[:3])
    probabilities = np.asarray(HEAD.probabilities(scores))
    want = np.eye(probabilities.shape[1])[np.asarray(labels)]
    want[:3] = probabilities[:3]
    np.testing.assert_allclose(targets, want, rtol=1e-6)
    smoothed = (1 - smoothing) * want + smoothing / want.shape[1]
    log_likelihood = np.log(np.asarray(HEAD.probabilities(logits), np.float64))
    loss = -(smoothed * log_likelihood).sum(axis=1) @ np.asarray(weights)
    learns = objective.Objective(label_smoothing=smoothing, self_training=True)
    got = learns(HEAD, logits, taught["labels"], weights, targets)
    np.testing.assert_allclose(got, loss, rtol=1e-5)


def test_squared_hinge_is_one_class_against_the_others():
    logits, labels, weights = examples(4)
    want = 0.0
    for row in (0, 1, 3, 4, 5):
        for k in range(4):
            sign = 1 if k == labels[row] else -1
            want += max(0, 1 - sign * float(logits[row, k])) ** 2
    hinge = objective.Objective("squared_hinge")
    np.testing.assert_allclose(hinge(HEAD, logits, labels, weights), want, rtol=1e-5)
    logits, labels, weights = examples(1)  # and of two classes, of their only logit
    margins = np.maximum(0, 1 - (2 * np.asarray(labels) - 1) * np.asarray(logits)[:, 0])
    want = margins**2 @ np.asarray(weights)
    np.testing.assert_allclose(hinge(HEAD, logits, labels, weights), want, rtol=1e-5)


def test_class_weights_multiply_the_losses_of_their_examples():
    logits, labels, weights = examples(4)
    weighted = objective.Objective(class_weights=(1.0, 0.5, 2.0, 3.0))
    factors = jnp.array([1.0, 0.5, 2.0, 3.0])[labels]
    want = (weights * factors) @ HEAD.losses(logits, labels)
    np.testing.assert_allclose(weighted(HEAD, logits, labels, weights), want, rtol=1e-6)


def built(labels, **changes):
    config = default.get_config()
    config.train.update(changes)
    return objective.build(parse(config).train, ["a", "b", "c"], np.array(labels))


def test_class_weights_are_named_or_balanced():
    labels = [0, 0, 0, 1, 2, 2]
    assert built(labels).class_weights is None
    want = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(built(labels, class_weights="balanced").class_weights, want)
    assert built(labels, class_weights="c=2, a=.5").class_weights == (0.5, 1.0, 2.0)
    with pytest.raises(
        ConfigError, match=r"train\.class_weights: there is no class 'd'; there are"
    ):
        built(labels, class_weights="d=2")
    for wrong in ("a", "a=x", "a=-1", "", "a=inf"):
        with pytest.raises(
            ConfigError, match=r"train\.class_weights: .* must be none, balanced, or"
        ):
            built(labels, class_weights=wrong)


def test_an_objective_is_a_static_argument():
    """Equal ones share compiled programs."""
    run = jax.jit(lambda x, of: of(HEAD, x, jnp.array([0]), jnp.ones(1)), static_argnums=1)
    for _ in range(2):
        run(jnp.ones((1, 2)), objective.Objective(class_weights=(1.0, 2.0)))
    assert run._cache_size() == 1


def test_several_labels_are_smoothed_and_separated_one_by_one():
    """Of a single label per text, the targets are those of a softmax with smoothing."""
    head, C = LabelsHead(), 4
    rng = np.random.default_rng(0)
    logits = jnp.array(rng.normal(size=(6, C)), jnp.float32)
    single = rng.integers(0, C, 6)
    labels = jnp.array(np.eye(C, dtype=np.uint8)[single])
    weights = jnp.array([1, 1, 0, 1, 1, 1], jnp.float32)
    smoothed = objective.Objective(label_smoothing=0.2)
    targets = 0.8 * np.eye(C)[single] + 0.2 / C
    p = np.asarray(jax.nn.sigmoid(logits), np.float64)
    cross_entropy = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean(axis=1)
    np.testing.assert_allclose(
        smoothed(head, logits, labels, weights), weights @ cross_entropy, rtol=1e-5
    )
    np.testing.assert_allclose(  # one-vs-rest, as with a single label
        objective.squared_hinge(logits, labels),
        objective.squared_hinge(logits, jnp.array(single)),
        rtol=1e-6,
    )

"""Temperatures, and the weights that they become a part of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import init_params, logits, shrink
from scipy.special import log_softmax

from configs import imdb, reuters
from configs import text as text_config
from flaxrnn.config import parse
from flaxrnn.nn import models
from flaxrnn.training import temperature


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("sharpness", [0.4, 3.0])
def test_it_undoes_logits_that_are_too_sharp_or_too_soft(classes, sharpness):
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(20_000, classes)) * 2
    two = honest if classes > 1 else np.concatenate([0 * honest, honest], axis=1)
    p = np.exp(log_softmax(two, axis=1))
    labels = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1)
    found = temperature.fit((sharpness * honest).astype(np.float32), labels)
    assert found == pytest.approx(sharpness, rel=0.05)


def test_it_is_that_of_the_least_loss():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(30, 4)), rng.integers(0, 4, 30)
    logits[np.arange(30), labels] += 1
    targets = np.full((30, 4), 1 / 32 / 4)
    targets[np.arange(30), labels] += 31 / 32

    def loss(t):
        return -(targets * log_softmax(logits / t, axis=1)).sum()

    best = scipy.optimize.minimize_scalar(loss, bounds=(0.05, 20), method="bounded")
    assert temperature.fit(logits, labels) == pytest.approx(best.x, rel=1e-3)


def test_a_few_right_texts_do_not_make_it_certain():
    logits, labels = np.array([[-1.0], [1.0], [1.0], [-1.0], [1.0], [1.0]]), [0, 1, 1, 0, 1, 1]
    found = temperature.fit(logits, np.array(labels))
    # The label and half of the doubt that is spread over both.
    assert 1 / (1 + np.exp(-1 / found)) == pytest.approx(1 - 1 / 16, abs=1e-3)
    assert temperature.fit(np.array([[np.nan]]), np.array([0])) == 1


@pytest.mark.parametrize("module", [imdb, reuters, text_config])
def test_logits_are_divided_and_nothing_else_changes(module):
    config = shrink(module.get_config())
    if config.task == "text":
        config.data.path = "x.csv"
    model = models.build(parse(config).model, 16, 2 if module is imdb else 3)
    params = init_params(model, jax.random.key(0))
    if model.has_scores:
        params = {**params, "blend": {"weights": jnp.array([0.7, 1.5])}}
    tokens, lengths = jnp.array([[4, 5, 6, 7]]), jnp.array([4])
    scores = jnp.arange(3.0)[None] if model.has_scores else None
    before = logits(model, params, tokens, lengths, scores=scores)
    divided = temperature.divide_logits(params, 2.5)
    after = logits(model, divided, tokens, lengths, scores=scores)
    np.testing.assert_allclose(after, before / 2.5, rtol=1e-5)
    assert temperature.divide_logits(params, 1.0) is params
    changed = {name for name in params if params[name] is not divided[name]}
    assert changed == {"blend" if model.has_scores else "dense"}

"""How far bfloat16 is from float32, and what stays float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import init_params, shrink

from configs import imdb, reuters
from flaxrnn.config import parse
from flaxrnn.nn import cells, models
from flaxrnn.runtime import devices

B, T = 6, 20


def loss_and_gradient(config, dtype, **changes):
    config = shrink(config.get_config(), dtype=dtype, **changes)
    config.model.dropout = 0.0
    model = models.build(parse(config).model, 16, 3)
    params = init_params(model, jax.random.key(0))
    rng = np.random.default_rng(0)
    noise = lambda p: np.asarray(p) + 0.3 * rng.normal(size=p.shape).astype("f")  # noqa: E731
    params = jax.tree.map(noise, params)
    tokens, labels = rng.integers(1, 16, (B, T)), rng.integers(0, 3, B)
    lengths = jnp.array([T, 1, 9, 20, 17, 5])

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(params):
        logits = models.logits(model, params, tokens, lengths)
        return model.head.losses(logits, labels).mean(), logits

    return jax.device_get(run(params))


VARIANTS = {
    "reuters": (reuters, {}),
    "imdb": (imdb, {}),
    "scan": (reuters, {"recurrence": "scan"}),
    "gru": (reuters, {"cell": "gru", "bidirectional": True, "pooling": "attention"}),
    "recompute": (imdb, {"recompute": 4, "layers": 2}),
    "segments": (reuters, {"segment": 7, "pooling": "mean", "cell": "simple"}),
}


@pytest.mark.parametrize(("config", "changes"), VARIANTS.values(), ids=VARIANTS)
def test_bfloat16_is_close_to_float32(config, changes):
    (want, want_logits), want_grads = loss_and_gradient(config, "float32", **changes)
    (loss, logits), grads = loss_and_gradient(config, "bfloat16", **changes)
    assert {x.dtype for x in jax.tree.leaves((loss, logits, grads))} == {jnp.dtype("float32")}
    assert float(loss) == pytest.approx(float(want), rel=0.01)
    assert (logits != want_logits).any()
    norm = lambda tree: np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(tree)))  # noqa: E731
    assert norm(jax.tree.map(np.subtract, grads, want_grads)) < 0.02 * norm(want_grads)


@pytest.mark.parametrize("implementation", ["fused", "scan"])
@pytest.mark.parametrize("cell", cells.CELLS)
def test_the_carry_stays_float32_over_many_steps(cell, implementation):
    """A sum of small numbers: in bfloat16 it would stop growing."""
    x = jnp.ones((2, 400, 3))
    layer = cells.CELLS[cell](4, implementation=implementation, dtype="bfloat16")
    params = jax.jit(layer.init)(jax.random.key(0), x)
    outputs, carry = jax.jit(layer.apply)(params, x)
    assert outputs.dtype == jnp.bfloat16
    assert {c.dtype for c in carry} == {jnp.dtype("float32")}
    exact = cells.CELLS[cell](4, implementation=implementation)
    for got, want in zip(carry, jax.jit(exact.apply)(params, x)[1], strict=True):
        np.testing.assert_allclose(got, want, rtol=0.02, atol=0.02)


def products(precision, function, *arguments):
    with devices.matmul_precision(precision):
        return str(jax.jit(function).trace(*arguments).jaxpr)


@pytest.mark.parametrize("config", [reuters, imdb])
def test_precision_reaches_every_product_forward_and_backward(config):
    config = shrink(config.get_config())
    model = models.build(parse(config).model, 16, 3)
    params = init_params(model, jax.random.key(0))
    tokens = jnp.ones((B, T), int)

    def loss(params):
        return models.logits(model, params, tokens, jnp.full(B, T)).sum()

    text = products("highest", jax.grad(loss), params)
    assert text.count("Precision.HIGHEST") >= 2 * text.count("dot_general[")
    assert "HIGHEST" not in products("default", jax.grad(loss), params)

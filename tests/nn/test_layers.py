import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxrnn.nn import layers


def test_convolution_and_pooling_equal_those_of_keras():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 11, 3)).astype(np.float32)
    layer = layers.Conv1D(filters=4, width=3)
    params = layer.init(jax.random.key(0), x, jnp.array([11, 11]))["params"]
    out, lengths = layer.apply({"params": params}, x, jnp.array([11, 11]))
    kernel = np.asarray(params["kernel"])
    want = np.stack([np.einsum("btd,tdf->bf", x[:, t : t + 3], kernel) for t in range(9)], axis=1)
    np.testing.assert_allclose(out, np.maximum(want, 0), rtol=1e-4, atol=1e-5)
    pooled, lengths = layers.MaxPool1D(4).apply({}, out, lengths)
    np.testing.assert_array_equal(
        pooled, np.stack([out[:, :4].max(axis=1), out[:, 4:8].max(axis=1)], axis=1)
    )
    assert lengths.tolist() == [2, 2]


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.1])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    keys = jax.random.split(jax.random.key(0), 50)
    x = jnp.ones((50, 40, 31))
    out = np.asarray(layers.Dropout(rate).apply({}, x, keys))
    np.testing.assert_allclose((out == 0).mean(), rate, atol=0.01)
    np.testing.assert_allclose(out[out != 0], 1 / (1 - rate), rtol=1e-4)
    # Independent between texts, steps and entries.
    kept = (out != 0) - (1 - rate)
    for axis in range(3):
        neighbours = (kept.take(range(1, 30), axis) * kept.take(range(29), axis)).mean()
        assert abs(neighbours) < 0.01
    alone = layers.Dropout(rate).apply({}, x[7:8], keys[7:8])
    np.testing.assert_array_equal(alone[0], out[7])
    np.testing.assert_array_equal(layers.Dropout(rate).apply({}, x, None), x)


def test_convolution_for_cpu_equals_that_of_xla():
    rng = np.random.default_rng(0)
    for B, T, E, K, F in [(3, 11, 4, 5, 6), (1, 5, 2, 5, 3), (2, 7, 3, 1, 2)]:
        x = jnp.array(rng.normal(size=(B, T, E)), jnp.float32)
        kernel = jnp.array(rng.normal(size=(K, E, F)), jnp.float32)
        weights = jnp.array(rng.normal(size=(B, T - K + 1, F)), jnp.float32)

        def run(convolve, x, kernel, weights=weights):
            out = convolve(x, kernel)
            return (out * weights).sum(), out

        gradient = jax.jit(jax.grad(run, argnums=(1, 2), has_aux=True), static_argnums=0)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
            gradient(layers.conv, x, kernel),
            gradient(layers.conv_of_xla, x, kernel),
        )


@pytest.mark.parametrize("shared", [1, 2])
def test_shared_dropout_drops_features_or_tokens_of_a_text_together(shared):
    keys = jax.random.split(jax.random.key(0), 60)
    x = jnp.ones((60, 30, 20))
    out = np.asarray(layers.Dropout(0.25, (shared,)).apply({}, x, keys))
    np.testing.assert_array_equal(
        out, np.broadcast_to(out.max(axis=shared, keepdims=True), x.shape)
    )
    np.testing.assert_allclose((out == 0).mean(), 0.25, atol=0.03)
    np.testing.assert_allclose(out[out != 0], 1 / 0.75, rtol=1e-6)
    assert len(np.unique((out == 0).reshape(60, -1), axis=0)) > 50  # texts differ
    np.testing.assert_array_equal(layers.Dropout(0.25, (shared,)).apply({}, x, None), x)


def test_max_mean_pooling_is_both_without_padding():
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    lengths = jnp.array([5, 2])
    out = layers.Pool("max_mean").apply({}, x, lengths, x[:, -1])
    for row, n in enumerate((5, 2)):
        want = np.concatenate([x[row, :n].max(axis=0), x[row, :n].mean(axis=0)])
        np.testing.assert_allclose(out[row], want, rtol=1e-6)


def test_a_pooling_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="kind: 'first' not in"):
        layers.Pool("first").apply({}, jnp.ones((1, 2, 3)), jnp.array([2]), jnp.ones((1, 3)))

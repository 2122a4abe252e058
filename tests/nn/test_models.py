import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import imdb, reuters
from flaxrnn.nn import models


def build(config, **changes):
    classes = {"reuters": 46, "imdb": 2}[config.task]
    return models.build({**config.model, **changes}, config.data.num_words, classes)


def structure(model):
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: models.init_params(model, key))
    leaves, _ = jax.tree_util.tree_flatten_with_path(shapes)
    return {
        "/".join(k.key for k in path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves
    }


def test_structure_of_the_reuters_model():
    assert structure(build(reuters.get_config())) == {
        "dense/bias": "float32[46]",
        "dense/kernel": "float32[100, 46]",
        "embed/embedding": "float32[1000, 100]",
        "lstm_0/bias": "float32[400]",
        "lstm_0/kernel": "float32[100, 400]",
        "lstm_0/recurrent_kernel": "float32[100, 400]",
    }


def test_structure_of_the_imdb_model():
    assert structure(build(imdb.get_config())) == {
        "conv/bias": "float32[64]",
        "conv/kernel": "float32[5, 100, 64]",
        "dense/bias": "float32[1]",
        "dense/kernel": "float32[55, 1]",
        "embed/embedding": "float32[5000, 100]",
        "lstm_0/bias": "float32[220]",
        "lstm_0/kernel": "float32[64, 220]",
        "lstm_0/recurrent_kernel": "float32[55, 220]",
    }


@pytest.mark.parametrize(("config", "total"), [(reuters, 185_046), (imdb, 558_520)])
def test_parameter_totals_are_those_of_the_chapter(config, total):
    params = models.init_params(build(config.get_config()), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == total


def test_initial_distributions_are_those_of_keras():
    params = models.init_params(build(imdb.get_config()), jax.random.key(0))
    limits = {
        "embed/embedding": 0.05,
        "conv/kernel": np.sqrt(6 / (5 * 100 + 5 * 64)),
        "lstm_0/kernel": np.sqrt(6 / (64 + 220)),
        "dense/kernel": np.sqrt(6 / (55 + 1)),
    }
    for path, limit in limits.items():
        layer, name = path.split("/")
        values = np.asarray(params[layer][name])
        assert 0.9 * limit < np.abs(values).max() <= limit, path
        np.testing.assert_allclose(values.mean(), 0, atol=limit / 3)
        np.testing.assert_allclose(values.std(), limit / np.sqrt(3), rtol=0.15)


def test_summary_lists_layers_shapes_and_totals():
    lines = models.summary(build(imdb.get_config()), 40, 500).splitlines()
    rows = [line.split() for line in lines]
    assert ["conv", "(Conv1D)", "(None,", "496,", "64)", "32,064"] in rows
    assert ["max_pool", "(MaxPool1D)", "(None,", "124,", "64)", "0"] in rows
    assert ["lstm_0", "(LSTM)", "(None,", "124,", "55)", "26,400"] in rows
    assert lines[-1] == "Total parameters: 558,520 (2.13 MiB)"


SMALL = {"embedding_size": 4, "hidden_size": 3, "dropout": 0.0, "conv_width": 3, "conv_pool": 2}
VARIANTS = [  # every cell, pooling and shape, in few combinations
    ("simple", "mean", False, 1, 0),
    ("lstm", "last", False, 1, 5),
    ("lstm", "attention", True, 1, 0),
    ("gru", "last", True, 2, 0),
    ("gru", "max", False, 2, 5),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v)))
def test_padding_is_invisible(variant):
    """A padded batch gives each text the logits, and the gradients, that it has alone."""
    names = ("cell", "pooling", "bidirectional", "layers", "conv_filters")
    model = build(reuters.get_config(), **SMALL, **dict(zip(names, variant, strict=True)))
    params = models.init_params(model, jax.random.key(0))
    rng = np.random.default_rng(0)
    lengths = np.array([9, 1, 6])
    tokens = np.where(np.arange(9) < lengths[:, None], rng.integers(1, 1000, (3, 9)), 0)

    def loss(params, tokens, lengths):
        logits = models.logits(model, params, tokens, lengths)
        return (logits**2).sum(), logits

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    grad, logits = gradient(params, tokens, lengths)
    alone = [
        gradient(params, tokens[b : b + 1, :n], lengths[b : b + 1]) for b, n in enumerate(lengths)
    ]
    np.testing.assert_allclose(logits, np.concatenate([x for _, x in alone]), rtol=1e-5, atol=1e-6)
    total = jax.tree.map(lambda *g: sum(g), *[g for g, _ in alone])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grad, total)


def test_convolution_and_pooling_are_keras_own():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 11, 3)).astype(np.float32)
    layer = models.Conv1D(filters=4, width=3)
    params = layer.init(jax.random.key(0), x, jnp.array([11, 11]))["params"]
    out, lengths = layer.apply({"params": params}, x, jnp.array([11, 11]))
    kernel = np.asarray(params["kernel"])
    want = np.stack([np.einsum("btd,tdf->bf", x[:, t : t + 3], kernel) for t in range(9)], axis=1)
    np.testing.assert_allclose(out, np.maximum(want, 0), rtol=1e-4, atol=1e-5)
    pooled, lengths = models.MaxPool1D(4).apply({}, out, lengths)
    np.testing.assert_array_equal(
        pooled, np.stack([out[:, :4].max(axis=1), out[:, 4:8].max(axis=1)], axis=1)
    )
    assert lengths.tolist() == [2, 2]


def test_dropout_acts_in_training_only():
    model = build(imdb.get_config())
    params = models.init_params(model, jax.random.key(0))
    tokens, lengths = np.full((2, 20), 7), np.array([20, 20])
    run = lambda keys=None: models.logits(model, params, tokens, lengths, keys)  # noqa: E731
    np.testing.assert_array_equal(run(), run())
    keys = jax.random.split(jax.random.key(1), 4)
    first, second = run(keys[:2]), run(keys[2:])
    assert (first != second).all()
    assert (first != run()).all()


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.1])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    keys = jax.random.split(jax.random.key(0), 50)
    x = jnp.ones((50, 40, 31))
    out = np.asarray(models.Dropout(rate).apply({}, x, keys))
    np.testing.assert_allclose((out == 0).mean(), rate, atol=0.01)
    np.testing.assert_allclose(out[out != 0], 1 / (1 - rate), rtol=1e-4)
    # Independent between texts, steps and entries.
    kept = (out != 0) - (1 - rate)
    for axis in range(3):
        neighbours = (kept.take(range(1, 30), axis) * kept.take(range(29), axis)).mean()
        assert abs(neighbours) < 0.01
    alone = models.Dropout(rate).apply({}, x[7:8], keys[7:8])
    np.testing.assert_array_equal(alone[0], out[7])
    np.testing.assert_array_equal(models.Dropout(rate).apply({}, x, None), x)


def test_convolution_for_cpu_equals_that_of_xla():
    rng = np.random.default_rng(0)
    for B, T, E, K, F in [(3, 11, 4, 5, 6), (1, 5, 2, 5, 3), (2, 7, 3, 1, 2)]:
        x = jnp.array(rng.normal(size=(B, T, E)), jnp.float32)
        kernel = jnp.array(rng.normal(size=(K, E, F)), jnp.float32)
        weights = jnp.array(rng.normal(size=(B, T - K + 1, F)), jnp.float32)

        def run(convolve, x, kernel, weights=weights):
            out = convolve(x, kernel)
            return (out * weights).sum(), out

        gradient = jax.grad(run, argnums=(1, 2), has_aux=True)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
            gradient(models.conv_on_cpu, x, kernel),
            gradient(models.conv, x, kernel),
        )

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import init_params, logits

from configs import imdb, reuters
from flaxrnn.config import parse
from flaxrnn.nn import models


def build(config, **changes):
    config.model.update(changes)
    labels = {"reuters": 46, "imdb": 2}[config.task]
    return models.build(parse(config).model, config.data.num_words, labels)


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
    params = init_params(build(config.get_config()), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == total


def test_initial_distributions_are_those_of_keras():
    params = init_params(build(imdb.get_config()), jax.random.key(0))
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


SMALL = {"embedding_size": 4, "hidden_size": 3, "dropout": 0.0, "conv_width": 3, "conv_pool": 2}
VARIANTS = [  # every cell, pooling and shape, in few combinations
    ("simple", "mean", False, 1, 0),
    ("lstm", "last", False, 1, 5),
    ("lstm", "attention", True, 1, 0),
    ("gru", "last", True, 2, 0),
    ("gru", "max", False, 2, 5),
    ("lstm", "max_mean", True, 2, 0),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v)))
def test_padding_is_invisible(variant):
    """A padded batch gives each text the logits, and the gradients, that it has alone."""
    names = ("cell", "pooling", "bidirectional", "layers", "conv_filters")
    model = build(reuters.get_config(), **SMALL, **dict(zip(names, variant, strict=True)))
    params = init_params(model, jax.random.key(0))
    rng = np.random.default_rng(0)
    lengths = np.array([9, 1, 6])
    tokens = np.where(np.arange(9) < lengths[:, None], rng.integers(1, 1000, (3, 9)), 0)

    def loss(params, tokens, lengths):
        found = models.logits(model, params, tokens, lengths)
        return (found**2).sum(), found

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    grad, together = gradient(params, tokens, lengths)
    alone = [
        gradient(params, tokens[b : b + 1, :n], lengths[b : b + 1]) for b, n in enumerate(lengths)
    ]
    np.testing.assert_allclose(
        together, np.concatenate([x for _, x in alone]), rtol=1e-5, atol=1e-6
    )
    total = jax.tree.map(lambda *g: sum(g), *[g for g, _ in alone])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grad, total)


def test_dropout_acts_in_training_only():
    model = build(imdb.get_config())
    params = init_params(model, jax.random.key(0))
    tokens, lengths = np.full((2, 20), 7), np.array([20, 20])
    run = lambda keys=None: logits(model, params, tokens, lengths, keys)  # noqa: E731
    np.testing.assert_array_equal(run(), run())
    keys = jax.random.split(jax.random.key(1), 5)
    first = run(models.DropoutKeys(keys[:2], keys[4]))
    second = run(models.DropoutKeys(keys[2:4], keys[4]))
    assert (first != second).all()
    assert (first != run()).all()


DROPOUTS = ["dropout", "spatial_dropout", "word_dropout", "recurrent_dropout", "output_dropout"]


@pytest.mark.parametrize("name", DROPOUTS)
def test_each_dropout_acts_in_training_only(name):
    plain = build(reuters.get_config(), **SMALL)
    model = build(reuters.get_config(), **{**SMALL, name: 0.5})
    params = init_params(model, jax.random.key(0))
    assert jax.tree.structure(params) == jax.tree.structure(init_params(plain, jax.random.key(0)))
    tokens, lengths = np.arange(40).reshape(2, 20), np.array([20, 12])
    keys = models.DropoutKeys(jax.random.split(jax.random.key(1), 2), jax.random.key(2))
    evaluated = logits(model, params, tokens, lengths)
    np.testing.assert_array_equal(evaluated, logits(plain, params, tokens, lengths))
    assert (logits(model, params, tokens, lengths, keys) != evaluated).any()


@pytest.mark.parametrize("conv_filters", [0, 4])
def test_segments_are_read_as_texts_of_their_own_and_pooled_together(conv_filters):
    changes = {**SMALL, "pooling": "max", "bidirectional": True, "conv_filters": conv_filters}
    whole = build(reuters.get_config(), **changes)
    model = build(reuters.get_config(), **changes, segment=5)
    params = init_params(model, jax.random.key(0))
    rng = np.random.default_rng(0)
    tokens, lengths = rng.integers(1, 1000, (3, 28)), np.array([28, 3, 20])
    got, of_whole = (logits(m, params, tokens, lengths) for m in (model, whole))
    one = build(reuters.get_config(), **changes, segment=99)  # one segment is the whole text
    np.testing.assert_array_equal(logits(one, params, tokens, lengths), of_whole)
    assert (got != of_whole).any()
    if conv_filters:  # the recurrence does not read tokens
        return
    # An output layer that passes on what was pooled.
    identity = {**params, "dense": {"kernel": jnp.eye(6), "bias": jnp.zeros(6)}}
    pooled = jax.jit(functools.partial(models.logits, whole.clone(num_outputs=6), identity))
    for row, n in enumerate(lengths):
        cuts = range(0, n, 5)
        pieces = np.zeros((len(cuts), 5), int)
        for piece, begin in zip(pieces, cuts, strict=True):
            piece[: min(5, n - begin)] = tokens[row, begin : min(begin + 5, n)]
        highest = pooled(pieces, np.minimum(5, n - np.array(cuts))).max(axis=0)
        want = highest @ params["dense"]["kernel"] + params["dense"]["bias"]
        np.testing.assert_allclose(got[row], want, rtol=1e-5, atol=1e-6)

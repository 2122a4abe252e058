import functools

import jax
import numpy as np
import pytest
from helpers import init_params

from configs import language_model
from flaxrnn.config import parse
from flaxrnn.data.vocabulary import FIRST_WORD, PAD
from flaxrnn.inference import programs
from flaxrnn.nn import models


def sharp_model(vocabulary_size, **changes):
    """A language model and parameters that make its distribution far from uniform."""
    config = language_model.get_config()
    config.model.update(changes)
    model = models.build(parse(config).model, vocabulary_size, 0)
    params = jax.tree.map(lambda p: 4 * p, init_params(model, jax.random.key(0)))
    return model, params


@pytest.mark.parametrize(("cell", "layers"), [("lstm", 1), ("gru", 2)])
def test_generation_equals_reading_the_whole_text_for_each_token(cell, layers):
    model, params = sharp_model(15, cell=cell, layers=layers, hidden_size=8)
    rng = np.random.default_rng(0)
    lengths = np.array([5, 1, 3, 2])
    tokens = np.where(np.arange(5) < lengths[:, None], rng.integers(4, 15, (4, 5)), 0)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    keys, cold = np.arange(8, dtype=np.uint32).reshape(4, 2), np.zeros(4, np.float32)
    generate = programs.generate_program(model, mesh, 9)
    generated = np.asarray(generate(params, tokens, lengths, keys, cold))
    logits = jax.jit(functools.partial(models.logits, model, params))
    for row, length in enumerate(lengths):
        ids = list(tokens[row, :length])
        for token in generated[row]:
            padded = np.zeros((1, 14), int)
            padded[0, : len(ids)] = ids
            last = np.array(logits(padded, np.array([len(ids)]))[0, len(ids) - 1])
            last[1:FIRST_WORD] = -np.inf
            assert token == last.argmax()
            ids.append(token)


def test_a_text_that_has_ended_stays_ended():
    model, params = sharp_model(15, hidden_size=8)
    params["dense"]["bias"] = params["dense"]["bias"].at[PAD].set(1e4)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    keys = np.arange(8, dtype=np.uint32).reshape(4, 2)
    hot = np.full(4, 1e4, np.float32)  # nearly uniform
    generate = programs.generate_program(model, mesh, 9)
    prompts, lengths = np.full((4, 1), FIRST_WORD), np.ones(4, int)
    ended = np.asarray(generate(params, prompts, lengths, keys, hot)) == PAD
    assert 0 < ended.mean() < 1
    assert (ended[:, 1:] >= ended[:, :-1]).all()


def test_only_words_and_the_end_are_generated():
    model, params = sharp_model(7, hidden_size=8)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    keys = np.arange(40, dtype=np.uint32).reshape(20, 2)
    hot = np.full(20, 1e4, np.float32)
    generate = programs.generate_program(model, mesh, 9)
    prompts, lengths = np.full((20, 1), FIRST_WORD), np.ones(20, int)
    generated = np.asarray(generate(params, prompts, lengths, keys, hot))
    assert set(generated.ravel()) == {PAD, *range(FIRST_WORD, FIRST_WORD + 3)}

import functools

import jax
import numpy as np
import pytest
from helpers import WORDS, init_params, shrink

from configs import imdb, reuters
from flaxrnn.config import parse
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.inference import saved, stablehlo
from flaxrnn.nn import models

MAXLEN = 20


@pytest.mark.parametrize(("module", "padding"), [(imdb, "post"), (reuters, "pre")])
def test_one_program_for_any_batch_equals_the_model(module, padding):
    config = shrink(module.get_config())
    config.data.padding = padding
    classes = {"imdb": 2, "reuters": 46}[config.task]
    model = models.build(parse(config).model, 16, classes)
    params = jax.tree.map(lambda p: 4 * p, init_params(model, jax.random.key(0)))
    run = saved.SavedModel(model, (params,), Vocabulary(WORDS), [], parse(config), None)
    flat = stablehlo.parameters(run)
    exported = stablehlo.lower(run)
    assert exported.platforms == stablehlo.PLATFORMS
    assert [str(arg.shape) for arg in exported.in_avals[-2:]] == ["(batch, length)", "(batch,)"]
    program = jax.jit(jax.export.deserialize(exported.serialize()).call)
    logits = jax.jit(functools.partial(models.logits, model))
    rng = np.random.default_rng(0)
    for lengths in ([1], [MAXLEN, 5, 2 * MAXLEN, 7]):
        tokens = np.zeros((len(lengths), max(lengths)), np.int32)
        kept = np.zeros((len(lengths), MAXLEN), np.int32)  # as the model was trained
        for row, clipped, length in zip(tokens, kept, lengths, strict=True):
            row[:length] = rng.integers(1, 16, length)
            last = row[:length][-MAXLEN:]
            clipped[slice(len(last)) if padding == "post" else slice(-len(last), None)] = last
        read = np.minimum(lengths, MAXLEN) if padding == "post" else np.full(len(lengths), MAXLEN)
        expected = model.head.probabilities(logits(params, kept, read))
        found = program(flat, tokens, np.array(lengths, np.int32))
        assert found.shape == (len(lengths), classes)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)

"""Folded parameters give what the plain model gives, and what they replace is not read."""

import dataclasses

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers import saved_model, shrink

from configs import imdb, reuters
from configs import text as text_config
from flaxrnn.inference import folding, predictor, stablehlo
from flaxrnn.nn import models

SEGMENTS = {"bidirectional": True, "segment": 4, "pooling": "max_mean"}
CASES = {
    "reuters": (reuters, {}),
    "gru": (reuters, {"cell": "gru", "bidirectional": True, "pooling": "attention"}),
    "scan": (reuters, {"cell": "simple", "recurrence": "scan", "layers": 2}),
    "recompute": (reuters, {"recompute": 3}),
    "imdb": (imdb, {}),
    "segments": (text_config, {"word_ngrams": 0, "character_ngrams": 0, **SEGMENTS}),
}


def example(name):
    module, changes = CASES[name]
    config = shrink(module.get_config(), **changes)
    if module is text_config:
        config.data.path = "texts.csv"
    return saved_model(config, ["a", "b", "c"])


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return request.param, example(request.param)


def batch():
    B, T = 3, 20
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, T + 1, B).astype(np.int32)
    lengths[:2] = 1, T
    tokens = np.where(np.arange(T) < lengths[:, None], rng.integers(1, 16, (B, T)), 0)
    return tokens.astype(np.int32), lengths


def logits_of(model, variables, inputs):
    @jax.jit
    def apply(variables, *inputs):
        return models.logits(model, variables.params, *inputs, folded=variables.folded)

    return apply(variables, *inputs)


def test_folded_equals_plain(case):
    _, run = case
    plain = folding.Folded(run.members[0], {})
    folded = folding.fold(run.model, run.members[0])
    assert folded.folded
    expected = logits_of(run.model, plain, batch())
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(logits_of(run.model, folded, batch()), expected, atol=1e-5)


def test_what_was_folded_is_not_read(case):
    name, run = case
    params, folded = folding.fold(run.model, run.members[0])
    unused = folding.unused(run.model, folding.Folded(params, folded))
    flat = flatten_dict(params, sep="/")
    assert ("embed/embedding" in unused) == (name != "imdb")
    assert unused <= flat.keys()
    without = {name: leaf * np.nan if name in unused else leaf for name, leaf in flat.items()}
    variables = folding.Folded(unflatten_dict(without, sep="/"), folded)
    assert np.isfinite(logits_of(run.model, variables, batch())).all()
    assert not unused & stablehlo.parameters(run).keys()


def test_on_a_cpu_a_convolution_is_looked_up():
    run = example("imdb")
    params, folded = folding.fold(run.model, run.members[0])
    params = {**params, "embed": {"embedding": params["embed"]["embedding"] * np.nan}}
    assert np.isfinite(logits_of(run.model, folding.Folded(params, folded), batch())).all()


def test_a_large_table_and_a_cell_of_your_own_are_left_as_they_are():
    run = example("gru")
    size = 16 * 3 * 5 * 4 * 2
    assert folding.fold(run.model, run.members[0], size).folded
    assert not folding.fold(run.model, run.members[0], size - 1).folded
    own = dataclasses.replace(run.model.config, cell="mine:Cell")
    assert not folding.fold(run.model.clone(config=own), run.members[0]).folded


def test_few_texts_are_not_padded_to_a_full_batch(monkeypatch):
    config = shrink(reuters.get_config())
    config.train.eval_batch_size = 20
    model = predictor.TextPredictor(saved_model(config, ["a", "b", "c"], seeds=(0, 1)))
    shapes = []
    padded = predictor.ragged.RaggedTexts.padded
    monkeypatch.setattr(
        predictor.ragged.RaggedTexts,
        "padded",
        lambda texts, *rest: shapes.append(len(texts)) or padded(texts, *rest),
    )
    texts = ["good film", "a bad plot", "oil and grain"] * 7
    expected = model.predict(texts)[1]
    assert shapes == [20, 20]
    for count in (1, 5, 9):
        np.testing.assert_allclose(model.predict(texts[:count])[1], expected[:count], atol=1e-6)
    assert shapes[2:] == [1, 8, 20]

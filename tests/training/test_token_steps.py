"""Training and evaluation steps of heads with one example per token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tagging
from flaxrnn.config import parse
from flaxrnn.data import batching, ragged
from flaxrnn.data.vocabulary import PAD
from flaxrnn.nn import models
from flaxrnn.training import optimizers, parallel, steps


def small(target, **changes):
    """A model, texts with one label per token, and a batch of all of them."""
    config = tagging.get_config()
    config.model.update({"target": target, "hidden_size": 6, **changes})
    model = models.build(parse(config).model, 15, 4)
    rng = np.random.default_rng(0)
    lengths = np.array([9, 1, 4, 12, 4, 9, 1])
    offsets = np.append(0, np.cumsum(lengths))
    ids, labels = (rng.integers(low, high, offsets[-1]) for low, high in ((4, 15), (0, 4)))
    texts = ragged.RaggedTexts(
        ids.astype(np.int32), offsets, labels.astype(np.int32), per_token=True
    )
    state = steps.init_state(model, optimizers.adam(1e-3), 0)
    return model, texts, state


def settings_of(model, buckets):
    optimizer = optimizers.adam(1e-3)
    return {"model": model, "optimizer": optimizer, "averaging": False, "buckets": buckets}


@pytest.mark.parametrize("target", ["tags", "next"])
def test_step_is_on_the_mean_over_tokens_and_padding_is_invisible(target):
    """Of the loss of each text alone; rows without weight do not count."""
    model, texts, state = small(target, bidirectional=target == "tags")
    batch = texts.padded(14, "post")
    weights = np.array([1, 1, 1, 1, 1, 0, 1], np.float32)
    step = jax.jit(functools.partial(steps.train_step, **settings_of(model, (14,))))
    new, sums, _ = step(state, {**batch, "weights": weights})

    @jax.jit
    @jax.value_and_grad
    def loss_alone(params, ids, labels):
        logits = models.logits(model, params, ids[None], jnp.array([len(ids)]))[0]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).sum()

    total, count = 0.0, 0
    gradient = jax.tree.map(jnp.zeros_like, state.params)
    rows = zip(texts.texts(), np.split(texts.labels, texts.offsets[1:-1]), weights, strict=True)
    for ids, labels, weight in rows:
        labels = labels if target == "tags" else np.append(ids[1:], PAD)
        if weight:
            loss, grads = loss_alone(state.params, ids, labels)
            total, count = total + float(loss), count + len(ids)
            gradient = jax.tree.map(jnp.add, gradient, grads)
    assert sums["count"] == count == 31
    np.testing.assert_allclose(sums["loss"], total, rtol=1e-5)
    jax.tree.map(  # Adam's first moment
        lambda g, m: np.testing.assert_allclose(m * 10, g / count, rtol=1e-3, atol=1e-6),
        gradient,
        new.opt_state[0].mu,
    )


@pytest.mark.parametrize("target", ["tags", "next"])
def test_every_token_is_counted_once_on_any_devices(target):
    model, texts, state = small(target)
    arrays = jax.tree.map(jnp.array, texts.padded(12, "post"))
    batches = batching.batches(np.arange(7), texts.lengths, (6, 12), 3)
    assert {batch.bucket for batch in batches} == {0, 1}
    results = []
    for devices in (1, 2):
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))
        resident = jax.sharding.PartitionSpec()
        evaluate = functools.partial(steps.evaluate, model=model, buckets=(6, 12))
        train = functools.partial(steps.train_steps, **settings_of(model, (12,)))
        (group,) = batching.group_batches(batches, 3, steps=4, devices=devices)
        sums, found = parallel.in_parallel(evaluate, mesh, resident, donate=False)(
            state.params, arrays, group
        )
        assert found == {}
        group = group._replace(buckets=0 * group.buckets)
        run = parallel.in_parallel(train, mesh, resident, parallel.STOP_SPEC, donate=False)
        new, _ = run(state, arrays, group, np.zeros(devices, np.int32))
        assert int(new.step) == len(batches) == 3
        results.append((sums, new.params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5), *results)
    sums, _ = results[0]
    assert sums["count"] == len(texts.ids)
    if target == "tags":
        np.testing.assert_array_equal(
            sums["class_counts"].sum(axis=1), np.bincount(texts.labels, minlength=4)
        )
        assert jnp.trace(sums["class_counts"]) == sums["accuracy"]
    else:
        correct, support, predicted = np.asarray(sums["class_counts"])
        want = np.bincount(texts.ids, minlength=15) - np.bincount(
            texts.ids[texts.offsets[:-1]], minlength=15
        )
        want[PAD] = len(texts)  # the ends
        np.testing.assert_array_equal(support, want)
        assert correct.sum() == sums["accuracy"]
        assert predicted.sum() == sums["count"]

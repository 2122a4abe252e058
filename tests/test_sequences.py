"""Outputs per token, tags and the next token, through the loop of every model; and generation."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import RESULT, shrink, weights

import flaxrnn
from configs import language_model, reuters, tagging
from flaxrnn import generate
from flaxrnn.data import batching, ragged
from flaxrnn.data.vocabulary import PAD
from flaxrnn.datasets import brackets
from flaxrnn.errors import ConfigError
from flaxrnn.nn import models
from flaxrnn.training import optimizers, steps

SIZE = 1_000  # texts of the test split


def balanced(given):
    """Whether a text is a number and a balanced string of so many pairs."""
    opened = brackets.tags(given)
    return min(opened) == opened[-1] == 0 and given.count("(") == int(given[0])


def test_texts_are_balanced_and_the_same_every_time():
    texts = brackets.texts("test")
    assert texts == brackets.texts("test") != brackets.texts("train")
    assert len(texts) == SIZE
    assert all(map(balanced, texts))
    catalan = [math.comb(2 * n, n) // (n + 1) for n in range(10)]
    assert [brackets.ways(0, 2 * n) for n in range(10)] == catalan
    of_three = [t for t in brackets.texts("train") if t[0] == "3"]
    counts = np.unique(of_three, return_counts=True)[1]
    assert len(counts) == 5
    np.testing.assert_allclose(counts / counts.sum(), 0.2, atol=0.06)
    assert brackets.tags("3(()())") == [0, 1, 2, 1, 2, 1, 0]


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """A trained language model's workdir and result."""
    workdir = tmp_path_factory.mktemp("language")
    return workdir, flaxrnn.train(language_model.get_config(), workdir)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("tagger")
    return workdir, flaxrnn.train(tagging.get_config(), workdir)


def test_language_model_comes_near_what_is_possible(language):
    workdir, result = language
    texts = brackets.texts("test")
    # The number, the string and the end: as many as the start, the number and the string.
    tokens = sum(len(t) + 1 for t in texts)
    least = sum(math.log(9) + math.log(brackets.ways(0, len(t) - 1)) for t in texts) / tokens
    assert set(result) == RESULT
    assert result["test_examples"] == tokens
    assert least < result["test_loss"] < 1.04 * least
    page = (workdir / "report.html").read_text("utf-8")
    assert f"{tokens:,} tokens" in page
    assert "<h2>Training</h2>" in page
    for title in ("Classes", "Confusion", "Most confident mistakes"):
        assert f"<h2>{title}</h2>" not in page


def test_tagger_counts_brackets(tagger):
    workdir, result = tagger
    texts = brackets.texts("test")
    tags = [0] * SIZE + [tag for t in texts for tag in brackets.tags(t)]  # the start ids' first
    trivial = np.bincount(tags).max() / len(tags)
    assert set(result) == RESULT
    assert result["test_examples"] == len(tags)
    assert trivial < 0.4
    assert result["test_accuracy"] > 0.99
    page = (workdir / "report.html").read_text("utf-8")
    assert "<h2>Confusion</h2>" in page
    assert "confident mistakes" not in page

    classifier = flaxrnn.load(workdir)
    assert classifier.tag(["3(()())", "", "1()"]) == [list("0121210"), [], list("010")]
    for misused in (classifier.predict, classifier.generate):
        with pytest.raises(ConfigError, match=r"model\.target: must be \w+ for this; .* tags"):
            misused(["1()"])


def test_generates_from_one_token(language):
    classifier = flaxrnn.load(language[0])
    prompts = [str(1 + i % 9) for i in range(180)]
    found = classifier.generate(prompts)
    right = [balanced(t) and t[0] == p for t, p in zip(found, prompts, strict=True)]
    assert np.mean(right) > 0.9
    assert len(set(found)) > 60  # drawn, not repeated
    assert found == classifier.generate(prompts)
    assert found != classifier.generate(prompts, seed=1)
    assert found[:7] == classifier.generate(prompts[:7])
    likeliest = classifier.generate(prompts, temperature=0.0)
    assert likeliest == classifier.generate(prompts, temperature=0.0, seed=1)
    assert len(set(likeliest)) == 9
    assert all(map(balanced, likeliest))
    assert classifier.generate(["5(("], length=3)[0][:3] == "5(("
    assert len(classifier.generate(["5(("], length=3)[0]) == 6
    assert classifier.generate([]) == []
    assert classifier.generate([""])[0][0] in "123456789"
    with pytest.raises(ConfigError, match="must be label for this"):
        classifier.predict(["1()"])


def test_command_generates(language, capsys):
    arguments = ["--workdir", str(language[0]), "--temperature", "0", "1", "2(("]
    generate.main(arguments)
    assert capsys.readouterr().out == "1()\n2(())\n"
    for flag, value in (("--length", "0"), ("--temperature", "-1"), ("--seed", "-1")):
        with pytest.raises(ConfigError, match=f"{flag}: {value}"):
            generate.main([*arguments, flag, value])


def small(target, **changes):
    """A model, texts with a label a token, and a batch of all of them."""
    config = tagging.get_config()
    model = models.build({**config.model, "target": target, "hidden_size": 6, **changes}, 15, 4)
    rng = np.random.default_rng(0)
    lengths = np.array([9, 1, 4, 12, 4, 9, 1])
    offsets = np.append(0, np.cumsum(lengths))
    ids, labels = (rng.integers(low, high, offsets[-1]) for low, high in ((4, 15), (0, 4)))
    texts = ragged.RaggedTexts(
        ids.astype(np.int32), offsets, labels.astype(np.int32), per_token=True
    )
    state = steps.init_state(model, optimizers.adam(1e-3, "constant", 1), 0)
    return model, texts, state


def settings_of(model, buckets):
    optimizer = optimizers.adam(1e-3, "constant", 1)
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
    assert sums["weight"] == count == 31
    np.testing.assert_allclose(sums["loss"], total, rtol=1e-5)
    jax.tree.map(  # Adam's first moment
        lambda g, m: np.testing.assert_allclose(m * 10, g / count, rtol=1e-3, atol=1e-6),
        gradient,
        new.opt_state[0].mu,
    )


@pytest.mark.parametrize("target", ["tags", "next"])
def test_every_token_is_judged_once_on_any_devices(target):
    model, texts, state = small(target)
    arrays = jax.tree.map(jnp.array, texts.padded(12, "post"))
    batches = batching.batches(np.arange(7), texts.lengths, (6, 12), 3)
    assert {batch.bucket for batch in batches} == {0, 1}
    results = []
    for devices in (1, 2):
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))
        lie = (mesh, jax.sharding.PartitionSpec())
        evaluate = functools.partial(steps.evaluate, model=model, buckets=(6, 12))
        train = functools.partial(steps.train_steps, **settings_of(model, (12,)))
        (chunk,) = batching.group_batches(batches, 3, steps=4, devices=devices)
        sums, found = steps.in_parallel(evaluate, *lie, donate=False)(state.params, arrays, chunk)
        assert found == {}
        chunk = chunk._replace(buckets=0 * chunk.buckets)
        new, _ = steps.in_parallel(train, *lie, donate=False)(state, arrays, chunk)
        assert int(new.step) == len(batches) == 3
        results.append((sums, new.params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5), *results)
    sums, _ = results[0]
    assert sums["weight"] == len(texts.ids)
    if target == "tags":
        np.testing.assert_array_equal(
            sums["confusion"].sum(axis=1), np.bincount(texts.labels, minlength=4)
        )
        assert jnp.trace(sums["confusion"]) == sums["hits"]
    else:
        hits, support, predicted = np.asarray(sums["counts"])
        want = np.bincount(texts.ids, minlength=15) - np.bincount(
            texts.ids[texts.offsets[:-1]], minlength=15
        )
        want[PAD] = len(texts)  # the ends
        np.testing.assert_array_equal(support, want)
        assert hits.sum() == sums["hits"]
        assert predicted.sum() == sums["weight"]


def test_keras_users_are_told_that_labels_are_of_tokens():
    with pytest.raises(ConfigError, match="task: 'brackets' has one label per token"):
        flaxrnn.load_data("brackets")


def test_labels_of_tokens_stay_with_them():
    texts = small("tags")[1]
    rows = texts.texts()
    labels = np.split(texts.labels, texts.offsets[1:-1])
    cut = (texts + texts).clip(15, 5).take(np.array([8, 3, 0]))
    assert len(cut) == 3
    np.testing.assert_array_equal(cut.labels, np.concatenate([labels[i][-5:] for i in (1, 3, 0)]))
    for padding, side in (("post", slice(0, 5)), ("pre", slice(2, 7))):
        padded = cut.padded(7, padding)
        assert padded["labels"].shape == (3, 7)
        np.testing.assert_array_equal(padded["labels"][1, side], labels[3][-5:])
        np.testing.assert_array_equal(padded["tokens"][1, side], rows[3][-5:])
        assert padded["labels"].sum() == cut.labels.sum()


def test_streamed_and_resident_tags_give_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(brackets, "SIZES", {"train": 90, "test": 40})
    for name, device_memory in (("streamed", 0.0), ("resident", 1.0)):
        config = tagging.get_config()
        config.data.device_memory = device_memory
        config.train.epochs = 2
        result = flaxrnn.train(config, tmp_path / name)
        assert result["resident"] == bool(device_memory)
    jax.tree.map(
        np.testing.assert_array_equal,
        weights(tmp_path / "streamed"),
        weights(tmp_path / "resident"),
    )


def test_any_corpus_trains_a_language_model(tiny_corpus, tmp_path):
    config = shrink(reuters.get_config())
    config.model.target = "next"
    config.data.num_words = 20  # more than there are words
    config.data.max_padding = 0.5
    result = flaxrnn.train(config, tmp_path)
    assert set(result) == RESULT
    history = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert history[1]["val_loss"] < history[0]["val_loss"] < 3.0
    found = flaxrnn.load(tmp_path).generate(["the good film"] * 20, length=9, temperature=50.0)
    words = [t.split() for t in found]
    assert all(of[:3] == ["the", "good", "film"] for of in words)
    assert max(map(len, words)) == 12
    assert "?" not in {word for of in words for word in of}

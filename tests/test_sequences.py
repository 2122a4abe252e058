"""Outputs per token, tags and the next token, through the loop of every model; and generation."""

import json
import math

import jax
import numpy as np
import pytest
from helpers import RESULT, compiled_as_for_users, shrink, weights

import flaxrnn
from configs import language_model, reuters, tagging
from flaxrnn import generate
from flaxrnn.datasets import brackets
from flaxrnn.errors import ConfigError

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
    with compiled_as_for_users():
        return workdir, flaxrnn.train(language_model.get_config(), workdir)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("tagger")
    with compiled_as_for_users():
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

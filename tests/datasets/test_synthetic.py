"""The synthetic corpora resemble the real ones, and the sentiment corpus needs word order."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from helpers import compiled_as_for_users
from sklearn.linear_model import LogisticRegression

from flaxrnn.config import ModelConfig
from flaxrnn.data import batching, corpora, splitting
from flaxrnn.datasets import synthetic
from flaxrnn.nn import models
from flaxrnn.training import metrics, optimizers, steps
from flaxrnn.training.trainer import Trainer

WORDS, LENGTH, TRAIN, TEST = 500, 100, 8_000, 2_000


@pytest.fixture(autouse=True)
def few_unlabelled_reviews(monkeypatch):
    """Nothing here reads them."""
    monkeypatch.setitem(synthetic.REVIEW_COUNTS, "unsupervised", 100)


def bag_of_words(split):
    counts = scipy.sparse.csr_matrix(
        (np.ones(len(split.ids)), split.ids, split.offsets), shape=(len(split), WORDS)
    )
    counts.sum_duplicates()
    return counts


def lstm_accuracy(training_data, epochs):
    config = ModelConfig(embedding_size=32, hidden_size=32, pooling="mean")
    model = models.build(config, WORDS, num_labels=2)
    optimizer = optimizers.adam(5e-3)
    trainer = Trainer(
        training_data,
        model,
        optimizer,
        averaging=False,
        batch_size=64,
        eval_batch_size=500,
        device_memory=100,
        seed=0,
    )
    state = trainer.replicate(steps.init_state(model, optimizer, 0))
    state = jax.tree.map(jnp.copy, state)
    trainer.compile(state)
    for epoch in range(epochs):
        for state, _ in trainer.epoch(state, epoch):  # noqa: B007, B020
            pass
    sums, _ = trainer.evaluate(state.params, "test")
    return metrics.means(sums)["accuracy"]


@pytest.mark.parametrize("task", ["reuters", "imdb"])
def test_counterpart_resembles_the_real_corpus(task, data_dir):
    corpus = corpora.load_corpus(task, "synthetic", data_dir)
    median, mean, words = {"reuters": (95, 146, 30_979), "imdb": (178, 239, 88_584)}[task]
    assert corpus.synthetic
    assert abs(np.median(corpus.train.lengths) / median - 1) < 0.1
    assert abs(np.mean(corpus.train.lengths) / mean - 1) < 0.05
    assert abs(len(corpus.vocabulary) / words - 1) < 0.05
    sizes = {"reuters": (8_982, 2_246), "imdb": (25_000, 25_000)}[task]
    assert (len(corpus.train), len(corpus.test)) == sizes
    if task == "reuters":
        for split in ("train", "test"):
            counts = np.bincount(getattr(corpus, split).labels, minlength=46).tolist()
            assert counts == synthetic.TOPIC_COUNTS[split]
    else:
        assert np.bincount(corpus.train.labels).tolist() == [12_500, 12_500]
    # Zipf: the most frequent thousand words cover about as much as in English text.
    share = np.mean(corpus.train.ids < 1_000)
    assert 0.6 < share < 0.85


def test_counterpart_is_deterministic():
    def generate():
        lengths = np.array([40, 10, 200])
        stream = synthetic._background(np.random.default_rng(0), 31_000, lengths.sum())
        return list(synthetic._texts(synthetic._words(31_000), stream, lengths))

    assert generate() == generate()
    words = synthetic._words(90_000)
    assert len(set(words)) == 90_000
    assert all(splitting.tokenize(w) == [w] for w in words[:1000])


def test_a_linear_bag_of_words_stays_15_points_behind_the_lstm(data_dir):
    corpus = corpora.load_corpus("imdb", "synthetic", data_dir)
    train, test = corpus.train.take(np.arange(TRAIN)), corpus.test.take(np.arange(TEST))
    training_data = batching.prepare_data(
        dataclasses.replace(corpus, train=train, test=test),
        num_words=WORDS,
        maxlen=LENGTH,
        padding="post",
        max_padding=0.1,
        validation="test",
        validation_fraction=0.1,
    )
    train, test = (training_data.texts.take(training_data.rows[name]) for name in ("train", "test"))
    linear = LogisticRegression(C=0.1, max_iter=500).fit(bag_of_words(train), train.labels)
    linear_accuracy = linear.score(bag_of_words(test), test.labels)
    with compiled_as_for_users():
        accuracy = lstm_accuracy(training_data, epochs=3)
    assert accuracy > 0.9
    assert linear_accuracy < accuracy - 0.15
    assert linear_accuracy > 0.52  # but no coin toss

"""The embedded sentiment corpus needs word order."""

import functools

import jax
import numpy as np
import scipy.sparse
from sklearn.linear_model import LogisticRegression

from flaxrnn import data, models, optim, steps

WORDS, LENGTH, TRAIN, TEST = 500, 100, 8_000, 2_000


def bag_of_words(split):
    counts = scipy.sparse.csr_matrix(
        (np.ones(len(split.ids)), split.ids, split.offsets), shape=(len(split), WORDS)
    )
    counts.sum_duplicates()
    return counts


def lstm_accuracy(train, test, epochs):
    settings = {
        "embedding_size": 32, "dropout": 0.0, "conv_filters": 0, "conv_width": 5, "conv_pool": 4,
        "cell": "lstm", "hidden_size": 32, "layers": 1, "bidirectional": False, "pooling": "mean",
        "recurrence": "auto",
    }  # fmt: skip
    model = models.build(settings, WORDS, classes=2)
    optimizer = optim.adam(5e-3)
    state = steps.init_state(model, optimizer, seed=0)
    settings = {"model": model, "optimizer": optimizer, "averaging": False}
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    train_steps = functools.partial(steps.train_steps, **settings)
    train_steps = steps.in_parallel(train_steps, mesh, donate=False)
    evaluate = steps.in_parallel(functools.partial(steps.evaluate, model=model), mesh, donate=False)
    texts = train.padded(LENGTH, "post")
    for epoch in range(epochs):
        order = data.epoch_order(len(train), 0, epoch)
        for chunk in data.chunks(order, 64, 16):
            state, _ = train_steps(state, texts, *chunk)
            jax.block_until_ready(state)
    (chunk,) = data.chunks(np.arange(len(test)), 500, 4)
    return float(evaluate(state.params, test.padded(LENGTH, "post"), *chunk)["hits"]) / len(test)


def test_a_linear_bag_of_words_stays_15_points_behind_the_lstm(data_dir):
    corpus = data.load_corpus("imdb", "synthetic", data_dir)
    train = corpus.train.clip(WORDS, LENGTH).slice(0, TRAIN)
    test = corpus.test.clip(WORDS, LENGTH).slice(0, TEST)
    linear = LogisticRegression(C=0.1, max_iter=500).fit(bag_of_words(train), train.labels)
    linear_accuracy = linear.score(bag_of_words(test), test.labels)
    accuracy = lstm_accuracy(train, test, epochs=3)
    assert accuracy > 0.9
    assert linear_accuracy < accuracy - 0.15
    assert linear_accuracy > 0.52  # the twin is no coin toss for a bag of words either

"""With `train.shards`, training and evaluation have the same bits on any number of CPU devices."""

import json
import os
import subprocess
import types

import pytest
from helpers import ROOT, python

from configs import reuters
from flaxrnn.config import parse
from flaxrnn.errors import ConfigError
from flaxrnn.runtime import devices

BITS = """
import hashlib, json, os, sys
import jax, numpy as np
from configs import imdb, reuters
from flaxrnn.config import parse
from flaxrnn.data import batching, corpora, ragged
from flaxrnn.data.vocabulary import FIRST_WORD, Vocabulary
from flaxrnn.nn import models
from flaxrnn.runtime import devices
from flaxrnn.training import optimizers, steps, trainer

if sys.argv[2] == "one core":
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
devices.initialize(int(sys.argv[1]))
words, rng = [f"w{i}" for i in range(50)], np.random.default_rng(0)

def split(n, classes):
    offsets = np.append(0, np.cumsum(rng.integers(1, 40, n)))
    ids = rng.integers(FIRST_WORD, FIRST_WORD + len(words), offsets[-1]).astype(np.int32)
    return ragged.RaggedTexts(ids, offsets, rng.integers(0, classes, n).astype(np.int32))

def bits(config, classes, memory):
    config.model.update(embedding_size=32, hidden_size=64)  # XLA splits the products
    config.model.conv_filters = min(config.model.conv_filters, 6)
    names = [str(i) for i in range(classes)]
    corpus = corpora.Corpus(
        name="tiny", synthetic=True, label_names=names, vocabulary=Vocabulary(words),
        train=split(220, classes), test=split(41, classes),
    )
    data = batching.prepare_data(
        corpus, num_words=50, maxlen=30, padding="post", max_padding=0.3, validation="train",
        validation_fraction=0.1,
    )
    model = models.build(parse(config).model, 50, classes)
    optimizer = optimizers.adam(1e-2)
    train = trainer.Trainer(
        data, model, optimizer, averaging=True, batch_size=33, eval_batch_size=17,
        device_memory=memory, seed=0, shards=int(sys.argv[1]),
    )
    state = train.replicate(jax.tree.map(jax.numpy.copy, steps.init_state(model, optimizer, 0)))
    train.compile(state)
    for epoch in (1, 2):
        for state, sums in train.epoch(state, epoch):
            pass
    found = jax.tree.leaves(jax.device_get((state, sums, train.evaluate(state.average, "test"))))
    digest = hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in found)).hexdigest()
    return train._mesh.size, digest

print(json.dumps([bits(reuters.get_config(), 46, 1024.0), bits(imdb.get_config(), 2, 0.0)]))
"""


def bits(count, cores, shards=4):
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(count), "PYTHONPATH": str(ROOT)}
    command = [*python(), "-c", BITS, str(shards), cores]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    used, digests = zip(*json.loads(done.stdout), strict=True)
    assert set(used) == {count}
    return digests


def test_the_bits_do_not_depend_on_devices_and_cores():
    """On both tasks, with dropout and buckets, texts resident on the devices and streamed."""
    expected = bits(1, "one core")
    for count in (2, 4):
        assert bits(count, "all cores") == expected, f"{count} devices"


def test_devices_that_the_shards_cannot_be_spread_over_are_left_out_or_refused(monkeypatch):
    six = [types.SimpleNamespace(platform="cpu") for _ in range(6)]
    monkeypatch.setattr("jax.devices", lambda: six)
    monkeypatch.setattr(devices, "Mesh", lambda devices, names: len(devices))
    assert [devices.make_mesh(100, shards=shards) for shards in (0, 2, 8)] == [6, 2, 4]
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(
        ConfigError, match=r"train\.shards: 8 cannot be spread evenly over 6 devices"
    ):
        devices.make_mesh(100, shards=8)


def test_the_number_of_shards_is_a_power_of_two():
    config = reuters.get_config()
    config.train.shards = 3
    with pytest.raises(ConfigError, match=r"train\.shards: 3 must be 0 or a power of two"):
        parse(config)

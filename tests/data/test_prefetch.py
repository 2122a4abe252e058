import dataclasses
import threading
import time

import jax
import numpy as np
import pytest
from conftest import tiny_split

from flaxrnn.data import batching, prefetch, ragged
from flaxrnn.runtime import devices


def training_data():
    texts = tiny_split(np.random.default_rng(0), 40, 3)
    rows = {"train": np.arange(40)}
    return batching.TrainingData(texts, texts.lengths, "post", (12, 30), rows)


def groups():
    batches = training_data().epoch_batches(4, seed=0, epoch=1)
    return list(batching.group_batches(batches, 4, steps=3))


@pytest.mark.parametrize("padding", ["post", "pre"])
def test_streamed_rows_are_the_resident_ones(padding):
    found = dataclasses.replace(training_data(), padding=padding)
    mesh = devices.make_mesh(16)
    resident, streamed = (
        prefetch.DevicePrefetcher(found, mesh, 1),
        prefetch.DevicePrefetcher(found, mesh, 0),
    )
    assert resident.resident
    assert not streamed.resident
    for (texts, group), (part, local) in zip(resident(groups()), streamed(groups()), strict=True):
        assert part["tokens"].shape == (group.rows.size, 30)
        assert part["tokens"].dtype == np.uint16
        for name in ("tokens", "lengths", "labels"):
            assert len(part[name].addressable_shards) == mesh.size
            for columns, shard in zip(([0, 1], [2, 3]), part[name].addressable_shards, strict=True):
                np.testing.assert_array_equal(
                    np.asarray(texts[name])[group.rows[:, columns]],
                    np.asarray(shard.data)[local.rows[:, columns]],
                )
        for name in ("weights", "buckets", "used"):
            np.testing.assert_array_equal(getattr(group, name), getattr(local, name))


def test_texts_are_sent_ahead_of_their_use():
    prepared = []

    def prepare(item):
        prepared.append((item, threading.current_thread() is threading.main_thread()))
        return item

    found = prefetch._ahead(prepare, range(10))
    assert next(found) == 0
    deadline = time.monotonic() + 10
    while len(prepared) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert prepared == [(0, False), (1, False), (2, False)]  # and no more than that
    assert list(found) == list(range(1, 10))


def test_what_fails_ahead_is_raised_where_it_is_used():
    def fail(item):
        raise OSError(item)

    with pytest.raises(OSError, match="0"):
        next(prefetch._ahead(fail, range(3)))


def test_ids_of_large_vocabularies_are_kept():
    texts = ragged.RaggedTexts(
        np.array([1, 70_000], np.int32), np.array([0, 2]), np.zeros(1, np.int32)
    )
    found = batching.TrainingData(texts, texts.lengths, "post", (3,), {"train": np.arange(1)})
    for memory in (0, 1):
        ((arrays, _),) = prefetch.DevicePrefetcher(found, devices.make_mesh(1), memory)(
            batching.group_batches([batching.Batch(0, np.arange(1))], 1, steps=1)
        )
        assert jax.device_get(arrays["tokens"]).tolist() == [[1, 70_000, 0]]

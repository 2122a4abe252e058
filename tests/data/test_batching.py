import functools
import itertools

import numpy as np
import pytest
from conftest import tiny_split

from flaxrnn.data import batching, corpora
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.errors import DataError

prepare_data = functools.partial(
    batching.prepare_data, padding="post", max_padding=0.1, validation="train"
)


def training_data(lengths, buckets, rows=None):
    rows = np.arange(len(lengths)) if rows is None else rows
    return batching.TrainingData(None, lengths, "post", buckets, {"train": rows})


def padding_of(lengths, buckets):
    return 1 - lengths.sum() / np.array(buckets)[np.searchsorted(buckets, lengths)].sum()


@pytest.mark.parametrize("seed", range(5))
def test_bucket_lengths_are_the_fewest_that_keep_padding_low(seed):
    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.geometric(0.05, 400), 60)
    buckets = batching.bucket_lengths(lengths, 60, max_padding=0.2)
    assert padding_of(lengths, buckets) < 0.2
    assert buckets[-1] == 60
    assert list(buckets) == sorted(set(buckets))
    fewer = itertools.combinations(range(1, 60), len(buckets) - 2)
    choices = np.array([(*choice, 60) for choice in fewer])
    padded = np.zeros(len(choices))  # tokens of all texts, with each choice of buckets
    for length, count in zip(*np.unique(lengths, return_counts=True), strict=True):
        bucket = (choices < length).sum(axis=1)
        padded += count * choices[np.arange(len(choices)), bucket]
    assert (1 - lengths.sum() / padded).min() >= 0.2
    assert batching.bucket_lengths(lengths, 60, max_padding=1.0) == (60,)
    assert len(batching.bucket_lengths(lengths, 60, max_padding=1e-9)) == 16


@pytest.mark.parametrize(
    ("n", "batch_size", "steps", "devices"), [(23, 4, 2, 1), (24, 4, 3, 8), (1, 5, 16, 2)]
)
def test_an_epoch_visits_every_text_once(n, batch_size, steps, devices):
    lengths = np.append(np.zeros(100, int), np.random.default_rng(0).integers(1, 31, n))
    buckets, rows = (5, 12, 30), np.arange(100, 100 + n)
    batches = training_data(lengths, buckets, rows).epoch_batches(batch_size, seed=3, epoch=2)
    assert len(batches) == -(-n // batch_size)  # as many as without buckets
    assert sorted(len(b.rows) for b in batches)[1:] == [batch_size] * (len(batches) - 1)
    for batch in batches:
        assert lengths[batch.rows].max() <= buckets[batch.bucket]
    visited = []
    groups = list(batching.group_batches(batches, batch_size, steps, devices))
    for group in groups:
        assert group.rows.shape == group.weights.shape
        assert group.rows.shape == (steps, -(-batch_size // devices) * devices)
        assert not group.weights[group.used :].any()
        for row, weight in zip(group.rows, group.weights, strict=True):
            visited.extend(row[weight == 1])
    np.testing.assert_array_equal(np.sort(visited), rows)
    buckets_used = np.concatenate([g.buckets[: g.used] for g in groups])
    np.testing.assert_array_equal(buckets_used, [b.bucket for b in batches])


@pytest.mark.parametrize("seed", range(20))
def test_batches_are_counted_without_making_them(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 200))
    buckets = tuple(sorted({30, *rng.integers(1, 30, 3).tolist()}))
    data = training_data(rng.integers(1, 31, n), buckets)
    for batch_size in (1, n, int(rng.integers(1, 50))):
        assert data.num_batches(batch_size) == len(data.epoch_batches(batch_size, seed, 1))


def test_batches_are_shuffled_by_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(1, 31, 200)

    def epoch(seed, epoch):
        found = training_data(lengths, (10, 30)).epoch_batches(8, seed, epoch)
        return [b.bucket for b in found], np.concatenate([b.rows for b in found]).tolist()

    assert epoch(0, 1) == epoch(0, 1)
    for other in (epoch(0, 2), epoch(1, 1)):
        assert other[0] != epoch(0, 1)[0]
        assert other[1] != epoch(0, 1)[1]


def test_order_of_an_epoch_never_changes():
    """A run that is stopped within an epoch resumes in the order of the release that began it."""
    found = training_data(np.array([2, 9, 2, 2, 9, 2, 9]), (2, 9)).epoch_batches(2, seed=3, epoch=5)
    assert [(bucket, rows.tolist()) for bucket, rows in found] == [
        (0, [0, 2]),
        (1, [4, 6]),
        (0, [5, 3]),
        (1, [1]),
    ]


def test_batches_of_a_split_are_its_rows_in_a_fixed_order():
    rows = {"train": np.arange(3), "val": np.array([4, 8, 5, 7, 6])}
    lengths = np.array([9, 9, 9, 0, 2, 9, 2, 2, 2])
    data = batching.TrainingData(None, lengths, "post", (2, 9), rows)
    found = [(bucket, rows.tolist()) for bucket, rows in data.batches("val", 2)]
    assert found == [(0, [4, 8]), (0, [7, 6]), (1, [5])]


@pytest.mark.parametrize(("task", "maxlen", "cut"), [("reuters", 100, 0.1), ("imdb", 500, 0.25)])
def test_padding_of_the_real_corpora_stays_under_a_tenth(task, maxlen, cut, manual_dir, data_dir):
    corpus = corpora.load_corpus(task, "real", data_dir, manual_dir)
    data = prepare_data(corpus, num_words=1_000, maxlen=maxlen, validation_fraction=cut)
    assert len(data.buckets) <= 8
    batches = data.epoch_batches(40, seed=0, epoch=1)
    read = sum(data.lengths[batch.rows].sum() for batch in batches)
    assert 1 - read / sum(40 * data.buckets[batch.bucket] for batch in batches) < 0.1


def test_short_texts_need_no_bucket_of_the_longest_allowed():
    rng = np.random.default_rng(0)
    corpus = corpora.Corpus(
        "", True, [], Vocabulary([]), tiny_split(rng, 50, 3), tiny_split(rng, 9, 3)
    )
    lengths = [*corpus.train.lengths, *corpus.test.lengths]
    for maxlen, longest in ((500, max(lengths)), (7, 7)):
        data = prepare_data(corpus, num_words=100, maxlen=maxlen, validation_fraction=0.2)
        assert data.buckets[-1] == longest


def test_validation_is_the_last_part_of_train_or_the_test_split():
    rng = np.random.default_rng(0)
    train, test = tiny_split(rng, 50, 3), tiny_split(rng, 9, 3)
    corpus = corpora.Corpus("", True, [], Vocabulary([]), train, test)
    options = {"num_words": 100, "maxlen": 30, "validation_fraction": 0.2}
    rows = prepare_data(corpus, **options).rows
    assert [rows[split].tolist() for split in ("train", "val", "test")] == [
        [*range(40)],
        [*range(40, 50)],
        [*range(50, 59)],
    ]
    rows = prepare_data(corpus, **options, validation="test").rows
    assert rows["train"].tolist() == [*range(50)]
    assert rows["val"].tolist() == rows["test"].tolist() == [*range(50, 59)]
    rows = prepare_data(corpus, **options, validation="stratified").rows
    assert sorted([*rows["train"], *rows["val"]]) == [*range(50)]
    assert rows["test"].tolist() == [*range(50, 59)]
    other = prepare_data(corpus, **options, validation="stratified", seed=1).rows
    assert other["val"].tolist() != rows["val"].tolist()
    with pytest.raises(
        DataError, match=r"data\.validation_fraction: 0\.001 of 50 texts leaves none"
    ):
        prepare_data(corpus, **{**options, "validation_fraction": 0.001})


@pytest.mark.parametrize(
    ("num_texts", "expected"), [(1, 4), (60, 4), (500, 8), (822, 16), (1_500, 32), (10**6, 32)]
)
def test_few_texts_have_small_batches(num_texts, expected):
    assert batching.suitable_batch_size(num_texts) == expected

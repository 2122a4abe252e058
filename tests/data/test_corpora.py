import functools
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_split

import flaxrnn
from flaxrnn.data import batching, corpora, ragged, tokenizers
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.errors import ConfigError


@pytest.fixture
def split():
    return tiny_split(np.random.default_rng(1), n=23, classes=3)


def test_clip_limits_words_and_keeps_the_last_tokens(split):
    clipped = split.clip(num_words=8, maxlen=5)
    for whole, cut in zip(split.texts(), clipped.texts(), strict=True):
        np.testing.assert_array_equal(np.where(whole < 8, whole, 2)[-5:], cut)
    assert clipped.ids.dtype == np.int32


def test_take_and_add_give_the_texts_asked_for(split):
    rows = np.array([4, 22, 4, 0])
    part = split.take(rows) + split.take(rows[:0]) + split.take(rows[1:2])
    wanted = [*rows, 22]
    assert len(part) == 5
    for got, row in zip(part.texts(), wanted, strict=True):
        np.testing.assert_array_equal(got, split.texts()[row])
    np.testing.assert_array_equal(part.labels, split.labels[wanted])
    assert part.ids.dtype == np.int32


@pytest.mark.parametrize("padding", ["post", "pre"])
def test_padded_holds_every_text_as_it_is(split, padding):
    arrays = split.padded(30, padding)
    assert {k: (v.shape, str(v.dtype)) for k, v in arrays.items()} == {
        "tokens": ((23, 30), "int32"),
        "lengths": ((23,), "int32"),
        "labels": ((23,), "int32"),
    }
    for row, length, want in zip(arrays["tokens"], arrays["lengths"], split.texts(), strict=True):
        if padding == "post":
            assert length == len(want)
            np.testing.assert_array_equal(row, np.pad(want, (0, 30 - len(want))))
        else:
            assert length == 30
            np.testing.assert_array_equal(row, np.pad(want, (30 - len(want), 0)))


def test_clip_of_a_text_without_a_token():
    empty = ragged.RaggedTexts(
        np.array([7, 8], np.int32), np.array([0, 0, 2, 2]), np.zeros(3, np.int32)
    )
    np.testing.assert_array_equal(empty.clip(100, 1).offsets, [0, 0, 1, 1])
    np.testing.assert_array_equal(empty.clip(100, 1).ids, [8])


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
    assert min(padding_of(lengths, (*choice, 60)) for choice in fewer) >= 0.2
    assert batching.bucket_lengths(lengths, 60, max_padding=1.0) == (60,)
    assert len(batching.bucket_lengths(lengths, 60, max_padding=1e-9)) == 16


@pytest.mark.parametrize(
    ("n", "batch_size", "steps", "devices"), [(23, 4, 2, 1), (24, 4, 3, 8), (1, 5, 16, 2)]
)
def test_an_epoch_visits_every_text_once(n, batch_size, steps, devices):
    lengths = np.random.default_rng(0).integers(1, 31, n)
    buckets = (5, 12, 30)
    rows = np.arange(100, 100 + n)
    lengths_by_row = np.append(np.zeros(100, int), lengths)
    batches = batching.epoch_batches(rows, lengths_by_row, buckets, batch_size, seed=3, epoch=2)
    assert len(batches) == -(-n // batch_size)  # as many as without buckets
    assert sorted(len(b.rows) for b in batches)[1:] == [batch_size] * (len(batches) - 1)
    for batch in batches:
        assert lengths_by_row[batch.rows].max() <= buckets[batch.bucket]
    visited = []
    chunks = list(batching.group_batches(batches, batch_size, steps, devices))
    for chunk in chunks:
        assert chunk.rows.shape == chunk.weights.shape
        assert chunk.rows.shape == (steps, -(-batch_size // devices) * devices)
        assert not chunk.weights[chunk.used :].any()
        for row, weight in zip(chunk.rows, chunk.weights, strict=True):
            visited.extend(row[weight == 1])
    np.testing.assert_array_equal(np.sort(visited), rows)
    buckets_used = np.concatenate([c.buckets[: c.used] for c in chunks])
    np.testing.assert_array_equal(buckets_used, [b.bucket for b in batches])


def test_batches_are_shuffled_by_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(1, 31, 200)

    def epoch(seed, epoch):
        found = batching.epoch_batches(np.arange(200), lengths, (10, 30), 8, seed, epoch)
        return [b.bucket for b in found], np.concatenate([b.rows for b in found]).tolist()

    assert epoch(0, 1) == epoch(0, 1)
    for other in (epoch(0, 2), epoch(1, 1)):
        assert other[0] != epoch(0, 1)[0]
        assert other[1] != epoch(0, 1)[1]


arranged = functools.partial(
    batching.prepare_data, padding="post", max_padding=0.1, validation="train"
)


@pytest.mark.parametrize(("task", "maxlen", "cut"), [("reuters", 100, 0.1), ("imdb", 500, 0.25)])
def test_padding_of_the_real_corpora_stays_under_a_tenth(task, maxlen, cut, manual_dir, data_dir):
    corpus = corpora.load_corpus(task, "real", data_dir, manual_dir)
    training_data = arranged(corpus, num_words=1_000, maxlen=maxlen, validation_fraction=cut)
    assert len(training_data.buckets) <= 8
    batches = batching.epoch_batches(
        training_data.rows["train"],
        training_data.lengths,
        training_data.buckets,
        40,
        seed=0,
        epoch=1,
    )
    read = sum(training_data.lengths[batch.rows].sum() for batch in batches)
    assert 1 - read / sum(40 * training_data.buckets[batch.bucket] for batch in batches) < 0.1


def test_short_texts_need_no_bucket_of_the_longest_allowed():
    rng = np.random.default_rng(0)
    corpus = corpora.Corpus(
        "", True, [], Vocabulary([]), tiny_split(rng, 50, 3), tiny_split(rng, 9, 3)
    )
    lengths = [*corpus.train.lengths, *corpus.test.lengths]
    for maxlen, longest in ((500, max(lengths)), (7, 7)):
        training_data = arranged(corpus, num_words=100, maxlen=maxlen, validation_fraction=0.2)
        assert training_data.buckets[-1] == longest


def test_second_load_reads_no_text(data_dir, monkeypatch):
    first = corpora.load_corpus("reuters", "synthetic", data_dir)
    monkeypatch.setattr(tokenizers.Tokenizer, "__call__", lambda *_: pytest.fail("a text was read"))
    again = corpora.load_corpus("reuters", "synthetic", data_dir)
    np.testing.assert_array_equal(first.train.ids, again.train.ids)
    assert first.vocabulary.words == again.vocabulary.words


def test_damaged_cache_is_made_anew(data_dir):
    first = corpora.load_corpus("reuters", "synthetic", data_dir)
    (cache,) = Path(data_dir).glob("encoded/synthetic_reuters*")
    file = cache / "arrays.safetensors"
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 1
    for damaged in (bytes(flipped), content[:1000], b"", None):
        file.unlink() if damaged is None else file.write_bytes(damaged)
        again = corpora.load_corpus("reuters", "synthetic", data_dir)
        np.testing.assert_array_equal(first.train.ids, again.train.ids)
        assert file.read_bytes() == content


def test_damaged_dataset_is_prepared_again(data_dir, tmp_path, capsys):
    first = corpora.load_corpus("reuters", "synthetic", data_dir)
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
    rng = np.random.default_rng(0)
    dataset = tmp_path / "synthetic_reuters_topics" / "1.0.0"
    for name in sorted(path.name for path in dataset.iterdir()):
        shutil.rmtree(tmp_path / "encoded")
        path = dataset / name
        content = bytearray(path.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        again = corpora.load_corpus("reuters", "synthetic", str(tmp_path))
        np.testing.assert_array_equal(first.train.ids, again.train.ids)
        assert f"{name} is damaged; it is prepared again" in capsys.readouterr().err


def test_load_data_gives_what_keras_users_know(data_dir):
    options = {"source": "synthetic", "data_dir": data_dir}
    (x_train, y_train), (x_test, y_test) = flaxrnn.load_data("reuters", num_words=500, **options)
    assert len(x_train) == len(y_train) == 8_982
    assert len(x_test) == len(y_test) == 2_246
    assert isinstance(x_train, list)
    assert max(row.max() for row in x_train) == 499
    assert all(row[0] == 1 for row in x_train)
    (padded, _), _ = flaxrnn.load_data("reuters", num_words=500, maxlen=40, **options)
    assert padded.shape == (8_982, 40)
    row = x_train[0][-40:]
    np.testing.assert_array_equal(padded[0, 40 - len(row) :], row)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "mnist"}, "task: 'mnist' is not one of reuters"),
        ({"task": "imdb", "source": "web"}, "data.source: 'web' is not one of auto"),
        ({"task": "imdb", "num_words": 3}, "num_words: 3"),
        ({"task": "imdb", "maxlen": 0}, "maxlen: 0"),
    ],
)
def test_load_data_refuses_the_impossible(arguments, message):
    with pytest.raises(ConfigError, match=message):
        flaxrnn.load_data(**arguments)

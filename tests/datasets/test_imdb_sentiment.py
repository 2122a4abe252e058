import numpy as np

from flaxrnn.data import corpora
from flaxrnn.datasets import preparation, registry


def test_imdb_splits_and_vocabulary(data_dir, manual_dir):
    builder = preparation.prepare(registry.TASKS["imdb"], "real", data_dir, manual_dir)
    assert {s: info.num_examples for s, info in builder.info.splits.items()} == {
        "train": 25_000,
        "test": 25_000,
        "unsupervised": 50_000,
    }
    corpus = corpora.load_corpus("imdb", "real", data_dir, manual_dir)
    assert len(corpus.vocabulary) == 88_582
    assert np.bincount(corpus.train.labels).tolist() == [12_500, 12_500]
    assert np.bincount(corpus.test.labels).tolist() == [12_500, 12_500]
    assert np.median(corpus.train.lengths) == 178  # with the start id
    # The last quarter is the validation split: its labels must be mixed.
    assert 3_000 < corpus.train.labels[-6_250:].sum() < 3_250
    assert {e["label"] for e in builder.as_data_source("unsupervised")} == {-1}

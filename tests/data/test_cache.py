import numpy as np
import pytest
from helpers import korean, load_custom, write_csv

from flaxrnn.data import cache, corpora, tokenizers


def test_second_load_reads_no_text(data_dir, monkeypatch):
    first = corpora.load_corpus("reuters", "synthetic", data_dir)
    monkeypatch.setattr(tokenizers.Tokenizer, "__call__", lambda *_: pytest.fail("a text was read"))
    again = corpora.load_corpus("reuters", "synthetic", data_dir)
    np.testing.assert_array_equal(first.train.ids, again.train.ids)
    assert first.vocabulary.words == again.vocabulary.words


def test_damaged_cache_is_rebuilt(few_texts, tmp_path):
    data_dir = str(tmp_path)
    first = corpora.load_corpus("reuters", "synthetic", data_dir)
    (file,) = tmp_path.glob("encoded/*/arrays.safetensors")
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 1
    for damaged in (bytes(flipped), content[:1000], b"", None):
        file.unlink() if damaged is None else file.write_bytes(damaged)
        again = corpora.load_corpus("reuters", "synthetic", data_dir)
        np.testing.assert_array_equal(first.train.ids, again.train.ids)
        assert file.read_bytes() == content


def test_damaged_cache_of_subwords_is_rebuilt(tmp_path):
    path = write_csv(tmp_path / "a.csv", korean(60))
    first = load_custom(path, tmp_path, "subword", 200)
    (file,) = tmp_path.glob("data/encoded/text-*/arrays.safetensors")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    again = load_custom(path, tmp_path, "subword", 200)
    np.testing.assert_array_equal(first.train.ids, again.train.ids)
    assert again.vocabulary.tokenizer == first.vocabulary.tokenizer
    assert file.read_bytes() != content


def test_a_disk_that_cannot_be_written_only_costs_time(tmp_path):
    (tmp_path / "encoded").write_text("a file where the folder would be")
    for _ in range(2):
        arrays = cache.cached(tmp_path, "a", lambda: {"ids": np.arange(3)})
        np.testing.assert_array_equal(arrays["ids"], [0, 1, 2])

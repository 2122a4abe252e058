"""Runs whose embedding starts with word vectors."""

import numpy as np
import pytest
from helpers import WORDS, shrink, weights

import flaxrnn
from benchmarks import faults
from configs import imdb
from flaxrnn import run as run_lib
from flaxrnn.data.vocabulary import FIRST_WORD
from flaxrnn.errors import DataError

VECTORS = np.arange(24, dtype=np.float32).reshape(4, 6) / 7
KNOWN = slice(FIRST_WORD, FIRST_WORD + 4)


@pytest.fixture
def config(tiny_corpus, tmp_path):
    rows = [" ".join([word, *map(str, row)]) for word, row in zip(WORDS, VECTORS, strict=False)]
    (tmp_path / "vectors.txt").write_text("\n".join(rows))
    config = shrink(imdb.get_config(), epochs=3, conv_filters=0)
    config.data.vectors = str(tmp_path / "vectors.txt")
    config.train.update({"learning_rate": 0.05, "clip_norm": 1.0})
    return config


def test_a_fixed_embedding_keeps_its_vectors_to_the_bit(config, tmp_path, capsys):
    config.model.train_embedding = False
    result = flaxrnn.train(config, tmp_path / "fixed")
    assert "vectors: 4 of 12 words (" in capsys.readouterr().out
    fixed = weights(tmp_path / "fixed")
    np.testing.assert_array_equal(fixed["embed"]["embedding"][KNOWN], VECTORS)
    (tmp_path / "vectors.txt").unlink()
    assert flaxrnn.train(config, tmp_path / "fixed")["test_loss"] == result["test_loss"]
    assert "vectors:" not in capsys.readouterr().out
    with pytest.raises(DataError, match=r"data\.vectors: .*vectors.txt cannot be read"):
        flaxrnn.train(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_refit_starts_with_the_same_vectors(config, tmp_path, monkeypatch):
    config.train.update({"refit": True, "restore_best": False, "epochs": 1})
    flaxrnn.train(config, tmp_path / "straight")
    with monkeypatch.context() as patch:
        patch.setattr(run_lib, "begin_refit", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            flaxrnn.train(config, tmp_path / "stopped")
    (tmp_path / "vectors.txt").unlink()
    flaxrnn.train(config, tmp_path / "stopped")
    assert faults.final_state(tmp_path / "stopped") == faults.final_state(tmp_path / "straight")
    trained = weights(tmp_path / "stopped")["embed"]["embedding"]
    np.testing.assert_allclose(trained[KNOWN], VECTORS, atol=0.5)  # near, since only 7 steps
    assert (trained[KNOWN] != VECTORS).any()

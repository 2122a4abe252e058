"""The exported `load.py` in this process; tests/commands/test_export.py runs it standalone."""

import numpy as np
import pytest
from helpers import loaded, saved_seeds, saved_workdir, shrink

from configs import reuters
from configs import text as text_config
from flaxrnn import export
from flaxrnn.data import splitting
from flaxrnn.inference import loader

TEXTS = [
    "good",
    "Not a VERY good film: the plot (bad!)",
    "it's 평 of\ttabs\u00a0and İ",
    "the " * 50,
]


def exported(folder, config, label_names, tokenizer="keras"):
    workdir = saved_workdir(folder / "run", config, label_names, tokenizer)
    export.export(workdir, folder / "out")
    return workdir, loader.load(folder / "out")


@pytest.fixture(scope="module")
def topics(tmp_path_factory):
    labels = ["earn", "acq", "grain"]
    return exported(tmp_path_factory.mktemp("topics"), shrink(reuters.get_config()), labels)


def assert_same(found, expected):
    assert found[0] == expected[0]
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("tokenizer", ["words", "characters"])
def test_other_tokenizers_are_included(tokenizer, tmp_path):
    config = shrink(text_config.get_config(), cell="simple")
    config.data.path = "reviews.csv"
    config.model.word_ngrams = config.model.character_ngrams = 0
    workdir, classify = exported(tmp_path, config, ["평", "a"], tokenizer)
    assert_same(classify(TEXTS), loaded(workdir).predict(TEXTS))


@pytest.mark.parametrize("variant", ["", "keras"])
def test_an_ensemble_is_one_program(variant, tmp_path):
    config = shrink(reuters.get_config(variant))
    workdir = saved_seeds(tmp_path / "run", config, ["earn", "acq", "grain"], (3, 4, 7))
    export.export(workdir, tmp_path / "out")
    assert_same(loader.load(tmp_path / "out")(TEXTS), loaded(workdir).predict(TEXTS))


def test_text_may_be_a_string_or_its_tokens(topics):
    workdir, classify = topics
    tokens = [splitting.tokenize(text) for text in TEXTS]
    assert_same(classify([*TEXTS[:2], *tokens[2:]]), loaded(workdir).predict(TEXTS))


def test_a_single_short_text(topics):
    workdir, classify = topics
    assert_same(classify(["good"]), loaded(workdir).predict(["good"]))


def test_a_text_without_words_is_refused(topics):
    _, classify = topics
    with pytest.raises(ValueError, match="a text is empty: it has no words"):
        classify(["good", " .,"])
    labels, probabilities = classify([])
    assert (labels, probabilities.shape) == ([], (0, 3))

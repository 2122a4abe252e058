"""After the result of a run: the words that decided in each mistake, on its page."""

import json
import re
import signal

import numpy as np
import pytest
from helpers import korean, loaded, shrink, write_csv

import flaxrnn
from configs import text as text_config
from flaxrnn.data.ragged import RaggedTexts
from flaxrnn.inference import attribution, saved
from flaxrnn.runtime import signals

TEXTS = ["방 직원 정말 좋았어요", "어제 본 영화", "별로였다, 다시는 안 가요 음식"]


def settings(folder, **model):
    config = shrink(text_config.get_config(), epochs=1, cell="simple", **model)
    config.data.path = str(folder / "reviews.csv")
    config.data.data_dir = str(folder / "data")
    config.data.num_words = 60
    config.data.tokenizer = "words"
    config.data.split_seed = 1
    config.train.explain = True
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("closing")
    rows = [(text, "긍정" if i % 4 == 0 else label) for i, (text, label) in enumerate(korean(160))]
    write_csv(folder / "reviews.csv", rows)  # a fourth of them cannot be right
    return folder


@pytest.mark.parametrize("word_ngrams", [0, 1])
def test_the_page_names_the_words_that_decided(word_ngrams, folder, tmp_path, no_plots):
    config = settings(folder, word_ngrams=word_ngrams, character_ngrams=0, ngram_fit="quick")
    result = flaxrnn.train(config, tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    mistakes = page.count("<li>")
    assert mistakes == round((1 - result["test_accuracy"]) * result["test_examples"]) > 0
    shown = re.findall('<p class="words">(.*)</p>', page)
    assert len(shown) == mistakes
    texts = re.findall("</p>\n<p><bdi>(.*)</bdi></p>\n<p class", page)
    for words, text in zip(shown, texts, strict=True):
        found = re.findall("<bdi>(.*?)</bdi>", words)
        assert 1 <= len(found) <= 5
        assert set(found) <= set(text.split())


@pytest.mark.parametrize("kind", ["reuters", "ngrams"])
def test_texts_of_a_run_are_explained_as_raw_texts_are(kind, folder, tmp_path, request, no_plots):
    """With padding that is read as text, and with n-grams."""
    if kind == "reuters":
        workdir, raw = request.getfixturevalue("reuters_workdir"), ["good film", "bad oil " * 30]
    else:
        config = settings(folder, word_ngrams=1, character_ngrams=2)
        config.train.explain = False
        flaxrnn.train(config, tmp_path / "run")
        workdir, raw = tmp_path / "run", TEXTS
    predictor = loaded(workdir)
    encoded = [predictor.encode(text) for text in raw]
    probabilities, expected = predictor.explain(encoded)
    ids = [text.ids for text in encoded]
    scores = np.stack([text.scores for text in encoded]) if kind == "ngrams" else None
    offsets = np.cumsum([0, *map(len, ids)])
    texts = RaggedTexts(np.concatenate(ids), offsets, np.zeros(len(ids), np.int32), scores=scores)
    labels = probabilities.argmax(axis=1).astype(np.int32)
    found = attribution.of_read_texts(saved.load(workdir), texts, labels, raw)
    for each, same in zip(found, expected, strict=True):
        np.testing.assert_allclose(each, same, rtol=1e-4, atol=1e-6)


def test_a_failure_costs_a_line(folder, tmp_path, monkeypatch, capsys, no_plots):
    def fail(*_):
        raise MemoryError("of 3 GiB")

    monkeypatch.setattr(attribution, "of_read_texts", fail)
    config = settings(folder, word_ngrams=0, character_ngrams=0)
    result = flaxrnn.train(config, tmp_path)
    assert "  mistakes    not explained: of 3 GiB\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "result.json").read_text()) == result


def test_a_signal_ends_the_explanation_and_not_the_result(folder, tmp_path, monkeypatch, no_plots):
    monkeypatch.setattr(attribution, "of_read_texts", lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(signals.Saved, match=r"SIGINT: .* is complete$"):
        flaxrnn.train(settings(folder, word_ngrams=0, character_ngrams=0), tmp_path)
    assert (tmp_path / "result.json").exists()

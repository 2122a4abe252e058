import numpy as np
import pytest
from helpers import loaded
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxrnn.data import splitting
from flaxrnn.inference import predictions
from flaxrnn.inference.predictions import Prediction
from flaxrnn.inference.predictor import EncodedText

MAXLEN = 20
any_text = st.text(max_size=60) | st.builds(lambda n: "good film " * n, st.integers(1, 50))


def classify(workdir, records, chunk_size=7, top=2, explain=False):
    return predictions.classify(loaded(workdir), records, chunk_size, top=top, explain=explain)


@settings(max_examples=30)
@given(texts=st.lists(any_text, max_size=20))
def test_every_text_has_a_prediction_or_a_reason(imdb_workdir, texts):
    found = list(classify(imdb_workdir, iter(texts), explain=True))
    assert [prediction.index for prediction in found] == list(range(len(texts)))
    for text, prediction in zip(texts, found, strict=True):
        count, encoded = len(splitting.tokenize(text)), prediction.encoded
        assert encoded.total_words == count
        assert bool(prediction.top) == bool(count)
        is_known = count > 0 and encoded.unknown_fraction < 1
        assert (prediction.note is None) == (is_known and count <= MAXLEN)
        if count:
            assert len(prediction.words) == len(prediction.attributions) == min(count, MAXLEN)
            assert prediction.top[0][1] >= prediction.top[1][1]
            assert 0 <= encoded.unknown_fraction <= 1


def test_notes(imdb_workdir):
    texts = ["good", " .,", "", "good " * 1_030, "zzz QQQ!", "zzz " * 21]
    found = list(classify(imdb_workdir, iter(texts)))
    assert [prediction.note for prediction in found] == [
        None,
        "no words",
        "no words",
        "the last 20 of 1,030 words were read",
        "every word is unknown",
        "the last 20 of 21 words were read; every word is unknown",
    ]
    assert [len(prediction.top) for prediction in found] == [2, 0, 0, 2, 2, 2]


def test_predictions_are_those_of_the_predictor(imdb_workdir):
    texts = ["good film", "", "not a very bad plot"]
    found = list(classify(imdb_workdir, iter(texts), chunk_size=1, top=1))
    labels, probabilities = loaded(imdb_workdir).predict([texts[0], texts[2]])
    assert [found[i].top[0][0] for i in (0, 2)] == labels
    for i, row in ((0, probabilities[0]), (2, probabilities[1])):
        assert abs(found[i].top[0][1] - row.max()) < 1e-5


def test_one_chunk_of_texts_is_read_at_a_time(imdb_workdir):
    read = []

    def records():
        for i in range(40):
            read.append(i)
            yield f"good {i}"

    found = classify(imdb_workdir, records(), chunk_size=16)
    assert next(found).index == 0
    assert len(read) == 16
    assert [prediction.index for prediction in found] == list(range(1, 40))


@pytest.mark.parametrize(("ids", "known"), [([1, 7, 2, 7, 2], False), ([7, 2, 7, 9], True)])
def test_a_space_alone_is_no_word_that_is_known(ids, known):
    spans = [(0, 0), (0, 2), (2, 3), (3, 4)]  # as SentencePiece begins with a mark of a space
    encoded = EncodedText("zz q", spans, np.array(ids, np.int32), 4, "zz q", None)
    assert predictions.knows_a_word(encoded) == known


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("이번 선거, 또", {"이번": 1, "선거": 9, ",": 5, "또": 13}),
        ("it's 2x", {"it's": 6, "2x": 15}),
        ("हिन्दी", {"हिन्दी": 15}),
        ("好看 ไม่", {"好": 0, "看": 1, "ไ": 5, "ม": 4, "่": 5}),  # no spaces between words
    ],
)
def test_pieces_of_a_word_are_explained_together(text, expected):
    spans = [(i, i + 1) for i in range(len(text))]
    ids = np.full(len(text) + 1, 4, np.int32)
    encoded = EncodedText(text, spans, ids, len(text), text, None)
    weights = np.arange(len(text), dtype=np.float32)
    prediction = Prediction(0, encoded, None, [("up", 1.0)], weights)
    assert dict(prediction.words) == expected
    assert sum(weight for _, weight in prediction.words) == weights.sum()


def test_deciding_words_are_those_that_speak_most_for_the_label():
    words = [("bad", 0.5), ("film", -2.0), ("bad", 0.25), ("dull", 0.7), (" ", 3.0), ("so", 0.0)]
    assert predictions.deciding(words) == ("bad", "dull")
    many = [(f"w{i}", float(i)) for i in range(9)]
    assert predictions.deciding(many) == ("w8", "w7", "w6", "w5", "w4")

from helpers import loaded
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxrnn.data import splitting
from flaxrnn.inference import predictions

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
        assert (prediction.note is None) == (0 < count <= MAXLEN)
        if count:
            assert len(prediction.words) == len(prediction.attributions) == min(count, MAXLEN)
            assert prediction.top[0][1] >= prediction.top[1][1]
            assert 0 <= encoded.unknown_fraction <= 1


def test_notes(imdb_workdir):
    texts = ["good", " .,", "", "good " * 1_030]
    found = list(classify(imdb_workdir, iter(texts)))
    assert [prediction.note for prediction in found] == [
        None,
        "no words",
        "no words",
        "the last 20 of 1,030 words were read",
    ]
    assert [len(prediction.top) for prediction in found] == [2, 0, 0, 2]


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

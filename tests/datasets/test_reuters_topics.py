import numpy as np

from flaxrnn.data import corpora, keras_api
from flaxrnn.datasets import preparation, registry, reuters_topics, synthetic


def prepare(task, data_dir, manual_dir):
    builder = preparation.prepare(registry.TASKS[task], "real", data_dir, manual_dir)
    return [list(builder.as_data_source(split)) for split in ("train", "test")]


def test_reuters_is_exactly_that_of_keras(data_dir, manual_dir):
    train, test = prepare("reuters", data_dir, manual_dir)
    assert (len(train), len(test)) == (8_982, 2_246)
    labels = [e["label"] for e in train]
    assert labels[:20] == [3, 4, 3, 4, 4, 4, 4, 3, 3, 16, 3, 3, 4, 4, 19, 8, 16, 3, 3, 21]
    counts = {
        "train": np.bincount(labels, minlength=46).tolist(),
        "test": np.bincount([e["label"] for e in test], minlength=46).tolist(),
    }
    assert counts == synthetic.TOPIC_COUNTS
    assert counts["train"][3:5] == [3159, 1949]  # earn, acq

    (x_train, y_train), (x_test, _) = keras_api.load_data(
        "reuters", source="real", data_dir=data_dir, manual_dir=manual_dir
    )
    assert y_train[:20].tolist() == labels[:20]
    assert x_train[0][3:12].tolist() == [8, 43, 10, 447, 5, 25, 207, 270, 5]
    assert x_train[0][12] == 3124
    lengths = [len(x) for x in (*x_train, *x_test)]
    assert round(np.mean(lengths), 2) == 145.96
    assert np.median(lengths) == 95
    corpus = corpora.load_corpus("reuters", "real", data_dir, manual_dir)
    assert len(corpus.vocabulary) == 30_978
    (x_1000, _), _ = keras_api.load_data(
        "reuters", num_words=1000, source="real", data_dir=data_dir, manual_dir=manual_dir
    )
    assert x_1000[0][:12].tolist() == [1, 2, 2, 8, 43, 10, 447, 5, 25, 207, 270, 5]


def test_clean_reuters_has_no_body_twice(data_dir, manual_dir):
    train, test = prepare("reuters_clean", data_dir, manual_dir)
    assert (len(train), len(test)) == (8_077, 2_020)
    bodies = [b" ".join(e["text"].split()) for e in (*train, *test)]
    assert all(bodies)
    assert len(set(bodies)) == len(bodies)


def story(topics, body):
    body = f"<BODY>{body}</BODY>" if body is not None else ""
    topics = "".join(f"<D>{t}</D>" for t in topics)
    return f'<REUTERS NEWID="1">\n<TOPICS>{topics}</TOPICS>\n<TEXT>{body}</TEXT></REUTERS>\n'


def test_scan_takes_the_first_topic_and_skips_stories_without_one():
    sgml = story(["oil", "gas"], "first") + story([], "second") + story(["tin"], "third")
    assert reuters_topics.scan(sgml, own_body=False) == [("oil", "first"), ("tin", "third")]


def test_scan_of_a_story_without_a_body():
    sgml = story(["oil"], None) + story(["tin"], "second") + story(["gas"], None)
    assert reuters_topics.scan(sgml, own_body=False) == [
        ("oil", "second"),
        ("tin", "second"),
        ("gas", ""),
    ]
    assert reuters_topics.scan(sgml, own_body=True) == [("tin", "second")]

"""The linear model that every run is compared with."""

import numpy as np
import pytest
from helpers import WORDS, korean, load_custom, write_csv
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score
from sklearn.svm import LinearSVC

from flaxrnn.data import corpora, ragged
from flaxrnn.data.tokenizers import Tokenizer
from flaxrnn.data.vocabulary import START, Vocabulary
from flaxrnn.errors import DataError
from flaxrnn.training import baseline


def ragged_texts(rows, labels):
    offsets = np.cumsum([0, *map(len, rows)])
    return ragged.RaggedTexts(
        np.concatenate(rows).astype(np.int32), offsets, np.asarray(labels, np.int32)
    )


def random_texts(seed, n, classes=3, noise=0.3):
    """Texts of words that say the class, some of them wrong."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    rows = []
    for label in labels:
        words = rng.integers(4, 16, rng.integers(1, 12))
        words[0] = 4 + (label if rng.random() > noise else rng.integers(0, classes))
        rows.append(np.append(START, words))
    return ragged_texts(rows, labels)


def corpus_of(train, test, names=("a", "b", "c"), vocabulary=None):
    return corpora.Corpus("tiny", True, list(names), vocabulary or Vocabulary(WORDS), train, test)


def rows_of(corpus, val=20):
    n, m = len(corpus.train), len(corpus.test)
    indices = np.split(np.arange(n + m), [n - val, n])
    return dict(zip(("train", "val", "test"), indices, strict=True))


@pytest.mark.parametrize("longest", [1, 2, 4])
def test_features_are_those_of_scikit_learn(longest):
    texts, train = random_texts(0, 60), np.arange(40)
    words = [[str(i) for i in ids if i != START] for ids in texts.texts()]
    reference = TfidfVectorizer(
        analyzer="word", sublinear_tf=True, min_df=2, ngram_range=(1, longest),
        tokenizer=list, preprocessor=lambda text: text, token_pattern=None,
    )  # fmt: skip
    reference.fit([words[row] for row in train])
    expected = reference.transform(words)
    found = baseline.tf_idf(texts, longest, train)
    assert found.shape == expected.shape
    np.testing.assert_allclose((found @ found.T).toarray(), (expected @ expected.T).toarray())
    np.testing.assert_allclose(np.sort(found.sum(axis=0)), np.sort(expected.sum(axis=0)))


def test_figures_are_those_of_the_c_that_validates_best(monkeypatch):
    monkeypatch.setattr(baseline, "_characters", None)  # these words are in Latin script
    corpus = corpus_of(random_texts(1, 120), random_texts(2, 50))
    rows = rows_of(corpus)
    found = baseline.evaluate(corpus, rows)
    assert found["name"] == "TF-IDF of words (1-2), linear SVM"
    X = baseline.tf_idf(corpus.train + corpus.test, 2, rows["train"])
    labels = np.concatenate([corpus.train.labels, corpus.test.labels])
    train, val, test = rows.values()
    scores = {}
    for C in (0.3, 1.0, 3.0):
        model = LinearSVC(C=C, random_state=0).fit(X[train], labels[train])
        predicted = model.predict(X[test])
        macro_f1 = f1_score(labels[test], predicted, average="macro")
        scores[C] = (
            model.score(X[val], labels[val]), np.mean(predicted == labels[test]), macro_f1,
        )  # fmt: skip
    assert scores[found["C"]][0] == max(score for score, *_ in scores.values())
    expected = scores[found["C"]][1:]
    assert [found["test_accuracy"], found["test_macro_f1"]] == pytest.approx(expected)
    assert 0.5 < found["test_accuracy"] < 1
    again = baseline.evaluate(corpus, rows)
    assert again | {"seconds": 0} == found | {"seconds": 0}


def test_nothing_is_chosen_on_the_test_texts():
    corpus = corpus_of(random_texts(1, 120), random_texts(2, 50))
    rows = rows_of(corpus)
    assert baseline.evaluate(corpus, rows)["C"] != 1
    assert baseline.evaluate(corpus, {**rows, "val": rows["test"]})["C"] == 1


@pytest.mark.parametrize("tokenizer", ["words", "characters", "subword"])
def test_characters_are_tried_where_they_may_do_better(tokenizer, tmp_path, monkeypatch):
    path = write_csv(tmp_path / "reviews.csv", korean())
    corpus = load_custom(path, tmp_path, tokenizer=tokenizer, num_words=200)
    tried, tf_idf = [], baseline.tf_idf

    def record(texts, longest, train):
        tried.append((longest, texts))
        return tf_idf(texts, longest, train)

    monkeypatch.setattr(baseline, "tf_idf", record)
    found = baseline.evaluate(corpus, rows_of(corpus, 30))
    assert [longest for longest, _ in tried] == {"characters": [4]}.get(tokenizer, [2, 4])
    assert found["test_accuracy"] > 0.9
    texts = corpus.train.texts() + corpus.test.texts()
    spelled = [len(corpus.vocabulary.decode(ids)) for ids in texts]
    start = int(tokenizer == "characters")  # the decoded text has none
    np.testing.assert_array_equal(tried[-1][1].lengths - start, spelled)


def test_a_large_corpus_has_shorter_ngrams_or_no_baseline(monkeypatch):
    corpus = corpus_of(random_texts(1, 120), random_texts(2, 50))
    tokens = len(corpus.train.ids) + len(corpus.test.ids)
    monkeypatch.setattr(baseline, "_MOST_NGRAMS", 2 * tokens - 1)
    found = baseline.evaluate(corpus, rows_of(corpus))
    assert found["name"] == "TF-IDF of words (1), linear SVM"
    monkeypatch.setattr(baseline, "_MOST_NGRAMS", tokens - 1)
    with pytest.raises(DataError, match=f"the corpus is too large, {tokens:,} words"):
        baseline.evaluate(corpus, rows_of(corpus))


def test_many_classes_have_no_baseline(monkeypatch):
    corpus = corpus_of(random_texts(0, 60), random_texts(1, 20))
    monkeypatch.setattr(baseline, "_MOST_WORK", 3 * 100)
    with pytest.raises(DataError, match="3 classes are too many for so many texts"):
        baseline.evaluate(corpus, rows_of(corpus))


def test_texts_that_teach_nothing_are_named():
    test = random_texts(2, 50)
    same = ragged_texts([[1, 4]] * 40, [0] * 40)
    with pytest.raises(DataError, match="all training texts are of one class"):
        baseline.evaluate(corpus_of(same, test), rows_of(corpus_of(same, test)))
    unlike = ragged_texts([[1, 4 + i] for i in range(40)], [0, 1] * 20)
    many = Vocabulary(map(str, range(40)), Tokenizer("words"))
    corpus = corpus_of(unlike, test, vocabulary=many)
    with pytest.raises(DataError, match="the training texts have no token in common"):
        baseline.evaluate(corpus, rows_of(corpus))

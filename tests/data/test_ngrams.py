"""N-grams: counted, weighted and scored as scikit-learn does it, but by hashes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from flaxrnn.data import ngrams

TEXTS = ["a b a b c", "c", "b b", "d a c a b", "", "e"]


def count(tokens, view):
    lengths = np.array([len(text) for text in tokens])
    return ngrams.count(ngrams.hash_tokens([t for text in tokens for t in text]), lengths, view)


@given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=9), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_counts_are_those_of_scikit_learn(tokens, longest):
    found = count(tokens, ngrams.View("words", longest))
    grams = [
        [tuple(text[i : i + n]) for n in range(1, longest + 1) for i in range(len(text) - n + 1)]
        for text in tokens
    ]
    vectorizer = CountVectorizer(analyzer=lambda text: text)
    if not any(grams):
        assert len(found.codes) == 0
        return
    expected = vectorizer.fit_transform(grams)
    assert sorted(zip(found.rows, found.counts, strict=True)) == sorted(
        zip(expected.tocoo().row, expected.tocoo().data, strict=True)
    )
    assert len(np.unique(found.codes)) == expected.shape[1]
    assert (np.diff(found.codes.astype(np.int64)) >= 0).all()


def classifier(views, tokens, outputs=3, seed=0):
    """A classifier with random weights, of all n-grams in texts but the first in the table."""
    rng = np.random.default_rng(seed)
    tables = []
    for view, texts in zip(views, tokens, strict=True):
        codes, frequencies = ngrams.document_frequencies(count(texts, view))
        idf = np.log((1 + len(texts)) / (1 + frequencies)) + 1
        weights = rng.normal(size=(len(codes), outputs))
        tables.append((codes, idf.astype(np.float32), weights.astype(np.float32)))
    bias = rng.normal(size=outputs).astype(np.float32)
    return ngrams.NgramClassifier(tuple(views), *zip(*tables, strict=True), bias)


def test_scores_are_products_with_scikit_learns_tf_idf():
    view = ngrams.View("words", 1)
    tokens = [text.split() for text in TEXTS]
    model = classifier([view], [tokens])
    vectorizer = TfidfVectorizer(analyzer=str.split, sublinear_tf=True, dtype=np.float64)
    matrix = vectorizer.fit_transform(TEXTS).toarray()
    column = {code: i for i, code in enumerate(model.codes[0])}
    order = [column[count([[word]], view).codes[0]] for word in vectorizer.get_feature_names_out()]
    expected = matrix @ model.weights[0][order] + model.bias
    np.testing.assert_allclose(model.score_tokens([tokens]), expected, atol=1e-6)


@given(st.lists(st.text("abcd ", max_size=12), min_size=1, max_size=5))
def test_a_score_depends_on_its_text_alone(texts):
    views = [ngrams.View("words", 2), ngrams.View("characters", 3)]
    model = classifier(views, [[t.split() for t in TEXTS], [list(t) for t in TEXTS]])
    tokens = [[t.split() for t in texts], [list(t) for t in texts]]
    together = model.score_tokens(tokens)
    for i in range(len(texts)):
        alone = model.score_tokens([[view[i]] for view in tokens])
        np.testing.assert_array_equal(alone[0], together[i])


@pytest.mark.parametrize("text", ["a b a b c", "c x a", "x", ""])
def test_contributions_add_up_to_the_score(text):
    views = [ngrams.View("words", 3), ngrams.View("characters", 4)]
    model = classifier(views, [[t.split() for t in TEXTS], [list(t) for t in TEXTS]])
    tokens = [text.split(), list(text)]
    scores = model.score_tokens([[view] for view in tokens])[0]
    for column in range(3):
        parts = model.contributions(tokens, column)
        assert [len(part) for part in parts] == [len(view) for view in tokens]
        total = sum(part.sum() for part in parts) + model.bias[column]
        np.testing.assert_allclose(total, scores[column], atol=1e-5)


def test_files_hold_everything():
    views = [ngrams.View("words", 2), ngrams.View("characters", 3)]
    model = classifier(views, [[t.split() for t in TEXTS], [list(t) for t in TEXTS]])
    read = ngrams.NgramClassifier.from_files(model.to_files())
    tokens = [[t.split() for t in TEXTS], [list(t) for t in TEXTS]]
    assert read.views == model.views
    np.testing.assert_array_equal(read.score_tokens(tokens), model.score_tokens(tokens))

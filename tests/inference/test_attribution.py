"""What n-grams contribute is attributed to the tokens at the same place in the text."""

import numpy as np
import pytest

from flaxrnn.data import ngrams
from flaxrnn.data.tokenizers import KERAS, Tokenizer
from flaxrnn.inference import attribution


def classifier(kind, text, longest, weight):
    """Knows all n-grams of a text; `weight` maps the tokens of a unigram to its weight."""
    view = ngrams.View(kind, longest)
    tokens = Tokenizer(kind)(text)
    counts = ngrams.count(ngrams.hash_tokens(tokens), np.array([len(tokens)]), view)
    codes, _ = ngrams.document_frequencies(counts)
    weights = np.zeros((len(codes), 1), np.float32)
    for token in set(tokens):
        one = ngrams.count(ngrams.hash_tokens([token]), np.array([1]), view).codes
        weights[np.searchsorted(codes, one)] = weight(token)
    idf = np.ones(len(codes), np.float32)
    return ngrams.NgramClassifier((view,), (codes,), (idf,), (weights,), np.zeros(1, np.float32))


@pytest.mark.parametrize("tokenizer", [KERAS, Tokenizer("words"), Tokenizer("characters")])
@pytest.mark.parametrize("kind", ["words", "characters"])
def test_the_decisive_token_is_found_in_any_form_of_the_text(kind, tokenizer):
    text = "  One,   TWO!\nthree é "
    decisive = "w" if kind == "characters" else "two"
    model = classifier(kind, text, 2, lambda token: 3.0 * (token == decisive))
    normalized, spans = tokenizer.locate(text)
    found = attribution.of_ngrams(model, text, 0, tokenizer, len(spans))
    place = text.lower().index(decisive)
    spaces = len(text[:place]) - len("".join(text[:place].split()))
    ranks = [
        (len("".join(normalized[:begin].split())), len("".join(normalized[:end].split())))
        for begin, end in spans
    ]
    begin, end = place - spaces, place - spaces + len(decisive)
    expected = [first < end and last > begin for first, last in ranks]
    assert [bool(value > 1e-6) for value in found] == expected
    score = model.score_tokens([[Tokenizer(kind)(text)]])[0, 0]
    np.testing.assert_allclose(found.sum(), score, atol=1e-6)
    last = attribution.of_ngrams(model, text, 0, tokenizer, 2)
    np.testing.assert_array_equal(last, found[-2:])


def test_a_text_without_known_n_grams_has_no_attributions():
    model = classifier("words", "one two", 2, len)
    np.testing.assert_array_equal(attribution.of_ngrams(model, "three!", 0, KERAS, 1), [0])

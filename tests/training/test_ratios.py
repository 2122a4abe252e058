"""Log-count ratios of n-grams as features of tokens."""

import math
from collections import Counter

import numpy as np
import pytest
from helpers import korean, load_custom, write_csv

from flaxrnn.data.ngrams import RatioTable, View, count, hash_tokens
from flaxrnn.data.vocabulary import START
from flaxrnn.training import ngrams, ratios

TEXTS = ["a b c", "a b", "b c c", "c a b", "d", "a b c d"]


def expected(texts, labels, classes, text, longest):
    """The features of a text's tokens, computed by the definition."""
    grams = [
        {tuple(t[i - n : i]) for n in range(1, longest + 1) for i in range(n, len(t) + 1)}
        for t in map(str.split, texts)
    ]
    found = Counter(g for of_text in grams for g in of_text)
    known = {g for g, n in found.items() if n >= 2}
    words = text.split()
    features = np.zeros((len(words), longest, len(classes)))
    for c, label in enumerate(classes):
        inside = {
            g: 1 + sum(g in t for t, y in zip(grams, labels, strict=True) if y == label)
            for g in found
        }
        outside = {
            g: 1 + sum(g in t for t, y in zip(grams, labels, strict=True) if y != label)
            for g in found
        }
        totals = sum(inside.values()), sum(outside.values())
        for i in range(len(words)):
            for n in range(1, longest + 1):
                gram = tuple(words[max(0, i + 1 - n) : i + 1])
                if len(gram) == n and gram in known:
                    ratio = inside[gram] / totals[0] / (outside[gram] / totals[1])
                    features[i, n - 1, c] = math.log(ratio)
    return features.reshape(len(words), -1)


def table(texts, labels, num_labels, longest):
    tokens = [text.split() for text in texts]
    hashes = hash_tokens([token for row in tokens for token in row])
    counts = count(hashes, np.array(list(map(len, tokens))), View("words", longest))
    everything = np.ones(len(texts), bool)
    return ratios.fit(counts, np.array(labels), num_labels, longest, everything)


@pytest.mark.parametrize(
    ("labels", "classes"), [([0, 0, 1, 1, 0, 1], [1]), ([0, 1, 2, 0, 1, 2], [0, 1, 2])]
)
@pytest.mark.parametrize("longest", [1, 3])
def test_ratios_follow_their_definition(labels, classes, longest):
    fitted = table(TEXTS, labels, max(labels) + 1, longest)
    texts = ["a b c", "x", "c c a b d"]
    tokens = [text.split() for text in texts]
    hashes = hash_tokens([token for row in tokens for token in row])
    features = fitted.features(hashes, np.array(list(map(len, tokens))))
    assert features.dtype == np.float16
    want = np.concatenate([expected(TEXTS, labels, classes, t, longest) for t in texts])
    np.testing.assert_allclose(features, want, rtol=2e-3)


def test_a_table_is_read_as_it_was_written():
    fitted = table(TEXTS, [0, 1] * 3, 2, 2)
    again = RatioTable.from_file(fitted.to_file())
    assert again.longest == 2
    np.testing.assert_array_equal(again.codes, fitted.codes)
    np.testing.assert_array_equal(again.ratios, fitted.ratios)
    again.check(2, 1)
    for longest, outputs in ((1, 1), (2, 3)):
        with pytest.raises(ValueError, match="not those of the model"):
            again.check(longest, outputs)


def test_a_training_text_has_the_ratios_of_other_texts(tmp_path):
    corpus = load_custom(write_csv(tmp_path / "a.csv", korean(100)), tmp_path)
    found = ratios.with_features(corpus, 2, tmp_path)
    features = np.split(found.train.features, found.train.offsets[1:-1])
    starts = found.train.ids == START
    assert not found.train.features[starts].any()
    assert found.test.features[found.test.ids != START].any()
    # With another label of one text, no feature of its own fold changes.
    labels = corpus.train.labels.copy()
    labels[0] = (labels[0] + 1) % 3
    train = corpus.train.__class__(corpus.train.ids, corpus.train.offsets, labels)
    changed = ratios.with_features(
        corpus.__class__(**{**vars(corpus), "train": train}), 2, tmp_path
    )
    others = np.split(changed.train.features, changed.train.offsets[1:-1])
    same = [np.array_equal(a, b) for a, b in zip(features, others, strict=True)]
    folds = ngrams.random_folds(len(labels))
    assert all(same[i] for i in np.flatnonzero(folds == folds[0]))
    assert not all(same)

"""What a linear model reaches on the texts of a run: TF-IDF of n-grams and a linear SVM.

Its words are the tokens of the corpus, all of them, before `data.num_words` and `data.maxlen` clip
what the network reads. Needs scikit-learn, which is only imported here.
"""

from __future__ import annotations

import importlib.util
import time
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from flaxrnn.data.corpora import Corpus
from flaxrnn.data.ragged import RaggedTexts
from flaxrnn.data.vocabulary import FIRST_WORD, START, Vocabulary
from flaxrnn.errors import ConfigError, DataError
from flaxrnn.training import metrics, thresholds

_PENALTIES = (0.3, 1.0, 3.0)  # C of the SVM, tried in this order until accuracy falls
_MOST_NGRAMS = 30_000_000  # what takes about 15 seconds
_MOST_WORK = 200_000_000  # classes times n-grams of the training texts: about 20 seconds per fit
_CHARACTERS = 4  # longest n-gram of characters
_UNITS = {"keras": ("words", 2), "words": ("words", 2), "subword": ("subwords", 2)}


class _Tokens(NamedTuple):
    """Texts to take n-grams from."""

    unit: str
    longest: int  # n-gram
    texts: RaggedTexts


def evaluate(corpus: Corpus, rows: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Trains the linear model on a run's training texts and evaluates it on its test texts.

    C is that of the highest accuracy on the validation texts. So is the choice between tokens and
    characters, which are tried, too, if tokens are subwords or the script has no lower case. Where
    the validation texts are the test texts, nothing is chosen: C is 1. Where a text may have
    several labels, there is a model for each, with a threshold as `thresholds` chooses it, and
    micro-F1 takes the place of the accuracy.

    Args:
        corpus: Its texts, not clipped.
        rows: Indices of "train", "val" and "test" in train, then test; see `batching.TrainingData`.

    Returns:
        "name", "C", "test_accuracy", "test_macro_f1" and "seconds", as result.json has them; of
        several labels per text, also "test_micro_f1".

    Raises:
        ConfigError: scikit-learn is not installed.
        DataError: The corpus is too large or has too many classes, all training texts are of one
            class, or they share no n-gram.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise ConfigError("needs scikit-learn; pip install scikit-learn")
    start = time.perf_counter()
    texts = corpus.train + corpus.held_out
    train, val, test = (rows[split] for split in ("train", "val", "test"))
    labels = texts.labels
    if len(np.unique(labels[train])) < 2:  # or of several labels, if none or all have them
        raise DataError("all training texts are of one class")
    chooses = not np.array_equal(val, test)
    best: dict[str, Any] = {}
    highest = -1.0
    for tokens in _kinds_of_tokens(corpus.vocabulary, texts, chooses):
        features = tf_idf(tokens.texts, tokens.longest, train)
        if len(corpus.label_names) * features[train].nnz > _MOST_WORK:
            raise DataError(f"{len(corpus.label_names):,} classes are too many for so many texts")
        accuracy, C, model = _fit(features, labels, train, val, _PENALTIES if chooses else (1.0,))
        if accuracy > highest:
            highest = accuracy
            predicted = model(features[test])
            scores = metrics.of_predictions(labels[test], predicted, len(corpus.label_names))
            best = {"name": _name(tokens), "C": C}
            best |= {f"test_{name}": score for name, score in scores.items()}
    return {**best, "seconds": time.perf_counter() - start}


def _fit(
    features: Any,
    labels: np.ndarray,
    train: np.ndarray,
    val: np.ndarray,
    penalties: tuple[float, ...],
) -> tuple[float, float, Any]:
    """The linear model with the highest validation accuracy: that accuracy, its C, and it."""
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import LinearSVC

    several, chooses = labels.ndim == 2, len(penalties) > 1
    num_labels = labels.shape[1] if several else int(labels.max()) + 1
    found: list[tuple[float, float, Any]] = []
    for C in penalties:
        model = LinearSVC(C=C, random_state=0)
        model = OneVsRestClassifier(model) if several else model
        with warnings.catch_warnings():  # of few iterations, of many classes
            warnings.simplefilter("ignore")
            model.fit(features[train], labels[train])
        predict = model.predict
        if several:
            predict = _one_vs_rest(model, features, labels, val if chooses else val[:0])
        scores = metrics.of_predictions(labels[val], predict(features[val]), num_labels)
        accuracy = scores["micro_f1" if several else "accuracy"]
        if found and accuracy < found[-1][0]:
            break
        found.append((accuracy, C, predict))
    return max(found, key=lambda each: each[0])


def _one_vs_rest(model: Any, features: Any, labels: np.ndarray, val: np.ndarray) -> Any:
    """What predicts the labels of features, bool [N, C], above thresholds that suit `val`."""
    chosen = np.zeros(labels.shape[1])
    if len(val):
        chosen = thresholds.choose(model.decision_function(features[val]), labels[val])
    return lambda rows: model.decision_function(rows) > chosen


def tf_idf(texts: RaggedTexts, longest: int, train: np.ndarray) -> Any:
    """The features of scikit-learn's `TfidfVectorizer(sublinear_tf=True, min_df=2)`, from ids.

    Args:
        texts: N texts.
        longest: Length of the longest n-grams.
        train: Indices of the texts that the n-grams and their weights are those of.

    Returns:
        A sparse matrix [N, features].

    Raises:
        DataError: No two of the training texts share an n-gram.
    """
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfTransformer

    in_train = np.zeros(len(texts), bool)
    in_train[train] = True
    row = np.repeat(np.arange(len(texts), dtype=np.int32), texts.lengths)
    words = texts.ids != START
    row, ids = row[words], texts.ids[words].astype(np.int64)
    # Of each n-gram: where it ends, and the number of the n-gram of all its tokens but the last.
    end, before = np.arange(len(ids)), np.zeros(len(ids), np.int64)
    blocks = []
    for n in range(1, longest + 1):
        if n > 1:
            longer = np.append(row[1:] == row[:-1], False)[end]
            end, before = end[longer] + 1, before[longer]
        number, count = _number_repeated(before, ids[end], in_train[row[end]])
        if not count:
            break
        end, before = end[number >= 0], number[number >= 0]
        starts = np.searchsorted(row[end], np.arange(len(texts) + 1))
        block = sparse.csr_matrix((np.ones(len(end)), before, starts), (len(texts), count))
        block.sum_duplicates()
        blocks.append(block)
    features = sparse.hstack([sparse.csr_matrix((len(texts), 0)), *blocks], format="csr")
    features = features[:, np.bincount(features[train].indices, minlength=features.shape[1]) > 1]
    if not features.shape[1]:
        raise DataError("the training texts have no token in common")
    return TfidfTransformer(sublinear_tf=True).fit(features[train]).transform(features)


def _number_repeated(
    before: np.ndarray, last: np.ndarray, in_train: np.ndarray
) -> tuple[np.ndarray, int]:
    """Numbers the n-grams that occur more than once in the training texts.

    Args:
        before: What precedes the last token of each n-gram, int [N].
        last: Its last token, int [N].
        in_train: Whether it is in a training text, bool [N].

    Returns:
        The number of each n-gram, from 0, int [N], -1: it has none; and how many there are.
    """
    from scipy import sparse

    size = int(last.max(initial=0)) + 1
    keys = np.sort((before * size + last)[in_train])  # faster than np.unique
    again = keys[1:][keys[1:] == keys[:-1]]
    repeated = again[np.append(True, again[1:] != again[:-1])[: len(again)]]
    numbers = np.arange(1, len(repeated) + 1, dtype=np.int32)
    table = sparse.csr_matrix(
        (numbers, np.divmod(repeated, size)), (int(before.max(initial=0)) + 1, size)
    )
    return np.asarray(table[before, last], np.int64).ravel() - 1, len(repeated)


def _kinds_of_tokens(
    vocabulary: Vocabulary, texts: RaggedTexts, chooses: bool
) -> Iterator[_Tokens]:
    """The tokens of the corpus, and its characters where they may do better."""
    kind, count = vocabulary.tokenizer.kind, len(texts.ids)
    unit, wanted = _UNITS.get(kind, ("characters", _CHARACTERS))
    longest = min(wanted, _MOST_NGRAMS // count)
    if not longest:
        raise DataError(f"the corpus is too large, {count:,} {unit}")
    yield _Tokens(unit, longest, texts)
    if not chooses or kind == "characters" or (unit == "words" and _has_case(vocabulary)):
        return
    sizes = np.array([1] * FIRST_WORD + [len(word) + 1 for word in vocabulary.words])
    if sizes[texts.ids].sum() * _CHARACTERS <= _MOST_NGRAMS:
        yield _Tokens("characters", _CHARACTERS, _characters(vocabulary, texts))


def _has_case(vocabulary: Vocabulary) -> bool:
    """Whether most letters of the most frequent words belong to a script with lower case."""
    letters = [c for c in "".join(vocabulary.words[:1000]) if c.isalpha()]
    return 2 * sum(unicodedata.category(c) == "Ll" for c in letters) >= len(letters)


def _characters(vocabulary: Vocabulary, texts: RaggedTexts) -> RaggedTexts:
    decoded = [vocabulary.decode(ids) for ids in texts.texts()]
    codes = np.frombuffer("".join(decoded).encode("utf-32-le", "surrogatepass"), np.uint32)
    offsets = np.cumsum([0, *map(len, decoded)])
    return RaggedTexts(codes.astype(np.int32), offsets, texts.labels)


def _name(tokens: _Tokens) -> str:
    lengths = "1" if tokens.longest == 1 else f"1-{tokens.longest}"
    return f"TF-IDF of {tokens.unit} ({lengths}), linear SVM"

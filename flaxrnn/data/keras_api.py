"""The corpora as users of `keras.datasets` know them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from flaxrnn.data import corpora
from flaxrnn.data import word_index as word_indices
from flaxrnn.data.corpora import Corpus
from flaxrnn.data.ragged import RaggedTexts
from flaxrnn.data.vocabulary import (
    FIRST_WORD,
    PAD,
    START,
    UNKNOWN,
    UNKNOWN_WORD,
    Vocabulary,
)
from flaxrnn.errors import ConfigError


def load_data(
    task: str,
    num_words: int | None = None,
    maxlen: int | None = None,
    *,
    skip_top: int = 0,
    test_split: float | None = None,
    word_index: str | None = None,
    source: str = "auto",
    data_dir: str | None = None,
    manual_dir: str | None = None,
) -> tuple[tuple[Any, np.ndarray], tuple[Any, np.ndarray]]:
    """Loads a corpus as `keras.datasets` does.

    Args:
        task: "reuters", "reuters_clean", "imdb" or "module:Builder", a custom dataset.
        num_words: Ids from this one on become 2, "unknown"; None keeps all.
        maxlen: None: lists of int32 arrays. A number: int32 `[N, maxlen]`, padded and truncated on
            the left, as `keras.utils.pad_sequences` does.
        skip_top: Ids below this one become 2, that of the start, 1, too, as in Keras. The most
            frequent word has id 4.
        test_split: For Reuters: the fraction of all stories, in Keras' order, to test on; None: the
            corpus's own split, for Reuters 0.2.
        word_index: The file `reuters_word_index.json` or `imdb_word_index.json` of Keras, whose ids
            words then have. None: where Keras keeps it, `~/.keras/datasets`; if it is not there,
            words are ranked by their counts, and a warning says that a few ids differ. "corpus":
            the same, without a look at Keras' folder.
        source: "auto", "real" or "synthetic"; see `load_corpus`.
        data_dir: Where prepared datasets are kept; default: TFDS's own.
        manual_dir: Where archives are; default: `FLAXRNN_MANUAL_DIR`, else TFDS's own.

    Returns:
        `(x_train, y_train), (x_test, y_test)`, the labels as int32 `[N]`.

    Raises:
        ConfigError: `task`, `source`, `num_words`, `maxlen`, `skip_top` or `test_split` is
            impossible.
        DataError: The corpus is not available, or its archive or the word index is damaged.
    """
    _check(task, num_words, maxlen, skip_top, test_split)
    corpus = _load(task, source, data_dir, manual_dir)
    vocabulary = word_indices.vocabulary(task, corpus, word_index)
    new_ids = _translation(corpus.vocabulary, vocabulary)
    new_ids[new_ids < skip_top] = UNKNOWN

    def arrays(split: RaggedTexts) -> tuple[Any, np.ndarray]:
        split = dataclasses.replace(split, ids=new_ids[split.ids])
        clipped = split.clip(num_words or vocabulary.num_words, maxlen)
        if maxlen is None:
            return clipped.texts(), split.labels
        return clipped.padded(maxlen, "pre")["tokens"], split.labels

    train, test = _splits(corpus, test_split)
    return arrays(train), arrays(test)


def get_word_index(
    task: str,
    *,
    word_index: str | None = None,
    source: str = "auto",
    data_dir: str | None = None,
    manual_dir: str | None = None,
) -> dict[str, int]:
    """The rank of each word, from 1, as `get_word_index` of `keras.datasets` has it.

    In the arrays of `load_data`, the id of a word is its rank + 3.

    Args:
        task: See `load_data`.
        word_index: See `load_data`.
        source: See `load_data`.
        data_dir: See `load_data`.
        manual_dir: See `load_data`.

    Raises:
        ConfigError: `task` or `source` is impossible.
        DataError: The corpus is not available, or its archive or the word index is damaged.
    """
    corpus = _load(task, source, data_dir, manual_dir)
    words = word_indices.vocabulary(task, corpus, word_index).words
    return {word: rank for rank, word in enumerate(words, 1)}


def to_texts(
    sequences: Iterable[Sequence[int] | np.ndarray], word_index: Mapping[str, int] | None = None
) -> list[str]:
    """The words of arrays as `load_data` gives them, separated by spaces.

    Padding and the start of a text are dropped; what is unknown becomes "�", U+FFFD, which models
    take for an unknown word.

    Args:
        sequences: N lists or arrays of ids, or an array [N, T].
        word_index: The rank of each word, as `get_word_index` gives it. None: a word is written as
            its id, a number.
    """
    if word_index is None:
        return [_spelled(row, str) for row in sequences]
    words = {rank + FIRST_WORD - 1: word for word, rank in word_index.items()}
    return [_spelled(row, lambda i: words.get(i, UNKNOWN_WORD)) for row in sequences]


def _spelled(ids: Sequence[int] | np.ndarray, word: Callable[[int], str]) -> str:
    kept = (i for i in np.asarray(ids).tolist() if i not in (PAD, START))
    return " ".join(UNKNOWN_WORD if i == UNKNOWN else word(i) for i in kept)


def _check(
    task: str, num_words: int | None, maxlen: int | None, skip_top: int, test_split: float | None
) -> None:
    if num_words is not None and num_words < FIRST_WORD:
        raise ConfigError(f"num_words: {num_words} is below {FIRST_WORD}, the first word's id")
    if maxlen is not None and maxlen < 1:
        raise ConfigError(f"maxlen: {maxlen} is below 1")
    if skip_top < 0:
        raise ConfigError(f"skip_top: {skip_top} is below 0")
    if test_split is not None and not task.startswith("reuters"):
        raise ConfigError(f"test_split: must be None with task={task}, whose test split is given")
    if test_split is not None and not 0 <= test_split <= 1:
        raise ConfigError(f"test_split: {test_split} is not between 0 and 1")


def _load(task: str, source: str, data_dir: str | None, manual_dir: str | None) -> Corpus:
    corpus = corpora.load_corpus(task, source, data_dir, manual_dir)
    if corpus.train.per_token:
        raise ConfigError(f"task: {task!r} has one label per token; load it with load_corpus")
    return corpus


def _splits(corpus: Corpus, test_split: float | None) -> tuple[RaggedTexts, RaggedTexts]:
    """The texts to train and to test on; Keras cuts them from one list, in which ours are, too."""
    if test_split is None:
        return corpus.train, corpus.test
    texts = corpus.train + corpus.test
    cut = int(len(texts) * (1 - test_split))
    return texts.take(np.arange(cut)), texts.take(np.arange(cut, len(texts)))


def _translation(old: Vocabulary, new: Vocabulary) -> np.ndarray:
    """The id in `new` of each id in `old`, int32."""
    special = range(FIRST_WORD)  # have the same ids
    return np.array([*special, *new.encode(old.words)[1:]], np.int32)

"""The corpora as users of `keras.datasets` know them."""

from __future__ import annotations

from typing import Any

import numpy as np

from flaxrnn.data import corpora
from flaxrnn.data.ragged import RaggedTexts
from flaxrnn.data.vocabulary import FIRST_WORD
from flaxrnn.errors import ConfigError


def load_data(
    task: str,
    num_words: int | None = None,
    maxlen: int | None = None,
    *,
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
        source: "auto", "real" or "synthetic"; see `load_corpus`.
        data_dir: Where prepared datasets are kept; default: TFDS's own.
        manual_dir: Where archives are; default: `FLAXRNN_MANUAL_DIR`, else TFDS's own.

    Returns:
        `(x_train, y_train), (x_test, y_test)`, the labels as int32 `[N]`.

    Raises:
        ConfigError: `task`, `source`, `num_words` or `maxlen` is impossible.
        DataError: The corpus is not available, or its archive is damaged.
    """
    if num_words is not None and num_words < FIRST_WORD:
        raise ConfigError(f"num_words: {num_words} is below {FIRST_WORD}, the first word's id")
    if maxlen is not None and maxlen < 1:
        raise ConfigError(f"maxlen: {maxlen} is below 1")
    corpus = corpora.load_corpus(task, source, data_dir, manual_dir)
    if corpus.train.per_token:
        raise ConfigError(f"task: {task!r} has one label per token; load it with load_corpus")

    def arrays(split: RaggedTexts) -> tuple[Any, np.ndarray]:
        clipped = split.clip(num_words or corpus.vocabulary.num_words, maxlen)
        if maxlen is None:
            return clipped.texts(), split.labels
        return clipped.padded(maxlen, "pre")["tokens"], split.labels

    return arrays(corpus.train), arrays(corpus.test)

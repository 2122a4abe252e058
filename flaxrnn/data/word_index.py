"""The word indices of `keras.datasets`, which number the words of its corpora.

Keras ranked words by counts of its own, so that words of equal or near counts have other ranks than
ours. A model that was trained on its ids needs its file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flaxrnn.data.tokenizers import KERAS, Tokenizer
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.errors import DataError
from flaxrnn.runtime import files, records, terminal

if TYPE_CHECKING:
    from flaxrnn.data.corpora import Corpus

OWN = "corpus"  # in place of a file: the corpus's own ranks
_TASKS = ("reuters", "imdb")  # that `keras.datasets` has, too


def vocabulary(task: str, corpus: Corpus, word_index: str | None) -> Vocabulary:
    """The words of a corpus by their ranks in Keras, where these are known.

    Without them, a warning says so on standard error.

    Args:
        task: See `corpora.load_corpus`.
        corpus: The corpus of that task.
        word_index: A JSON file; None: where Keras keeps it, for the corpora that it has; "corpus":
            the corpus's own ranks.

    Raises:
        DataError: The file cannot be read, or is not a word index.
    """
    own = corpus.vocabulary
    if word_index == OWN:
        return own
    if word_index is not None:
        return read(files.expand(word_index, "word_index"), own.tokenizer)
    if task not in _TASKS or corpus.synthetic:
        return own
    path = default_path(task)
    if path.exists():
        return read(path, own.tokenizer)
    print(
        terminal.escaped(
            f"warning: word_index: there is no {path}; words of equal or near counts can have other"
            " ids than in keras.datasets, which can cost a model trained there accuracy; name the"
            f" file, or {OWN}"
        ),
        file=sys.stderr,
    )
    return own


def default_path(task: str) -> Path:
    """Where Keras keeps the file: in `$KERAS_HOME/datasets` or `~/.keras/datasets`."""
    home = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
    return Path(home) / "datasets" / f"{task}_word_index.json"


def read(path: Path, tokenizer: Tokenizer = KERAS) -> Vocabulary:
    """Reads a JSON object of words and their ranks from 1.

    Raises:
        DataError: It is something else.
    """
    try:
        ranks = records.read(path, dict)
        if not all(type(rank) is int for rank in ranks.values()):
            raise ValueError("its ranks are not all whole numbers")
        if not ranks or sorted(ranks.values()) != list(range(1, len(ranks) + 1)):
            raise ValueError("its ranks are not 1, 2, 3 and so on, each of one word")
        words = sorted(ranks, key=ranks.__getitem__)
        " ".join(words).encode()
    except OSError as error:
        raise DataError(f"word_index: {path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DataError(f"word_index: {path} is no word index of Keras ({error})") from None
    return Vocabulary(words, tokenizer)

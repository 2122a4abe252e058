"""Word vectors in the text format of word2vec, GloVe and fastText: one word per line, its numbers.

The first line may hold the number of words and of numbers per word instead.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import TextIO

import numpy as np

from flaxrnn.data.vocabulary import FIRST_WORD, START, Vocabulary
from flaxrnn.errors import ConfigError, DataError
from flaxrnn.runtime import files


def read(path: str, vocabulary: Vocabulary, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads the vectors of the words of a vocabulary.

    Args:
        path: A text file in UTF-8, or one compressed with gzip whose name ends in .gz.
        vocabulary: Its other words are skipped; of a word with several vectors, the first counts.
        size: Numbers per vector, E.

    Returns:
        The ids of the words found, int [N], and their vectors, float32 [N, E].

    Raises:
        ConfigError: The vectors have another size.
        DataError: The file cannot be read, a line of it is malformed, or no word is found.
    """
    unread = {word: i for i, word in enumerate(vocabulary.words, FIRST_WORD)}
    ids, vectors = [], []
    try:
        with _open(path) as file:
            for number, fields in _lines(file, path, size):
                if fields[0] not in unread or _has_spaces(fields, size):
                    continue
                ids.append(unread.pop(fields[0]))
                vectors.append(_vector(fields, size, f"{path}: line {number}"))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"data.vectors: {path} cannot be read ({reason})") from None
    if not ids:
        raise DataError(f"data.vectors: {path} has none of the {len(vocabulary):,} words")
    return np.array(ids), np.stack(vectors)


def describe_coverage(
    what: str, ids: np.ndarray, vocabulary: Vocabulary, tokens: np.ndarray
) -> str:
    """How many words, and how many of the training tokens, int [n], `what` covers."""
    covered = np.isin(tokens, ids).sum() / max(1, (tokens != START).sum())
    words = f"{len(ids):,} of {len(vocabulary):,} words"
    return f"{what}: {words} ({covered:.0%} of the training tokens)"


def _open(path: str) -> TextIO:
    file = files.expand(path, "data.vectors")
    if file.exists() and not file.is_file():
        raise DataError(f"data.vectors: {path} is no regular file")
    # Broken characters make a word that is in no vocabulary. Only "\n" ends a line.
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8", errors="replace", newline="\n")
    return file.open(encoding="utf-8", errors="replace", newline="\n")


def _lines(file: TextIO, path: str, size: int) -> Iterator[tuple[int, list[str]]]:
    """The number and the fields of each line that has a word; the first one's size is checked."""
    expected = True  # until the size is known
    for number, line in enumerate(file, 1):
        fields = line.rstrip(" \r\n").split(" ")
        is_counts = number == 1 and len(fields) == 2 and all(map(str.isdecimal, fields))
        if expected:
            found = int(fields[1]) if is_counts else len(fields) - 1
            if found != size:
                raise ConfigError(
                    f"model.embedding_size: must be {found}, not {size}: the size of the vectors in"
                    f" data.vectors={path}"
                )
            expected = False
        if not is_counts:
            yield number, fields


def _has_spaces(fields: list[str], size: int) -> bool:
    """Whether the word itself contains spaces, which no word of a vocabulary does."""
    return len(fields) > size + 1 and not all(map(_is_number, fields[1:]))


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _vector(fields: list[str], size: int, place: str) -> np.ndarray:
    if len(fields) != size + 1:
        raise DataError(f"data.vectors: {place} has {len(fields) - 1} numbers, not {size}")
    try:
        vector = np.array(fields[1:], np.float32)
    except ValueError as error:
        raise DataError(f"data.vectors: {place} is malformed ({error})") from None
    if not np.isfinite(vector).all():
        raise DataError(f"data.vectors: {place} has a number that is not finite")
    return vector

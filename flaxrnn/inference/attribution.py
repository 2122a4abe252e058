"""Attributions of n-grams: from the tokens they are made of to those the network reads.

Both are places in the same text, but each tokenizer has its own form of it: with or without capital
letters, with one space or several. What they have in common is the sequence of all characters that
are no white space, so a place is known by its rank among those.
"""

from __future__ import annotations

import numpy as np

from flaxrnn.data.ngrams import NgramClassifier
from flaxrnn.data.tokenizers import Tokenizer


def of_ngrams(
    classifier: NgramClassifier,
    text: str,
    column: int,
    tokenizer: Tokenizer,
    num_tokens: int,
) -> np.ndarray:
    """What the last tokens of a text contribute to a score of the n-gram classifier.

    Args:
        classifier: The classifier.
        text: A raw text.
        column: Of the score.
        tokenizer: Finds the tokens to attribute to.
        num_tokens: How many of them, n.

    Returns:
        float32 [n]. What falls between tokens, such as punctuation between words, is left out.
    """
    tokens = [Tokenizer(view.kind)(text) for view in classifier.views]
    contributions = classifier.contributions(tokens, column)
    begins, ends = _ranks(*tokenizer.locate(text))
    places = [_ranks(*Tokenizer(view.kind).locate(text)) for view in classifier.views]
    size = max(max(last, default=0) for _, last in [*places, (begins, ends)])
    changes = np.zeros(size + 1)  # of the contribution, from each character to the next
    for (first, last), shares in zip(places, contributions, strict=True):
        per_character = shares / np.maximum(last - first, 1)
        np.add.at(changes, first, per_character)
        np.add.at(changes, last, -per_character)
    up_to = np.append(0, np.cumsum(np.cumsum(changes)))
    per_token = up_to[ends] - up_to[begins]
    return per_token[len(per_token) - num_tokens :].astype(np.float32)


def _ranks(text: str, spans: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """How many characters that are no white space come before the begin and end of each span."""
    before = np.append(0, np.cumsum([not character.isspace() for character in text]))
    begins, ends = np.array(spans, int).reshape(-1, 2).T
    return before[begins], before[ends]

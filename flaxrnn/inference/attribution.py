"""Attributions: what each token of a text speaks for a label.

N-grams are made of other tokens than those that the network reads. Both are places in the same
text, but each tokenizer has its own form of it: with or without capital letters, with one space or
several. What they have in common is the sequence of all characters that are no white space, so a
place is known by its rank among those.
"""

from __future__ import annotations

import jax
import numpy as np

from flaxrnn.data.ngrams import NgramClassifier
from flaxrnn.data.ragged import RaggedTexts
from flaxrnn.data.tokenizers import Tokenizer
from flaxrnn.data.vocabulary import START
from flaxrnn.inference import programs
from flaxrnn.inference.saved import SavedModel
from flaxrnn.nn import models
from flaxrnn.runtime import devices


def of_read_texts(
    model: SavedModel, texts: RaggedTexts, labels: np.ndarray, whole: list[str]
) -> list[np.ndarray]:
    """What each token of N texts speaks for a label of theirs, by the parameters of a single run.

    Args:
        model: A classifier.
        texts: The texts as it reads them, with scores if it has them.
        labels: int32 [N].
        whole: The texts before they were clipped, with `vocabulary.UNKNOWN_WORD` for what no
            vocabulary has.

    Returns:
        float32 [n] for each text of n tokens, without the one that starts it.
    """
    padding = model.config.data.padding
    longest = max(int(texts.lengths.max()), models.shortest_text(model.model.config))
    longest = model.config.data.maxlen if padding == "pre" else longest
    mesh = devices.make_mesh(len(texts), local=True)
    rows = np.resize(np.arange(len(texts)), -(-len(texts) // mesh.size) * mesh.size)
    arrays = texts.take(rows).padded(longest, padding)
    inputs = [arrays["tokens"], arrays["lengths"], labels[rows]]
    inputs += [arrays[name] for name in model.model.extras]
    program = programs.explain_program(model.model, mesh)
    of_tokens = np.asarray(program(jax.device_get(model.members[0]), *inputs))
    found = []
    for i, ids in enumerate(texts.texts()):
        end = len(ids) if padding == "post" else longest
        count = int((ids != START).sum())
        weights = of_tokens[i, end - count : end]
        if model.ngrams is not None:
            of_ngrams_too = of_label(model, whole[i], int(labels[i]), count)
            # A tokenizer may find other tokens in a text that was put together again.
            weights = weights + (of_ngrams_too if len(of_ngrams_too) == count else 0)
        found.append(weights)
    return found


def of_label(model: SavedModel, text: str, label: int, num_tokens: int) -> np.ndarray:
    """What the n-grams of the last tokens of a text speak for a label, float32 [n].

    Args:
        model: One with n-grams.
        text: A raw text.
        label: The label.
        num_tokens: How many tokens, n.
    """
    assert model.ngrams is not None
    weight = float(np.mean([params["blend"]["weights"][1] for params in model.members]))
    binary = model.model.num_outputs == 1  # its score speaks for the second class
    column = 0 if binary else label
    tokenizer = model.vocabulary.tokenizer
    of_score = of_ngrams(model.ngrams, text, column, tokenizer, num_tokens)
    return of_score * (-weight if binary and label == 0 else weight)


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

"""What a corpus is like: how many texts and classes, how long, how much of it the model reads."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from flaxrnn.data.corpora import Corpus
from flaxrnn.data.ragged import RaggedTexts
from flaxrnn.data.vocabulary import FIRST_WORD, START, UNKNOWN, Vocabulary

_CLASSES = 12  # that are all named
_WORDS = 20_000  # the most frequent ones, whose letters say which scripts there are


class LabelsPerText(NamedTuple):
    """How many labels texts have that may have several."""

    mean: float
    several: int  # texts that have more than one
    none: int  # texts that have none


@dataclass(frozen=True)
class Profile:
    """The figures of a corpus, before it is clipped.

    Attributes:
        texts: How many there are to "train" on, to "val"idate on and to "test".
        classes: How many texts each class has, the most first; None: texts have no labels.
        tokenizer: What a token is, as `data.tokenizer` names it.
        median_length: Tokens of a text.
        longest: Tokens of the longest text.
        maxlen: Tokens that the model reads at most.
        cut: Share of the texts that have more.
        num_words: Size of the vocabulary, special ids included.
        unknown: Share of the tokens outside of it, in the texts of "train" (with those to validate
            on, if these are drawn from them) and "test".
        scripts: Share of the letters of training texts by script, such as "Hangul", the most first.
        per_text: How many labels the texts have; None: one each.
    """

    texts: dict[str, int]
    classes: dict[str, int] | None
    tokenizer: str
    median_length: float
    longest: int
    maxlen: int
    cut: float
    num_words: int
    unknown: dict[str, float]
    scripts: dict[str, float]
    per_text: LabelsPerText | None = None

    def describe(self) -> dict[str, str]:
        """The figures in words, by title."""
        texts, unknown = self.texts, self.unknown
        tokens = "words" if self.tokenizer == "words" else f"tokens ({self.tokenizer})"
        common = [f"{name} {share:.0%}" for name, share in self.scripts.items() if share >= 0.005]
        classes = {} if self.classes is None else {"classes": _counted(self.classes)}
        if self.per_text is not None:
            mean, several, none = self.per_text
            classes["labels"] = (
                f"{mean:.2f} per text in the mean; {several:,} texts have several, {none:,} have"
                " none, which is learned, too"
            )
        return {
            "texts": (
                f"{texts['train']:,} to train on, {texts['val']:,} to validate on,"
                f" {texts['test']:,} to test"
            ),
            **classes,
            "length": (
                f"{self.median_length:,.0f} {tokens} in the median, {self.longest:,} at most;"
                f" {self.cut:.1%} of the texts are cut to their last {self.maxlen:,} (data.maxlen)"
            ),
            "unknown": (
                f"{unknown['train']:.1%} of the {tokens} of training texts, {unknown['test']:.1%}"
                f" of those of test texts (data.num_words={self.num_words:,})"
            ),
            "scripts": ", ".join(common) or "no letters",
        }


def profile(
    corpus: Corpus,
    rows: Mapping[str, np.ndarray],
    *,
    num_words: int,
    maxlen: int,
    labelled: bool,
) -> Profile:
    """Computes the figures.

    Args:
        corpus: The corpus.
        rows: The texts of "train", "val" and "test".
        num_words: As in the config.
        maxlen: As in the config.
        labelled: Whether each text has a label.
    """
    parts = (corpus.train, corpus.held_out)
    lengths = np.concatenate([part.lengths for part in parts]) - 1  # without START
    return Profile(
        texts={split: len(of_split) for split, of_split in rows.items()},
        classes=_count(corpus.label_names, parts) if labelled else None,
        per_text=_per_text(parts) if labelled else None,
        tokenizer=corpus.vocabulary.tokenizer.choice,
        median_length=float(np.median(lengths)),
        longest=int(lengths.max()),
        maxlen=maxlen,
        cut=float((lengths > maxlen).mean()),
        num_words=num_words,
        unknown={
            "train": _unknown(corpus.train, num_words),
            "test": _unknown(corpus.test, num_words),
        },
        scripts=_scripts(corpus.vocabulary, corpus.train.ids),
    )


def _count(names: list[str], parts: Sequence[RaggedTexts]) -> dict[str, int]:
    labels = np.concatenate([part.labels for part in parts])
    if labels.ndim == 2:
        counts = labels.sum(axis=0, dtype=int)
    else:
        counts = np.bincount(labels, minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    return {names[i]: int(counts[i]) for i in order}


def _per_text(parts: Sequence[RaggedTexts]) -> LabelsPerText | None:
    labels = np.concatenate([part.labels for part in parts])
    if labels.ndim == 1:
        return None
    number = labels.sum(axis=1, dtype=int)
    return LabelsPerText(float(number.mean()), int((number > 1).sum()), int((number == 0).sum()))


def _counted(counts: Mapping[str, int]) -> str:
    """The classes with their numbers of texts; of many, the largest and the smallest."""
    shown = [
        f"{name if len(name) <= 40 else name[:39] + '…'} ({count:,})"
        for name, count in counts.items()
    ]
    if len(shown) > _CLASSES:
        half = _CLASSES // 2
        shown = [*shown[:half], "…", *shown[-half:]]
    return f"{len(counts):,}: {', '.join(shown)}"


def _unknown(texts: RaggedTexts, num_words: int) -> float:
    words = texts.ids[texts.ids != START]
    return float(((words == UNKNOWN) | (words >= num_words)).mean()) if len(words) else 0.0


def _scripts(vocabulary: Vocabulary, ids: np.ndarray) -> dict[str, float]:
    """The shares of scripts, by the first word of the Unicode names of letters."""
    counts = np.bincount(ids, minlength=vocabulary.num_words)[FIRST_WORD:]
    letters: Counter[str] = Counter()
    for word, count in zip(vocabulary.words[:_WORDS], counts.tolist(), strict=False):
        for letter in filter(str.isalpha, word):
            letters[letter] += count
    found: Counter[str] = Counter()
    for letter, count in letters.items():
        script = unicodedata.name(letter, "other").split()[0]
        found[script if script == "CJK" else script.capitalize()] += count
    return {script: count / found.total() for script, count in found.most_common() if count}

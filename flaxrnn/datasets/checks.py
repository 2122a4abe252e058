"""What is suspicious about custom texts and their splits, in words."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from flaxrnn.datasets.parsing import Example
from flaxrnn.datasets.splits import Splits

_UNLABELLED = {"unsup", "unsupervised", "unlabeled", "unlabelled"}


def find_suspicious(examples: Sequence[Example], keys: Sequence[str], splits: Splits) -> list[str]:
    """A sentence for each finding.

    Args:
        examples: The texts.
        keys: Of each example; equal texts have the same.
        splits: Their rows.
    """
    labels = [example.label for example in examples]
    names = [example.names for example in examples]
    counts = Counter(itertools.chain(*names))
    several = examples[0].labels is not None
    return [
        *_copies(labels, keys, splits),
        *_untested(names, splits),
        *(
            f"Class {label!r} ({count:,} texts) looks like texts without a label: leave it out, or"
            " it is learned as a class."
            for label, count in counts.items()
            if label.lower() in _UNLABELLED
        ),
        *(() if several else _several_labels(counts)),
        *_similar(counts),
    ]


def count_repeats(examples: Sequence[Example], keys: Sequence[str]) -> tuple[int, int]:
    """How many texts repeat an earlier one, and how many of these have another label than it."""
    first: dict[str, Example] = {}
    earlier = [first.setdefault(key, each) for each, key in zip(examples, keys, strict=True)]
    others = [a.names != b.names for a, b in zip(examples, earlier, strict=True)]
    return len(examples) - len(first), sum(others)


def _copies(labels: Sequence[str], keys: Sequence[str], splits: Splits) -> Iterable[str]:
    """Texts of a given split that are training texts, too."""
    known = defaultdict(set)
    for row in splits.train:
        known[keys[row]].add(labels[row])
    for split, rows in (("validation", splits.validation), ("test", splits.test)):
        copies = [row for row in rows if keys[row] in known]
        if copies:
            other = sum(labels[row] not in known[keys[row]] for row in copies)
            with_other = f", {other:,} of them with another label" if other else ""
            yield (
                f"Copies of training texts: {len(copies):,} of {len(rows):,} {split} texts"
                f"{with_other}."
            )


def _untested(names: Sequence[tuple[str, ...]], splits: Splits) -> Iterable[str]:
    """Classes without a test text or, where a text may have several labels, a training text."""
    trained = Counter(name for row in splits.train for name in names[row])
    tested = Counter(name for row in splits.test for name in names[row])
    if missing := Counter({name: n for name, n in trained.items() if name not in tested}):
        yield f"Without a test text: {_shown(missing)}; the test scores do not judge such a class."
    if missing := Counter({name: n for name, n in tested.items() if name not in trained}):
        yield f"Without a training text: {_shown(missing)}; such a label is never predicted."


def _several_labels(counts: Counter[str]) -> Iterable[str]:
    """Classes like "a,b", of which a part is a class or a part of another one."""
    parts = {label: {p.strip() for p in re.split("[,;|]", label)} - {""} for label in counts}
    number = Counter(part for found in parts.values() for part in found)
    separators = Counter({mark: sum(mark in label for label in counts) for mark in ",;|"})
    joined = Counter(
        {
            label: counts[label]
            for label, found in parts.items()
            if len(found) > 1 and any(number[part] > 1 for part in found)
        }
    )
    if joined:
        yield (
            f"Several labels per text? Each is learned as a class of its own: {_shown(joined)}; set"
            f" data.label_separator={separators.most_common(1)[0][0]!r} to learn them one by one."
        )


def _similar(counts: Counter[str]) -> Iterable[str]:
    """Classes that differ in case or in white space only."""
    by_form = defaultdict(list)
    for label in counts:
        by_form["".join(label.casefold().split())].append(label)
    for same in by_form.values():
        if len(same) > 1:
            found = Counter({label: counts[label] for label in same})
            yield f"Classes that differ in case or spaces only: {_shown(found)}."


def _shown(counts: Counter[str]) -> str:
    """The largest classes with their numbers of texts."""
    first = [f"{label!r} ({count:,})" for label, count in counts.most_common(5)]
    more = f" and {len(counts) - 5:,} more classes" if len(counts) > 5 else ""
    return ", ".join(first) + more

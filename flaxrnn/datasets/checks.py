"""What is suspicious about custom texts and their splits, in words."""

from __future__ import annotations

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
    counts = Counter(labels)
    return [
        *_copies(labels, keys, splits),
        *_untested(labels, splits),
        *(
            f"Class {label!r} ({count:,} texts) looks like texts without a label: leave it out, or"
            " it is learned as a class."
            for label, count in counts.items()
            if label.lower() in _UNLABELLED
        ),
        *_several_labels(counts),
        *_similar(counts),
    ]


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


def _untested(labels: Sequence[str], splits: Splits) -> Iterable[str]:
    tested = {labels[row] for row in splits.test}
    missing = Counter(labels[row] for row in splits.train if labels[row] not in tested)
    if missing:
        yield f"Without a test text: {_shown(missing)}; the test scores do not judge such a class."


def _several_labels(counts: Counter[str]) -> Iterable[str]:
    """Classes like "a,b", of which a part is a class or a part of another one."""
    parts = {label: {p.strip() for p in re.split("[,;|]", label)} - {""} for label in counts}
    number = Counter(part for found in parts.values() for part in found)
    joined = Counter(
        {
            label: counts[label]
            for label, found in parts.items()
            if len(found) > 1 and any(number[part] > 1 for part in found)
        }
    )
    if joined:
        yield (f"Several labels per text? Each is learned as a class of its own: {_shown(joined)}.")


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

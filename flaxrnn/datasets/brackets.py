"""Balanced brackets: generated texts whose best possible prediction is known.

A text is a digit n and one of the balanced strings of n pairs, each equally likely: 3(()()). The
tag of a character is the number of brackets that are open after it.

What may come next depends on everything before it: how many brackets are open, and how many of the
n pairs are left. A text is one of 9 · C(n), where C(n) is the number of balanced strings of n pairs
(a Catalan number), all equally likely given n. So no model can predict its characters and its end
with a loss below ln 9 + ln C(n) nats.
"""

from __future__ import annotations

import functools

import numpy as np

SIZES = {"train": 4_000, "test": 1_000}  # texts
PAIRS = 9  # at most
CHARACTERS = "()123456789"


def texts(split: str) -> list[str]:
    """The texts of "train" or "test"."""
    rng = np.random.default_rng([9, split == "test"])
    return [f"{n}{_balanced(rng, n)}" for n in rng.integers(1, PAIRS + 1, SIZES[split])]


def tags(text: str) -> list[int]:
    """The tag of each character."""
    return np.cumsum([{"(": 1, ")": -1}.get(character, 0) for character in text]).tolist()


@functools.cache
def ways(opened: int, left: int) -> int:
    """The number of ways in which `left` characters can close all brackets, `opened` being open."""
    if not 0 <= opened <= left:
        return 0
    return ways(opened + 1, left - 1) + ways(opened - 1, left - 1) if left else 1


def _balanced(rng: np.random.Generator, pairs: int) -> str:
    drawn, opened = "", 0
    for left in range(2 * pairs, 0, -1):
        opens = rng.random() < ways(opened + 1, left - 1) / ways(opened, left)
        drawn += "(" if opens else ")"
        opened += 1 if opens else -1
    return drawn

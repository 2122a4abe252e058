"""Text → tokens by rules, by default as in Keras.

Needs only the standard library: a copy of this module is part of an export.
"""

from __future__ import annotations

import unicodedata

TO_SPACE = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', " "))


def tokenize(text: str) -> list[str]:
    """Lower-cases, replaces punctuation other than the apostrophe by spaces, splits on spaces.

    Equivalent to `keras.preprocessing.text.text_to_word_sequence` with its default arguments. Only
    space, tab and newline separate words, so other Unicode white space stays inside them.
    """
    return [word for word in text.lower().translate(TO_SPACE).split(" ") if word]


class _Spacing(dict[int, str]):
    """Code point → its replacement before text of any script is split; filled on demand."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if character in "'\u2019":
            spaced = "'"
        elif category == "So":  # an emoji is a word, with or without spaces around it
            spaced = f" {character} "
        elif category == "Cf" or 0xFE00 <= code <= 0xFE0F:
            spaced = ""  # joiners and variation selectors only affect how text is drawn
        else:
            spaced = " " if category[0] in "PSZC" else character
        self[code] = spaced
        return spaced


SPACING = _Spacing()


def words(text: str) -> list[str]:
    """The words of a text, in any script that separates words: NFC, lower case.

    White space, punctuation other than the apostrophe, and mathematical and currency signs separate
    words; any other symbol is a word by itself.
    """
    return unicodedata.normalize("NFC", text).lower().translate(SPACING).split()


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where the words that `words` finds begin and end in a text in NFC."""
    found: list[tuple[int, int]] = []
    begin = None
    for i, character in enumerate(f"{text} "):
        spaced = SPACING[ord(character)]
        if not spaced.startswith(" "):
            begin = i if begin is None and spaced else begin
            continue
        if begin is not None:
            found.append((begin, i))
            begin = None
        if spaced.strip():  # a symbol that is a word by itself
            found.append((i, i + 1))
    return found


def normalize(text: str) -> str:
    """NFC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


SPLITTERS = {
    "keras": tokenize,
    "words": words,
    "characters": lambda text: list(normalize(text)),
}

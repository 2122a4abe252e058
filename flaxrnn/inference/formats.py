"""Predictions as JSON Lines and as a table."""

from __future__ import annotations

import json
from typing import Any

from flaxrnn.inference.predictions import Prediction
from flaxrnn.runtime import records, terminal

MIN_SHARE = 0.1  # of the largest attribution in a text, for a word to be highlighted
# Backgrounds of the 256-colour palette, faint to strong, for black text.
GREENS = (194, 157, 120, 83, 46)
REDS = (224, 217, 210, 203, 196)

_UNSURE = "?"  # in the place of a label below the threshold


def json_line(prediction: Prediction, top: int, explain: bool, several: bool = False) -> str:
    """One JSON object with the same keys for every prediction.

    Without words, or below the threshold, the label is null and the note says why; below the
    threshold the probability is still that of the likeliest label, which `top` names. Where a text
    may have `several` labels, there are lists in the place of both, or null without words.
    """
    encoded = prediction.encoded
    label, probability = prediction.top[0] if prediction.top else (None, None)
    labels: dict[str, Any] = {
        "label": None if prediction.unsure else label,
        "probability": probability and round(probability, 6),
    }
    found = prediction.labels
    if several:
        labels = {
            "labels": None if found is None else [name for name, _ in found],
            "probabilities": None if found is None else [round(p, 6) for _, p in found],
        }
    has_output = bool(prediction.top) or found is not None
    content: dict[str, Any] = {
        "index": prediction.index,
        **labels,
        "unknown": round(encoded.unknown_fraction, 4) if has_output else None,
        "words": encoded.total_words,
        "words_read": len(encoded.spans),
        "note": prediction.note,
    }
    if top > 1:
        content["top"] = [{"label": name, "probability": round(p, 6)} for name, p in prediction.top]
    if explain:
        content["explanation"] = [
            {"word": word, "weight": round(weight, 6)} for word, weight in prediction.words
        ]
    line = records.to_text(content, ensure_ascii=False)
    if line.isprintable():
        return line
    # What a terminal would obey, and half a surrogate pair, is only found within strings.
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


class Table:
    """A table whose column widths are known before the first prediction."""

    def __init__(
        self, label_names: list[str], explain: bool, columns: int, colour: bool, members: int = 1
    ):
        """Sets the layout.

        Args:
            label_names: Every label that may occur.
            explain: Whether predictions have attributions, which are shown below each row.
            columns: Width of the terminal.
            colour: Whether to highlight words by colour, else by their attribution in brackets.
            members: Number of runs whose attributions are averaged.
        """
        shown = map(terminal.escaped, ["label", *label_names])
        self._label_width = max(map(terminal.width, shown))
        self._explain, self._columns, self._colour = explain, columns, colour
        self._members = members

    def header(self) -> str:
        """The headings, with a legend if there are attributions."""
        last = "text"
        if self._explain:
            last = "green: for the label, red: against"
            last = last if self._colour else "+ for the label, - against"
            if self._members > 1:
                last = f"mean of {self._members} runs; {last}"
        return self._line("index", "label", "probability", "unknown", last)

    def row(self, prediction: Prediction) -> str:
        """The lines for one prediction."""
        index, encoded = str(prediction.index), prediction.encoded
        note = f"({prediction.note}) " if prediction.note else ""
        if not prediction.top and prediction.labels is None:
            return self._line(index, "-", "-", "-", note)
        last = note if self._explain else note + encoded.text
        unknown = f"{encoded.unknown_fraction:.2f}"
        lines = [] if prediction.top else [self._line(index, "-", "-", unknown, last)]
        for i, (label, probability) in enumerate(prediction.top):
            label = _UNSURE if prediction.unsure and i == 0 else label
            lines.append(self._line(index, label, f"{probability:.4f}", unknown, last))
            index = unknown = last = ""
        if self._explain:
            lines += [*self._highlighted(prediction), ""]
        return "\n".join(lines)

    def _line(self, index: str, label: str, probability: str, unknown: str, last: str) -> str:
        label = terminal.escaped(label)
        label += " " * (self._label_width - terminal.width(label))
        start = f"{index:>6}  {label}  {probability:>11}  {unknown:>7}  "
        return (start + terminal.fit(last, max(20, self._columns - terminal.width(start)))).rstrip()

    def _highlighted(self, prediction: Prediction) -> list[str]:
        """The text that was read, wrapped, with the words that mattered highlighted."""
        text, places = prediction.encoded.text, prediction.places
        largest = max(abs(weight) for *_, weight in places) or 1
        probability = prediction.top[0][1]
        pieces, position = [], 0
        for begin, end, weight in places:
            word = terminal.printable(text[begin:end], "�")
            shown = self._highlight(word, weight, abs(weight) / largest, probability)
            pieces += [terminal.printable(text[position:begin]), shown]
            position = end
        pieces.append(terminal.printable(text[position:]))
        return terminal.wrap("".join(pieces), self._columns, indent=8)

    def _highlight(self, word: str, weight: float, share: float, probability: float) -> str:
        """A word by its share of the largest attribution, paler where the label is less sure."""
        if share < MIN_SHARE or not word.strip():
            return word
        if not self._colour:
            return f"{word}({weight:+.2f})"
        shade = (GREENS if weight > 0 else REDS)[min(4, int(5 * share * probability))]
        return f"\x1b[30;48;5;{shade}m{word}\x1b[0m"

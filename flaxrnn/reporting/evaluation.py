"""A classifier's labels of texts whose true labels are known: as text, as a page and as JSON."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from flaxrnn.reporting import page
from flaxrnn.runtime import terminal
from flaxrnn.training import intervals, metrics
from flaxrnn.training.confidence import Confidence

_MISTAKES = 200  # on the page
_CLASSES, _PAIRS = 50, 10  # that are printed


class Labelled(NamedTuple):
    """A text with its labels."""

    text: str
    label: int  # the true class
    predicted: int
    probability: float  # of the predicted class


@dataclass(frozen=True)
class Evaluation:
    """N texts that have words and a label that the model knows, and how many others there are.

    Attributes:
        names: Of the classes.
        texts: The texts.
        unknown: How many texts have each label that the model does not know, the most first.
        empty: Number of texts without words.
    """

    names: list[str]
    texts: list[Labelled]
    unknown: dict[str, int]
    empty: int

    @property
    def labels(self) -> np.ndarray:
        """The true classes, int [N]."""
        return np.array([text.label for text in self.texts], int)

    @property
    def predicted(self) -> np.ndarray:
        """The predicted classes, int [N]."""
        return np.array([text.predicted for text in self.texts], int)

    @property
    def confidence(self) -> Confidence:
        """In the predicted classes."""
        probability = np.array([text.probability for text in self.texts])
        return Confidence(probability, self.labels == self.predicted)

    @property
    def class_scores(self) -> metrics.ClassScores:
        """Of each class."""
        totals = metrics.class_totals(self.labels, self.predicted, len(self.names))
        return metrics.class_scores(*totals)

    def notes(self) -> Iterator[str]:
        """What was left out, and why."""
        if self.unknown:
            yield (
                f"left out {sum(self.unknown.values()):,} texts whose labels the model does not"
                f" know: {counted(self.unknown)}"
            )
        if self.empty:
            yield f"left out {self.empty:,} texts without words"

    @functools.cached_property
    def figures(self) -> dict[str, Any]:
        """The figures of all classes together."""
        confidence = self.confidence
        correct, count = int(confidence.correct.sum()), len(self.texts)
        return {
            "texts": count,
            "accuracy": correct / count,
            "accuracy_interval": list(intervals.of_share(correct, count)),
            "macro_f1": metrics.macro_f1(self.class_scores),
            "macro_f1_interval": list(
                intervals.of_macro_f1(self.labels, self.predicted, len(self.names))
            ),
            "calibration_error": confidence.calibration_error,
        }

    def to_text(self, threshold: float | None) -> str:
        """The figures, the classes and the pairs that are confused most."""
        figures = self.figures
        lines = [
            f"accuracy           {figures['accuracy']:.4f}  (95% interval"
            f" {intervals.show(figures['accuracy_interval'])}, {figures['texts']:,} texts)",
            f"macro-F1           {figures['macro_f1']:.4f}  (95% interval"
            f" {intervals.show(figures['macro_f1_interval'])})",
            f"calibration error  {figures['calibration_error']:.4f}",
        ]
        if threshold is not None:
            at = self.confidence.above(threshold)
            right = f", {at.accuracy:.1%} of those are right" if at.share else ""
            lines.append(f"at least {threshold:<10g}{at.share:.1%} get a label{right}")
        lines += [f"note               {note}" for note in self.notes()]
        return "\n".join([*lines, "", self._class_table(), *self._confused()])

    def worst(self) -> list[Labelled]:
        """The most confident mistakes, at most 200."""
        wrong = [text for text in self.texts if text.label != text.predicted]
        return sorted(wrong, key=lambda text: -text.probability)[:_MISTAKES]

    def to_html(self, file: str, workdir: str, words: Sequence[tuple[str, ...]]) -> str:
        """A page with the figures and the most confident mistakes.

        Args:
            file: The name of the file.
            workdir: That of the model.
            words: Those that decided in each of `worst`.
        """
        figures, worst = self.figures, self.worst()
        wrong = int((~self.confidence.correct).sum())
        explained = zip(worst, words, strict=True)
        return page.fill(
            "evaluation",
            title=f"{file}: accuracy {figures['accuracy']:.4f}",
            file=file,
            workdir=workdir,
            notes=list(self.notes()),
            tiles=[
                (
                    "accuracy",
                    f"{figures['accuracy']:.4f}",
                    f"95% interval {intervals.show(figures['accuracy_interval'])}",
                ),
                (
                    "macro-F1",
                    f"{figures['macro_f1']:.4f}",
                    f"95% interval {intervals.show(figures['macro_f1_interval'])}",
                ),
                ("texts", f"{figures['texts']:,}", f"{wrong:,} mistakes"),
            ],
            **page.scores(
                self.names,
                self.class_scores,
                metrics.confusion(self.labels, self.predicted),
                self.confidence,
            ),
            mistakes=[page.Mistake(*text, words=found) for text, found in explained],
            texts_note=f"At most {_MISTAKES} are shown.",
            unit="texts",
        )

    def to_json(self, threshold: float | None) -> dict[str, Any]:
        """All of it but the texts."""
        scores, names = self.class_scores, self.names
        content = dict(self.figures)
        if threshold is not None:
            at = self.confidence.above(threshold)
            accuracy = at.accuracy if at.share else None
            content["above"] = {"threshold": threshold, "share": at.share, "accuracy": accuracy}
        content["classes"] = by_name(names, scores)
        content["confusion"] = [
            {"label": names[label], "predicted": names[predicted], "texts": int(count)}
            for label, predicted, count in metrics.confusion(self.labels, self.predicted)
        ]
        return {**content, "unknown_labels": self.unknown, "without_words": self.empty}

    def _class_table(self) -> str:
        scores = self.class_scores
        order = np.argsort(-scores["support"], kind="stable")[:_CLASSES]
        rows = [["class", "precision", "recall", "F1", "texts", "predicted"]]
        for i in order:
            rates = [f"{scores[name][i]:.4f}" for name in ("precision", "recall", "f1")]
            counts = [f"{scores[name][i]:,.0f}" for name in ("support", "predicted")]
            rows.append([terminal.printable(self.names[i]), *rates, *counts])
        more = len(self.names) - len(order)
        return terminal.table(rows) + (f"\n… and {more:,} classes with fewer texts" if more else "")

    def _confused(self) -> Iterator[str]:
        wrong = self.labels != self.predicted
        pairs = metrics.confusion(self.labels[wrong], self.predicted[wrong])
        pairs = pairs[np.argsort(-pairs[:, 2], kind="stable")][:_PAIRS]
        if len(pairs):
            rows = [["true class", "predicted as", "texts"]]
            names = [terminal.printable(name) for name in self.names]
            rows += [[names[label], names[other], f"{n:,}"] for label, other, n in pairs]
            yield "\n" + terminal.table(rows)


def counted(unknown: Mapping[str, int]) -> str:
    """Labels with their numbers of texts, the first twenty of them."""
    shown = [f"{name} ({count:,})" for name, count in unknown.items()]
    more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
    return ", ".join(shown[:20]) + more


def by_name(names: Sequence[str], scores: metrics.ClassScores) -> dict[str, dict[str, float]]:
    """The scores of each class, by its name."""
    return {
        name: {score: float(values[i]) for score, values in scores.items()}
        for i, name in enumerate(names)
    }

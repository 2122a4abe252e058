"""A classifier's labels of texts that may have several, compared with the true ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from flaxrnn.reporting import page
from flaxrnn.reporting.evaluation import by_name, counted
from flaxrnn.runtime import terminal
from flaxrnn.training import metrics

_MISTAKES = 200  # on the page
_CLASSES = 50  # that are printed


@dataclass(frozen=True)
class LabelsEvaluation:
    """N texts that have words, and how many others there are; see `evaluation.Evaluation`.

    Attributes:
        names: Of the C labels.
        thresholds: The probability above which each label is predicted, float [C].
        texts: The texts.
        labels: Whether each text has each label, bool [N, C].
        probabilities: That it has, float [N, C].
        unknown: How many texts have each label that the model does not know, the most first.
        empty: Number of texts without words.
    """

    names: list[str]
    thresholds: np.ndarray
    texts: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    unknown: dict[str, int]
    empty: int

    @property
    def predicted(self) -> np.ndarray:
        """Whether each label is predicted, bool [N, C]."""
        return self.probabilities > self.thresholds

    @property
    def class_scores(self) -> metrics.ClassScores:
        """Of each label."""
        totals = metrics.class_totals(self.labels, self.predicted, len(self.names))
        return {**metrics.class_scores(*totals), "threshold": self.thresholds}

    def notes(self) -> Iterator[str]:
        """What was left out, and why."""
        if self.unknown:
            yield f"not judged: labels that the model does not know, {counted(self.unknown)}"
        if self.empty:
            yield f"left out {self.empty:,} texts without words"

    def figures(self) -> dict[str, Any]:
        """The figures of all labels together."""
        scores = metrics.of_predictions(self.labels, self.predicted, len(self.names))
        return {"texts": len(self.texts), **scores}

    def to_text(self, threshold: float | None) -> str:
        """The figures and the labels; `threshold` is already that of all labels, if given."""
        figures = self.figures()
        lines = [
            f"micro-F1           {figures['micro_f1']:.4f}  ({figures['texts']:,} texts)",
            f"macro-F1           {figures['macro_f1']:.4f}",
            f"accuracy           {figures['accuracy']:.4f}  (all labels of a text are right)",
            *(f"note               {note}" for note in self.notes()),
        ]
        scores = self.class_scores
        order = np.argsort(-scores["support"], kind="stable")[:_CLASSES]
        rows = [["label", "precision", "recall", "F1", "texts", "predicted", "threshold"]]
        for i in order:
            rates = [f"{scores[name][i]:.4f}" for name in ("precision", "recall", "f1")]
            counts = [f"{scores[name][i]:,.0f}" for name in ("support", "predicted")]
            limit = f"{self.thresholds[i]:.4f}"
            rows.append([terminal.printable(self.names[i]), *rates, *counts, limit])
        more = len(self.names) - len(order)
        lines += ["", terminal.table(rows)]
        return "\n".join(lines + [f"… and {more:,} labels with fewer texts"] * bool(more))

    def to_html(self, file: str, workdir: str) -> str:
        """A page with the figures and the texts that the model is most wrong about."""
        figures, predicted = self.figures(), self.predicted
        worst = most_wrong(self.labels, predicted, self.probabilities, _MISTAKES)
        mistakes = [
            mistake(self.texts[i], self.labels[i], predicted[i], error) for i, error in worst
        ]
        return page.fill(
            "evaluation",
            title=f"{file}: micro-F1 {figures['micro_f1']:.4f}",
            file=file,
            workdir=workdir,
            notes=list(self.notes()),
            tiles=[
                ("micro-F1", f"{figures['micro_f1']:.4f}", "all labels"),
                ("macro-F1", f"{figures['macro_f1']:.4f}", "mean over labels"),
                ("accuracy", f"{figures['accuracy']:.4f}", "all labels of a text are right"),
                ("texts", f"{figures['texts']:,}", ""),
            ],
            **page.scores(self.names, self.class_scores, None, None, self.thresholds),
            mistakes=mistakes,
            texts_note=f"At most {_MISTAKES} are shown.",
            unit="texts",
        )

    def to_json(self, threshold: float | None) -> dict[str, Any]:
        """All of it but the texts."""
        return {
            **self.figures(),
            "classes": by_name(self.names, self.class_scores),
            "unknown_labels": self.unknown,
            "without_words": self.empty,
        }


def most_wrong(
    labels: np.ndarray, predicted: np.ndarray, probability: np.ndarray, most: int
) -> list[tuple[int, float]]:
    """The texts with a wrong label, worst first, and how sure the model is of the worst one.

    Args:
        labels: Whether each text has each label, bool [N, C].
        predicted: Whether it is said to, bool [N, C].
        probability: That it has, float [N, C].
        most: How many texts to return at most.
    """
    error = np.where(labels, 1 - probability, probability)
    error = np.where(labels != predicted, error, -1.0).max(axis=1, initial=-1.0)
    order = np.argsort(-error, kind="stable")[:most]
    return [(int(i), float(error[i])) for i in order if error[i] >= 0]


def mistake(text: str, labels: np.ndarray, predicted: np.ndarray, error: float) -> page.Mistake:
    """A text of `most_wrong`, of which `labels` and `predicted` are the rows, [C]."""
    true, said = (tuple(np.flatnonzero(row).tolist()) for row in (labels, predicted))
    return page.Mistake(text, true, said, error)

"""report.html: a run on one page, in one self-contained file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flaxrnn.data import batching
from flaxrnn.data.profile import Profile
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.reporting import plots
from flaxrnn.runtime import terminal
from flaxrnn.training import intervals, metrics
from flaxrnn.training.confidence import Confidence

MISTAKES = 20
_MATRIX = 100  # classes at most whose confusion is shown as a matrix
_PAIRS = 100  # pairs that are shown instead
_CLASSES = 1_000  # that are listed
_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_SNIPPET = 240  # characters shown of a misclassified text before it is expanded
_TIME_TITLES = {
    "startup": "start-up and data",
    "ngrams": "fitting to n-grams",
    "compile": "compiling",
    "train": "training",
    "input": "training: waiting for input",
    "eval": "validation",
    "test": "test",
    "other": "checkpoints, other",
}


@dataclass(frozen=True)
class Mistake:
    """A misclassified text of the test split."""

    text: str
    label: int | tuple[int, ...]  # the true class, or all labels
    predicted: int | tuple[int, ...]
    probability: float  # of the predicted class, or of the label that it is most wrong about
    words: tuple[str, ...] = ()  # that decided, the strongest first; (): it is not known which
    row: int = -1  # of the text among those of the run; -1: it is none of them

    def named(self, what: str, names: Sequence[str]) -> str:
        """The name of its "label" or "predicted", or of several."""
        classes = getattr(self, what)
        if isinstance(classes, int):
            return names[classes]
        return ", ".join(names[c] for c in classes) or "no label"

    @property
    def snippet(self) -> str | None:
        """The beginning of a long text, up to the end of a word; None for a short one."""
        if len(self.text) <= _SNIPPET:
            return None
        return self.text[:_SNIPPET].rpartition(" ")[0] or self.text[:_SNIPPET]


@dataclass(frozen=True)
class Details:
    """What the page shows in addition to result.json and metrics.jsonl.

    Attributes:
        label_names: One per class.
        class_scores: Class scores of the test split.
        confusion: Test examples by true and predicted class, see `metrics.confusion`; None if the
            classes are the words of the vocabulary.
        mistakes: The most confident ones first; None if outputs are per token.
        confidence: In the labels of the test split; None if outputs are per token.
        config: Values by dotted name.
        summary: The table of the model's layers.
        profile: What the corpus is like.
        unit: What is classified, "texts" or "tokens".
        thresholds: Of the probability of each label, float [C]; None: a text has one.
    """

    label_names: list[str]
    class_scores: metrics.ClassScores
    confusion: np.ndarray | None
    mistakes: list[Mistake] | None
    confidence: Confidence | None
    config: dict[str, Any]
    summary: str
    profile: Profile
    unit: str = "texts"
    thresholds: np.ndarray | None = None


def mistakes(
    training_data: batching.TrainingData,
    vocabulary: Vocabulary,
    predicted: np.ndarray,
    probability: np.ndarray,
) -> list[Mistake]:
    """The misclassified texts of the test split, the most confident first, at most 20.

    Args:
        training_data: The texts as the model reads them.
        vocabulary: Decodes them.
        predicted: Class of each text of the test split, int [N].
        probability: Probability of that class, float [N].
    """
    texts, rows = training_data.texts, training_data.rows["test"]
    wrong = np.flatnonzero(predicted != texts.labels[rows])
    worst = wrong[np.argsort(-probability[wrong], kind="stable")][:MISTAKES]
    return [
        Mistake(
            vocabulary.decode(texts.ids[texts.offsets[row] : texts.offsets[row + 1]]),
            int(texts.labels[row]),
            int(predicted[i]),
            float(probability[i]),
            row=int(row),
        )
        for i, row in zip(worst, rows[worst], strict=True)
    ]


def render(result: dict[str, Any], history: list[dict[str, Any]], details: Details) -> str:
    """Renders the page as HTML.

    Args:
        result: As in result.json.
        history: The lines of metrics.jsonl.
        details: Everything else.
    """
    headline = metrics.headline(result)
    best = result["best_epoch"]
    shown = f"{headline.title} {headline.show(result, 'test')}"
    return fill(
        "page",
        title=f"{result['task']}, seed {result['seed']}: {shown}",
        result=result,
        tiles=_tiles(result, details.unit),
        data=details.profile.describe(),
        curves=[plots.curves_svg(history, best, metric) for metric in metrics.per_epoch()],
        **scores(
            details.label_names,
            details.class_scores,
            details.confusion,
            details.confidence,
            details.thresholds,
        ),
        mistakes=details.mistakes,
        texts_note="The text is what the model read: unknown words are “?”.",
        time=_time(result["seconds"]),
        summary=details.summary,
        config={name: json.dumps(value) for name, value in details.config.items()},
        provenance=_provenance(result),
        unit=details.unit,
    )


def fill(name: str, **values: Any) -> str:
    """Renders a template of a page."""
    import jinja2  # only at the end of a run

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flaxrnn.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["escaped"] = terminal.escaped
    return environment.get_template(f"{name}.html.jinja").render(**values)


def scores(
    names: list[str],
    class_scores: metrics.ClassScores,
    confusion: np.ndarray | None,
    confidence: Confidence | None,
    thresholds: np.ndarray | None = None,
) -> dict[str, Any]:
    """What scores.html.jinja shows; see `Details`."""
    if thresholds is not None:
        class_scores = {**class_scores, "threshold": thresholds}
    return {
        "names": names,
        "several": thresholds is not None,
        **_classes(class_scores, names, confusion),
        **_confidence(confidence),
    }


def _tiles(result: Mapping[str, Any], unit: str) -> list[tuple[str, str, str]]:
    """The title, value and note of each tile."""
    refit = ", then refit" if result["refit"] else ""
    examples = f"{result['test_examples']:,} {unit}"
    headline, baseline = metrics.headline(result), result.get("baseline")
    largest = result.get("largest_class_accuracy")
    return [
        *(
            (f"test {metric.title}", metric.show(result, "test"), _note(result, metric, examples))
            for metric in metrics.headline_first(result)
        ),
        *(
            [(f"baseline {headline.title}", headline.show(baseline, "test"), baseline["name"])]
            if baseline
            else []
        ),
        *(
            [("largest class", f"{largest:.4f}", "accuracy of always answering with it")]
            if largest is not None
            else []
        ),
        ("epochs", f"{result['epochs']}", f"the best was {result['best_epoch']}{refit}"),
        ("time", f"{result['seconds']['total']:,.1f}", "seconds, start to finish"),
        (
            "speed",
            f"{result['train_examples_per_second']:,.0f}",
            f"texts/s in training, {result['train_tokens_per_second']:,.0f} tokens/s",
        ),
        ("parameters", f"{result['parameters']:,}", ""),
        ("seed", f"{result['seed']}", ""),
    ]


def _note(result: Mapping[str, Any], metric: metrics.Metric, examples: str) -> str:
    """What a metric of the test split is a mean over, with its interval if it has one."""
    interval = result.get(f"test_{metric.name}_interval")
    within = f"; 95%: {intervals.show(interval)}" if interval else ""
    return (metric.detail or examples) + within


def _classes(
    scores: metrics.ClassScores, names: list[str], confusion: np.ndarray | None
) -> dict[str, Any]:
    """The scores of each class, and the confusion matrix or, of many classes, the commonest pairs.

    The most frequent class comes first. Nothing here grows faster than the number of classes.
    """
    shown: dict[str, Any] = {"classes": None, "confusion": None, "confused": None}
    if confusion is None and "threshold" not in scores:
        return shown
    order = np.argsort(-scores["support"], kind="stable")
    shown["classes"] = [
        {"name": names[i], **{score: float(values[i]) for score, values in scores.items()}}
        for i in order[:_CLASSES]
    ]
    if confusion is None:
        return shown
    if len(names) > _MATRIX:
        shown["confused"] = _most_confused(confusion, scores["support"], names)
        return shown
    matrix = np.zeros((len(names), len(names)))
    matrix[confusion[:, 0], confusion[:, 1]] = confusion[:, 2]
    rows = matrix[np.ix_(order, order)].tolist()
    shown["confusion"] = [(names[i], row) for i, row in zip(order, rows, strict=True)]
    return shown


def _most_confused(
    confusion: np.ndarray, support: np.ndarray, names: list[str]
) -> list[dict[str, Any]]:
    """The commonest pairs of a class and another that was predicted, at most 100."""
    wrong = confusion[confusion[:, 0] != confusion[:, 1]]
    wrong = wrong[np.argsort(-wrong[:, 2], kind="stable")][:_PAIRS]
    return [
        {
            "label": names[label],
            "predicted": names[predicted],
            "count": int(count),
            "share": float(count / support[label]),
        }
        for label, predicted, count in wrong
    ]


def _confidence(confidence: Confidence | None) -> dict[str, Any]:
    """The plots of confidence, and what thresholds of `predict --threshold` would do."""
    if confidence is None:
        return {"confidence": None}
    return {
        "confidence": [plots.reliability_svg(confidence), plots.coverage_svg(confidence)],
        "calibration_error": confidence.calibration_error,
        "coverage": [confidence.above(threshold) for threshold in _THRESHOLDS],
    }


def _time(seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """The parts of the total time, without overlap."""
    parts = {name: value for name, value in seconds.items() if name != "total"}
    parts["startup"] -= parts["ngrams"]
    parts["train"] -= parts["input"]
    parts["other"] = max(0.0, seconds["total"] - sum(parts.values()))
    return [
        {
            "name": name,
            "title": _TIME_TITLES[name],
            "seconds": value,
            "share": value / seconds["total"],
        }
        for name, value in parts.items()
    ]


def _provenance(result: Mapping[str, Any]) -> dict[str, str]:
    kinds = Counter(device.partition(" ")[2] for device in result["devices"])
    peak = result["memory"]
    device_peak = peak["peak_device_mib"]
    return {
        "command": result["command"],
        "commit": result["commit"] or "none: not run from a checkout",
        "devices": ", ".join(f"{kind} ({count})" for kind, count in kinds.items()),
        "peak memory of the process": f"{peak['peak_rss_mib']:,.0f} MiB",
        "peak memory of a device": (
            "not measured" if device_peak is None else f"{device_peak:,.0f} MiB"
        ),
        "texts": "resident on the devices" if result["resident"] else "streamed",
        "bucket lengths": ", ".join(map(str, result["buckets"])),
        "steps skipped (not finite)": f"{result['skipped_steps']:,}",
        **result["versions"],
    }

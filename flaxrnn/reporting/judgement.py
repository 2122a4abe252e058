"""How the texts of the test split were classified: what the page shows of single texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flaxrnn.data.batching import TrainingData
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.nn.heads import Head
from flaxrnn.reporting import multilabel, page
from flaxrnn.training import metrics
from flaxrnn.training.texts import Texts
from flaxrnn.training.thresholds import sigmoid


def judge(
    texts: Texts,
    head: Head,
    class_counts: np.ndarray,
    per_text: dict[str, np.ndarray],
    thresholds: Sequence[float] | None,
) -> dict[str, Any]:
    """Some of the fields of `page.Details`.

    Args:
        texts: The run's.
        head: Its head.
        class_counts: What the head counted.
        per_text: See `Trainer.evaluate`.
        thresholds: Of the probability of each label, where a text may have several.
    """
    data, vocabulary = texts.training_data, texts.vocabulary
    if head.per_token:
        return {"confusion": head.confusion(class_counts), "mistakes": None}
    if thresholds is not None:
        limits = np.array(thresholds)
        probability = sigmoid(per_text["logits"])
        wrong = _mistakes_of_several(data, vocabulary, probability > limits, probability)
        return {"confusion": None, "mistakes": wrong, "thresholds": limits}
    predicted, probability = per_text["predicted"], per_text["probability"]
    return {
        "confusion": metrics.confusion(texts.test_labels, predicted),
        "mistakes": page.mistakes(data, vocabulary, predicted, probability),
    }


def _mistakes_of_several(
    data: TrainingData,
    vocabulary: Vocabulary,
    predicted: np.ndarray,
    probability: np.ndarray,
) -> list[page.Mistake]:
    """Like `page.mistakes`, for any number of labels of each text, all bool or float [N, C]."""
    texts, rows = data.texts, data.rows["test"]
    labels = texts.labels[rows] > 0
    worst = multilabel.most_wrong(labels, predicted, probability, page.MISTAKES)
    return [
        multilabel.mistake(text, labels[i], predicted[i], error)
        for i, error in worst
        for begin, end in [texts.offsets[rows[i] : rows[i] + 2]]
        for text in [vocabulary.decode(texts.ids[begin:end])]
    ]

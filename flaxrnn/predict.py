"""A trained workdir → labels for raw text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from flaxrnn import checkpoint, data, devices, models, steps, text
from flaxrnn.errors import DataError, WorkdirError


class Classifier:
    """A trained classifier with its vocabulary and label names."""

    def __init__(
        self,
        model: models.TextClassifier,
        params: Any,
        vocabulary: text.Vocabulary,
        label_names: list[str],
        settings: ConfigDict,
    ):
        """Keeps the parts; `settings` is the config of the run."""
        self.label_names = label_names
        self._vocabulary = vocabulary
        self._settings = settings
        self._mesh = devices.mesh_for(settings.train.eval_batch_size)
        self._params = devices.place(params, self._mesh, PartitionSpec())
        self._probabilities = steps.predictor(model, self._mesh)

    def predict(self, texts: list[str]) -> tuple[list[str], np.ndarray]:
        """Classifies raw texts.

        Returns:
            The likeliest label of each, and the probabilities of all labels, float32 [N, C].

        Raises:
            DataError: A text has not a single word.
        """
        rows = []
        for i, raw in enumerate(texts):
            if not (words := self._vocabulary.tokenizer(raw)):
                raise DataError(f"text {i} is empty: not a single word in {raw[:40]!r}")
            rows.append(np.array(self._vocabulary.encode(words), np.int32))
        if not rows:
            return [], np.zeros((0, len(self.label_names)), np.float32)
        offsets = np.cumsum([0, *map(len, rows)])
        maxlen = self._settings.data.maxlen
        split = data.Split(np.concatenate(rows), offsets, np.zeros(len(rows), np.int32))
        split = split.clip(self._settings.data.num_words, maxlen)
        arrays = split.padded(maxlen, self._settings.data.padding)
        size = self._settings.train.eval_batch_size
        size = -(-size // self._mesh.size) * self._mesh.size
        parts = []
        for begin in range(0, len(rows), size):  # each batch of one shape, the last one too
            chosen = np.minimum(np.arange(begin, begin + size), len(rows) - 1)
            tokens = arrays["tokens"][chosen].astype(np.int32)
            parts.append(self._probabilities(self._params, tokens, arrays["lengths"][chosen]))
        probabilities = np.concatenate(parts)[: len(rows)]
        return [self.label_names[i] for i in probabilities.argmax(axis=1)], probabilities


def load(workdir: str | Path) -> Classifier:
    """The classifier that a run left in its workdir.

    Raises:
        WorkdirError: The workdir holds no trained model.
    """
    devices.use_all_cores()
    workdir = Path(workdir)
    try:
        settings = ConfigDict(json.loads((workdir / "config.json").read_text("utf-8")))
        label_names = json.loads((workdir / "labels.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WorkdirError(f"{workdir}: no trained model here ({error})") from None
    vocabulary = text.Vocabulary.load(workdir / "vocabulary.json")
    model = models.build(settings.model, settings.data.num_words, len(label_names))
    checkpoints = checkpoint.Checkpoints(workdir / "checkpoints")
    restored = checkpoints.restore(weights=models.init_params(model, jax.random.key(0)))
    checkpoints.close()
    if restored is None:
        raise WorkdirError(f"{workdir}: no checkpoint here; the training has not got that far")
    return Classifier(model, restored["weights"], vocabulary, label_names, settings)

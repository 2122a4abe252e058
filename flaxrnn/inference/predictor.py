"""A trained workdir → labels or tags for raw text, the words that decided on them; new text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

from flaxrnn import config
from flaxrnn.data import batching, ragged
from flaxrnn.data.vocabulary import UNKNOWN, Vocabulary
from flaxrnn.errors import ConfigError, DataError, WorkdirError
from flaxrnn.inference import programs
from flaxrnn.nn import models
from flaxrnn.runtime import devices
from flaxrnn.training import checkpoint


class EncodedText(NamedTuple):
    """What the classifier reads of a text: all of it, or its last `data.maxlen` words."""

    text: str  # that part
    spans: list[tuple[int, int]]  # where its words begin and end there
    ids: np.ndarray  # int32 [n], of the words, behind the start id where there is room for it
    words: int  # of the whole text

    @property
    def unknown(self) -> float:
        """Share of the words read that are outside the vocabulary; 0 where there is no word."""
        ids = self.ids[-len(self.spans) :]
        return float((ids == UNKNOWN).mean())


class SavedModel(NamedTuple):
    """What a run leaves for predictions."""

    model: models.TextModel
    params: Any
    vocabulary: Vocabulary
    label_names: list[str]
    settings: config.Config  # the config of the run


class TextPredictor:
    """A trained model with its vocabulary and label names; `model.target` says what it can do."""

    def __init__(
        self,
        model: models.TextModel,
        params: Any,
        vocabulary: Vocabulary,
        label_names: list[str],
        settings: config.Config,
    ):
        """Keeps the parts; `settings` is the config of the run."""
        self.label_names = label_names
        self._vocabulary = vocabulary
        self._settings = settings
        self._model = model
        self._mesh = devices.make_mesh(settings.train.eval_batch_size)
        self._params = devices.shard(params, self._mesh, PartitionSpec())
        self._predict = programs.predictor(model, self._mesh)
        self._explain = programs.explainer(model, self._mesh)
        # A text is padded to the shortest of these that holds it. Each is compiled when needed.
        maxlen = settings.data.maxlen
        shares = (8, 4, 2, 1) if settings.data.padding == "post" else (1,)
        self._buckets = sorted({-(-maxlen // share) for share in shares})

    def predict(self, texts: list[str]) -> tuple[list[str], np.ndarray]:
        """Classifies raw texts.

        Returns:
            The likeliest label of each, and the probabilities of all labels, float32 [N, C].

        Raises:
            ConfigError: The model gives no label to a text.
            DataError: A text has not a single word.
        """
        readings = [self.read(raw) for raw in texts]
        for i, reading in enumerate(readings):
            if not reading.words:
                raise DataError(f"text {i} is empty: not a single word in {texts[i][:40]!r}")
        probabilities = self.probabilities(readings)
        return [self.label_names[i] for i in probabilities.argmax(axis=1)], probabilities

    def tag(self, texts: list[str]) -> list[list[str]]:
        """The likeliest tag of each token that is read of raw texts, see `read`.

        Raises:
            ConfigError: The model gives no tags.
        """
        self._check_target("tags")
        readings = [self.read(raw) for raw in texts]
        found: list[list[str]] = [[] for _ in texts]
        size = self._settings.train.eval_batch_size
        for rows, probabilities in self._batches(self._predict, readings, size):
            for row, tags in zip(rows, np.asarray(probabilities).argmax(axis=2), strict=False):
                end = len(readings[row].ids)
                begin = end - len(readings[row].spans)
                found[row] = [self.label_names[tag] for tag in tags[begin:end]]
        return found

    def generate(
        self, prompts: list[str], length: int = 100, temperature: float = 1.0, seed: int = 0
    ) -> list[str]:
        """Texts that begin with the prompts, which may be empty, and go on token by token.

        Args:
            prompts: Raw texts; of each the last `data.maxlen` tokens are read.
            length: Tokens to add; fewer where the text ends before.
            temperature: 0: the likeliest token each time. Else drawn: 1 as the model has learned,
                lower nearer to the likeliest, higher more evenly.
            seed: Of the draws; those of a prompt depend on its place, not on the other prompts.

        Raises:
            ConfigError: The model predicts no next token.
        """
        self._check_target("next")
        readings = [self.read(prompt) for prompt in prompts]
        program = programs.generator(self._model, self._mesh, len(self._vocabulary), length)
        places = np.arange(len(prompts))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.PRNGKey(seed), places)
        of_each = (np.asarray(keys), np.full(len(prompts), temperature, np.float32))
        out = [""] * len(prompts)
        size = self._settings.train.eval_batch_size
        for rows, added in self._batches(program, readings, size, *of_each):
            for row, ids in zip(rows, np.asarray(added), strict=False):
                out[row] = self._vocabulary.decode([*readings[row].ids, *ids])
        return out

    def read(self, raw: str) -> EncodedText:
        """A raw text as the classifier reads it."""
        maxlen = self._settings.data.maxlen
        tokenizer = self._vocabulary.tokenizer
        ids = self._vocabulary.encode(tokenizer(raw))[-maxlen:]
        seen, found = tokenizer.locate(raw)
        begin = found[-maxlen][0] if len(found) > maxlen else 0
        spans = [(first - begin, end - begin) for first, end in found[-maxlen:]]
        return EncodedText(seen[begin:], spans, np.array(ids, np.int32), len(found))

    def probabilities(self, readings: list[EncodedText]) -> np.ndarray:
        """Of all labels for texts that have words, float32 [N, C].

        Raises:
            ConfigError: The model gives no label to a text.
        """
        self._check_target("label")
        out = np.zeros((len(readings), len(self.label_names)), np.float32)
        size = self._settings.train.eval_batch_size
        for rows, probabilities in self._batches(self._predict, readings, size):
            out[rows] = probabilities[: len(rows)]
        return out

    def explain(self, readings: list[EncodedText]) -> tuple[np.ndarray, list[np.ndarray]]:
        """`probabilities`, and of each text the weights of the words read, float32 [words].

        A weight above 0 speaks for the likeliest label, see `models.attributions`.
        """
        self._check_target("label")
        out = np.zeros((len(readings), len(self.label_names)), np.float32)
        weights = [np.zeros(0, np.float32)] * len(readings)
        size = self._settings.train.batch_size  # a gradient takes the memory of a training step
        for rows, (probabilities, of_tokens) in self._batches(self._explain, readings, size):
            out[rows] = probabilities[: len(rows)]
            for row, tokens in zip(rows, np.asarray(of_tokens), strict=False):
                post = self._settings.data.padding == "post"
                end = len(readings[row].ids) if post else len(tokens)
                weights[row] = tokens[end - len(readings[row].spans) : end]
        return out, weights

    def _check_target(self, needed: str) -> None:
        if self._settings.model.target != needed:
            raise ConfigError(
                f"model.target: must be {needed} for this; the model was trained with"
                f" {self._settings.model.target}"
            )

    def _batches(
        self,
        program: jax.stages.Wrapped,
        readings: list[EncodedText],
        size: int,
        *of_each: np.ndarray,
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """The rows of each batch, and what the program gives for them and for what fills it up.

        The program is also given its rows of the arrays `of_each`.
        """
        if not readings:
            return
        ids = [reading.ids for reading in readings]
        labels = np.zeros(len(ids), np.int32)
        split = ragged.RaggedTexts(np.concatenate(ids), np.cumsum([0, *map(len, ids)]), labels)
        size = -(-size // self._mesh.size) * self._mesh.size
        buckets = self._buckets[: np.searchsorted(self._buckets, split.lengths.max()) + 1]
        for bucket, rows in batching.batches(np.arange(len(ids)), split.lengths, buckets, size):
            filled = np.resize(rows, size)
            arrays = split.take(filled).padded(buckets[bucket], self._settings.data.padding)
            others = [array[filled] for array in of_each]
            yield rows, program(self._params, arrays["tokens"], arrays["lengths"], *others)


def load(workdir: str | Path) -> TextPredictor:
    """The classifier that a run left in its workdir; the run may still be under way.

    Raises:
        WorkdirError: The workdir holds no trained model.
    """
    devices.use_all_cores()
    trained = read(workdir)
    devices.enable_compilation_cache(trained.settings.compile_cache)
    return TextPredictor(*trained)


def read(workdir: str | Path) -> SavedModel:
    """The parts of `load`'s classifier.

    Raises:
        WorkdirError: The workdir holds no trained model.
    """
    workdir = Path(workdir).expanduser()
    try:
        recorded = json.loads((workdir / "config.json").read_text("utf-8"))
        settings = config.parse(config.with_defaults(recorded))
        label_names = json.loads((workdir / "labels.json").read_text("utf-8"))
    except (OSError, ValueError, TypeError) as error:
        kind = f"config.json: {error}" if isinstance(error, ConfigError) else error
        raise WorkdirError(f"--workdir: {workdir}: no trained model here ({kind})") from None
    vocabulary = Vocabulary.load(workdir / "vocabulary.json")
    model = models.build(settings.model, vocabulary.num_words, len(label_names))
    shapes = jax.eval_shape(lambda: models.init_params(model, jax.random.key(0)))
    like = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    found = checkpoint.latest(workdir / "checkpoints", weights=like)
    if found is None:
        raise WorkdirError(f"--workdir: {workdir}: no whole checkpoint here; has it been trained?")
    return SavedModel(model, found["weights"], vocabulary, label_names, settings)

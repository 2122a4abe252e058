"""Predictions of a trained model for raw text: labels, tags, attributions, generated text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

from flaxrnn.data import batching, ragged
from flaxrnn.data.tokenizers import Tokenizer
from flaxrnn.data.vocabulary import UNKNOWN
from flaxrnn.errors import ConfigError, DataError, DivergedError
from flaxrnn.inference import attribution, programs, saved, sources
from flaxrnn.runtime import devices


class EncodedText(NamedTuple):
    """A text as the model reads it: all of it or its last `data.maxlen` tokens."""

    text: str  # the part that is read, normalized by the tokenizer
    spans: list[tuple[int, int]]  # begin and end in `text` of each token that is read
    ids: np.ndarray  # int32 [n]: the start id, unless the text fills `maxlen`, then the tokens
    total_words: int  # tokens of the whole text
    raw: str  # the whole text, as given
    scores: np.ndarray | None  # of the n-gram classifier for the whole text, float32 [C]

    @property
    def unknown_fraction(self) -> float:
        """Fraction of the tokens read that are not in the vocabulary; 0 if there are none."""
        ids = self.ids[-len(self.spans) :]
        return float((ids == UNKNOWN).mean())


class TextPredictor:
    """Applies a trained model to raw text; its `model.target` decides which methods are available.

    The probabilities and attributions of an ensemble are the means of those of its members. Batches
    are sharded over all devices of this process. Texts are padded to one of at most four lengths,
    so few shapes are compiled, each on first use.
    """

    def __init__(self, model: saved.SavedModel):
        """Copies the parameters to all devices."""
        config = model.config
        self._batch_size = config.train.eval_batch_size
        self._maxlen, self._padding = config.data.maxlen, config.data.padding
        self._mesh = devices.make_mesh(self._batch_size, local=True)
        self._members = devices.shard(model.members, self._mesh, PartitionSpec())
        self._saved = model
        self._predict = programs.predict_program(model.model, self._mesh)
        self._explain = programs.explain_program(model.model, self._mesh)
        divisors = (8, 4, 2, 1) if self._padding == "post" else (1,)
        self._buckets = sorted({-(-self._maxlen // divisor) for divisor in divisors})

    @property
    def label_names(self) -> list[str]:
        """Names of the classes, in the order of the probabilities."""
        return self._saved.label_names

    @property
    def num_members(self) -> int:
        """Number of runs whose mean is predicted."""
        return len(self._members)

    def predict(self, texts: str | Iterable[str]) -> tuple[list[str], np.ndarray]:
        """Classifies N raw texts; a string is a list of one.

        Returns:
            The most likely label of each text, and the probabilities of all labels, float32 [N, C].

        Raises:
            ConfigError: The model does not classify texts.
            DataError: A text has no words, or is not a string.
            DivergedError: What the model computes is not finite.
        """
        texts = sources.as_list(texts)
        encoded = [self.encode(text) for text in texts]
        for i, text in enumerate(encoded):
            if not text.total_words:
                raise DataError(f"text {i} contains no words: {texts[i][:40]!r}")
        probabilities = self.probabilities(encoded)
        for i, finite in enumerate(np.isfinite(probabilities).all(axis=1)):
            if not finite:
                raise _not_finite(i)
        return [self.label_names[i] for i in probabilities.argmax(axis=1)], probabilities

    def tag(self, texts: str | Iterable[str]) -> list[list[str]]:
        """The most likely tag of each token read of each raw text; see `EncodedText`.

        Raises:
            ConfigError: The model does not tag tokens.
            DataError: A text is not a string.
            DivergedError: What the model computes is not finite.
        """
        self._check_target("tags")
        texts = sources.as_list(texts)
        encoded = [self.encode(text) for text in texts]
        tags: list[list[str]] = [[] for _ in texts]
        for rows, probabilities in self._batches(self._predict, _ragged(encoded), self._batch_size):
            for row, of_tokens in zip(rows, np.asarray(probabilities), strict=False):
                if not np.isfinite(of_tokens).all():
                    raise _not_finite(row)
                classes = of_tokens.argmax(axis=1)
                end = len(encoded[row].ids)
                begin = end - len(encoded[row].spans)
                tags[row] = [self.label_names[i] for i in classes[begin:end]]
        return tags

    def generate(
        self,
        prompts: str | Iterable[str],
        length: int = 100,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[str]:
        """Continues raw texts token by token.

        Args:
            prompts: Texts to continue, which may be empty; their last `data.maxlen` tokens are
                read.
            length: Tokens to add; fewer if the model ends the text earlier.
            temperature: 1: sample from the model's distribution; lower: favour likely tokens;
                higher: more uniform; 0: always the most likely token.
            seed: Seed of the sampling. A continuation depends on the index of its prompt, but not
                on the other prompts.

        Returns:
            Each prompt, as spelled, with its continuation, without any part that was not read.

        Raises:
            ConfigError: The model does not predict the next token.
            DataError: A prompt is not a string.
        """
        self._check_target("next")
        prompts = sources.as_list(prompts)
        encoded = [self.encode(prompt) for prompt in prompts]
        vocabulary = self._saved.vocabulary
        program = programs.generate_program(self._saved.model, self._mesh, length)
        indices = np.arange(len(prompts))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.PRNGKey(seed), indices)
        per_text = (np.asarray(keys), np.full(len(prompts), temperature, np.float32))
        texts = [""] * len(prompts)
        for rows, generated in self._batches(
            program, _ragged(encoded), self._batch_size, *per_text
        ):
            for row, ids in zip(rows, np.asarray(generated), strict=False):
                prompt = encoded[row]
                read = vocabulary.decode(prompt.ids)
                added = vocabulary.decode([*prompt.ids, *ids])[len(read) :]
                spelled = prompt.text.rstrip() if added.startswith(" ") else prompt.text
                texts[row] = (spelled + added).lstrip()
        return texts

    def encode(self, text: str) -> EncodedText:
        """Tokenizes a raw text and looks up the ids."""
        vocabulary, maxlen = self._saved.vocabulary, self._maxlen
        ids = vocabulary.encode(vocabulary.tokenizer(text))[-maxlen:]
        normalized, spans = vocabulary.tokenizer.locate(text)
        start = spans[-maxlen][0] if len(spans) > maxlen else 0
        read = [(begin - start, end - start) for begin, end in spans[-maxlen:]]
        return EncodedText(
            normalized[start:], read, np.array(ids, np.int32), len(spans), text, self._scores(text)
        )

    def _scores(self, text: str) -> np.ndarray | None:
        """The scores of the n-gram classifier, float32 [C], if the model has one."""
        classifier = self._saved.ngrams
        if classifier is None:
            return None
        views = [[Tokenizer(view.kind)(text)] for view in classifier.views]
        return classifier.score_tokens(views)[0]

    def probabilities(self, encoded: list[EncodedText]) -> np.ndarray:
        """Probabilities of all labels for N texts that have words, float32 [N, C].

        Raises:
            ConfigError: The model does not classify texts.
        """
        return self.probabilities_of_ids(_ragged(encoded))

    def probabilities_of_ids(self, texts: ragged.RaggedTexts) -> np.ndarray:
        """Like `probabilities`, for texts encoded with the model's vocabulary and clipped."""
        self._check_target("label")
        out = np.zeros((len(texts), len(self.label_names)), np.float32)
        for rows, probabilities in self._batches(self._predict, texts, self._batch_size):
            out[rows] = probabilities[: len(rows)]
        return out

    def explain(self, encoded: list[EncodedText]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Attributes the most likely label of each text to its tokens.

        Returns:
            `probabilities`, and for each text the attributions of the tokens read, float32 [n].
            Positive values support the most likely label; see `models.attributions`.

        Raises:
            ConfigError: The model does not classify texts.
        """
        texts = _ragged(encoded)
        probabilities = self.probabilities_of_ids(texts)
        labels = probabilities.argmax(axis=1).astype(np.int32)
        attributions = [np.zeros(0, np.float32)] * len(encoded)
        # The gradient takes as much memory as a training step.
        batch_size = self._saved.config.train.batch_size
        for rows, of_tokens in self._batches(self._explain, texts, batch_size, labels):
            for row, padded in zip(rows, np.asarray(of_tokens), strict=False):
                end = len(encoded[row].ids) if self._padding == "post" else len(padded)
                attributions[row] = padded[end - len(encoded[row].spans) : end]
                if self._saved.ngrams is not None:
                    of_ngrams = self._attributions_of_ngrams(encoded[row], labels[row])
                    attributions[row] = attributions[row] + of_ngrams
        return probabilities, attributions

    def _attributions_of_ngrams(self, text: EncodedText, label: int) -> np.ndarray:
        """What the n-grams of each token read speak for a label, float32 [n]."""
        model = self._saved
        assert model.ngrams is not None
        weight = float(np.mean([params["blend"]["weights"][1] for params in model.members]))
        binary = model.model.num_outputs == 1  # its score speaks for the second class
        of_score = attribution.of_ngrams(
            model.ngrams,
            text.raw,
            0 if binary else label,
            model.vocabulary.tokenizer,
            len(text.spans),
        )
        return of_score * (-weight if binary and label == 0 else weight)

    def _check_target(self, required: str) -> None:
        target = self._saved.config.model.target
        head = self._saved.model.head
        kinds = {(False, True): "label", (True, True): "tags"}  # custom heads, too
        kind = kinds.get((head.per_token, head.uses_labels), "next")
        if kind != required:
            raise ConfigError(
                f"model.target: must be {required} for this; the model was trained with {target}"
            )

    def _batches(
        self,
        program: jax.stages.Wrapped,
        texts: ragged.RaggedTexts,
        batch_size: int,
        *per_text: np.ndarray,
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Runs a program over texts, batched by length.

        Args:
            program: Takes the parameters, tokens, lengths, the rows of `per_text`, and the scores
                of the texts, if they have any.
            texts: Texts.
            batch_size: Rows per batch, rounded up to a multiple of the number of devices.
            *per_text: Arrays with one row per text.

        Yields:
            The indices of the texts in a batch, int [n], and the program's output for at least n
            rows, the mean over the members; rows after the first n repeat texts to fill the batch.
        """
        if not len(texts):
            return
        batch_size = -(-batch_size // self._mesh.size) * self._mesh.size
        buckets = self._buckets[: np.searchsorted(self._buckets, texts.lengths.max()) + 1]
        order = np.arange(len(texts))
        for bucket, rows in batching.batches(order, texts.lengths, buckets, batch_size):
            filled = np.resize(rows, batch_size)
            arrays = texts.take(filled).padded(buckets[bucket], self._padding)
            inputs = [arrays.pop("tokens"), arrays.pop("lengths")]
            inputs += [array[filled] for array in per_text]
            if "scores" in arrays:
                inputs.append(arrays["scores"])
            oom = devices.raise_on_oom(
                f"out of memory for {batch_size:,} texts of {buckets[bucket]:,} tokens, as"
                " train.eval_batch_size and data.maxlen of the workdir have it"
            )
            with oom, devices.matmul_precision(self._saved.config.train.precision):
                outputs = [program(params, *inputs) for params in self._members]
            yield rows, outputs[0] if len(outputs) == 1 else sum(outputs) / len(outputs)


def _not_finite(index: int) -> DivergedError:
    return DivergedError(f"text {index} has no label: what the model computes for it is not finite")


def _ragged(encoded: list[EncodedText]) -> ragged.RaggedTexts:
    """The ids and scores of texts, without labels."""
    ids = [text.ids for text in encoded]
    offsets = np.cumsum([0, *map(len, ids)])
    no_text = np.zeros(0, np.int32)
    scores = [text.scores for text in encoded if text.scores is not None]
    return ragged.RaggedTexts(
        np.concatenate([no_text, *ids]),
        offsets,
        np.zeros(len(ids), np.int32),
        scores=np.stack(scores) if scores else None,
    )


def load(workdir: str | Path, allow_modules: Iterable[str] = ()) -> TextPredictor:
    """Loads the trained model of a workdir onto all devices.

    Args:
        workdir: Of a run, which may still be in progress; or of several seeds, all of them
            finished, which make an ensemble: its probabilities are the means of theirs.
        allow_modules: Modules of your own cell or head that its config names and that may be
            imported, which runs them; without them, nothing in a workdir is ever run.

    Raises:
        ConfigError: The config names a module that is not allowed.
        WorkdirError: The workdir holds no trained model, or no ensemble.
    """
    devices.initialize()
    model = saved.load(workdir, allow_modules)
    # Not the workdir's cache: what is cached is machine code.
    devices.enable_compilation_cache(None)
    return TextPredictor(model)

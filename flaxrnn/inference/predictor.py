"""Predictions of a trained model for raw text: labels, tags, attributions, generated text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from flaxrnn.data import batching, ragged
from flaxrnn.errors import ConfigError, DivergedError
from flaxrnn.inference import attribution, encoding, folding, programs, saved, sources
from flaxrnn.inference.encoding import EncodedText
from flaxrnn.runtime import devices

SMALL_BATCHES = (1, 8, 64)  # texts per batch where no more are to be labelled


class _Program(NamedTuple):
    """A compiled program, on the devices that it is sharded over."""

    call: jax.stages.Wrapped  # takes a member, then arrays with one row per text
    members: Sequence[Any]  # what it needs of each run of an ensemble
    mesh: Mesh


class TextPredictor:
    """Applies a trained model to raw text; its `model.target` decides which methods are available.

    The probabilities and attributions of an ensemble are the means of those of its members. Batches
    are sharded over all devices of this process. Texts are padded to one of at most six lengths,
    and few texts to one of `SMALL_BATCHES`, so few shapes are compiled, each on first use.
    """

    def __init__(self, model: saved.SavedModel):
        """Copies the parameters to all devices."""
        config = model.config
        self._batch_size = config.train.eval_batch_size
        self._maxlen, self._padding = config.data.maxlen, config.data.padding
        self._mesh = devices.make_mesh(self._batch_size, local=True)
        self._members = devices.shard(model.members, self._mesh, PartitionSpec())
        self._saved, self.thresholds = model, model.thresholds
        self._encoder = encoding.Encoder(model)
        self._predict: dict[int, _Program] = {}  # by batch size
        explain = programs.explain_program(model.model, self._mesh)
        self._explain = _Program(explain, self._members, self._mesh)
        divisors = (32, 16, 8, 4, 2, 1) if self._padding == "post" else (1,)
        lengths = {-(-self._maxlen // divisor) for divisor in divisors}
        self._buckets = sorted(n for n in lengths if n >= min(16, self._maxlen / 8))

    @property
    def label_names(self) -> list[str]:
        """Names of the classes, in the order of the probabilities."""
        return self._saved.label_names

    @property
    def num_members(self) -> int:
        """Number of runs whose mean is predicted."""
        return len(self._members)

    def predict(self, texts: str | Iterable[str]) -> tuple[list[Any], np.ndarray]:
        """Classifies N raw texts; a string is a list of one.

        Returns:
            The most likely label of each text, or where it may have several, a list; and the
            probabilities of all labels, float32 [N, C].

        Raises:
            ConfigError: The model does not classify texts.
            DataError: A text has no words, or is not a string.
            DivergedError: What the model computes is not finite.
        """
        texts = sources.as_list(texts)
        encoded = self._encoder.ragged_texts(texts)
        probabilities = self.probabilities_of_ids(encoded)
        finite = np.isfinite(probabilities).all(axis=1)
        if not finite.all():
            raise _not_finite(int(finite.argmin()))
        return self._saved.labels(probabilities), probabilities

    def tag(self, texts: str | Iterable[str]) -> list[list[str]]:
        """The most likely tag of each token read of each raw text; see `EncodedText`.

        Raises:
            ConfigError: The model does not tag tokens.
            DataError: A text is not a string.
            DivergedError: What the model computes is not finite.
        """
        self.check_target("tags")
        texts = sources.as_list(texts)
        encoded = self.encode_all(texts)
        tags: list[list[str]] = [[] for _ in texts]
        for rows, probabilities in self._predicted(encoding.ragged_texts(encoded)):
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
        self.check_target("next")
        prompts = sources.as_list(prompts)
        encoded = self.encode_all(prompts)
        vocabulary = self._saved.vocabulary
        generate = programs.generate_program(self._saved.model, self._mesh, length)
        program = _Program(generate, self._members, self._mesh)
        indices = np.arange(len(prompts))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.PRNGKey(seed), indices)
        per_text = (np.asarray(keys), np.full(len(prompts), temperature, np.float32))
        texts = [""] * len(prompts)
        for rows, generated in self._batches(
            program, encoding.ragged_texts(encoded), self._batch_size, *per_text
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
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[EncodedText]:
        """`encode` for N raw texts, whose n-grams are counted together."""
        return self._encoder.encode(texts)

    def probabilities(self, encoded: list[EncodedText]) -> np.ndarray:
        """Probabilities of all labels for N texts that have words, float32 [N, C].

        Raises:
            ConfigError: The model does not classify texts.
        """
        return self.probabilities_of_ids(encoding.ragged_texts(encoded))

    def probabilities_of_ids(self, texts: ragged.RaggedTexts) -> np.ndarray:
        """Like `probabilities`, for texts encoded with the model's vocabulary and clipped."""
        self.check_target("label")
        out = np.zeros((len(texts), len(self.label_names)), np.float32)
        for rows, probabilities in self._predicted(texts):
            out[rows] = np.asarray(probabilities)[: len(rows)]
        return out

    def explain(self, encoded: list[EncodedText]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Attributes the most likely label of each text to its tokens.

        Returns:
            `probabilities`, and for each text the attributions of the tokens read, float32 [n].
            Positive values support the most likely label; see `models.attributions`.

        Raises:
            ConfigError: The model does not classify texts.
        """
        texts = encoding.ragged_texts(encoded)
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
                    label, count = int(labels[row]), len(encoded[row].spans)
                    of_ngrams = attribution.of_label(self._saved, encoded[row].raw, label, count)
                    attributions[row] = attributions[row] + of_ngrams
        return probabilities, attributions

    def check_target(self, required: str) -> None:
        """Checks what the model predicts: "label", "tags" or "next".

        Raises:
            ConfigError: It is something else.
        """
        target = self._saved.config.model.target
        head = self._saved.model.head
        kinds = {(False, True): "label", (True, True): "tags"}  # custom heads, too
        kind = kinds.get((head.per_token, head.uses_labels), "next")
        if kind != required:
            raise ConfigError(
                f"model.target: must be {required} for this; the model was trained with {target}"
            )

    def _predicted(self, texts: ragged.RaggedTexts) -> Iterator[tuple[np.ndarray, Any]]:
        """`_batches` of probabilities, on as many devices as pay off for so many texts."""
        fits = (n for n in SMALL_BATCHES if len(texts) <= n < self._batch_size)
        batch_size = next(fits, self._batch_size)
        if batch_size not in self._predict:
            mesh = devices.make_mesh(batch_size, local=True)
            same = (program for program in self._predict.values() if program.mesh == mesh)
            self._predict[batch_size] = next(same, None) or self._folded(mesh)
        return self._batches(self._predict[batch_size], texts, batch_size)

    def _folded(self, mesh: Mesh) -> _Program:
        """The program of probabilities, with folded parameters."""
        model, members = self._saved.model, self._saved.members
        most = folding.MAX_BYTES // len(members)
        folded = tuple(folding.fold(model, params, most) for params in members)
        on_devices = devices.shard(folded, mesh, PartitionSpec())
        return _Program(programs.predict_program(model, mesh), on_devices, mesh)

    def _batches(
        self,
        program: _Program,
        texts: ragged.RaggedTexts,
        batch_size: int,
        *per_text: np.ndarray,
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Runs a program over texts, batched by length.

        Args:
            program: Takes tokens, lengths, the rows of `per_text`, and the model's `extras`.
            texts: Texts.
            batch_size: Rows per batch, rounded up to a multiple of the number of devices.
            *per_text: Arrays with one row per text.

        Yields:
            The indices of the texts in a batch, int [n], and the program's output for at least n
            rows, the mean over the members; rows after the first n repeat texts to fill the batch.
        """
        if not len(texts):
            return
        batch_size = -(-batch_size // program.mesh.size) * program.mesh.size
        buckets = self._buckets[: np.searchsorted(self._buckets, texts.lengths.max()) + 1]
        batches = [batching.Batch(len(buckets) - 1, np.arange(len(texts)))]
        if len(texts) > batch_size:
            order = np.argsort(texts.lengths, kind="stable")  # a batch takes as long as its longest
            batches = batching.batches(order, texts.lengths, buckets, batch_size)
        for bucket, rows in batches:
            filled = np.resize(rows, batch_size)
            chosen = texts if len(texts) == batch_size else texts.take(filled)
            arrays = chosen.padded(buckets[bucket], self._padding)
            inputs = [arrays.pop("tokens"), arrays.pop("lengths")]
            inputs += [array[filled] for array in per_text]
            inputs += [arrays[name] for name in self._saved.model.extras]
            oom = devices.raise_on_oom(
                f"out of memory for {batch_size:,} texts of {buckets[bucket]:,} tokens, as"
                " train.eval_batch_size and data.maxlen of the workdir have it"
            )
            with oom, devices.matmul_precision(self._saved.config.train.precision):
                outputs = [program.call(member, *inputs) for member in program.members]
            yield rows, outputs[0] if len(outputs) == 1 else sum(outputs) / len(outputs)


def _not_finite(index: int) -> DivergedError:
    return DivergedError(f"text {index} has no label: what the model computes for it is not finite")


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

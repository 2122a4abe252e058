"""Heads: what a model learns to output, and how its outputs are scored.

A head turns the outputs of a batch into *examples*, each with logits, a label and a weight: one per
text, or one per token. Losses, metrics and training steps only ever see examples. A new head is one
subclass of `Head`; `model.target=module:Class` trains it.

Shapes: B batch, T time (tokens), N examples, C classes. Logits [N, 1] are those of a sigmoid over
two classes, [N, C] those of a softmax.
"""

from __future__ import annotations

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxrnn.config import Config
from flaxrnn.data.vocabulary import PAD
from flaxrnn.errors import ConfigError
from flaxrnn.runtime import plugins

Batch = dict[str, jax.Array]
Examples = tuple[jax.Array, jax.Array, jax.Array]  # logits [N, C], labels [N], weights [N]


class Head:
    """A head with one label per text, and cross-entropy as its loss.

    Attributes:
        per_token: Whether the model outputs logits per token, [B, T, C], else per text, [B, C].
        several: Whether an example may have any number of classes; labels are then [N, C], 0 or 1.
        uses_labels: Whether it learns from the labels of the corpus.
    """

    per_token: ClassVar[bool] = False
    several: ClassVar[bool] = False
    uses_labels: ClassVar[bool] = True

    @property
    def unit(self) -> str:
        """What an example is, in the plural."""
        return "tokens" if self.per_token else "texts"

    def check(self, config: Config) -> None:
        """Checks that the other config fields are compatible with the head.

        Raises:
            ConfigError: One is not.
        """
        if config.task == "brackets":
            raise ConfigError("model.target: must be tags or next with task=brackets")

    def num_outputs(self, num_labels: int, vocab_size: int) -> int:
        """Logits per example: one for two classes, else one per class."""
        return 1 if num_labels == 2 else num_labels

    def initial_bias(self, num_outputs: int) -> float:
        """Of the output layer."""
        return 0.0

    def targets_and_weights(self, logits: jax.Array, batch: Batch) -> Examples:
        """The examples of a batch.

        Args:
            logits: Output of the model.
            batch: tokens int32 [B, T], lengths int32 [B], labels int32 [B] or, for tags, [B, T],
                or uint8 [B, C], weights float32 [B].
        """
        return logits, batch["labels"], batch["weights"]

    def losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Loss of each example, [N]: cross-entropy in nats."""
        if logits.shape[-1] == 1:
            return optax.sigmoid_binary_cross_entropy(logits[:, 0], labels)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    def predictions(self, logits: jax.Array) -> jax.Array:
        """The most likely class of each example, int32 [N]."""
        if logits.shape[-1] == 1:
            return (logits[:, 0] > 0).astype(jnp.int32)
        return logits.argmax(axis=-1).astype(jnp.int32)

    def correct(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Whether `predictions` are the labels, bool [N]."""
        return self.predictions(logits) == labels

    def probabilities(self, logits: jax.Array) -> jax.Array:
        """Class probabilities, [..., C], also for two classes."""
        if logits.shape[-1] == 1:
            positive = jax.nn.sigmoid(logits)
            return jnp.concatenate([1 - positive, positive], axis=-1)
        return jax.nn.softmax(logits)

    def empty_counts(self, num_outputs: int) -> jax.Array:
        """What `class_counts` returns for no examples."""
        return jnp.zeros((3, max(2, num_outputs)))

    def class_counts(self, logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
        """What is counted on the devices: by default `class_totals`, [3, C], not every pair."""
        predicted = self.predictions(logits)
        correct = weights * (predicted == labels)
        counts = self.empty_counts(logits.shape[-1])
        counts = counts.at[0, labels].add(correct).at[1, labels].add(weights)
        return counts.at[2, predicted].add(weights)

    def class_totals(self, counts: np.ndarray) -> np.ndarray:
        """Correct, true and predicted examples of each class, [3, C]."""
        return counts

    def confusion(self, counts: np.ndarray) -> np.ndarray | None:
        """`metrics.confusion` of a head with one example per token; None: not counted."""
        return None


class LabelHead(Head):
    """Predicts the label of each text."""


class LabelsHead(Head):
    """Predicts any number of labels of each text: one sigmoid per label, each on its own."""

    several = True

    def check(self, config: Config) -> None:  # noqa: D102
        target = config.model.target
        if config.task != "text":
            raise ConfigError(
                f"model.target: must not be {target} with task={config.task}, whose texts have no"
                " more than one label"
            )
        if config.train.class_weights != "none":
            raise ConfigError(f"train.class_weights: must be none with model.target={target}")
        if config.data.unlabelled is not None:
            raise ConfigError(f"data.unlabelled: must be unset with model.target={target}")

    def num_outputs(self, num_labels: int, vocab_size: int) -> int:
        """One logit per label, also of two."""
        return num_labels

    def initial_bias(self, num_outputs: int) -> float:
        """Texts have one label on average at first: few of many labels apply to a text."""
        return -math.log(max(1, num_outputs - 1))

    def losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Loss of each example, [N]: the mean over labels of binary cross-entropy in nats."""
        targets = labels.astype(jnp.float32)
        return optax.sigmoid_binary_cross_entropy(logits, targets).mean(axis=-1)

    def predictions(self, logits: jax.Array) -> jax.Array:
        """The labels whose probability is above a half, bool [N, C]."""
        return logits > 0

    def correct(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Whether all labels are right, bool [N]."""
        return (self.predictions(logits) == (labels > 0)).all(axis=-1)

    def probabilities(self, logits: jax.Array) -> jax.Array:
        """That of each label, [..., C]; they do not add up to 1."""
        return jax.nn.sigmoid(logits)

    def class_counts(self, logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
        """`class_totals`, [3, C]."""
        predicted = self.predictions(logits)
        return jnp.stack([weights @ each for each in (predicted * labels, labels, predicted)])


class TokenHead(Head):
    """A head with one example per token; tokens past the end of a text have weight 0."""

    per_token = True

    def check(self, config: Config) -> None:  # noqa: D102
        for name, value, needed in (
            ("data.padding", config.data.padding, "post"),
            ("model.conv_filters", config.model.conv_filters, 0),
            ("model.segment", config.model.segment, 0),
            ("model.word_ngrams", config.model.word_ngrams, 0),
            ("model.character_ngrams", config.model.character_ngrams, 0),
            ("model.ratio_ngrams", config.model.ratio_ngrams, 0),
            ("train.class_weights", config.train.class_weights, "none"),
        ):
            if value != needed:
                target = config.model.target
                raise ConfigError(f"{name}: must be {needed} with model.target={target}")

    def labels(self, batch: Batch) -> jax.Array:
        """The label of each token, int32 [B, T]."""
        return batch["labels"]

    def targets_and_weights(self, logits: jax.Array, batch: Batch) -> Examples:  # noqa: D102
        B, T, C = logits.shape
        mask = jnp.arange(T)[None, :] < batch["lengths"][:, None]
        weights = batch["weights"][:, None] * mask
        labels = self.labels(batch)[:, :T]
        return logits.reshape(B * T, C), labels.reshape(B * T), weights.reshape(B * T)


class TagHead(TokenHead):
    """Predicts the tag of each token."""

    def check(self, config: Config) -> None:  # noqa: D102
        if config.task != "brackets":
            raise ConfigError(
                f"model.target: must be label or next with task={config.task}, which has one label"
                " per text"
            )
        super().check(config)

    def empty_counts(self, num_outputs: int) -> jax.Array:  # noqa: D102
        return jnp.zeros((max(2, num_outputs),) * 2)

    def class_counts(self, logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
        """Tokens by true and predicted tag, [C, C]: there are few tags and many tokens."""
        counts = self.empty_counts(logits.shape[-1])
        return counts.at[labels, self.predictions(logits)].add(weights)

    def class_totals(self, counts: np.ndarray) -> np.ndarray:  # noqa: D102
        return np.stack([np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)])

    def confusion(self, counts: np.ndarray) -> np.ndarray | None:  # noqa: D102
        labels, predicted = np.nonzero(counts)
        return np.stack([labels, predicted, counts[labels, predicted].astype(int)], axis=1)


class NextTokenHead(TokenHead):
    """Predicts the token that follows each token; padding follows the last, marking the end."""

    uses_labels = False

    def check(self, config: Config) -> None:  # noqa: D102
        super().check(config)
        if config.model.bidirectional:
            raise ConfigError(
                "model.bidirectional: must be False with model.target=next: the backward direction"
                " sees the token to be predicted"
            )

    def num_outputs(self, num_labels: int, vocab_size: int) -> int:  # noqa: D102
        return vocab_size

    def labels(self, batch: Batch) -> jax.Array:  # noqa: D102
        return jnp.pad(batch["tokens"][:, 1:], ((0, 0), (0, 1)), constant_values=PAD)


HEADS: dict[str, type[Head]] = {
    "label": LabelHead,
    "labels": LabelsHead,
    "tags": TagHead,
    "next": NextTokenHead,
}


def get_head(name: str) -> Head:
    """The head of that name in `HEADS`, or the subclass of `Head` that "module:Class" names.

    Raises:
        ConfigError: The module cannot be imported, or has no such class.
    """
    head: type[Head] = HEADS.get(name) or plugins.load("model.target", name, Head)
    return head()

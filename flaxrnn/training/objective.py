"""What training minimizes: the loss of each example, as modified by the config.

Reported losses are those of the head, whatever the objective, so runs stay comparable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxrnn.config import TrainConfig
from flaxrnn.config.declare import parse_weights
from flaxrnn.errors import ConfigError
from flaxrnn.nn.heads import Head


@dataclass(frozen=True)
class Objective:
    """A sum of losses over examples.

    Attributes:
        loss: "cross_entropy": that of the head. "squared_hinge": one-vs-rest, the loss of a
            linear SVM (Cortes & Vapnik, 1995; Tang, 2013).
        label_smoothing: Fraction of each target that is spread over all classes (Szegedy et
            al., 2016).
        class_weights: Weight of the examples of each class; None: all 1.
        self_training: Whether there are texts without labels, whose targets are the probabilities
            of an n-gram classifier.
    """

    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    self_training: bool = False

    def __call__(
        self,
        head: Head,
        logits: jax.Array,
        labels: jax.Array,
        weights: jax.Array,
        targets: jax.Array | None = None,
    ) -> jax.Array:
        """Sums over N examples.

        Args:
            head: The head that the logits are for.
            logits: [N, C], or [N, 1] for two classes.
            labels: int [N].
            weights: Weights of the examples, [N].
            targets: Probabilities of the classes to learn instead of the labels, [N, C].
        """
        if self.class_weights is not None:
            weights = weights * jnp.array(self.class_weights)[labels]
        if self.loss == "squared_hinge":
            return weights @ squared_hinge(logits, labels)
        if self.label_smoothing and head.several:  # spread over all labels as for a single one
            spread = labels.mean(axis=-1, keepdims=True)
            labels = (1 - self.label_smoothing) * labels + self.label_smoothing * spread
            return weights @ head.losses(logits, labels)
        if targets is not None:
            losses = (targets.T * losses_of_labels(head, logits)).sum(axis=0)
        else:
            losses = head.losses(logits, labels)
        if self.label_smoothing:
            spread = losses_of_labels(head, logits).mean(axis=0)
            losses = (1 - self.label_smoothing) * losses + self.label_smoothing * spread
        return weights @ losses


def squared_hinge(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Σ over classes of max(0, 1 − s·logit)², s = 1 for the label and −1 for the others, [N]."""
    if labels.ndim == 2:
        signs = 2.0 * labels - 1
    elif logits.shape[-1] == 1:
        signs = 2.0 * labels[:, None] - 1
    else:
        signs = 2 * jax.nn.one_hot(labels, logits.shape[-1]) - 1
    return (jax.nn.relu(1 - signs * logits) ** 2).sum(axis=-1)


def losses_of_labels(head: Head, logits: jax.Array) -> jax.Array:
    """The loss of each example with each label that it could have, [C, N]."""
    classes = max(2, logits.shape[-1])
    labels = jnp.arange(classes, dtype=jnp.int32)
    return jax.vmap(lambda label: head.losses(logits, jnp.full(len(logits), label)))(labels)


def with_teacher(head: Head, batch: dict[str, jax.Array]) -> tuple[dict[str, jax.Array], jax.Array]:
    """A batch whose texts without labels have those that their scores make most likely.

    Args:
        head: The head that the scores are for.
        batch: labels int [B], -1 for none; scores float32 [B, C] of the n-gram classifier.

    Returns:
        The batch, and the probabilities to learn, [B, C]: those of the classifier for texts without
        labels, else 1 for the label.
    """
    labels = jnp.where(batch["labels"] < 0, head.predictions(batch["scores"]), batch["labels"])
    probabilities = head.probabilities(batch["scores"])
    known = jax.nn.one_hot(labels, probabilities.shape[-1])
    targets = jnp.where(batch["labels"][:, None] < 0, probabilities, known)
    return {**batch, "labels": labels}, targets


def build(
    config: TrainConfig, label_names: list[str], labels: np.ndarray, self_training: bool = False
) -> Objective:
    """The objective of a config's train group.

    Args:
        config: The group.
        label_names: Names of the C classes.
        labels: Labels of the training texts, int [N].
        self_training: See `Objective`.

    Raises:
        ConfigError: `class_weights` names a class that does not exist.
    """
    weights = _class_weights(config.class_weights, label_names, labels)
    return Objective(config.loss, config.label_smoothing, weights, self_training)


def _class_weights(
    value: str, label_names: list[str], labels: np.ndarray
) -> tuple[float, ...] | None:
    if value == "none":
        return None
    if value == "balanced":  # scikit-learn's: every class weighs as much as any other
        counts = np.bincount(labels, minlength=len(label_names))
        balanced = len(labels) / (len(label_names) * np.maximum(counts, 1))
        return tuple(map(float, balanced))
    named: dict[str, Any] = parse_weights(value) or {}
    if unknown := named.keys() - set(label_names):
        raise ConfigError(
            f"train.class_weights: there is no class {min(unknown)!r}; there are"
            f" {', '.join(label_names[:20])}"
        )
    return tuple(float(named.get(name, 1.0)) for name in label_names)

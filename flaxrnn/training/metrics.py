"""Per-example losses, and sums over examples that are divided once, at the end.

An example is a text, or of outputs per token a token.

Logits [B, 1] are those of a sigmoid over two classes, [B, C] those of a softmax.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Sums = dict[str, Any]  # of arrays or floats


def losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy of each example in nats, [B]."""
    if logits.shape[-1] == 1:
        return optax.sigmoid_binary_cross_entropy(logits[:, 0], labels)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def predictions(logits: jax.Array) -> jax.Array:
    """The likeliest class of each example, int32 [B]."""
    if logits.shape[-1] == 1:
        return (logits[:, 0] > 0).astype(jnp.int32)
    return logits.argmax(axis=-1).astype(jnp.int32)


def probabilities(logits: jax.Array) -> jax.Array:
    """Class probabilities, [B, C], also for two classes."""
    if logits.shape[-1] == 1:
        positive = jax.nn.sigmoid(logits)
        return jnp.concatenate([1 - positive, positive], axis=-1)
    return jax.nn.softmax(logits)


def sums(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> Sums:
    """Weighted sums over a batch: loss (nats), hits and weight (examples)."""
    return {
        "loss": weights @ losses(logits, labels),
        "hits": weights @ (predictions(logits) == labels),
        "weight": weights.sum(),
    }


def confusion(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Examples by true and predicted class, [C, C]."""
    classes = max(2, logits.shape[-1])
    return jnp.zeros((classes, classes)).at[labels, predictions(logits)].add(weights)


def counts(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """How many examples of each class are found, there are, and were taken for it, [3, C].

    What `scores` needs, where a confusion matrix would be too large.
    """
    predicted = predictions(logits)
    hits = weights * (predicted == labels)
    zeros = jnp.zeros((3, logits.shape[-1]))
    return zeros.at[0, labels].add(hits).at[1, labels].add(weights).at[2, predicted].add(weights)


def add(total: Sums, sums: Sums) -> Sums:
    """`total` and a program's sums, in float64 on the host.

    The order in which sums are added is that of the calls: the same calls give the same bits.
    """
    found = jax.device_get(sums)
    return {name: np.float64(value) + total.get(name, 0) for name, value in found.items()}


def means(total: Sums) -> dict[str, float]:
    """Divides sums added up over batches: mean loss (nats) and accuracy in [0, 1]."""
    return {
        "loss": float(total["loss"] / total["weight"]),
        "accuracy": float(total["hits"] / total["weight"]),
    }


def by_class(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """How well each class is found, from the matrix of `confusion`; see `scores`."""
    return scores(np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0))


def scores(hits: np.ndarray, support: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """How well each class is found, from the rows of `counts`.

    Returns:
        precision, recall and f1 in [0, 1], those of scikit-learn with `zero_division=0`; support
        and predicted, how many examples are and how many were taken for the class. All float [C].
    """
    return {
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(support, 1),
        "f1": 2 * hits / np.maximum(support + predicted, 1),
        "support": support,
        "predicted": predicted,
    }


def macro_f1(classes: dict[str, np.ndarray]) -> float:
    """Unweighted mean of the F1 of every class that is true or predicted somewhere.

    The mean that scikit-learn's `f1_score(average="macro")` takes of what `scores` gives.
    """
    seen = classes["support"] + classes["predicted"] > 0
    return float(classes["f1"][seen].mean())

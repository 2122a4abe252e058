"""The optimizer."""

from __future__ import annotations

import optax


def adam(learning_rate: float) -> optax.GradientTransformation:
    """Adam (Kingma & Ba, 2015) with Keras' epsilon."""
    return optax.adam(learning_rate, eps=1e-7)

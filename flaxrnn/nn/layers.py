"""The layers around the recurrence: embedding, dropout, convolution, pooling.

Shapes: B batch, T time (tokens), E embedding features, K kernel width, F filters, H hidden.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxrnn.nn.fused import FOLDED, EmbeddingLookup

POOLINGS = ("last", "max", "mean", "max_mean", "attention")


# Flax traces the initializer of a parameter whenever a model is traced; these are traced once.
_jit = functools.partial(jax.jit, static_argnums=(1, 2))
glorot_uniform = _jit(nn.initializers.glorot_uniform())
orthogonal = _jit(nn.initializers.orthogonal())


@_jit
def keras_uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """U(−0.05, 0.05), Keras's initial embedding."""
    return jax.random.uniform(key, shape, dtype, -0.05, 0.05)


class Embed(nn.Embed):
    """An embedding that defers the lookup to the layer that reads it."""

    def __call__(self, inputs: jax.Array) -> EmbeddingLookup:
        """Ids [B, T] → a deferred lookup of embeddings [B, T, E]."""
        return EmbeddingLookup(self.embedding, inputs)


class Dropout(nn.Module):
    """Drops entries in training and scales up the others (Srivastava et al., 2014).

    Each entry uses as few random bits as the rate allows: one if it is 1/2, two if it is a multiple
    of 1/4, and so on up to 16, for which the rate is rounded to a multiple of 2⁻¹⁶. On CPU, drawing
    32 bits per entry would take as long as the recurrence.

    Attributes:
        rate: Fraction of entries that are dropped.
        shared: Axes of x, other than 0, along which entries are dropped together: 1 drops features
            of a text in all its tokens (Tompson et al., 2015), 2 drops tokens.
    """

    rate: float
    shared: tuple[int, ...] = ()

    def __call__(self, x: jax.Array, keys: jax.Array | None) -> jax.Array:
        """[B, …] and one random key per text, [B]; without keys (evaluation), returns x."""
        if keys is None:
            return x
        keep, kept = self._keep(keys, [1 if i in self.shared else n for i, n in enumerate(x.shape)])
        return jnp.where(keep, x / kept, 0)

    def _keep(self, keys: jax.Array, shape: list[int]) -> tuple[jax.Array, float]:
        """Which entries are kept, bool, and the share of them that is."""
        width = next(w for w in (1, 2, 4, 8, 16) if w == 16 or (self.rate * 2**w).is_integer())
        dropped = round(self.rate * 2**width)
        entries = math.prod(shape[1:])
        words = -(-entries * width // 32)
        bits = jax.vmap(lambda key: jax.random.bits(key, (words, 1), jnp.uint32))(keys)
        shifts = jnp.arange(0, 32, width, dtype=jnp.uint32)[None, None, :]
        values = (bits >> shifts) & (2**width - 1)
        keep = values.reshape(shape[0], -1)[:, :entries].reshape(shape) >= dropped
        return keep, 1 - dropped / 2**width


def conv_of_xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution over time, [B, T, E] with [K, E, F] → [B, T − K + 1, F]."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
    )


def _conv_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple]:
    return conv_of_xla(x, kernel), (x, kernel)


def _conv_backward(residuals: tuple, d_out: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.lax.platform_dependent(
        *residuals, d_out, cpu=_backward_as_products, default=_backward_of_xla
    )


def _backward_of_xla(
    x: jax.Array, kernel: jax.Array, d_out: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return jax.vjp(conv_of_xla, x, kernel)[1](d_out)


def _backward_as_products(
    x: jax.Array, kernel: jax.Array, d_out: jax.Array
) -> tuple[jax.Array, jax.Array]:
    B, T, E = x.shape
    K, _, F = kernel.shape
    d_out = jnp.pad(d_out, ((0, 0), (K - 1, K - 1), (0, 0)))
    # For each input, the gradients of the K outputs that it is part of, concatenated.
    d_rows = jnp.concatenate([d_out[:, K - 1 - k : K - 1 - k + T] for k in range(K)], axis=-1)
    d_rows = d_rows.reshape(B * T, K * F)
    d_x = d_rows @ kernel.swapaxes(1, 2).reshape(K * F, E)
    d_kernel = jax.lax.dot_general(x.reshape(B * T, E), d_rows, (((0,), (0,)), ((), ())))
    return d_x.reshape(B, T, E), d_kernel.reshape(E, K, F).swapaxes(0, 1)


# `conv_of_xla` with, on CPU, a backward pass of two matrix products: there, XLA's own is about a
# hundred times slower inside a loop.
conv = jax.custom_vjp(conv_of_xla)
conv.defvjp(_conv_forward, _conv_backward)


def _conv_by_lookup(ids: jax.Array, table: jax.Array) -> jax.Array:
    """Convolution over the embeddings of ids [B, T], [K, V, F] → [B, T − K + 1, F].

    One text after the other, so that what is looked up stays in the cache of a core.
    """
    outputs = ids.shape[1] - len(table) + 1

    def of_text(ids: jax.Array) -> jax.Array:
        shifted = (jax.lax.slice_in_dim(ids, k, k + outputs) for k in range(len(table)))
        looked_up = (rows[ids] for rows, ids in zip(table, shifted, strict=True))
        return functools.reduce(jnp.add, looked_up)

    return jax.lax.map(of_text, ids)


class Conv1D(nn.Module):
    """Convolution over time without padding, then ReLU.

    Attributes:
        filters: F.
        width: Tokens per output, K.
    """

    filters: int
    width: int

    @nn.compact
    def __call__(
        self, x: jax.Array | EmbeddingLookup, lengths: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """[B, T, E] and int [B] → [B, T − K + 1, F] and the shortened lengths.

        For inference, x may be a lookup, and the variable "table" of `FOLDED`, [K, V, F], have what
        each token adds to an output at each place of the kernel. On CPU, they are looked up there.
        """
        shape = (self.width, x.shape[-1], self.filters)
        kernel = self.param("kernel", glorot_uniform, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.filters,))
        if not isinstance(x, EmbeddingLookup):
            out = conv(x, kernel.astype(x.dtype))
        else:
            table: jax.Array = self.get_variable(FOLDED, "table")
            out = jax.lax.platform_dependent(
                x,
                cpu=lambda x: _conv_by_lookup(x.ids, table),
                default=lambda x: conv(x.rows(), kernel),
            )
        return nn.relu(out + bias.astype(out.dtype)[None, None]), lengths - self.width + 1


class Blend(nn.Module):
    """A weighted sum of the network's logits and those of another classifier.

    The weights are not trained, since the network knows the training texts better than any others:
    validation chooses them. They are 1 and 0 at first.
    """

    @nn.compact
    def __call__(self, logits: jax.Array, scores: jax.Array | None) -> jax.Array:
        """[B, C] and [B, C] → [B, C]; without scores (training), returns the logits."""
        weights = self.param("weights", lambda _: jnp.array([1.0, 0.0]))
        return logits if scores is None else weights[0] * logits + weights[1] * scores


class MaxPool1D(nn.Module):
    """Maximum over adjacent windows of `size` steps; an incomplete last window is dropped."""

    size: int

    def __call__(self, x: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, T, F] and int [B] → [B, T // size, F] and the shortened lengths."""
        B, T, F = x.shape
        windows = x[:, : T // self.size * self.size].reshape(B, T // self.size, self.size, F)
        return windows.max(axis=2), lengths // self.size


class Pool(nn.Module):
    """Pools recurrent outputs into one vector per text: last, maximum, mean or attention.

    Attention is that of Yang et al. (2016) over words, with weights softmax(v · tanh(W h + b));
    "max_mean" concatenates maximum and mean, [B, 2H].

    Attributes:
        kind: One of `POOLINGS`.
    """

    kind: str

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array, last: jax.Array) -> jax.Array:
        """Outputs [B, T, H], lengths [B] and the last output [B, H] → [B, H]."""
        if self.kind not in POOLINGS:
            raise ValueError(f"kind: {self.kind!r} not in {POOLINGS}")
        if self.kind == "last":
            return last
        mask = (jnp.arange(x.shape[1])[None, :] < lengths[:, None])[:, :, None]
        if self.kind == "max":
            return jnp.where(mask, x, -jnp.inf).max(axis=1)
        if self.kind == "mean":
            return jnp.where(mask, x, 0).sum(axis=1) / lengths[:, None]
        if self.kind == "max_mean":
            highest = jnp.where(mask, x, -jnp.inf).max(axis=1)
            mean = jnp.where(mask, x, 0).sum(axis=1) / lengths[:, None]
            return jnp.concatenate([highest, mean], axis=-1)
        scores = nn.Dense(1, use_bias=False, name="score")(
            jnp.tanh(nn.Dense(x.shape[-1], dtype=x.dtype, name="attend")(x))
        )
        return (nn.softmax(scores, axis=1, where=mask) * x).sum(axis=1)

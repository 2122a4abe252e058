"""Recurrent layers: how a cell runs over time, in one direction or in both.

A subclass of `Recurrent` (see `cells.py`) defines one time step. Two implementations run it
over a batch; they share their weights and agree in outputs and gradients:

* "scan": `nn.scan` over the time step, differentiated by JAX. The reference.
* "fused": `jax.lax.scan` with a hand-written backward pass; see `fused.py`. The default.

In both, the part that does not depend on the carry, the projection of the inputs, is one matrix
product over all steps. Where the inputs are rows of an embedding table that has fewer rows than the
batch has tokens, the table is projected instead, and its rows are looked up step by step. For
inference, a projected table may be given: the variable "table" [V, G·H] of `FOLDED`.

For long texts, `recompute` stores only the carry between segments of time steps; what the backward
pass needs within a segment is computed a second time when it gets there (Chen et al., 2016).

Shapes: B batch, T time, D input features, H hidden features, G gates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxrnn.nn import layers
from flaxrnn.nn.fused import (
    FOLDED,
    Carry,
    EmbeddingLookup,
    Residuals,
    fused,
    in_segments,
    recurrent_pre_activation,
    select,
    without_padding,
)

Weights = Mapping[str, jax.Array]  # by name
_KERNELS = ("kernel", "recurrent_kernel")  # the factors of matrix products

IMPLEMENTATIONS = ("fused", "scan")


class Recurrent(nn.Module):
    """A recurrent layer. A subclass defines `num_gates` and `pointwise`.

    Initial values as in Keras: Glorot-uniform kernel, orthogonal recurrent kernel, zero bias.

    Attributes:
        features: Hidden size H.
        reverse: Read each text from its last token to its first; outputs stay in text order.
        implementation: One of `IMPLEMENTATIONS`.
        recompute: Time steps per segment, which the backward pass recomputes; it needs the memory
            of T / recompute steps instead of T. 0: every step is stored. Has no effect on "scan".
        dropout: Fraction of the recurrent weights that is dropped in training (DropConnect, Wan et
            al., 2013; for recurrent weights Merity et al., 2018).
        dtype: Of the factors of matrix products, and of what is stored for each step, like outputs;
            carry and parameters stay float32. None: that of the parameters.
    """

    features: int
    reverse: bool = False
    implementation: str = "fused"
    recompute: int = 0
    dropout: float = 0.0
    dtype: Any = None

    num_gates: ClassVar[int]  # G
    num_states: ClassVar[int] = 1  # arrays in the carry
    shared_gradient: ClassVar[bool] = False  # whether `pointwise` only sees z + u: then d_z is d_u

    @nn.compact
    def __call__(
        self,
        x: jax.Array | EmbeddingLookup,
        lengths: jax.Array | None = None,
        initial_carry: Carry | None = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, Carry]:
        """Runs over a batch of texts.

        Args:
            x: Inputs [B, T, D], or where to look them up.
            lengths: Valid steps of each text, which starts at step 0, int [B]; None: all T.
            initial_carry: The carry before the first step that is read; None: zeros.
            dropout_key: In training, the random key of `dropout`.

        Returns:
            Outputs [B, T, H], zero past the end of a text, and the carry after its last step:
            (c, h) for LSTM, (h,) for the others, each [B, H].
        """
        if self.implementation not in IMPLEMENTATIONS:
            raise ValueError(f"implementation: {self.implementation!r} not in {IMPLEMENTATIONS}")
        B, T, D = x.shape
        weights = self.weights(D)
        if self.dropout and dropout_key is not None:
            kernel = weights["recurrent_kernel"][None]
            dropped = layers.Dropout(self.dropout, name="dropout")(kernel, dropout_key[None])[0]
            weights = {**weights, "recurrent_kernel": dropped}
        factors = {name: jnp.asarray(weights[name], self.dtype) for name in _KERNELS}
        weights = {**weights, **factors}
        carry = initial_carry or (jnp.zeros((B, self.features)),) * self.num_states
        mask = None if lengths is None else jnp.arange(T)[:, None] < lengths[None, :]
        table: jax.Array | None = self.get_variable(FOLDED, "table")
        inputs, project = _input_projection(x.swapaxes(0, 1), weights, table)
        if self.implementation == "scan":
            outputs, carry = self._scan(carry, project(inputs), mask, weights)
        elif table is not None and mask is not None:
            kernel, bias = weights["recurrent_kernel"], self.recurrent_bias(weights)
            z = EmbeddingLookup(table, inputs)
            outputs, carry = without_padding(type(self), self.reverse, carry, z, kernel, bias, mask)
        else:
            outputs, carry = self._fused(carry, inputs, project, mask, weights)
        if mask is not None:
            outputs = jnp.where(mask[:, :, None], outputs, 0)
        return outputs.swapaxes(0, 1), carry

    def _scan(
        self,
        carry: Carry,
        z: jax.Array | EmbeddingLookup,
        mask: jax.Array | None,
        weights: Weights,
    ) -> tuple[jax.Array, Carry]:
        z = z.rows() if isinstance(z, EmbeddingLookup) else z
        kernel, bias = weights["recurrent_kernel"], self.recurrent_bias(weights)

        def step(
            layer: Recurrent, carry: Carry, now: tuple[jax.Array, jax.Array | None]
        ) -> tuple[Carry, jax.Array]:
            z, mask = now
            u = recurrent_pre_activation(carry, kernel, bias)
            # Texts that have ended keep their carry.
            carry = select(mask, layer.pointwise(carry, z.astype(u.dtype), u), carry)
            return carry, carry[-1].astype(kernel.dtype)

        scan = nn.scan(step, variable_broadcast="params", reverse=self.reverse)
        carry, outputs = scan(self, carry, (z, mask))
        return outputs, carry

    def _fused(
        self,
        carry: Carry,
        inputs: jax.Array,
        project: Callable[[jax.Array], jax.Array | EmbeddingLookup],
        mask: jax.Array | None,
        weights: Weights,
    ) -> tuple[jax.Array, Carry]:
        kernel, bias = weights["recurrent_kernel"], self.recurrent_bias(weights)

        def run(carry: Carry, inputs: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, Carry]:
            return fused(type(self), self.reverse, carry, project(inputs), kernel, bias, mask)

        if not self.recompute:
            return run(carry, inputs, mask)
        mask = jnp.ones(inputs.shape[:2], bool) if mask is None else mask
        return in_segments(run, self.recompute, self.reverse, carry, inputs, mask)

    def weights(self, num_inputs: int) -> Weights:
        """Declares kernel [D, G·H], recurrent_kernel [H, G·H] and bias [G·H] for D inputs."""
        width = self.num_gates * self.features
        return {
            "kernel": self.param("kernel", layers.glorot_uniform, (num_inputs, width)),
            "recurrent_kernel": self.param(
                "recurrent_kernel", layers.orthogonal, (self.features, width)
            ),
            "bias": self.param("bias", self.init_bias, (width,)),
        }

    def init_bias(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Initial bias, [G·H]: zeros."""
        return jnp.zeros(shape)

    @staticmethod
    def recurrent_bias(weights: Weights) -> jax.Array | None:
        """Bias of the recurrent pre-activation, [G·H]; None: it has none."""
        return None

    @staticmethod
    def pointwise(carry: Carry, z: jax.Array, u: jax.Array) -> Carry:
        """The element-wise part of a step.

        Args:
            carry: Carry of the previous step.
            z: Input pre-activation, x·kernel + bias, [B, G·H].
            u: Recurrent pre-activation, h·recurrent_kernel, [B, G·H].

        Returns:
            The next carry.
        """
        raise NotImplementedError

    @classmethod
    def forward(cls, carry: Carry, z: jax.Array, u: jax.Array) -> tuple[Carry, Residuals]:
        """The next carry, as `pointwise` gives it, and what `backward` needs."""
        return cls.pointwise(carry, z, u), (carry, z, u)

    @classmethod
    def backward(cls, d_carry: Carry, residuals: Residuals) -> tuple[Carry, jax.Array, jax.Array]:
        """The gradients of `pointwise`: of the next carry → of carry, z and u."""
        _, gradients = jax.vjp(cls.pointwise, *residuals)
        return gradients(d_carry)


class Bidirectional(nn.Module):
    """Two layers over the same inputs, one per direction, concatenated (Schuster & Paliwal, 1997).

    Attributes:
        cell: The class of both layers.
        features: Hidden size H of each direction.
        implementation: See `Recurrent`.
        recompute: See `Recurrent`.
        dropout: See `Recurrent`.
        dtype: See `Recurrent`.
    """

    cell: type[Recurrent]
    features: int
    implementation: str = "fused"
    recompute: int = 0
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array | EmbeddingLookup,
        lengths: jax.Array | None = None,
        initial_carry: None = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, Carry]:
        """As `Recurrent.__call__`, with outputs [B, T, 2H] and carries [B, 2H]."""
        layer = functools.partial(
            self.cell,
            self.features,
            implementation=self.implementation,
            recompute=self.recompute,
            dropout=self.dropout,
            dtype=self.dtype,
        )
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        forward, forward_carry = layer(name="forward")(x, lengths, None, keys[0])
        backward, backward_carry = layer(reverse=True, name="backward")(x, lengths, None, keys[1])
        carry = tuple(
            jnp.concatenate(pair, axis=-1)
            for pair in zip(forward_carry, backward_carry, strict=True)
        )
        return jnp.concatenate([forward, backward], axis=-1), carry


def _input_projection(
    x: jax.Array | EmbeddingLookup, weights: Weights, projected: jax.Array | None
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array | EmbeddingLookup]]:
    """Chooses where the inputs are projected.

    Args:
        x: Inputs [T, B, D], or where to look them up.
        weights: The layer's weights.
        projected: The projection of the table that x is looked up in, [V, G·H], if there is one.

    Returns:
        An array [T, B, …], and a function from any segment of it in time to the input
        pre-activations z of that segment, [t, B, G·H] or where to look them up.
    """
    if not isinstance(x, EmbeddingLookup):
        return x, lambda x: _project(x, weights)
    if projected is not None:
        return x.ids, lambda ids: EmbeddingLookup(projected, ids)
    tokens = x.ids.shape[0] * x.ids.shape[1]
    if jax.export.is_symbolic_dim(tokens):
        # A program for any shape makes the choice when it runs.
        z = jax.lax.cond(
            len(x.table) < jnp.int32(tokens),
            lambda x: _project(x.table, weights)[x.ids],
            lambda x: _project(x.rows(), weights),
            x,
        )
        return z, lambda z: z
    if len(x.table) < tokens:
        projected = _project(x.table, weights)
        return x.ids, lambda ids: EmbeddingLookup(projected, ids)
    return x.ids, lambda ids: _project(x.table[ids], weights)


def _project(x: jax.Array, weights: Weights) -> jax.Array:
    """Inputs [..., D] → input pre-activations [..., G·H]."""
    kernel = weights["kernel"]
    rows = x.reshape(-1, x.shape[-1])  # XLA copies inputs of other shapes in the backward pass
    z = rows.astype(kernel.dtype) @ kernel + weights["bias"][None]
    return z.astype(kernel.dtype).reshape(*x.shape[:-1], -1)

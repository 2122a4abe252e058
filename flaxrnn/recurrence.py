"""Recurrent layers over time: SimpleRNN, LSTM and GRU, in one direction or both.

A `Cell` says what one step does; a layer runs its cell over a batch with `nn.scan`. What does not
depend on the carry, the projection of the inputs, is one matrix product for all steps at once.

A new cell is one subclass of `Cell` and one of `Recurrent` that names it.

Shapes: B batch, T time, D input features, H hidden features, G gates.
"""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

Carry = tuple[jax.Array, ...]  # each [B, H]; the last one is the cell's output h


class Cell(nn.Module):
    """One step of a recurrence, and its weights, all gates side by side.

    Initial values as in Keras: Glorot-uniform kernel, orthogonal recurrent kernel, zero bias.
    """

    inputs: int  # D
    features: int  # H

    gates: ClassVar[int]
    carries: ClassVar[int] = 1

    def setup(self) -> None:
        """Declares kernel [D, G·H], recurrent_kernel [H, G·H] and bias [G·H]."""
        width = self.gates * self.features
        self.kernel = self.param("kernel", nn.initializers.glorot_uniform(), (self.inputs, width))
        self.recurrent_kernel = self.param(
            "recurrent_kernel", nn.initializers.orthogonal(), (self.features, width)
        )
        self.bias = self.param("bias", self.init_bias, (width,))

    def init_bias(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Initial bias, [G·H]."""
        return jnp.zeros(shape)

    def initial_carry(self, batch: int) -> Carry:
        """Zeros."""
        return (jnp.zeros((batch, self.features)),) * self.carries

    def project(self, x: jax.Array) -> jax.Array:
        """Inputs [..., D] → their share of the gates [..., G·H]."""
        return x @ self.kernel + self.bias.reshape((1,) * (x.ndim - 1) + (-1,))

    def __call__(self, carry: Carry, z: jax.Array) -> Carry:
        """One step: carry and projected inputs [B, G·H] → the next carry."""
        raise NotImplementedError


class SimpleRNNCell(Cell):
    """Elman (1990): h' = tanh(z + h U)."""

    gates = 1

    def __call__(self, carry: Carry, z: jax.Array) -> Carry:
        """One step."""
        (h,) = carry
        return (jnp.tanh(z + h @ self.recurrent_kernel),)


class LSTMCell(Cell):
    """Hochreiter & Schmidhuber (1997), with the forget gate of Gers et al. (2000).

    Gates in the order i, f, g, o, as in Keras and PyTorch; the forget gate's bias starts at 1.
    """

    gates = 4
    carries = 2

    def init_bias(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Zeros, but ones for the forget gate (Jozefowicz et al., 2015)."""
        return jnp.zeros(shape).at[self.features : 2 * self.features].set(1)

    def __call__(self, carry: Carry, z: jax.Array) -> Carry:
        """One step."""
        c, h = carry
        i, f, g, o = jnp.split(z + h @ self.recurrent_kernel, 4, axis=-1)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
        return c, nn.sigmoid(o) * jnp.tanh(c)


class GRUCell(Cell):
    """Cho et al. (2014), the variant of cuDNN, PyTorch and Keras (`reset_after=True`).

    Gates in the order r, z, n. The reset gate scales the candidate's recurrent share and its bias,
    hence a second bias, `recurrent_bias` [H].
    """

    gates = 3

    def setup(self) -> None:
        """Declares the weights of every cell, and recurrent_bias [H]."""
        super().setup()
        self.recurrent_bias = self.param("recurrent_bias", nn.initializers.zeros, (self.features,))

    def __call__(self, carry: Carry, z: jax.Array) -> Carry:
        """One step."""
        (h,) = carry
        z_reset, z_update, z_new = jnp.split(z, 3, axis=-1)
        u_reset, u_update, u_new = jnp.split(h @ self.recurrent_kernel, 3, axis=-1)
        update = nn.sigmoid(z_update + u_update)
        new = jnp.tanh(z_new + nn.sigmoid(z_reset + u_reset) * (u_new + self.recurrent_bias[None]))
        return (update * h + (1 - update) * new,)


def _masked_step(
    cell: Cell, carry: Carry, inputs: tuple[jax.Array, jax.Array]
) -> tuple[Carry, jax.Array]:
    """A step that leaves the carry of finished texts alone; their output is zero."""
    z, inside = inputs
    new = cell(carry, z)
    inside = inside[:, None]
    carry = tuple(jnp.where(inside, n, old) for n, old in zip(new, carry, strict=True))
    return carry, jnp.where(inside, new[-1], 0)


class Recurrent(nn.Module):
    """Runs a cell over time; subclasses name the cell.

    Attributes:
        features: Hidden size H.
        reverse: Read each text from its last token to its first; outputs stay in text order.
    """

    features: int
    reverse: bool = False

    cell: ClassVar[type[Cell]]

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array | None = None) -> tuple[jax.Array, Carry]:
        """Runs over a batch of texts.

        Args:
            x: Inputs [B, T, D].
            lengths: Steps that count, int [B], each text starting at step 0; None: all T.

        Returns:
            Outputs [B, T, H], zero past a text's end, and the carry after its last step: (c, h)
            for LSTM, (h,) for the others, each [B, H].
        """
        B, T, D = x.shape
        cell = self.cell(D, self.features)
        nn.share_scope(self, cell)  # the weights are this layer's own
        z = cell.project(x.swapaxes(0, 1))
        lengths = jnp.full(B, T) if lengths is None else lengths
        inside = jnp.arange(T)[:, None] < lengths[None, :]
        scan = nn.scan(
            _masked_step,
            variable_broadcast="params",
            split_rngs={"params": False},
            reverse=self.reverse,
        )
        carry, outputs = scan(cell, cell.initial_carry(B), (z, inside))
        return outputs.swapaxes(0, 1), carry


class SimpleRNN(Recurrent):
    """A layer of `SimpleRNNCell`s."""

    cell = SimpleRNNCell


class LSTM(Recurrent):
    """A layer of `LSTMCell`s."""

    cell = LSTMCell


class GRU(Recurrent):
    """A layer of `GRUCell`s."""

    cell = GRUCell


class Bidirectional(nn.Module):
    """Two layers over the same inputs, one a direction, side by side (Schuster & Paliwal, 1997).

    Attributes:
        layer: The class of both layers.
        features: Hidden size H of each.
    """

    layer: type[Recurrent]
    features: int

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array | None = None) -> tuple[jax.Array, Carry]:
        """As `Recurrent.__call__`, with outputs [B, T, 2H] and carries [B, 2H]."""
        forward, carry_forward = self.layer(self.features, name="forward")(x, lengths)
        backward, carry_backward = self.layer(self.features, reverse=True, name="backward")(
            x, lengths
        )
        carry = tuple(
            jnp.concatenate(pair, axis=-1)
            for pair in zip(carry_forward, carry_backward, strict=True)
        )
        return jnp.concatenate([forward, backward], axis=-1), carry


LAYERS: dict[str, type[Recurrent]] = {"simple": SimpleRNN, "lstm": LSTM, "gru": GRU}

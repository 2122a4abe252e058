"""The cells: SimpleRNN, LSTM and GRU. Each defines one time step; see `Recurrent`.

Their backward passes are hand-written; tests compare them with JAX's gradients of `pointwise`.
"""

from __future__ import annotations

import contextlib
import functools
import textwrap
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxrnn.errors import ConfigError
from flaxrnn.nn.recurrence import Carry, Recurrent, Residuals, Weights
from flaxrnn.runtime import plugins


class SimpleRNN(Recurrent):
    """Elman (1990): h' = tanh(z + u)."""

    num_gates = 1
    shared_gradient = True

    @staticmethod
    def pointwise(carry: Carry, z: jax.Array, u: jax.Array) -> Carry:  # noqa: D102
        return (jnp.tanh(z + u),)

    @classmethod
    def forward(cls, carry: Carry, z: jax.Array, u: jax.Array) -> tuple[Carry, Residuals]:  # noqa: D102
        new = cls.pointwise(carry, z, u)
        return new, new

    @classmethod
    def backward(cls, d_carry: Carry, residuals: Residuals) -> tuple[Carry, jax.Array, jax.Array]:  # noqa: D102
        (d_h,), (h,) = d_carry, residuals
        d_z = d_h * (1 - h * h)
        return (jnp.zeros_like(d_h),), d_z, d_z


class LSTM(Recurrent):
    """Hochreiter & Schmidhuber (1997), with the forget gate of Gers et al. (2000).

    i, f, o = σ and g = tanh of z + u; c' = f·c + i·g; h' = o·tanh(c'). The gates are in the order
    i, f, g, o, as in Keras and PyTorch; the forget gate's bias starts at 1. The carry is (c, h).
    """

    num_gates = 4
    num_states = 2
    shared_gradient = True

    def init_bias(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Zeros, but ones for the forget gate (Jozefowicz et al., 2015)."""
        return jnp.zeros(shape).at[self.features : 2 * self.features].set(1)

    @classmethod
    def pointwise(cls, carry: Carry, z: jax.Array, u: jax.Array) -> Carry:  # noqa: D102
        return cls.forward(carry, z, u)[0]

    @classmethod
    def forward(cls, carry: Carry, z: jax.Array, u: jax.Array) -> tuple[Carry, Residuals]:  # noqa: D102
        c_before, _ = carry
        # One tanh over all gates at once, with σ(x) = ½ tanh(½ x) + ½.
        half, one = jnp.full_like(c_before[:1], 0.5), jnp.ones_like(c_before[:1])
        scale = jnp.concatenate([half, half, one, half], axis=-1)
        gates = scale * jnp.tanh(scale * (z + u)) + (1 - scale)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        c = f * c_before + i * g
        tanh_c = jnp.tanh(c)
        return (c, o * tanh_c), (i, f, g, o, tanh_c, c_before)

    @classmethod
    def backward(cls, d_carry: Carry, residuals: Residuals) -> tuple[Carry, jax.Array, jax.Array]:  # noqa: D102
        d_c, d_h = d_carry
        i, f, g, o, tanh_c, c_before = residuals
        d_c = d_c + d_h * o * (1 - tanh_c * tanh_c)
        d_z = jnp.concatenate(
            [
                d_c * g * i * (1 - i),
                d_c * c_before * f * (1 - f),
                d_c * i * (1 - g * g),
                d_h * tanh_c * o * (1 - o),
            ],
            axis=-1,
        )
        return (d_c * f, jnp.zeros_like(d_h)), d_z, d_z


class GRU(Recurrent):
    """Cho et al. (2014), the variant of cuDNN, PyTorch and Keras (`reset_after=True`).

    r, s = σ of z + u; n = tanh(z + r·u); h' = s·h + (1 − s)·n. The gates are in the order r, s, n.
    The reset gate scales the recurrent pre-activation of the candidate n together with its bias,
    hence a second bias, `recurrent_bias` [H].
    """

    num_gates = 3

    def weights(self, num_inputs: int) -> Weights:
        """Declares those of every layer, and recurrent_bias [H], of the candidate."""
        weights = super().weights(num_inputs)
        bias = self.param("recurrent_bias", nn.initializers.zeros, (self.features,))
        return {**weights, "recurrent_bias": bias}

    @staticmethod
    def recurrent_bias(weights: Weights) -> jax.Array:
        """Zeros for both gates, then that of the candidate, [3·H]."""
        return jnp.pad(weights["recurrent_bias"], (2 * len(weights["recurrent_bias"]), 0))

    @classmethod
    def pointwise(cls, carry: Carry, z: jax.Array, u: jax.Array) -> Carry:  # noqa: D102
        return cls.forward(carry, z, u)[0]

    @classmethod
    def forward(cls, carry: Carry, z: jax.Array, u: jax.Array) -> tuple[Carry, Residuals]:  # noqa: D102
        (h,) = carry
        z_reset, z_update, z_new = jnp.split(z, 3, axis=-1)
        u_reset, u_update, u_new = jnp.split(u, 3, axis=-1)
        reset, update = _sigmoid(z_reset + u_reset), _sigmoid(z_update + u_update)
        new = jnp.tanh(z_new + reset * u_new)
        return (update * h + (1 - update) * new,), (h, reset, update, new, u_new)

    @classmethod
    def backward(cls, d_carry: Carry, residuals: Residuals) -> tuple[Carry, jax.Array, jax.Array]:  # noqa: D102
        (d_h,) = d_carry
        h, reset, update, new, u_new = residuals
        d_new = d_h * (1 - update) * (1 - new * new)
        d_reset = d_new * u_new * reset * (1 - reset)
        d_update = d_h * (h - new) * update * (1 - update)
        d_z = jnp.concatenate([d_reset, d_update, d_new], axis=-1)
        d_u = jnp.concatenate([d_reset, d_update, d_new * reset], axis=-1)
        return (d_h * update,), d_z, d_u


def _sigmoid(x: jax.Array) -> jax.Array:
    return 0.5 * jnp.tanh(0.5 * x) + 0.5  # faster on CPU than 1 / (1 + exp(-x))


CELLS: dict[str, type[Recurrent]] = {"simple": SimpleRNN, "lstm": LSTM, "gru": GRU}


def get_cell(name: str) -> type[Recurrent]:
    """The cell with a name in `CELLS`, or the subclass of `Recurrent` that "module:Class" names.

    Raises:
        ConfigError: The module cannot be imported or has no such class, or its methods fail or
            return other shapes than they must.
    """
    if name in CELLS:
        return CELLS[name]
    cell = plugins.load("model.cell", name, Recurrent)
    _check(name, cell)
    return cell


@functools.cache
def _check(name: str, cell: type[Recurrent]) -> None:
    """Tries a custom cell on shapes alone: its step, then a layer of it with its gradient."""
    B, T, H = 2, 4, 3
    if not hasattr(cell, "num_gates"):
        raise ConfigError(f"model.cell: {name}: num_gates is missing")
    carry = (jax.ShapeDtypeStruct((B, H), jnp.float32),) * cell.num_states
    z = jax.ShapeDtypeStruct((B, cell.num_gates * H), jnp.float32)
    with _as_config_error(f"model.cell: {name}: pointwise fails"):
        found: object = jax.eval_shape(cell.pointwise, carry, z, z)
    if jax.tree.map(_form, found) != jax.tree.map(_form, carry):
        raise ConfigError(
            f"model.cell: {name}: pointwise must return a tuple of {cell.num_states} arrays [B, H]"
        )
    x = jax.ShapeDtypeStruct((B, T, H), jnp.float32)
    with _as_config_error(f"model.cell: {name}: a layer of it fails"):
        weights = jax.eval_shape(cell(H).init, jax.random.key(0), x)
        jax.eval_shape(jax.grad(lambda w, x: cell(H).apply(w, x)[0].sum()), weights, x)


@contextlib.contextmanager
def _as_config_error(problem: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever the code of the class raises
        reason = textwrap.shorten(plugins.reason(error), 300, placeholder=" …")
        raise ConfigError(f"{problem}: {reason}") from None


def _form(x: jax.ShapeDtypeStruct) -> tuple:
    return x.shape, x.dtype  # without the sharding, which it has inside of `shard_map`

"""Recurrent layers over time: SimpleRNN, LSTM and GRU, in one direction or both.

A subclass of `Recurrent` says what one step does. It runs over a batch in one of two ways that
share their weights and agree in outputs and gradients:

* "scan": `nn.scan` over the step, differentiated by JAX. The reference.
* "fused": `jax.lax.scan` with a backward pass of its own, whose loop carries the gradients of the
  carry alone; those of the recurrent weights are one matrix product over all steps, after it.

In both, what does not depend on the carry, the projection of the inputs, is one matrix product for
all steps at once; and of a table that holds fewer rows than the batch has tokens, the rows are
projected, and looked up step by step.

For long texts, `recompute` keeps only the carry between segments of time: what the backward pass
needs inside a segment is computed a second time when it gets there (Chen et al., 2016).

A new cell is one subclass that says what its gates do; `model.cell=module:Class` trains it.

Shapes: B batch, T time, D input features, H hidden features, G gates.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxrnn.errors import ConfigError

Carry = tuple[jax.Array, ...]  # each [B, H]; the last one is the cell's output h
Weights = Mapping[str, jax.Array]  # by name
Saved = tuple[Any, ...]  # what the backward pass of a step needs of its forward pass

WAYS = ("auto", "scan", "fused")


class EmbeddingLookup(NamedTuple):
    """Rows of a table, not looked up yet: [B, T, D], where the ids are [B, T]."""

    table: jax.Array  # [V, D]
    ids: jax.Array  # int [B, T]

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, T, D)."""
        return (*self.ids.shape, self.table.shape[-1])

    def swapaxes(self, a: int, b: int) -> EmbeddingLookup:
        """With two of the axes of the ids exchanged."""
        return EmbeddingLookup(self.table, self.ids.swapaxes(a, b))

    def rows(self) -> jax.Array:
        """Looks them up."""
        return self.table[self.ids]


class Recurrent(nn.Module):
    """A recurrent layer. A subclass says what a step does: `gates`, and `gate`.

    Initial values as in Keras: Glorot-uniform kernel, orthogonal recurrent kernel, zero bias.

    Attributes:
        features: Hidden size H.
        reverse: Read each text from its last token to its first; outputs stay in text order.
        way: One of `WAYS`; "auto" is "fused".
        recompute: Time steps a segment whose inner steps are computed again in the backward pass,
            for the memory of T / recompute steps instead of T; 0: every step is kept. Not for
            "scan".
    """

    features: int
    reverse: bool = False
    way: str = "auto"
    recompute: int = 0

    gates: ClassVar[int]  # G
    carries: ClassVar[int] = 1  # arrays in the carry

    @nn.compact
    def __call__(
        self,
        x: jax.Array | EmbeddingLookup,
        lengths: jax.Array | None = None,
        carry: Carry | None = None,
    ) -> tuple[jax.Array, Carry]:
        """Runs over a batch of texts.

        Args:
            x: Inputs [B, T, D], or where to look them up.
            lengths: Steps that count, int [B], each text starting at step 0; None: all T.
            carry: Before the first step that is read; None: zeros.

        Returns:
            Outputs [B, T, H], zero past a text's end, and the carry after its last step: (c, h)
            for LSTM, (h,) for the others, each [B, H].
        """
        B, T, D = x.shape
        weights = self.weights(D)
        if carry is None:
            carry = (jnp.zeros((B, self.features)),) * self.carries
        x = x.swapaxes(0, 1)
        inside = None if lengths is None else jnp.arange(T)[:, None] < lengths[None, :]
        projected = False
        if isinstance(x, EmbeddingLookup) and jax.export.is_symbolic_dim(B * T):
            # A program for any shape chooses when it is compiled for one.
            x = jax.lax.cond(
                len(x.table) < jnp.int32(B * T),
                lambda x: _project(x.table, weights)[x.ids],
                lambda x: _project(x.rows(), weights),
                x,
            )
            projected = True
        elif isinstance(x, EmbeddingLookup) and len(x.table) < B * T:
            x, projected = EmbeddingLookup(_project(x.table, weights), x.ids), True
        if self.way == "scan":
            scan = nn.scan(
                _step,
                variable_broadcast="params",
                split_rngs={"params": False},
                reverse=self.reverse,
            )
            x = x.rows() if isinstance(x, EmbeddingLookup) else x
            z = x if projected else _project(x, weights)
            carry, outputs = scan(self, carry, (z, inside))
        else:
            recurrent_kernel, bias = weights["recurrent_kernel"], self.hidden_bias(weights)
            table, xs = x if isinstance(x, EmbeddingLookup) else (None, x)

            def run(carry: Carry, inputs: tuple) -> tuple[Carry, jax.Array]:
                xs, inside = inputs
                z = xs if table is None else EmbeddingLookup(table, xs)
                if not projected:
                    z = _project(z.rows() if isinstance(z, EmbeddingLookup) else z, weights)
                return fused(type(self), self.reverse, carry, z, recurrent_kernel, bias, inside)

            if self.recompute:
                inside = jnp.ones((T, B), bool) if inside is None else inside
                run = _in_segments(run, self.recompute, self.reverse)
            carry, outputs = run(carry, (xs, inside))
        if inside is not None:
            outputs = jnp.where(inside[:, :, None], outputs, 0)
        return outputs.swapaxes(0, 1), carry

    def weights(self, inputs: int) -> Weights:
        """Declares kernel [D, G·H], recurrent_kernel [H, G·H] and bias [G·H] for D inputs."""
        width = self.gates * self.features
        init = nn.initializers
        return {
            "kernel": self.param("kernel", init.glorot_uniform(), (inputs, width)),
            "recurrent_kernel": self.param(
                "recurrent_kernel", init.orthogonal(), (self.features, width)
            ),
            "bias": self.param("bias", self.init_bias, (width,)),
        }

    def init_bias(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Initial bias, [G·H]."""
        return jnp.zeros(shape)

    @staticmethod
    def hidden_bias(weights: Weights) -> jax.Array | None:
        """What is added to the carry's share of the gates, [G·H]; None: nothing."""
        return None

    @staticmethod
    def gate(carry: Carry, z: jax.Array, u: jax.Array) -> Carry:
        """The element-wise part of a step.

        Args:
            carry: Of the step before.
            z: The inputs' share of the gates, [B, G·H].
            u: The carry's share, [B, G·H].

        Returns:
            The next carry.
        """
        raise NotImplementedError

    @classmethod
    def forward(cls, carry: Carry, z: jax.Array, u: jax.Array) -> tuple[Carry, Saved]:
        """`gate`, and what `backward` needs."""
        return cls.gate(carry, z, u), (carry, z, u)

    @classmethod
    def backward(cls, d_carry: Carry, saved: Saved) -> tuple[Carry, jax.Array, jax.Array]:
        """The gradients of `gate`: of the next carry → of carry, z and u."""
        _, gradients = jax.vjp(cls.gate, *saved)
        return gradients(d_carry)


class SimpleRNN(Recurrent):
    """Elman (1990): h' = tanh(z + u)."""

    gates = 1

    @staticmethod
    def gate(carry: Carry, z: jax.Array, u: jax.Array) -> Carry:
        """See the class."""
        return (jnp.tanh(z + u),)

    @classmethod
    def forward(cls, carry: Carry, z: jax.Array, u: jax.Array) -> tuple[Carry, Saved]:
        """`gate`, and its result."""
        new = cls.gate(carry, z, u)
        return new, new

    @classmethod
    def backward(cls, d_carry: Carry, saved: Saved) -> tuple[Carry, jax.Array, jax.Array]:
        """By hand."""
        (d_h,), (h,) = d_carry, saved
        d_z = d_h * (1 - h * h)
        return (jnp.zeros_like(d_h),), d_z, d_z


class LSTM(Recurrent):
    """Hochreiter & Schmidhuber (1997), with the forget gate of Gers et al. (2000).

    Gates in the order i, f, g, o, as in Keras and PyTorch; the forget gate's bias starts at 1.
    """

    gates = 4
    carries = 2

    def init_bias(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Zeros, but ones for the forget gate (Jozefowicz et al., 2015)."""
        return jnp.zeros(shape).at[self.features : 2 * self.features].set(1)

    @classmethod
    def gate(cls, carry: Carry, z: jax.Array, u: jax.Array) -> Carry:
        """i, f, o = σ, g = tanh of z + u; c' = f c + i g; h' = o tanh(c')."""
        return cls.forward(carry, z, u)[0]

    @classmethod
    def forward(cls, carry: Carry, z: jax.Array, u: jax.Array) -> tuple[Carry, Saved]:
        """`gate`, and its gates."""
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
    def backward(cls, d_carry: Carry, saved: Saved) -> tuple[Carry, jax.Array, jax.Array]:
        """By hand."""
        d_c, d_h = d_carry
        i, f, g, o, tanh_c, c_before = saved
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

    Gates in the order r, z, n. The reset gate scales the candidate's recurrent share and its bias,
    hence a second bias, `recurrent_bias` [H].
    """

    gates = 3

    def weights(self, inputs: int) -> Weights:
        """Declares those of every layer, and recurrent_bias [H]."""
        weights = super().weights(inputs)
        bias = self.param("recurrent_bias", nn.initializers.zeros, (self.features,))
        return {**weights, "recurrent_bias": bias}

    @staticmethod
    def hidden_bias(weights: Weights) -> jax.Array:
        """Of the candidate only."""
        return jnp.pad(weights["recurrent_bias"], (2 * len(weights["recurrent_bias"]), 0))

    @classmethod
    def gate(cls, carry: Carry, z: jax.Array, u: jax.Array) -> Carry:
        """r, s = σ of z + u; n = tanh(z + r u); h' = s h + (1 - s) n."""
        return cls.forward(carry, z, u)[0]

    @classmethod
    def forward(cls, carry: Carry, z: jax.Array, u: jax.Array) -> tuple[Carry, Saved]:
        """`gate`, and its gates."""
        (h,) = carry
        z_reset, z_update, z_new = jnp.split(z, 3, axis=-1)
        u_reset, u_update, u_new = jnp.split(u, 3, axis=-1)
        reset, update = _sigmoid(z_reset + u_reset), _sigmoid(z_update + u_update)
        new = jnp.tanh(z_new + reset * u_new)
        return (update * h + (1 - update) * new,), (h, reset, update, new, u_new)

    @classmethod
    def backward(cls, d_carry: Carry, saved: Saved) -> tuple[Carry, jax.Array, jax.Array]:
        """By hand."""
        (d_h,) = d_carry
        h, reset, update, new, u_new = saved
        d_new = d_h * (1 - update) * (1 - new * new)
        d_reset = d_new * u_new * reset * (1 - reset)
        d_update = d_h * (h - new) * update * (1 - update)
        d_z = jnp.concatenate([d_reset, d_update, d_new], axis=-1)
        d_u = jnp.concatenate([d_reset, d_update, d_new * reset], axis=-1)
        return (d_h * update,), d_z, d_u


def _sigmoid(x: jax.Array) -> jax.Array:
    return 0.5 * jnp.tanh(0.5 * x) + 0.5  # on CPU faster than 1 / (1 + exp(-x))


def _project(x: jax.Array, weights: Weights) -> jax.Array:
    """Inputs [..., D] → their share of the gates [..., G·H]."""
    rows = x.reshape(-1, x.shape[-1])  # XLA runs the backward pass of other shapes on a copy
    return (rows @ weights["kernel"] + weights["bias"][None]).reshape(*x.shape[:-1], -1)


def _share(carry: Carry, recurrent_kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    u = carry[-1] @ recurrent_kernel
    return u if bias is None else u + bias[None]


def _select(inside: jax.Array | None, new: Carry, old: Carry) -> Carry:
    """`new` for the texts that go on, `old` for the others; `inside` bool [B], None: all go on."""
    if inside is None:
        return new
    return tuple(jnp.where(inside[:, None], n, o) for n, o in zip(new, old, strict=True))


def _step(layer: Recurrent, carry: Carry, inputs: tuple[jax.Array, jax.Array | None]) -> Any:
    """A step of the reference: the carry of texts that have ended stays as it is."""
    z, inside = inputs
    weights = layer.variables["params"]
    u = _share(carry, weights["recurrent_kernel"], layer.hidden_bias(weights))
    carry = _select(inside, layer.gate(carry, z, u), carry)
    return carry, carry[-1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def fused(
    layer: type[Recurrent],
    reverse: bool,
    carry: Carry,
    z: jax.Array | EmbeddingLookup,
    recurrent_kernel: jax.Array,
    bias: jax.Array | None,
    inside: jax.Array | None,
) -> tuple[Carry, jax.Array]:
    """The loop over time with a hand-written backward pass.

    Args:
        layer: What a step does.
        reverse: From the last step to the first.
        carry: Before the first step.
        z: Projected inputs [T, B, G·H], or where each step looks them up, ids [T, B].
        recurrent_kernel: [H, G·H].
        bias: `Recurrent.hidden_bias`.
        inside: Whether a step counts, bool [T, B]; None: all do.

    Returns:
        The carry after the last step, and all outputs [T, B, H]; at a step that does not count,
        those of the step before it.
    """
    return _fused_forward(layer, reverse, carry, z, recurrent_kernel, bias, inside)[0]


def _fused_forward(
    layer: type[Recurrent],
    reverse: bool,
    carry: Carry,
    z: jax.Array | EmbeddingLookup,
    recurrent_kernel: jax.Array,
    bias: jax.Array | None,
    inside: jax.Array | None,
) -> tuple[tuple[Carry, jax.Array], Saved]:
    table, xs = z if isinstance(z, EmbeddingLookup) else (None, z)

    def step(carry: Carry, inputs: tuple[jax.Array, jax.Array | None]) -> Any:
        x, inside = inputs
        z = x if table is None else table[x]
        new, saved = layer.forward(carry, z, _share(carry, recurrent_kernel, bias))
        carry = _select(inside, new, carry)
        return carry, (saved, carry[-1])

    last, (saved, outputs) = jax.lax.scan(step, carry, (xs, inside), reverse=reverse)
    looked_up = None if table is None else (xs, len(table))
    return (last, outputs), (saved, carry[-1], outputs, recurrent_kernel, bias, inside, looked_up)


def _fused_backward(
    layer: type[Recurrent], reverse: bool, residuals: Saved, gradients: Any
) -> tuple:
    saved, first, outputs, recurrent_kernel, bias, inside, looked_up = residuals
    d_carry, d_outputs = gradients
    shared = True  # z and u have one gradient
    # Transposed here and kept so: XLA would fold it into the product, slower at small batches.
    kernel_t = jax.lax.optimization_barrier(recurrent_kernel.T)

    def step(d_carry: Carry, inputs: Any) -> Any:
        nonlocal shared
        saved, d_output, inside = inputs
        d_carry = (*d_carry[:-1], d_carry[-1] + d_output)
        nothing = tuple(map(jnp.zeros_like, d_carry))
        d_before, d_z, d_u = layer.backward(_select(inside, d_carry, nothing), saved)
        d_before = (*d_before[:-1], d_before[-1] + d_u @ kernel_t)
        shared = d_u is d_z
        return _select(inside, d_before, d_carry), (d_z, None if shared else d_u)

    d_carry, (d_z, d_u) = jax.lax.scan(
        step, d_carry, (saved, d_outputs, inside), reverse=not reverse
    )
    d_u = d_z if shared else d_u
    steps = [outputs[1:], first[None]] if reverse else [first[None], outputs[:-1]]
    before = jnp.concatenate(steps)
    d_kernel = jax.lax.dot_general(  # one product over all steps
        before.reshape(-1, before.shape[-1]),
        d_u.reshape(-1, d_u.shape[-1]),
        (((0,), (0,)), ((), ())),
    )
    d_bias = None if bias is None else d_u.sum(axis=(0, 1))
    if looked_up is not None:
        ids, words = looked_up
        width = d_z.shape[-1]
        d_table = jnp.zeros((words, width), d_z.dtype)
        d_z = EmbeddingLookup(d_table.at[ids.reshape(-1)].add(d_z.reshape(-1, width)), None)  # type: ignore[arg-type]
    return d_carry, d_z, d_kernel, d_bias, None


fused.defvjp(_fused_forward, _fused_backward)


def _in_segments(run: Callable, steps: int, reverse: bool) -> Callable:
    """`run` over segments of `steps` time steps, of which only the first carry is kept."""

    def run_all(carry: Carry, inputs: tuple[jax.Array, jax.Array]) -> tuple[Carry, jax.Array]:
        T = len(inputs[0])
        count = -(-T // steps)

        def cut(x: jax.Array) -> jax.Array:  # the steps that are added do not count
            x = jnp.pad(x, ((0, count * steps - T), *((0, 0),) * (x.ndim - 1)))
            return x.reshape(count, steps, *x.shape[1:])

        # A loop's body is not optimized together with its surroundings: no barrier is needed.
        segment = jax.checkpoint(run, prevent_cse=False)
        carry, outputs = jax.lax.scan(segment, carry, jax.tree.map(cut, inputs), reverse=reverse)
        return carry, outputs.reshape(-1, *outputs.shape[2:])[:T]

    return run_all


class Bidirectional(nn.Module):
    """Two layers over the same inputs, one a direction, side by side (Schuster & Paliwal, 1997).

    Attributes:
        layer: The class of both layers.
        features: Hidden size H of each.
        way: Of both, see `Recurrent`.
        recompute: Of both.
    """

    layer: type[Recurrent]
    features: int
    way: str = "auto"
    recompute: int = 0

    @nn.compact
    def __call__(
        self, x: jax.Array | EmbeddingLookup, lengths: jax.Array | None = None
    ) -> tuple[jax.Array, Carry]:
        """As `Recurrent.__call__`, with outputs [B, T, 2H] and carries [B, 2H]."""
        layer = functools.partial(self.layer, self.features, way=self.way, recompute=self.recompute)
        forward, carry_forward = layer(name="forward")(x, lengths)
        backward, carry_backward = layer(reverse=True, name="backward")(x, lengths)
        carry = tuple(
            jnp.concatenate(pair, axis=-1)
            for pair in zip(carry_forward, carry_backward, strict=True)
        )
        return jnp.concatenate([forward, backward], axis=-1), carry


LAYERS: dict[str, type[Recurrent]] = {"simple": SimpleRNN, "lstm": LSTM, "gru": GRU}


def get_cell(name: str) -> type[Recurrent]:
    """The layer of a name in `LAYERS`, or of "module:Class".

    Raises:
        ConfigError: The module cannot be imported, or has no such layer.
    """
    if name in LAYERS:
        return LAYERS[name]
    module, _, attribute = name.partition(":")
    try:
        layer = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # whatever the module's code raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"model.cell: {module} cannot be imported: {reason}") from None
    if not (isinstance(layer, type) and issubclass(layer, Recurrent)):
        raise ConfigError(f"model.cell: {module} has no subclass of Recurrent named {attribute!r}")
    return layer

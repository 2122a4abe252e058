"""The loop over time of a recurrent layer, with a hand-written backward pass.

Its backward loop carries only the gradient of the carry; the gradient of the recurrent weights is
one matrix product over all steps, after the loop.

What the loop computes with, and the carry, are float32; if the recurrent kernel is bfloat16, so are
the factors of its products, and everything that is stored for each step.

Shapes: B batch, T time, H hidden features, G gates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

if TYPE_CHECKING:
    from flaxrnn.nn.recurrence import Recurrent

# The collection of tables that have, for each token, what a layer makes of its embedding.
FOLDED = "folded"

Carry = tuple[jax.Array, ...]  # each [B, H]; the last one is the cell's output h
Residuals = tuple[Any, ...]  # what the backward pass of a step needs from its forward pass

# Time steps per iteration of a loop on a GPU, where each operation is a kernel to launch: XLA fuses
# the element-wise work of one step with that of the next.
GPU_UNROLL = 4


class EmbeddingLookup(NamedTuple):
    """A deferred lookup of table rows: stands for an array [B, T, D]."""

    table: jax.Array  # [V, D]
    ids: jax.Array  # int [B, T]

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, T, D)."""
        return (*self.ids.shape, self.table.shape[-1])

    def swapaxes(self, a: int, b: int) -> EmbeddingLookup:
        """The same lookup with two axes of the ids swapped."""
        return EmbeddingLookup(self.table, self.ids.swapaxes(a, b))

    def rows(self) -> jax.Array:
        """Looks up the rows."""
        return self.table[self.ids]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def fused(
    cell: type[Recurrent],
    reverse: bool,
    carry: Carry,
    z: jax.Array | EmbeddingLookup,
    recurrent_kernel: jax.Array,
    bias: jax.Array | None,
    mask: jax.Array | None,
) -> tuple[jax.Array, Carry]:
    """The loop over time, with a hand-written backward pass.

    Args:
        cell: Defines a step.
        reverse: Whether to run from the last step to the first.
        carry: The carry before the first step to run.
        z: Input pre-activations [T, B, G·H], or a lookup of them with ids [T, B].
        recurrent_kernel: [H, G·H], of the dtype of z.
        bias: See `Recurrent.recurrent_bias`.
        mask: Which steps are valid, bool [T, B]; None: all are.

    Returns:
        The outputs [T, B, H], of the dtype of z, where an invalid step repeats the previous output,
        and the carry after the last step.
    """
    return _fused_forward(cell, reverse, carry, z, recurrent_kernel, bias, mask)[0]


def _fused_forward(
    cell: type[Recurrent],
    reverse: bool,
    carry: Carry,
    z: jax.Array | EmbeddingLookup,
    recurrent_kernel: jax.Array,
    bias: jax.Array | None,
    mask: jax.Array | None,
) -> tuple[tuple[jax.Array, Carry], Residuals]:
    table, inputs = z if isinstance(z, EmbeddingLookup) else (None, z)
    dtype = recurrent_kernel.dtype

    def step(carry: Carry, xs: tuple[jax.Array, jax.Array | None]) -> Any:
        x, mask = xs
        z = x if table is None else table[x]
        u = recurrent_pre_activation(carry, recurrent_kernel, bias)
        new, step_residuals = cell.forward(carry, z.astype(u.dtype), u)
        carry = select(mask, new, carry)
        return carry, (_cast(step_residuals, dtype), carry[-1].astype(dtype))

    last_carry, (per_step, outputs) = _loop(step, carry, (inputs, mask), reverse)
    lookup = None if table is None else (inputs, len(table))
    residuals = (per_step, carry[-1], outputs, recurrent_kernel, bias, mask, lookup)
    return (outputs, last_carry), residuals


def _fused_backward(
    cell: type[Recurrent], reverse: bool, residuals: Residuals, gradients: tuple[jax.Array, Carry]
) -> tuple:
    per_step, initial_h, outputs, recurrent_kernel, bias, mask, lookup = residuals
    d_outputs, d_carry = gradients
    dtype = recurrent_kernel.dtype
    # Else XLA would transpose within each step, which is slower for small batches.
    kernel_t = jax.lax.optimization_barrier(recurrent_kernel.T)

    def step(d_carry: Carry, xs: Any) -> Any:
        step_residuals, d_output, mask = xs
        d_carry = (*d_carry[:-1], d_carry[-1] + d_output)
        zeros = tuple(map(jnp.zeros_like, d_carry))
        step_residuals = _cast(step_residuals, d_carry[-1].dtype)
        d_previous, d_z, d_u = cell.backward(select(mask, d_carry, zeros), step_residuals)
        d_previous = (*d_previous[:-1], d_previous[-1] + _product(d_u, kernel_t))
        stored = (d_z.astype(dtype), None if cell.shared_gradient else d_u.astype(dtype))
        return select(mask, d_previous, d_carry), stored

    d_carry, (d_z, d_u) = _loop(step, d_carry, (per_step, d_outputs, mask), not reverse)
    d_u = d_z if cell.shared_gradient else d_u
    outputs = jax.lax.platform_dependent(outputs, tpu=_stored_by_step, default=lambda x: x)
    first = initial_h[None].astype(dtype)
    h = [outputs[1:], first] if reverse else [first, outputs[:-1]]
    d_kernel = _product_over_steps(jnp.concatenate(h), d_u)
    d_bias = None if bias is None else d_u.sum(axis=(0, 1), dtype=bias.dtype)
    return d_carry, _lookup_gradient(d_z, lookup), d_kernel, d_bias, None


fused.defvjp(_fused_forward, _fused_backward)


def _loop(
    step: Callable[[Carry, Any], tuple[Carry, Any]], carry: Carry, xs: Any, reverse: bool
) -> tuple[Carry, Any]:
    """`jax.lax.scan`, with several steps per iteration in a program for a GPU."""
    scan = functools.partial(jax.lax.scan, step, reverse=reverse)
    if jax.export.is_symbolic_dim(jax.tree.leaves(xs)[0].shape[0]):
        return scan(carry, xs)
    unrolled = functools.partial(scan, unroll=GPU_UNROLL)
    return jax.lax.platform_dependent(carry, xs, cuda=unrolled, rocm=unrolled, default=scan)


def _stored_by_step(x: jax.Array) -> jax.Array:
    """x, in a layout with time as the slowest axis.

    Else XLA may choose one with time next to the features, which the product over all steps
    prefers, and each step of the loop before it has to scatter what it stores.
    """
    return with_layout_constraint(x, Layout(tuple(range(x.ndim))))


def without_padding(
    cell: type[Recurrent],
    reverse: bool,
    carry: Carry,
    z: EmbeddingLookup,
    recurrent_kernel: jax.Array,
    bias: jax.Array | None,
    mask: jax.Array,
) -> tuple[jax.Array, Carry]:
    """`fused` for inference: ends with the longest text, so padding that all texts have is free.

    The outputs past its end are zeros.
    """
    steps = mask.any(axis=1).sum()  # the valid steps of a text are its first ones

    def step(i: jax.Array, loop: tuple[Carry, jax.Array]) -> tuple[Carry, jax.Array]:
        carry, outputs = loop
        t = steps - 1 - i if reverse else i
        u = recurrent_pre_activation(carry, recurrent_kernel, bias)
        new, _ = cell.forward(carry, z.table[z.ids[t]], u)
        carry = select(mask[t], new, carry)
        return carry, outputs.at[t].set(carry[-1])

    outputs = jnp.zeros((*mask.shape, carry[-1].shape[-1]))
    carry, outputs = jax.lax.fori_loop(0, steps, step, (carry, outputs))
    return outputs, carry


def _product_over_steps(h: jax.Array, d_u: jax.Array) -> jax.Array:
    """Σ hᵀ·d_u over steps and texts, one matrix product: [T, B, H], [T, B, G·H] → [H, G·H]."""
    h, d_u = h.reshape(-1, h.shape[-1]), d_u.reshape(-1, d_u.shape[-1])
    return jax.lax.dot_general(h, d_u, (((0,), (0,)), ((), ())))


def _lookup_gradient(d_z: jax.Array, lookup: tuple[jax.Array, int] | None) -> Any:
    """The gradient of `z` in `fused`; for a lookup, that of its table."""
    if lookup is None:
        return d_z
    ids, rows = lookup
    width = d_z.shape[-1]
    # Sums of many numbers, in bfloat16 too coarse.
    sums = jnp.zeros((rows, width), jnp.promote_types(d_z.dtype, jnp.float32))
    sums = sums.at[ids.reshape(-1)].add(d_z.reshape(-1, width).astype(sums.dtype))
    return EmbeddingLookup(sums.astype(d_z.dtype), None)  # type: ignore[arg-type]  # ids have no gradient


def in_segments(
    run: Callable[[Carry, jax.Array, jax.Array], tuple[jax.Array, Carry]],
    steps: int,
    reverse: bool,
    carry: Carry,
    inputs: jax.Array,
    mask: jax.Array,
) -> tuple[jax.Array, Carry]:
    """Applies `run` to segments of `steps` time steps; stores only the carry before each."""
    T = len(inputs)
    count = -(-T // steps)

    def split(x: jax.Array) -> jax.Array:  # steps added to fill the last segment are masked
        x = jnp.pad(x, ((0, count * steps - T), *((0, 0),) * (x.ndim - 1)))
        return x.reshape(count, steps, *x.shape[1:])

    # No CSE barrier is needed: XLA does not merge the body of a loop with code outside it.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def segment(carry: Carry, xs: tuple[jax.Array, jax.Array]) -> tuple[Carry, jax.Array]:
        outputs, carry = run(carry, *xs)
        return carry, outputs

    carry, outputs = jax.lax.scan(segment, carry, (split(inputs), split(mask)), reverse=reverse)
    return outputs.reshape(-1, *outputs.shape[2:])[:T], carry


def recurrent_pre_activation(
    carry: Carry, recurrent_kernel: jax.Array, bias: jax.Array | None
) -> jax.Array:
    """h·recurrent_kernel + bias, [B, G·H]."""
    u = _product(carry[-1], recurrent_kernel)
    return u if bias is None else u + bias[None]


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x·kernel, with factors of the kernel's dtype and a sum of that of x."""
    return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=x.dtype)


def _cast(tree: Any, dtype: Any) -> Any:
    """A tree with all its floats as `dtype`."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def select(mask: jax.Array | None, new: Carry, old: Carry) -> Carry:
    """`new` where `mask`, bool [B], holds, else `old`; no mask: `new`."""
    if mask is None:
        return new
    return tuple(jnp.where(mask[:, None], n, o) for n, o in zip(new, old, strict=True))

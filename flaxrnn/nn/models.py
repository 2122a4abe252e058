"""The text classifier: embedding, optional convolution, recurrent layers, pooling, softmax.

Without the pooling, there is a softmax a token: of its tag, or of the token that comes next.

Shapes: B batch, T time (tokens), E embedding, F filters, H hidden features, C classes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxrnn.data.vocabulary import PAD
from flaxrnn.nn import recurrence

TARGETS = ("label", "tags", "next")
POOLINGS = ("last", "max", "mean", "attention")

Carries = tuple[recurrence.Carry, ...]  # one a layer


def _uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Keras' initial embedding."""
    return jax.random.uniform(key, shape, dtype, -0.05, 0.05)


class Embed(nn.Embed):
    """An embedding that leaves the look-up to whoever reads it."""

    def __call__(self, inputs: jax.Array) -> recurrence.EmbeddingLookup:
        """Ids [B, T] → rows [B, T, E] of the table."""
        return recurrence.EmbeddingLookup(self.embedding, inputs)


class Dropout(nn.Module):
    """Drops entries in training and scales up the others (Srivastava et al., 2014).

    One random bit decides on an entry where the rate is 1/2, two where it is a quarter, …, at most
    16, where the rate is rounded to a multiple of 2⁻¹⁶: drawing 32 for each takes as long on CPU
    as the recurrence.

    Attributes:
        rate: Share of entries dropped.
    """

    rate: float

    def __call__(self, x: jax.Array, keys: jax.Array | None) -> jax.Array:
        """[B, T, E] and a random key a text, [B]; no keys: evaluation, nothing is dropped."""
        if keys is None:
            return x
        width = next(w for w in (1, 2, 4, 8, 16) if w == 16 or (self.rate * 2**w).is_integer())
        dropped = round(self.rate * 2**width)
        entries = math.prod(x.shape[1:])
        words = -(-entries * width // 32)
        bits = jax.vmap(lambda key: jax.random.bits(key, (words, 1), jnp.uint32))(keys)
        shifts = jnp.arange(0, 32, width, dtype=jnp.uint32)[None, None, :]
        drawn = (bits >> shifts) & (2**width - 1)
        keep = drawn.reshape(len(x), -1)[:, :entries].reshape(x.shape) >= dropped
        return jnp.where(keep, x / (1 - dropped / 2**width), 0)


def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution over time, [B, T, E] with [K, E, F] → [B, T − K + 1, F], by XLA."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
    )


def _conv_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple]:
    return conv(x, kernel), (x, kernel)


def _conv_backward(saved: tuple, d_out: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    B, T, E = x.shape
    K, _, F = kernel.shape
    d_out = jnp.pad(d_out, ((0, 0), (K - 1, K - 1), (0, 0)))
    # What each input gets from the K outputs it went into, side by side.
    d_rows = jnp.concatenate([d_out[:, K - 1 - k : K - 1 - k + T] for k in range(K)], axis=-1)
    d_rows = d_rows.reshape(B * T, K * F)
    d_x = d_rows @ kernel.swapaxes(1, 2).reshape(K * F, E)
    d_kernel = jax.lax.dot_general(x.reshape(B * T, E), d_rows, (((0,), (0,)), ((), ())))
    return d_x.reshape(B, T, E), d_kernel.reshape(E, K, F).swapaxes(0, 1)


# `conv` with a backward pass of two matrix products: XLA's own runs some hundred times slower on
# CPU where it stands in a loop.
conv_on_cpu = jax.custom_vjp(conv)
conv_on_cpu.defvjp(_conv_forward, _conv_backward)


class Conv1D(nn.Module):
    """Convolution over time without padding, then ReLU.

    Attributes:
        filters: F.
        width: Tokens that one output sees, K.
    """

    filters: int
    width: int

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, T, E] and int [B] → [B, T − K + 1, F] and the lengths that remain."""
        shape = (self.width, x.shape[-1], self.filters)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.filters,))
        convolve = conv_on_cpu if jax.default_backend() == "cpu" else conv
        return nn.relu(convolve(x, kernel) + bias[None, None]), lengths - self.width + 1


class MaxPool1D(nn.Module):
    """Maximum over windows of `size` steps side by side; an incomplete last one is dropped."""

    size: int

    def __call__(self, x: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, T, F] and int [B] → [B, T // size, F] and the lengths that remain."""
        B, T, F = x.shape
        windows = x[:, : T // self.size * self.size].reshape(B, T // self.size, self.size, F)
        return windows.max(axis=2), lengths // self.size


class Pool(nn.Module):
    """One vector a text from the recurrent outputs: their last, maximum, mean or attention.

    Attention is that of Yang et al. (2016) over words: softmax of v · tanh(W h + b).
    """

    kind: str

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array, last: jax.Array) -> jax.Array:
        """Outputs [B, T, H], lengths [B] and the last output [B, H] → [B, H]."""
        if self.kind == "last":
            return last
        inside = (jnp.arange(x.shape[1])[None, :] < lengths[:, None])[:, :, None]
        if self.kind == "max":
            return jnp.where(inside, x, -jnp.inf).max(axis=1)
        if self.kind == "mean":
            return jnp.where(inside, x, 0).sum(axis=1) / lengths[:, None]
        scores = nn.Dense(1, use_bias=False, name="score")(
            jnp.tanh(nn.Dense(x.shape[-1], name="attend")(x))
        )
        return (nn.softmax(scores, axis=1, where=inside) * x).sum(axis=1)


class TextModel(nn.Module):
    """Token ids → logits; the two models of the mission are settings of it.

    Attributes:
        num_words: Size of the vocabulary.
        outputs: Logits a text, or a token: C, or 1 for two classes.
        target: One of `TARGETS`: the label of a text, the tag of each token, or the token after it.
        embedding_size: E.
        dropout: Share of embedding entries dropped in training.
        conv_filters: F; 0: no convolution and no max pooling after it.
        conv_width: Tokens that one convolution output sees.
        conv_pool: Convolution outputs that one step of the recurrence sees.
        cell: Names the recurrent layer, see `recurrence.get_cell`.
        hidden_size: H, of each direction.
        layers: Recurrent layers.
        bidirectional: Read each text in both directions.
        pooling: One of `POOLINGS`, for the label of a text.
        recurrence: One of `recurrence.WAYS`.
        recompute: See `recurrence.Recurrent`.
    """

    num_words: int
    outputs: int
    target: str
    embedding_size: int
    dropout: float
    conv_filters: int
    conv_width: int
    conv_pool: int
    cell: str
    hidden_size: int
    layers: int
    bidirectional: bool
    pooling: str
    recurrence: str
    recompute: int

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        lengths: jax.Array,
        dropout_keys: jax.Array | None = None,
        carries: Carries | None = None,
    ) -> tuple[jax.Array, Carries]:
        """Classifies a batch.

        Args:
            tokens: Ids, int [B, T], padded on the right.
            lengths: Tokens that count, int [B], at least 1. With a convolution, a text too short
                for one pooling window is read with padding up to one.
            dropout_keys: In training, a random key a text, [B].
            carries: Where each layer begins; None: with zeros. Not for both directions.

        Returns:
            Logits, float32 [B, outputs], of outputs per token [B, T, outputs], and the carry of
            each layer after a text's last token.
        """
        if self.conv_filters:
            shortest = self.conv_width + self.conv_pool - 1
            lengths = jnp.maximum(lengths, shortest)
            missing = max(0, shortest - tokens.shape[1])
            tokens = jnp.pad(tokens, ((0, 0), (0, missing)), constant_values=PAD)
        embed = Embed(self.num_words, self.embedding_size, embedding_init=_uniform, name="embed")
        x: Any = embed(tokens)
        if self.dropout or self.conv_filters:
            x = x.rows()
        if self.dropout:
            x = Dropout(self.dropout, name="dropout")(x, dropout_keys)
        if self.conv_filters:
            x, lengths = Conv1D(self.conv_filters, self.conv_width, name="conv")(x, lengths)
            x, lengths = MaxPool1D(self.conv_pool, name="max_pool")(x, lengths)
        layer, found = recurrence.get_cell(self.cell), []
        for i in range(self.layers):
            name = f"{self.cell.rpartition(':')[2].lower()}_{i}"
            build = functools.partial(recurrence.Bidirectional, layer)
            run = (build if self.bidirectional else layer)(
                self.hidden_size, way=self.recurrence, recompute=self.recompute, name=name
            )
            before = () if carries is None else (carries[i],)
            x, carry = run(x, lengths, *before)
            found.append(carry)
        if self.target == "label":
            x = Pool(self.pooling, name="pool")(x, lengths, carry[-1])
        dense = nn.Dense(self.outputs, kernel_init=nn.initializers.glorot_uniform(), name="dense")
        return dense(x), tuple(found)


def build(settings: Mapping[str, Any], num_words: int, classes: int) -> TextModel:
    """The classifier of a config's model group: one logit for two classes, else one a class.

    Where the next token is the target, the classes are the ids of the vocabulary.
    """
    classes = num_words if settings["target"] == "next" else classes
    return TextModel(num_words=num_words, outputs=1 if classes == 2 else classes, **settings)


def init_params(model: TextModel, key: jax.Array) -> Any:
    """Initial parameters; none depends on batch size or length."""
    one = jnp.ones((1, 1), jnp.int32)
    return model.init(key, one, one[0])["params"]


def logits(
    model: TextModel,
    params: Any,
    tokens: jax.Array,
    lengths: jax.Array,
    dropout_keys: jax.Array | None = None,
) -> jax.Array:
    """Applies the model, see `TextModel.__call__`."""
    out, _ = model.apply({"params": params}, tokens, lengths, dropout_keys)
    assert isinstance(out, jax.Array)  # no collection is mutable
    return out


def apply_with_carry(
    model: TextModel,
    params: Any,
    tokens: jax.Array,
    lengths: jax.Array,
    carries: Carries | None = None,
) -> tuple[jax.Array, Carries]:
    """Logits of texts that go on where `carries` were left, and the carries after them."""
    out: Any = model.apply({"params": params}, tokens, lengths, carries=carries)
    return out


def attributions(
    model: TextModel, params: Any, tokens: jax.Array, lengths: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """How much each token speaks for the likeliest class: gradient × input.

    The gradient of that class' logit at the token's embedding, times the embedding, summed
    (Shrikumar et al., 2016): to first order, what the logit would lose without it.

    Returns:
        Logits [B, outputs], and the weights of the tokens [B, T].
    """
    table = params["embed"]["embedding"]
    # A row for each token, so that each has a gradient; the first one is that of padding.
    rows = table[jnp.append(PAD, tokens)]
    ids = jnp.arange(1, len(rows)).reshape(tokens.shape)
    unshared = model.clone(num_words=len(rows))

    def likeliest(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = logits(unshared, {**params, "embed": {"embedding": rows}}, ids, lengths)
        # One logit speaks for the second class where it is positive, else for the first.
        return (jnp.abs(out) if model.outputs == 1 else out.max(axis=-1)).sum(), out

    gradient, out = jax.grad(likeliest, has_aux=True)(rows)
    return out, (gradient * rows).sum(axis=-1)[1:].reshape(tokens.shape)


def summary(model: TextModel, batch_size: int, maxlen: int) -> str:
    """A table like Keras' `models.summary()`: layers, output shapes, parameters, total."""
    rows: list[tuple[str, str, int]] = []

    def record(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = next_call(*args, **kwargs)
        module = context.module
        if isinstance(module.parent, TextModel) and context.method_name == "__call__":
            shape = (out if hasattr(out, "shape") else out[0]).shape
            params = jax.tree.leaves(module.variables.get("params", {}))
            rows.append(
                (
                    f"{module.name} ({type(module).__name__})",
                    str((None, *shape[1:])),
                    sum(math.prod(p.shape) for p in params),
                )
            )
        return out

    shapes = jax.ShapeDtypeStruct((batch_size, maxlen), jnp.int32)
    lengths = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    with nn.intercept_methods(record):
        jax.eval_shape(model.init, jax.random.key(0), shapes, lengths)
    header = ("Layer (type)", "Output shape", "Parameters")
    cells = [header, *((name, shape, f"{count:,}") for name, shape, count in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {count:>{widths[2]}}"
        for name, shape, count in cells
    ]
    rule = "─" * len(lines[0])
    total = sum(count for _, _, count in rows)
    return "\n".join(
        [
            rule,
            lines[0],
            rule,
            *lines[1:],
            rule,
            f"Total parameters: {total:,} ({total * 4 / 2**20:.2f} MiB)",
        ]
    )

"""The text model: embedding, optional convolution, recurrent layers, pooling, output layer.

A head with one example per token has no pooling: the output layer sees every recurrent output.

Shapes: B batch, T time (tokens), E embedding features, F filters, H hidden features, C outputs.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxrnn.config import ModelConfig
from flaxrnn.data.vocabulary import PAD
from flaxrnn.nn import cells, heads, layers, recurrence
from flaxrnn.nn.fused import FOLDED

Carries = tuple[recurrence.Carry, ...]  # one per layer


class DropoutKeys(NamedTuple):
    """The random keys of a training step."""

    texts: jax.Array  # one per text, [B]
    step: jax.Array  # one for what all texts share


class TextModel(nn.Module):
    """Token ids → logits; the chapter's two models are settings of it.

    Attributes:
        config: The layers and their sizes.
        vocab_size: Rows of the embedding table.
        num_outputs: C, logits per text or per token.
        code: The classes of its cell and its head, which in a notebook may change under the same
            name: a model with others is not equal, so that no program of the old ones is used.
    """

    config: ModelConfig
    vocab_size: int
    num_outputs: int
    code: tuple[type, ...] = ()

    @property
    def head(self) -> heads.Head:
        """What the logits mean."""
        return heads.get_head(self.config.target)

    @property
    def has_scores(self) -> bool:
        """Whether the logits are blended with the scores of an n-gram classifier."""
        return bool(self.config.word_ngrams or self.config.character_ngrams)

    @property
    def num_features(self) -> int:
        """F, features of a token that are read with its embedding: ratios of n-grams."""
        return self.config.ratio_ngrams * self.num_outputs

    @property
    def extras(self) -> tuple[str, ...]:
        """What it is given of each text beside tokens and lengths: arguments of `__call__`."""
        extras = {"scores": self.has_scores, "features": self.num_features > 0}
        return tuple(name for name, has in extras.items() if has)

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        lengths: jax.Array,
        dropout_keys: DropoutKeys | None = None,
        initial_carries: Carries | None = None,
        scores: jax.Array | None = None,
        features: jax.Array | None = None,
    ) -> tuple[jax.Array, Carries]:
        """Computes the logits of a batch.

        Args:
            tokens: Ids, int [B, T], padded on the right.
            lengths: Tokens of each text, int [B], at least 1. With a convolution, a text too short
                for one pooling window is read with padding up to one.
            dropout_keys: Keys for training; None: nothing is dropped.
            initial_carries: One per layer; None: zeros. Not with `bidirectional` or `segment`.
            scores: Logits of an n-gram classifier, float32 [B, C], if `has_scores`; None (in
                training): the network's alone are returned.
            features: Of the tokens, float [B, T, F], if F is not 0.

        Returns:
            Logits, float32 [B, C], or per token [B, T, C], and the carry of each layer after the
            last token of each text; with segments, of each segment.
        """
        config = self.config
        if config.conv_filters:
            shortest = shortest_text(config)
            lengths = jnp.maximum(lengths, shortest)
            missing = max(0, shortest - tokens.shape[1])
            tokens = jnp.pad(tokens, ((0, 0), (0, missing)), constant_values=PAD)
            if features is not None:
                features = jnp.pad(features, ((0, 0), (0, missing), (0, 0)))
        x: Any = self._embed(tokens, dropout_keys, features)
        if config.conv_filters:
            conv = layers.Conv1D(config.conv_filters, config.conv_width, name="conv")
            x, lengths = conv(x, lengths)
            x, lengths = layers.MaxPool1D(config.conv_pool, name="max_pool")(x, lengths)
        B, T, _ = x.shape
        x, piece_lengths = segments(x, lengths, config.segment)
        carries = []
        for i in range(config.layers):
            initial = None if initial_carries is None else initial_carries[i]
            key = None
            if dropout_keys is not None and config.recurrent_dropout:
                key = jax.random.fold_in(dropout_keys.step, i)
            x, carry = self._recurrent_layer(i)(x, piece_lengths, initial, key)
            carries.append(carry)
        if config.segment:
            x = x.reshape(B, -1, x.shape[-1])[:, :T]
        if not self.head.per_token:
            x = layers.Pool(config.pooling, name="pool")(x, lengths, carry[-1])
        x = self._drop("output_dropout", x, dropout_keys)
        return self._output(x, scores), tuple(carries)

    def _embed(
        self, tokens: jax.Array, keys: DropoutKeys | None, features: jax.Array | None
    ) -> Any:
        """Embedded tokens with their features, [B, T, E + F].

        They are looked up only where a layer before the recurrence needs them.
        """
        config = self.config
        embed = layers.Embed(
            self.vocab_size,
            config.embedding_size,
            embedding_init=layers.keras_uniform,
            name="embed",
        )
        x: Any = embed(tokens)
        if FOLDED in self.variables:
            return x
        if config.dropout or config.spatial_dropout or config.word_dropout or config.conv_filters:
            x = x.rows().astype(config.dtype)
        if config.dropout:
            x = layers.Dropout(config.dropout, name="dropout")(x, keys and keys.texts)
        x = self._drop("spatial_dropout", x, keys, shared=(1,))
        if self.num_features:
            assert features is not None
            x = x.rows() if isinstance(x, recurrence.EmbeddingLookup) else x
            x = x.astype(config.dtype)
            x = jnp.concatenate([x, features.astype(x.dtype)], axis=-1)
        return self._drop("word_dropout", x, keys, shared=(2,))

    def _output(self, x: jax.Array, scores: jax.Array | None) -> jax.Array:
        bias = nn.initializers.constant(self.head.initial_bias(self.num_outputs))
        dense = nn.Dense(
            self.num_outputs, kernel_init=layers.glorot_uniform, bias_init=bias, name="dense"
        )
        logits = dense(x.astype(jnp.float32))
        return layers.Blend(name="blend")(logits, scores) if self.has_scores else logits

    def _drop(
        self, name: str, x: Any, keys: DropoutKeys | None, shared: tuple[int, ...] = ()
    ) -> Any:
        """Applies the dropout of a config field, each with its own random bits."""
        rate = getattr(self.config, name)
        if not rate:
            return x
        texts = None
        if keys is not None:
            salt = zlib.crc32(name.encode()) >> 1
            texts = jax.vmap(jax.random.fold_in, (0, None))(keys.texts, salt)
        return layers.Dropout(rate, shared, name=name)(x, texts)

    def _recurrent_layer(self, i: int) -> nn.Module:
        config, cell = self.config, cells.get_cell(self.config.cell)
        options: dict[str, Any] = {
            "implementation": config.recurrence,
            "recompute": config.recompute,
            "dropout": config.recurrent_dropout,
            "dtype": config.dtype,
            "name": f"{config.cell.rpartition(':')[2].lower()}_{i}",
        }
        if config.bidirectional:
            return recurrence.Bidirectional(cell, config.hidden_size, **options)
        return cell(config.hidden_size, **options)


def segments(x: Any, lengths: jax.Array, size: int) -> tuple[Any, jax.Array]:
    """Cuts texts into segments that the recurrence reads in parallel, in shorter loops.

    Args:
        x: Inputs [B, T, D], or where to look them up.
        lengths: Valid steps of each text, int [B].
        size: Steps per segment, S; 0 or at least T: texts stay whole.

    Returns:
        Inputs [B·⌈T/S⌉, S, D], each text's segments one after the other, and the valid steps of
        each segment, from 0 to S.
    """
    B, T, D = x.shape
    if not size or (not jax.export.is_symbolic_dim(T) and size >= T):
        return x, lengths
    count = -(-T // size)
    pad = ((0, 0), (0, count * size - T))
    if isinstance(x, recurrence.EmbeddingLookup):
        ids = jnp.pad(x.ids, pad, constant_values=PAD).reshape(B * count, size)
        x = recurrence.EmbeddingLookup(x.table, ids)
    else:
        x = jnp.pad(x, (*pad, (0, 0))).reshape(B * count, size, D)
    valid = lengths[:, None] - size * jnp.arange(count)[None, :]
    return x, jnp.clip(valid, 0, size).reshape(B * count)


def build(config: ModelConfig, vocab_size: int, num_labels: int) -> TextModel:
    """The model of a config's model group, for a vocabulary and a number of labels or tags."""
    head = heads.get_head(config.target)
    code = (cells.get_cell(config.cell), type(head))
    return TextModel(config, vocab_size, head.num_outputs(num_labels, vocab_size), code)


def shortest_text(config: ModelConfig) -> int:
    """Tokens that the model needs for one recurrent step."""
    return config.conv_width + config.conv_pool - 1 if config.conv_filters else 1


def init_params(model: TextModel, key: jax.Array) -> Any:
    """Initial parameters; none depends on batch size or length."""
    one = jnp.ones((1, 1), jnp.int32)
    features = jnp.zeros((1, 1, model.num_features)) if model.num_features else None
    return model.init(key, one, one[0], features=features)["params"]


def logits(
    model: TextModel,
    params: Any,
    tokens: jax.Array,
    lengths: jax.Array,
    dropout_keys: DropoutKeys | None = None,
    scores: jax.Array | None = None,
    features: jax.Array | None = None,
    folded: Any = None,
) -> jax.Array:
    """Applies the model; see `TextModel.__call__`.

    In place of dropout keys, it may be given the variables of `FOLDED`, for inference.
    """
    variables = {"params": params, FOLDED: folded} if folded else {"params": params}
    out, _ = model.apply(variables, tokens, lengths, dropout_keys, scores=scores, features=features)
    assert isinstance(out, jax.Array)  # no collection is mutable
    return out


def apply_with_carry(
    model: TextModel,
    params: Any,
    tokens: jax.Array,
    lengths: jax.Array,
    initial_carries: Carries | None = None,
) -> tuple[jax.Array, Carries]:
    """Logits of texts that continue after `initial_carries`, and the carries after them."""
    out: Any = model.apply({"params": params}, tokens, lengths, initial_carries=initial_carries)
    return out


def attributions(
    model: TextModel,
    params: Any,
    tokens: jax.Array,
    lengths: jax.Array,
    labels: jax.Array,
    features: jax.Array | None = None,
) -> jax.Array:
    """How much each token speaks for a class: gradient × input.

    The gradient of the class's logit with respect to the token's embedding and features, times
    these, summed (Shrikumar et al., 2016): to first order, what the logit would lose without it.

    Args:
        model: A classifier.
        params: Its parameters.
        tokens: Ids, int32 [B, T].
        lengths: Valid tokens of each text, int32 [B].
        labels: The class of each text, int32 [B].
        features: See `TextModel.__call__`.

    Returns:
        One weight per token, float32 [B, T].
    """
    table = params["embed"]["embedding"]
    # One row per token, so that each has its gradient; the first row is that of padding.
    rows = table[jnp.append(PAD, tokens)]
    ids = jnp.arange(1, len(rows)).reshape(tokens.shape)
    unshared = model.clone(vocab_size=len(rows))

    def of_the_labels(rows: jax.Array, features: jax.Array | None) -> jax.Array:
        embedded = {**params, "embed": {"embedding": rows}}
        # Other scores would not change the gradient.
        scores = jnp.zeros((len(ids), model.num_outputs)) if model.has_scores else None
        out = logits(unshared, embedded, ids, lengths, scores=scores, features=features)
        if model.num_outputs == 1:  # where positive, the logit speaks for the second class
            return (out[:, 0] * (2 * labels - 1)).sum()
        return (out * jax.nn.one_hot(labels, model.num_outputs)).sum()

    if features is None:
        gradient = jax.grad(of_the_labels)(rows, None)
        return (gradient * rows).sum(axis=-1)[1:].reshape(tokens.shape)
    features = features.astype(rows.dtype)
    gradient, of_features = jax.grad(of_the_labels, argnums=(0, 1))(rows, features)
    of_rows = (gradient * rows).sum(axis=-1)[1:].reshape(tokens.shape)
    return of_rows + (of_features * features).sum(axis=-1)

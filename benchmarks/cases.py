"""What the benchmarks time: the chapter's two models on random full-length tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from flaxrnn.config import Config, ModelConfig, parse


class Case(NamedTuple):
    """What to time: a model, its input shape and hidden size, training or inference."""

    model: str  # "reuters" or "imdb"
    batch: int  # texts
    length: int  # tokens per text; of "serve", at most
    hidden: int  # LSTM units
    mode: str  # "train"; "infer": tokens → probabilities; "serve": texts → labels

    def __str__(self) -> str:
        """As tables and plots name it."""
        return f"{self.model}, B={self.batch}, T={self.length}, H={self.hidden}, {self.mode}"


class Workload(NamedTuple):
    """A computation to time."""

    run: Callable[[], Any]  # computes, and waits for the result
    steps: int = 1  # training steps per call
    hlo: Callable[[], str] | None = None  # text of the compiled program, of flaxrnn's training step


def random_batch(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Full-length random tokens, int32 [B, T], and labels, int32 [B]."""
    rng = np.random.default_rng(0)
    vocab_size, classes = {"reuters": (1_000, 46), "imdb": (5_000, 2)}[case.model]
    tokens = rng.integers(1, vocab_size, (case.batch, case.length)).astype(np.int32)
    return tokens, rng.integers(0, classes, case.batch).astype(np.int32)


def short_texts(case: Case) -> list[str]:
    """`batch` texts of 5 to 30 words, half of all words among the 100 most frequent."""
    rng = np.random.default_rng(0)
    words = np.array(words_of(case))
    lengths = rng.integers(5, 31, case.batch)
    ranks = (len(words) ** rng.random(lengths.sum())).astype(int) - 1
    return [" ".join(of_text) for of_text in np.split(words[ranks], np.cumsum(lengths)[:-1])]


def words_of(case: Case) -> list[str]:
    """The words of a full vocabulary, special ids apart."""
    return [f"word{i}" for i in range(config_for(case).data.num_words - 4)]


def flops(case: Case) -> float:
    """Floating-point operations of the matrix products in a forward pass, without any folding."""
    return case.batch * case.length * flops_per_token(config_for(case).model)


def flops_per_token(model: ModelConfig) -> float:
    """The same per token; without the output layer, which is below 1%."""
    inputs, steps, convolution = model.embedding_size, 1.0, 0.0
    if model.conv_filters:
        convolution = 2.0 * model.conv_width * inputs * model.conv_filters
        inputs, steps = model.conv_filters, 1 / model.conv_pool
    directions = 2 if model.bidirectional else 1
    hidden = model.hidden_size
    return convolution + steps * directions * 2.0 * (inputs + hidden) * 4 * hidden


def config_for(case: Case) -> Config:
    """The shipped config of the case's model, with the case's hidden size."""
    from configs import imdb, reuters

    config = {"reuters": reuters, "imdb": imdb}[case.model].get_config()
    config.model.hidden_size = case.hidden
    return parse(config)

"""Every field of a config, once: its type, default, unit and meaning, and the values it may hold.

`configs/default.py`, the check of a config and the table in docs/config.md all follow from here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from flaxrnn.config import declare


@dataclass(frozen=True)
class DataConfig:
    """Which texts are read, and how they become batches."""

    source: str = declare.one_of("auto", "real", "synthetic", doc="where the corpus comes from")
    data_dir: str | None = declare.folder("prepared datasets; unset: TFDS's own folder")
    manual_dir: str | None = declare.folder("archives; unset: $FLAXRNN_MANUAL_DIR, else TFDS's own")
    path: str | None = declare.field(
        None,
        "your own texts, with task=text: .csv, .tsv, .jsonl, a folder or a TFDS name",
        "the path of a file or folder, or a TFDS name",
        bool,
    )
    text_field: str = declare.column("text", "with task=text: the column of the texts")
    label_field: str = declare.column("label", "with task=text: the column of their classes")
    test_fraction: float = declare.fraction(
        0.1, "of each class, where your own texts come without a test split"
    )
    tokenizer: str = declare.one_of("words", "characters", "subword", doc="what a token is")
    num_words: int = declare.at_least(4, 1_000, "largest vocabulary, special ids included")
    maxlen: int = declare.at_least(1, 100, "tokens; of a longer text the last ones are kept")
    padding: str = declare.one_of(
        "post", "pre", doc="post: masked; pre: read as if it were text, as in Keras"
    )
    max_padding: float = declare.field(
        0.1,
        "largest share of padding that length buckets leave; 1: one bucket",
        "a number above 0, at most 1",
        lambda v: 0 < v <= 1,
    )
    device_memory: float = declare.field(
        1024.0,
        "MiB of each device for texts; a larger corpus is streamed",
        "a number of MiB, at least 0",
        lambda v: v >= 0,
    )
    validation: str = declare.one_of(
        "train", "test", doc="train: the last part of it; test: the test split, as in the chapter"
    )
    validation_fraction: float = declare.fraction(0.1, "of the training texts, if validation=train")


@dataclass(frozen=True)
class ModelConfig:
    """The model: embedding, optional convolution, recurrent layers, pooling, output layer."""

    target: str = declare.one_of_or_module(
        "label", "tags", "next", what="a head",
        doc="what is learned: the label of a text, the tag of each token, or the token after it",
    )  # fmt: skip
    embedding_size: int = declare.at_least(1, 100, "features")
    dropout: float = declare.share(0.0, "share of embedding entries dropped in training")
    spatial_dropout: float = declare.share(
        0.0, "share of embedding features dropped in training, each for a whole text"
    )
    word_dropout: float = declare.share(
        0.0, "share of tokens whose embedding is dropped in training"
    )
    recurrent_dropout: float = declare.share(
        0.0, "share of recurrent weights dropped in training, anew for each step"
    )
    output_dropout: float = declare.share(
        0.0, "share of the output layer's inputs dropped in training"
    )
    conv_filters: int = declare.at_least(0, 0, "0: no convolution, and no max pooling after it")
    conv_width: int = declare.at_least(1, 5, "tokens per convolution output")
    conv_pool: int = declare.at_least(1, 4, "convolution outputs per recurrent step")
    cell: str = declare.one_of_or_module(
        "lstm", "gru", "simple", what="a recurrent layer", doc="the recurrent layers"
    )
    hidden_size: int = declare.at_least(1, 100, "features, in each direction")
    layers: int = declare.at_least(1, 1, "recurrent layers")
    bidirectional: bool = declare.flag(False, "read each text in both directions")
    pooling: str = declare.one_of(
        "last",
        "max",
        "mean",
        "max_mean",
        "attention",
        doc="recurrent outputs → one vector, if target=label",
    )
    recurrence: str = declare.one_of("fused", "scan", doc="fused: fast; scan: its reference")
    segment: int = declare.at_least(
        0, 0, "tokens per segment that the recurrence reads side by side; 0: whole texts"
    )
    recompute: int = declare.at_least(
        0, 0, "time steps per segment computed twice to save memory; 0: none; not with scan"
    )


@dataclass(frozen=True)
class TrainConfig:
    """Optimization, early stopping and checkpoints."""

    batch_size: int = declare.at_least(1, 20, "texts")
    eval_batch_size: int = declare.at_least(1, 250, "texts")
    optimizer: str = declare.one_of_or_module(
        "adam", "adamw", what="an optimizer", doc="the optimizer"
    )
    weight_decay: float = declare.nonnegative(
        0.0, "of adamw, per step and learning rate; spares embeddings and biases"
    )
    clip_norm: float = declare.nonnegative(0.0, "largest global norm of the gradient; 0: any")
    learning_rate: float = declare.positive(1e-3, "its peak")
    schedule: str = declare.one_of(
        "constant",
        "warmup_linear",
        "warmup_cosine",
        doc="warmup_*: up over a tenth of all steps, then down to 0; warmup_cosine runs all epochs",
    )
    epochs: int = declare.at_least(1, 200, "epochs at most")
    patience: int = declare.at_least(
        1, 5, "epochs without a lower validation loss after which training stops"
    )
    loss: str = declare.one_of(
        "cross_entropy",
        "squared_hinge",
        doc="squared_hinge: one class against the others, as a linear SVM; suits many rare classes",
    )
    label_smoothing: float = declare.share(0.0, "of cross_entropy")
    class_weights: str = declare.field(
        "none",
        "of the examples of each class in the loss: none, balanced, or by name, as neg=1,pos=2.5",
        "none, balanced, or name=weight, separated by commas",
        lambda v: v in ("none", "balanced") or declare.parse_weights(v) is not None,
    )
    averaging: bool = declare.flag(True, "evaluate and keep the averaged weights of late steps")
    nonfinite: str = declare.one_of(
        "stop", "skip", doc="a step with a non-finite loss: stop, or skip it and count"
    )
    checkpoint_seconds: float = declare.positive(
        60.0, "seconds between checkpoints, within an epoch"
    )
    checkpoint_steps: int = declare.at_least(
        0, 0, "training steps between checkpoints; 0: only checkpoint_seconds decides"
    )
    restore_best: bool = declare.flag(True, "end with the weights of the lowest validation loss")


@dataclass(frozen=True)
class Config:
    """A checked config."""

    task: str = declare.one_of_or_module(
        "reuters", "reuters_clean", "imdb", "brackets", "text", what="a TFDS builder",
        doc="the corpus; text: your own",
    )  # fmt: skip
    seed: int = declare.at_least(
        0, 0, "of initial values, order and dropout; with task=text, of the test split too"
    )
    compile_cache: str | None = declare.folder(
        "compiled programs; unset: as JAX is set, ~/.cache/flaxrnn"
    )
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries, as config.json holds them."""
        return dataclasses.asdict(self)

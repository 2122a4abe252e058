"""Every config field, declared once: its type, default, unit, meaning and allowed values.

`configs/default.py`, the check of a config and the table in docs/config.md all derive from it.
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
    data_dir: str | None = declare.folder("folder of prepared datasets; unset: TFDS's default")
    manual_dir: str | None = declare.folder(
        "folder of archives; unset: $FLAXRNN_MANUAL_DIR, else TFDS's default"
    )
    path: str | None = declare.own_path(
        "your own texts, for task=text: .csv, .tsv, .json, .jsonl, .txt or .parquet, also .gz; a"
        " folder or a TFDS dataset"
    )
    test_path: str | None = declare.own_path("your own texts to test on, if data.path has none")
    validation_path: str | None = declare.own_path(
        "your own texts to validate on, if data.path has none"
    )
    unlabelled: str | None = declare.own_path(
        "texts without labels to train on too, which the n-gram classifier labels with its"
        " probabilities; dataset: those of the dataset, for task=imdb"
    )
    text_field: str = declare.column("text", "column of the texts, for task=text")
    label_field: str = declare.column("label", "column of the labels, for task=text")
    label_separator: str | None = declare.field(
        None,
        "what separates the labels of your own texts, of which each may have several or none; set:"
        " model.target=label becomes labels; unset: a text has one, or with target=labels a list",
        "a single character that is no letter, digit or white space",
        lambda v: len(v) == 1 and not (v.isalnum() or v.isspace()),
    )
    encoding: str = declare.field(
        "utf-8",
        "encoding of the files of your own texts, such as cp949, utf-16 or latin-1",
        "the name of a Python text encoding",
        declare.is_encoding,
    )
    delimiter: str | None = declare.field(
        None,
        "what separates the columns of your own tables; unset: commas in .csv, tabs in .tsv;"
        " set: a .txt file is a table, too",
        "a single character, or tab",
        lambda v: len(v) == 1 or v in ("tab", r"\t"),
    )
    header: bool = declare.flag(
        True, "the first row of your own tables has the names of the columns; False: they have none"
    )
    test_fraction: float = declare.fraction(
        0.1, "fraction of each class held out for testing if your own texts have no test split"
    )
    rare_classes: str = declare.one_of(
        "error",
        "drop",
        "keep",
        doc="a class of your own texts that has a single text: stop, leave the class out, or train"
        " on the text without testing the class; drop: also of a class that has none in train",
    )
    split_seed: int | None = declare.field(
        None,
        "seed of that split and of the order of your own texts; unset: seed, of several the first",
        "a whole number of at least 0",
        lambda v: v >= 0,
        most=declare.MOST_SEED,
    )
    tokenizer: str = declare.one_of(
        "words",
        "characters",
        "subword",
        "auto",
        doc="what a token is; auto: of your own texts, words, or subword where the script needs it",
    )
    num_words: int = declare.at_least(4, 1_000, "maximum vocabulary size, special ids included")
    vectors: str | None = declare.field(
        None,
        "word vectors to start the embedding with, in the text format of word2vec, GloVe and"
        " fastText, also .gz; unset: random ones",
        "the path of a file",
        bool,
    )
    maxlen: int = declare.at_least(1, 100, "tokens per text; longer texts keep the last ones")
    padding: str = declare.one_of(
        "post", "pre", doc="post: on the right, masked; pre: on the left, read as text, as in Keras"
    )
    max_padding: float = declare.field(
        0.1,
        "maximum fraction of padding in length buckets; 1: a single bucket",
        "a number above 0, at most 1",
        lambda v: 0 < v <= 1,
    )
    device_memory: float = declare.field(
        1024.0,
        "MiB per device for texts; a larger corpus is streamed",
        "a number of MiB, at least 0",
        lambda v: v >= 0,
    )
    validation: str = declare.one_of(
        "train",
        "stratified",
        "test",
        doc="what to validate on, if your own texts have no validation split; train: the last part"
        " of the train split; stratified: a part of each class, drawn by the seed, with equal texts"
        " on one side; test: the test split, as in the chapter",
    )
    validation_fraction: float = declare.fraction(
        0.1, "fraction of the train split to validate on, with validation=train or stratified"
    )


@dataclass(frozen=True)
class ModelConfig:
    """The model: embedding, optional convolution, recurrent layers, pooling, output layer."""

    target: str = declare.one_of_or_module(
        "label", "labels", "tags", "next", what="head",
        doc="what to predict: the label of a text, any number of labels of a text, the tag of each"
        " token, or the next token",
    )  # fmt: skip
    embedding_size: int = declare.at_least(1, 100, "features per token", most=10**8)
    train_embedding: bool = declare.flag(
        True, "train the embedding; False: it stays as it is initialized, see data.vectors"
    )
    dropout: float = declare.fraction_or_zero(
        0.0, "fraction of embedding entries dropped in training"
    )
    spatial_dropout: float = declare.fraction_or_zero(
        0.0, "fraction of embedding features dropped in training, throughout a text"
    )
    word_dropout: float = declare.fraction_or_zero(
        0.0, "fraction of tokens whose embedding is dropped in training"
    )
    recurrent_dropout: float = declare.fraction_or_zero(
        0.0, "fraction of recurrent weights dropped in training, drawn afresh at each step"
    )
    output_dropout: float = declare.fraction_or_zero(
        0.0, "fraction of the output layer's inputs dropped in training"
    )
    conv_filters: int = declare.at_least(
        0, 0, "filters; 0: no convolution or max pooling", most=10**8
    )
    conv_width: int = declare.at_least(1, 5, "tokens per convolution output", most=1_000)
    conv_pool: int = declare.at_least(
        1, 4, "convolution outputs per max-pooling window", most=1_000
    )
    cell: str = declare.one_of_or_module(
        "lstm", "gru", "simple", what="recurrent cell", doc="the recurrent cell"
    )
    hidden_size: int = declare.at_least(1, 100, "features per direction", most=10**8)
    layers: int = declare.at_least(1, 1, "number of recurrent layers", most=100)
    bidirectional: bool = declare.flag(False, "read each text in both directions")
    pooling: str = declare.one_of(
        "last",
        "max",
        "mean",
        "max_mean",
        "attention",
        doc="recurrent outputs → one vector, for target=label or labels",
    )
    recurrence: str = declare.one_of("fused", "scan", doc="fused: fast; scan: reference")
    segment: int = declare.at_least(
        0,
        0,
        "tokens per segment; a text's segments are read in parallel; 0: whole texts",
        most=10**6,
    )
    word_ngrams: int = declare.at_least(
        -1,
        0,
        "words of the longest n-grams of a linear classifier, blended with the network; 0: none;"
        " -1: 2, or none of more than 300 classes",
        most=20,
    )
    character_ngrams: int = declare.at_least(
        -1,
        0,
        "characters of the longest n-grams of that classifier; 0: none; -1: 4, or none of more than"
        " 300 classes",
        most=20,
    )
    ngram_fit: str = declare.one_of(
        "thorough",
        "quick",
        "auto",
        doc="how that classifier is fitted; thorough: SVMs of six settings for each kind of n-gram,"
        " cross-fitted and weighed; quick: a single one, fitted once, without the validation texts;"
        " auto: quick for more than 60 classes",
    )
    ratio_ngrams: int = declare.at_least(
        0,
        0,
        "tokens of the longest n-grams whose log-count ratios the recurrence reads with the"
        " embedding of their last token; 0: none",
        most=20,
    )
    recompute: int = declare.at_least(
        0,
        0,
        "time steps per segment recomputed to save memory; 0: no recomputation; not with scan",
        most=10**6,
    )
    dtype: str = declare.one_of(
        "float32",
        "bfloat16",
        doc="of activations and the factors of matrix products; bfloat16: for accelerators;"
        " parameters, carry, output layer and loss are float32",
    )


@dataclass(frozen=True)
class TrainConfig:
    """Optimization, early stopping and checkpoints."""

    init_from: str | None = declare.folder(
        "workdir of a trained model to start with: its layers, the embedding of the words that both"
        " have, and with the same target and labels its output layer; unset: random parameters"
    )
    teacher: str | None = declare.folder(
        "workdir of a trained classifier, or of several with --seeds, that gives the texts of"
        " data.unlabelled the probabilities that the network learns, and for the n-grams labels;"
        " unset: the n-gram classifier, which is then fitted to labelled texts only"
    )
    batch_size: int = declare.at_least(
        0, 20, "texts per training step; 0: 4 to 32, about a sixtieth of the training texts"
    )
    eval_batch_size: int = declare.at_least(1, 250, "texts per evaluation step")
    shards: int = declare.field(
        0,
        "parts of each batch that are computed by themselves, in one shape, so that 1, 2, 4, … CPU"
        " devices, up to as many, train the same bits; it takes longer. 0: one part per device",
        "0 or a power of two up to 64",
        lambda v: v in (0, 2, 4, 8, 16, 32, 64),
    )
    optimizer: str = declare.one_of_or_module(
        "adam", "adamw", what="optimizer", doc="the optimizer"
    )
    weight_decay: float = declare.nonnegative(
        0.0, "for adamw, times the learning rate; of kernels, not of embeddings or biases"
    )
    clip_norm: float = declare.nonnegative(0.0, "maximum global gradient norm; 0: no clipping")
    learning_rate: float = declare.positive(1e-3, "peak learning rate")
    schedule: str = declare.one_of(
        "constant",
        "warmup_linear",
        "warmup_cosine",
        doc="warmup_*: linear warm-up over a tenth of all steps, then decay to 0; warmup_cosine"
        " ignores patience",
    )
    epochs: int = declare.at_least(
        0, 200, "maximum number of epochs; 0: 4 to 20, for about 1,000 training steps", most=10**6
    )
    monitor: str = declare.one_of(
        "loss",
        "accuracy",
        "macro_f1",
        "micro_f1",
        doc="the validation metric that patience and restore_best look at; micro_f1: of"
        " target=labels",
    )
    patience: int = declare.at_least(
        1, 5, "stop after this many epochs in which the monitored metric has not improved"
    )
    patience_steps: int = declare.at_least(
        0, 0, "and this many training steps, for small data, where an epoch has few; 0: only epochs"
    )
    loss: str = declare.one_of(
        "cross_entropy",
        "squared_hinge",
        doc="squared_hinge: one-vs-rest, as in a linear SVM; for many rare classes",
    )
    label_smoothing: float = declare.fraction_or_zero(0.0, "for cross_entropy")
    class_weights: str = declare.field(
        "none",
        "class weights in the loss: none, balanced, or by name, such as neg=1,pos=2.5",
        "none, balanced, or name=weight separated by commas",
        lambda v: v in ("none", "balanced") or declare.parse_weights(v) is not None,
    )
    precision: str = declare.one_of(
        "default",
        "high",
        "highest",
        doc="of matrix products of float32, as JAX names it; default: JAX's setting, which is"
        " bfloat16 on TPU and TF32 on NVIDIA GPUs; highest: float32; no effect on CPU",
    )
    averaging: bool = declare.flag(True, "evaluate and keep weights averaged over the late steps")
    nonfinite: str = declare.one_of(
        "stop", "skip", doc="on a non-finite loss or gradient: stop, or skip the step and count it"
    )
    checkpoint_seconds: float = declare.positive(
        60.0, "seconds between checkpoints within an epoch"
    )
    checkpoint_steps: int = declare.at_least(
        0, 0, "training steps between checkpoints; 0: only checkpoint_seconds applies"
    )
    restore_best: bool = declare.flag(
        True, "keep the weights of the epoch with the best monitored metric"
    )
    refit: bool = declare.flag(
        False,
        "then train new weights on train and validation texts, for as many epochs as were kept",
    )
    calibrate: bool = declare.flag(
        False,
        "divide the logits by the temperature that suits the validation texts, which changes"
        " probabilities and no label; not with validation=test",
    )
    baseline: bool = declare.flag(
        True, "at the end, also evaluate a linear model of TF-IDF features"
    )
    explain: bool = declare.flag(
        True, "at the end, name the words that decided in each mistake on the page"
    )


@dataclass(frozen=True)
class Config:
    """A validated config."""

    task: str = declare.one_of_or_module(
        "reuters", "reuters_clean", "imdb", "brackets", "text", what="TFDS builder",
        doc="the corpus; text: your own texts",
    )  # fmt: skip
    seed: int = declare.at_least(
        0,
        0,
        "of initial weights, shuffling and dropout; also of data.split_seed, if unset",
        most=declare.MOST_SEED,
    )
    compile_cache: str | None = declare.folder(
        "cache of compiled programs; unset: JAX's setting, else ~/.cache/flaxrnn"
    )
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries, as config.json holds them."""
        return dataclasses.asdict(self)

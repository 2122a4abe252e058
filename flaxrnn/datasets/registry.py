"""The tasks, and the corpora that each reads."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow_datasets as tfds

from flaxrnn.datasets import imdb_sentiment, reuters_topics, synthetic
from flaxrnn.datasets.archive import Archive
from flaxrnn.errors import ConfigError
from flaxrnn.runtime import plugins


@dataclass(frozen=True)
class Task:
    """A task whose corpus a TFDS builder prepares.

    The builder has the splits "train" and "test", and the features `text` (Text) and `label`
    (ClassLabel). A feature `position`, where there is one, ranks words that are equally frequent.
    """

    name: str
    builder: type[tfds.core.GeneratorBasedBuilder]
    config: str | None = None  # of the builder; None: its default
    archive: Archive | None = None  # None: the builder needs none, or finds its own
    synthetic: type[tfds.core.GeneratorBasedBuilder] | None = None  # what "auto" falls back to
    vocabulary_splits: tuple[str, ...] = ("train",)  # whose words are counted
    word_tokenizer: str = "words"  # what data.tokenizer=words is: words, or keras for Keras's own

    def is_synthetic(self, builder: tfds.core.DatasetBuilder) -> bool:
        """Whether a builder is the synthetic counterpart."""
        return self.synthetic is not None and isinstance(builder, self.synthetic)


_TASKS = [
    Task(
        "reuters",
        reuters_topics.ReutersTopics,
        "keras",
        reuters_topics.ARCHIVE,
        synthetic.SyntheticReutersTopics,
        vocabulary_splits=("train", "test"),  # as in Keras
        word_tokenizer="keras",
    ),
    Task(
        "reuters_clean",
        reuters_topics.ReutersTopics,
        "clean",
        reuters_topics.ARCHIVE,
        synthetic.SyntheticReutersTopics,
        word_tokenizer="keras",
    ),
    Task(
        "imdb",
        imdb_sentiment.ImdbSentiment,
        archive=imdb_sentiment.ARCHIVE,
        synthetic=synthetic.SyntheticImdbSentiment,
        word_tokenizer="keras",
    ),
]
TASKS = {task.name: task for task in _TASKS}
WITHOUT_BUILDER = ("brackets", "text")  # generated; read from custom files


def get_task(name: str) -> Task:
    """The task of a name in `TASKS`, or of "module:Builder", a custom dataset.

    Raises:
        ConfigError: There is no such task, or the module cannot be imported or has no such builder.
    """
    if name in TASKS:
        return TASKS[name]
    if ":" not in name:
        known = ", ".join((*TASKS, *WITHOUT_BUILDER))
        raise ConfigError(f"task: {name!r} is not one of {known}, or module:Builder")
    return Task(name, plugins.load("task", name, tfds.core.GeneratorBasedBuilder))

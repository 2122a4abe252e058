"""The texts of a run: loaded, clipped, split, and scored by their n-grams."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flaxrnn.config import Config, DataConfig
from flaxrnn.data import batching, corpora
from flaxrnn.data.profile import Profile, profile
from flaxrnn.data.tokenizers import Tokenizer
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.datasets.reading import Format
from flaxrnn.errors import ConfigError
from flaxrnn.nn import heads
from flaxrnn.runtime import distributed, files
from flaxrnn.runtime.clock import Clock
from flaxrnn.training import automatic, checkpoint
from flaxrnn.training.progress import fingerprint, text_checksums
from flaxrnn.training.workdir import CHECKPOINTS

_MOST_CLASSES = 1_000  # of an n-gram classifier, whose time and memory grow with their number


@dataclass(frozen=True)
class Texts:
    """What a run needs from its corpus."""

    names: dict[str, str]  # "dataset" and "data_source", as in result.json
    training_data: batching.TrainingData
    vocabulary: Vocabulary  # limited to `data.num_words`
    label_names: list[str]
    findings: tuple[str, ...]  # what is suspicious about them, in sentences
    profile: Profile
    corpus: corpora.Corpus | None  # unclipped, for what follows the result; None: nothing does

    @property
    def test_labels(self) -> np.ndarray:
        """The labels of the test split, int [N], or of all its tokens; of several, 0, 1, [N, C]."""
        data = self.training_data
        return data.texts.take(data.rows["test"]).labels


def load_texts(
    config: Config,
    folder: Path,
    clock: Clock,
    teach: Callable[[corpora.Corpus, Config, Path], corpora.Corpus] | None = None,
) -> Texts:
    """Loads the texts of a run.

    Args:
        config: The run's config.
        folder: Its workdir, which keeps the n-gram classifier.
        clock: Times that classifier.
        teach: Has the texts without labels labelled, if the config names a teacher.

    Raises:
        ConfigError: There are too many classes for n-grams.
        DataError: The corpus is not available, or has too few texts for the config.
    """
    data, inherited = config.data, _inherited_tokenizer(config, folder)
    if inherited is None:
        corpus = load_corpus(config, data.tokenizer)
    else:
        corpus = load_corpus(config, inherited.choice, subwords=inherited.model)
    config = automatic.choose_ngrams(config, len(corpus.label_names), folder)
    if config.train.teacher is not None:
        assert teach is not None
        corpus = teach(corpus, config, folder)
    if config.model.ratio_ngrams:
        from flaxrnn.training import ratios  # with n-grams, takes long to import

        with clock("ngrams"):
            corpus = ratios.with_features(corpus, config.model.ratio_ngrams, folder)
    training_data = prepare_data(corpus, data, config.seed)
    if config.model.word_ngrams or config.model.character_ngrams:
        with clock("ngrams"):
            training_data = _add_scores(training_data, config, corpus, folder)
    source = "synthetic" if corpus.synthetic else "real"
    name = corpus.name.encode("utf-8", "replace").decode()  # that of a file need not be UTF-8
    names = {"dataset": name, "data_source": source}
    vocabulary = corpus.vocabulary.limit(data.num_words)
    head = heads.get_head(config.model.target)
    labelled = head.uses_labels and not head.per_token
    found = profile(
        corpus,
        training_data.rows,
        num_words=data.num_words,
        maxlen=data.maxlen,
        labelled=labelled,
    )
    kept = corpus if labelled and (config.train.baseline or config.train.explain) else None
    return Texts(names, training_data, vocabulary, corpus.label_names, corpus.findings, found, kept)


def _inherited_tokenizer(config: Config, folder: Path) -> Tokenizer | None:
    """The tokenizer of the run that this one starts from; None: it starts from none.

    Once the run has begun, it is also that of its own vocabulary, and the other is not read again.
    """
    if config.train.init_from is None:
        return None
    content = None
    if distributed.is_primary():
        has_begun = checkpoint.exists(folder / CHECKPOINTS)
        source = folder if has_begun else files.expand(config.train.init_from, "train.init_from")
        tokenizer = Vocabulary.load(source / "vocabulary.json").tokenizer
        content = [tokenizer.kind, base64.b64encode(tokenizer.model).decode()]
    kind, model = distributed.broadcast(content)
    return Tokenizer(kind, base64.b64decode(model))


def load_corpus(
    config: Config, tokenizer: str, kept_by: str | None = None, subwords: bytes = b""
) -> corpora.Corpus:
    """The corpus as tokens of a tokenizer.

    Args:
        config: The run's config.
        tokenizer: See `corpora.load_corpus`.
        kept_by: See `corpora.CustomTexts`.
        subwords: See `corpora.load_corpus`.
    """
    data = config.data
    custom = None
    if data.path is not None:
        head = heads.get_head(config.model.target)
        custom = corpora.CustomTexts(
            data.path,
            data.test_path,
            data.validation_path,
            data.text_field,
            data.label_field if head.uses_labels else None,
            data.rare_classes,
            data.test_fraction,
            config.seed if data.split_seed is None else data.split_seed,
            Format(data.encoding, data.delimiter, data.header),
            kept_by,
            head.several,
            data.label_separator,
            data.unlabelled,
        )
    return corpora.load_corpus(
        config.task,
        data.source,
        data.data_dir,
        data.manual_dir,
        tokenizer=tokenizer,
        num_words=data.num_words,
        custom=custom,
        subwords=subwords,
        unlabelled=data.unlabelled is not None,
    )


def _add_scores(
    data: batching.TrainingData, config: Config, corpus: corpora.Corpus, folder: Path
) -> batching.TrainingData:
    """The texts with the scores of the n-gram classifier, which is fitted if it is not saved.

    Raises:
        ConfigError: There are too many classes.
    """
    model, classes = config.model, len(corpus.label_names)
    if classes > _MOST_CLASSES:
        raise ConfigError(
            f"model.word_ngrams: {classes:,} classes are too many for n-grams, which need a fit per"
            " class; set model.word_ngrams=0 and model.character_ngrams=0"
        )
    from flaxrnn.training import ngrams  # SciPy takes long to import

    depends_on: dict[str, Any] = {
        "words": model.word_ngrams,
        "characters": model.character_ngrams,
    }
    validation = data.rows["val"][data.rows["val"] < len(corpus.train)]
    if model.ngram_fit == "quick":
        depends_on["validation"] = validation.tolist()
    key = fingerprint(depends_on, text_checksums(corpus.labelled + corpus.others))
    loaded = corpus.vocabulary.tokenizer
    said = None if corpus.unlabelled is None else corpus.unlabelled.scores  # by a teacher

    def load_as(tokenizer: str) -> corpora.Corpus:
        is_loaded = tokenizer == loaded.choice
        return corpus if is_loaded else load_corpus(config, tokenizer, loaded.kind).teach(said)

    scores = ngrams.scores(model, corpus, load_as, validation, folder, key)
    if said is not None:
        scores = np.concatenate([scores[: -len(said)], said])
    return dataclasses.replace(data, texts=dataclasses.replace(data.texts, scores=scores))


def prepare_data(corpus: corpora.Corpus, data: DataConfig, seed: int) -> batching.TrainingData:
    """Prepares a corpus as the data group of a config says; see `batching.prepare_data`."""
    return batching.prepare_data(
        corpus,
        num_words=data.num_words,
        maxlen=data.maxlen,
        padding=data.padding,
        max_padding=data.max_padding,
        validation=data.validation,
        validation_fraction=data.validation_fraction,
        seed=seed,
    )

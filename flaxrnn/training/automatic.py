"""Automatic values: fields of a config that a run chooses for itself when it first starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flaxrnn import config as config_lib
from flaxrnn.config import Config
from flaxrnn.data import batching
from flaxrnn.runtime import distributed
from flaxrnn.training import workdir

if TYPE_CHECKING:
    from flaxrnn.training.texts import Texts

_THOROUGH = 60  # classes at most whose n-grams are fitted thoroughly: 60 times each
_NGRAMS = 300  # classes at most that get n-grams, which take time and memory for each


def choose_ngrams(config: Config, num_classes: int, folder: Path) -> Config:
    """The config with a choice of n-grams that suits the number of classes, where it is automatic.

    Args:
        config: The config that the run was started with.
        num_classes: Each takes fits of its own.
        folder: Its workdir, whose choices stay if it has any.
    """
    choices = _ngrams_for(num_classes)
    values = config_lib.flatten(config.to_dict())
    if all(values[name] != config_lib.AUTOMATIC[name] for name in choices):
        return config
    known = _chosen_before(folder)
    for name, choice in choices.items():
        if values[name] == config_lib.AUTOMATIC[name]:
            values[name] = known.get(name, choice)
    return config_lib.parse(values)


def resolve(config: Config, texts: Texts, folder: Path) -> Config:
    """The config with a choice for every value in `config.AUTOMATIC`, which is printed.

    The workdir's `config.json` then records the choices, and a resumed run keeps them, even if
    another version would choose otherwise.

    Args:
        config: The config that the run was started with.
        texts: Its texts.
        folder: Its workdir.
    """
    known = _chosen_before(folder)
    num_texts, num_classes = len(texts.training_data.fitted_to), len(texts.label_names)
    batch_size = config.train.batch_size or batching.suitable_batch_size(num_texts)
    choices = {
        **_ngrams_for(num_classes),
        "data.tokenizer": texts.vocabulary.tokenizer.choice,
        "train.batch_size": batch_size,
        "train.epochs": batching.suitable_epochs(texts.training_data.num_batches(batch_size)),
    }
    values, is_new = config_lib.flatten(config.to_dict()), False
    for name, automatic in config_lib.AUTOMATIC.items():
        if values[name] == automatic:
            values[name] = known.get(name, choices[name])
            is_new |= name not in known
            if distributed.is_primary():
                of_classes = name.startswith("model.")
                reason = (
                    f"{num_classes:,} classes" if of_classes else f"{num_texts:,} training texts"
                )
                print(f"{name}: {values[name]}, chosen for {reason}")
    resolved = config_lib.parse(values)
    if distributed.is_primary() and is_new:
        workdir.write_config(folder, resolved.to_dict())
    return resolved


def _ngrams_for(num_classes: int) -> dict[str, Any]:
    has_ngrams = num_classes <= _NGRAMS
    return {
        "model.word_ngrams": 2 if has_ngrams else 0,
        "model.character_ngrams": 4 if has_ngrams else 0,
        "model.ngram_fit": "thorough" if num_classes <= _THOROUGH else "quick",
    }


def _chosen_before(folder: Path) -> Mapping[str, Any]:
    """The automatic values that an earlier start of the run has chosen, by names with dots."""
    recorded = None
    if distributed.is_primary() and (folder / "config.json").exists():
        recorded = workdir.read_config(folder)
    recorded = distributed.broadcast(recorded)
    known = config_lib.flatten(config_lib.with_defaults(recorded)) if recorded else {}
    return {
        name: known[name]
        for name, automatic in config_lib.AUTOMATIC.items()
        if known.get(name, automatic) != automatic
    }

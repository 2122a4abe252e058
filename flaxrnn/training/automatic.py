"""Automatic values: fields of a config that a run chooses for itself when it first starts."""

from __future__ import annotations

from pathlib import Path

from flaxrnn import config as config_lib
from flaxrnn.config import Config
from flaxrnn.data import batching
from flaxrnn.runtime import distributed
from flaxrnn.training import workdir
from flaxrnn.training.texts import Texts


def resolve(config: Config, texts: Texts, folder: Path) -> Config:
    """The config with a choice for every value in `config.AUTOMATIC`, which is printed.

    The workdir's `config.json` then records the choices, and a resumed run keeps them, even if
    another version would choose otherwise.

    Args:
        config: The config that the run was started with.
        texts: Its texts.
        folder: Its workdir.
    """
    recorded = distributed.broadcast(distributed.is_primary() and workdir.read_config(folder))
    known = config_lib.flatten(config_lib.with_defaults(recorded))
    num_texts = len(texts.training_data.fitted_to)
    batch_size = config.train.batch_size or batching.suitable_batch_size(num_texts)
    choices = {
        "data.tokenizer": texts.vocabulary.tokenizer.choice,
        "train.batch_size": batch_size,
        "train.epochs": batching.suitable_epochs(texts.training_data.num_batches(batch_size)),
    }
    values, is_new = config_lib.flatten(config.to_dict()), False
    for name, automatic in config_lib.AUTOMATIC.items():
        if values[name] == automatic:
            chosen = known[name] != automatic
            values[name] = known[name] if chosen else choices[name]
            is_new |= not chosen
            if distributed.is_primary():
                print(f"{name}: {values[name]}, chosen for {num_texts:,} training texts")
    resolved = config_lib.parse(values)
    if distributed.is_primary() and is_new:
        workdir.write_config(folder, resolved.to_dict())
    return resolved

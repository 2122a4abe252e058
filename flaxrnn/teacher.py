"""Has trained models label the texts of a run that have no label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy

from flaxrnn.config import Config, modules
from flaxrnn.data.corpora import Corpus
from flaxrnn.data.vocabulary import UNKNOWN_WORD
from flaxrnn.errors import ConfigError, FlaxrnnError
from flaxrnn.inference import predictor
from flaxrnn.runtime import distributed, files
from flaxrnn.training.progress import fingerprint, text_checksums
from flaxrnn.training.workdir import TEACHER, find_kept

_FILE = "logits.safetensors"


def label(corpus: Corpus, config: Config, folder: Path) -> Corpus:
    """A corpus whose texts without labels have the logits of the teacher that the config names.

    The primary process asks the teacher, once: a run that goes on, or another of several seeds,
    reads what it said.

    Args:
        corpus: The corpus.
        config: The run's config.
        folder: Its workdir.

    Raises:
        ConfigError: The teacher does not classify texts, or has other labels.
        WorkdirError: It cannot be read.
    """
    from flaxrnn.training.svm import num_columns  # takes long to import

    assert corpus.unlabelled is not None
    columns = num_columns(corpus.train.labels, len(corpus.label_names))
    found: np.ndarray = np.zeros((len(corpus.unlabelled), columns), np.float32)
    if distributed.is_primary():
        key = fingerprint({}, text_checksums(corpus.unlabelled))
        kept = find_kept(folder / TEACHER, [_FILE], key)
        if kept is not None:
            found = kept["logits"]
        else:
            found = _ask(corpus, config, columns)
            arrays: dict[str, np.ndarray] = {
                "logits": found,
                "key": np.frombuffer(key.encode(), np.uint8),
            }
            files.write_folder(folder / TEACHER, {_FILE: safetensors.numpy.save(arrays)})
    return corpus.teach(np.asarray(distributed.broadcast_arrays(found)))


def _ask(corpus: Corpus, config: Config, columns: int) -> np.ndarray:
    """The teacher's logits of the texts without labels, float32 [N, C] or of two classes [N, 1]."""
    assert corpus.unlabelled is not None
    path = files.expand(str(config.train.teacher), "train.teacher")
    try:
        teacher = predictor.load(path, modules(config))
        teacher.check_target("label")
    except FlaxrnnError as error:
        raise type(error)(f"train.teacher: {str(error).removeprefix('--workdir: ')}") from None
    if teacher.label_names != corpus.label_names:
        raise ConfigError(
            f"train.teacher: {path} has the labels {', '.join(teacher.label_names[:20])}; it must"
            f" have those of the run, {', '.join(corpus.label_names[:20])}"
        )
    print(f"labelling {len(corpus.unlabelled):,} texts by {path}…", flush=True)
    texts = [corpus.vocabulary.decode(ids, UNKNOWN_WORD) for ids in corpus.unlabelled.texts()]
    _, probabilities = teacher.predict(texts)
    # None is quite certain: their logarithms are finite.
    logarithms = np.log(np.clip(probabilities, 1e-6, 1)).astype(np.float32)
    return logarithms if columns > 1 else logarithms[:, 1:] - logarithms[:, :1]

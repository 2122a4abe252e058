"""What a trained workdir holds: config, vocabulary, labels and the newest intact checkpoint.

The workdir may be anybody's: it is checked, and nothing that its config names is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flaxrnn.config import Config, modules
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.errors import WorkdirError
from flaxrnn.runtime import plugins, records
from flaxrnn.training import checkpoint, seal
from flaxrnn.training import workdir as workdir_lib


@dataclass(frozen=True)
class Trained:
    """A trained workdir.

    Attributes:
        workdir: Its path.
        config: The config of its run.
        vocabulary: Limited to `data.num_words`.
        label_names: Names of the classes.
        checkpoint: Folder of the newest intact checkpoint.
    """

    workdir: Path
    config: Config
    vocabulary: Vocabulary
    label_names: list[str]
    checkpoint: Path


def read(workdir: Path) -> Trained:
    """Reads a workdir without changing anything in it.

    Raises:
        WorkdirError: It holds no trained model, or files that do not belong together.
    """
    config = workdir_lib.load_config(workdir)
    try:
        label_names = records.read(workdir / "labels.json", list)
        if not label_names or not all(isinstance(name, str) for name in label_names):
            raise ValueError("labels.json is no list of names")
        newest = checkpoint.find_intact(workdir / "checkpoints")
        if newest is None:
            raise WorkdirError(
                f"--workdir: no intact checkpoint in {workdir}; has it been trained?"
            )
        seal.check(workdir, seal.of(checkpoint.read(newest)["progress"]))
    except (OSError, ValueError) as error:
        raise WorkdirError(f"--workdir: no trained model in {workdir} ({error})") from None
    plugins.distrust(modules(config))
    vocabulary = Vocabulary.load(workdir / "vocabulary.json")
    return Trained(workdir, config, vocabulary, label_names, newest)

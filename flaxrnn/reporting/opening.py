"""What a run prints before it trains."""

from __future__ import annotations

from flaxrnn.config import Config
from flaxrnn.reporting import console
from flaxrnn.runtime import terminal
from flaxrnn.training.texts import Texts


def show(config: Config, texts: Texts, layers: str) -> None:
    """Prints the banner of a synthetic corpus, the profile of one's own, and the model's layers."""
    if texts.names["data_source"] == "synthetic":
        print(console.synthetic_banner(texts.names["dataset"], _missing_archive(config)))
    if config.task == "text":
        for title, shown in texts.profile.describe().items():
            print(terminal.escaped(f"  {title:11} {shown}"))
    print(layers)


def _missing_archive(config: Config) -> str | None:
    """Where the archive of the real corpus was looked for; None: it was not."""
    from flaxrnn.datasets import preparation, registry  # TFDS takes long to import

    task = registry.TASKS.get(config.task)
    if task is None or task.archive is None or config.data.source != "auto":
        return None
    return preparation.missing_archive(task, config.data.data_dir, config.data.manual_dir)

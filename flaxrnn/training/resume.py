"""Where a run starts: from its latest checkpoint or from scratch."""

from __future__ import annotations

from pathlib import Path

from flaxrnn.config import Config
from flaxrnn.data.batching import TrainingData
from flaxrnn.errors import ConfigError, DivergedError, WorkdirError
from flaxrnn.runtime import distributed
from flaxrnn.training import seal
from flaxrnn.training import workdir as workdir_lib
from flaxrnn.training.checkpoint import Checkpoints
from flaxrnn.training.progress import Progress, fingerprint, text_checksums
from flaxrnn.training.steps import Params, TrainState


def agreed_fingerprint(config: Config, data: TrainingData, folder: Path) -> str:
    """The run's fingerprint; checks that all processes have the same config and texts."""
    checksums = text_checksums(data.texts)
    local = fingerprint(config.to_dict(), checksums)
    if distributed.broadcast(local) != local:
        raise ConfigError("--config: the processes of the run have different configs or corpora")
    # Uses the recorded config, so that fields added since the run began do not change it.
    recorded = distributed.is_primary() and workdir_lib.read_config(folder)
    return fingerprint(distributed.broadcast(recorded), checksums)


def restore(
    checkpoints: Checkpoints | None, state: TrainState, agreed: str, workdir: Path
) -> tuple[TrainState, Params, Progress]:
    """The state, weights to keep and progress of the latest checkpoint or of a new run.

    Args:
        checkpoints: Those of the primary process, which reads for all; None in the others.
        state: State of a new run.
        agreed: `agreed_fingerprint`.
        workdir: Named in errors.

    Raises:
        DivergedError: The run stopped because its loss was not finite.
        WorkdirError: Every checkpoint is corrupt or missing, or the texts have changed.
    """
    weights = state.average
    restored = checkpoints and checkpoints.restore(state=state, weights=weights)
    content = distributed.broadcast(restored and restored["progress"])
    if content is None:
        if checkpoints and (workdir / "metrics.jsonl").exists():
            raise WorkdirError(
                f"--workdir: {workdir} contains metrics of a run but no checkpoint; name another"
            )
        return state, weights, Progress(agreed)
    try:
        progress = Progress.from_json(content)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise WorkdirError(f"--workdir: {workdir}: no readable progress ({error!r})") from None
    if checkpoints:
        seal.check(workdir, progress.seal, seal.FIXED)
    if progress.fingerprint != agreed:
        raise WorkdirError(
            f"--workdir: {workdir} was trained on texts that have changed since; name another"
        )
    if progress.diverged_at is not None:
        raise diverged(progress.diverged_at, workdir)
    if restored:
        state, weights = restored["state"], restored["weights"]
    return *distributed.broadcast_arrays((state, weights)), progress


def diverged(step: int, workdir: Path) -> DivergedError:
    """The error of a run that stopped at a training step whose loss was not finite."""
    return DivergedError(
        f"the loss of training step {step} is not finite; the last good weights are in"
        f" {workdir / 'checkpoints'}; start a new run with a lower train.learning_rate"
    )

"""What a workdir holds: the trained model of one run, or of several seeds, an ensemble."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flaxrnn import config as config_lib
from flaxrnn.data.ngrams import FILES, RATIOS, NgramClassifier, RatioTable
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.errors import WorkdirError
from flaxrnn.runtime import files, plugins, records
from flaxrnn.training import workdir as workdir_lib

if TYPE_CHECKING:
    import numpy as np

    from flaxrnn.nn.models import TextModel

SEEDS = "seeds.json"  # of a workdir of several seeds: its "members", and their test figures


@dataclass(frozen=True)
class SavedModel:
    """What prediction needs from a workdir.

    Attributes:
        model: The model.
        members: Its parameters in each run of an ensemble, whose probability is the mean of theirs;
            those of a single run are alone.
        vocabulary: Limited to `data.num_words`.
        label_names: Names of the classes.
        config: The config of the run, or of the first one.
        ngrams: The n-gram classifier, if the model blends its scores; all members have the same.
        thresholds: The probability above which a text gets each label, float [C]; of an ensemble
            the mean; None: it gets the likeliest.
        ratios: What the features of tokens are looked up in, if the model reads any.
    """

    model: TextModel
    members: tuple[Any, ...]
    vocabulary: Vocabulary
    label_names: list[str]
    config: config_lib.Config
    ngrams: NgramClassifier | None
    thresholds: np.ndarray | None = None
    ratios: RatioTable | None = None

    def labels(self, probabilities: np.ndarray) -> list[str] | list[list[str]]:
        """The label of each text, or where it may have several all of them, by float [N, C]."""
        if self.thresholds is None:
            return [self.label_names[i] for i in probabilities.argmax(axis=1)]
        above = probabilities > self.thresholds
        return [[self.label_names[i] for i in row.nonzero()[0]] for row in above]


def folder_of_seed(workdir: Path, seed: int) -> Path:
    """The workdir of one of several seeds."""
    return workdir / f"seed-{seed}"


def holds_several(workdir: Path) -> bool:
    """Whether a workdir is that of several seeds."""
    return not (workdir / "config.json").exists() and bool(_member_folders(workdir))


def finished_members(workdir: Path) -> list[Path]:
    """The workdirs of the runs in a workdir of several seeds.

    Raises:
        WorkdirError: One of them is unfinished.
    """
    folders = _member_folders(workdir)
    unfinished = [folder.name for folder in folders if not (folder / "result.json").is_file()]
    if unfinished:
        raise WorkdirError(
            f"--workdir: {workdir} is unfinished, {', '.join(unfinished)} of {len(folders)} runs:"
            " start its command again"
        )
    return folders


def read_record(workdir: Path) -> dict[str, Any]:
    """The content of seeds.json; {}: there is none yet.

    Raises:
        WorkdirError: The file is corrupt.
    """
    path = workdir / SEEDS
    try:
        record = records.read(path, dict)
        members = record["members"]
        if not isinstance(members, list) or not all(map(_is_folder_of_seed, members)):
            raise ValueError("its members are no list of seed-N")
        if not isinstance(record.get("ensemble", {}), dict):
            raise ValueError("its ensemble is no object")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError) as error:
        raise WorkdirError(f"--workdir: {path} cannot be read ({error})") from None
    return record


def load_config(workdir: str | Path) -> config_lib.Config:
    """The config of a workdir's run, or of the first of several.

    Raises:
        WorkdirError: The workdir holds no run.
    """
    workdir = files.expand(workdir, "--workdir")
    if holds_several(workdir):
        workdir = _member_folders(workdir)[0]
    return workdir_lib.load_config(workdir)


def _is_folder_of_seed(name: Any) -> bool:
    """Whether a name is that of a seed's workdir, not one of a folder elsewhere."""
    return isinstance(name, str) and re.fullmatch(r"seed-\d{1,10}", name) is not None


def load(workdir: str | Path, allow_modules: Iterable[str] = ()) -> SavedModel:
    """Reads the trained model of a workdir without changing anything in it.

    Args:
        workdir: Of a run or of several seeds.
        allow_modules: Modules outside the package that may be imported, which runs them, if the
            workdir's config names them: the user's own cell or head.

    Raises:
        ConfigError: The workdir names a module that is not allowed.
        WorkdirError: The workdir holds no trained model, or several runs that are unfinished, have
            different vocabularies or labels, or do not classify texts.
    """
    plugins.allow(allow_modules)
    workdir = files.expand(workdir, "--workdir")
    if not holds_several(workdir):
        return _load_run(workdir)
    folders = finished_members(workdir)
    runs = [_load_run(folder) for folder in folders]
    first = runs[0]
    if first.model.head.per_token:
        raise WorkdirError(
            f"--workdir: {workdir} holds several runs with model.target="
            f"{first.config.model.target}, but only classifiers make an ensemble; name one of them,"
            f" like {folders[0]}"
        )
    for folder, run in zip(folders, runs, strict=True):
        for what, same in (
            ("vocabularies", run.vocabulary.to_json() == first.vocabulary.to_json()),
            ("labels", run.label_names == first.label_names),
        ):
            if not same:
                raise WorkdirError(
                    f"--workdir: {folder} and {folders[0].name} have different {what}, so they make"
                    " no ensemble; name one of them"
                )
    params = tuple(run.members[0] for run in runs)
    limits = [run.thresholds for run in runs if run.thresholds is not None]
    thresholds = sum(limits[1:], limits[0]) / len(limits) if limits else None
    return dataclasses.replace(first, members=params, thresholds=thresholds)


def _member_folders(workdir: Path) -> list[Path]:
    """Those that seeds.json names; before it is written, those that have begun."""
    if names := read_record(workdir).get("members"):
        return [workdir / name for name in names]
    return sorted(path.parent for path in workdir.glob("seed-*/config.json"))


def _load_run(workdir: Path) -> SavedModel:
    import jax
    import numpy as np

    from flaxrnn.nn import models
    from flaxrnn.training import checkpoint, trained

    run = trained.read(workdir)
    config, vocabulary, label_names = run.config, run.vocabulary, run.label_names
    model = models.build(config.model, vocabulary.num_words, len(label_names))
    if len(label_names) < 2 and not model.head.per_token:
        raise WorkdirError(f"--workdir: {workdir}/labels.json names a single class")
    shapes = jax.eval_shape(lambda: models.init_params(model, jax.random.key(0)))
    found = checkpoint.read(run.checkpoint, weights=shapes)
    weights, thresholds = found["weights"], None
    if model.head.several:
        thresholds = _thresholds(workdir, found["progress"], len(label_names))
    classifier = None
    if model.has_scores:
        classifier = _load_ngrams(workdir / workdir_lib.NGRAMS, model.num_outputs)
    ratios = None
    if model.num_features:
        ratios = _load_ratios(workdir / workdir_lib.RATIOS, model)
    tables = [*classifier.idf, *classifier.weights, classifier.bias] if classifier else []
    tables += [ratios.ratios] if ratios else []
    for array in (*jax.tree.leaves(weights), *tables):
        if not np.isfinite(array).all():
            raise WorkdirError(f"--workdir: the weights of {workdir} are not finite; train again")
    return SavedModel(
        model, (weights,), vocabulary, label_names, config, classifier, thresholds, ratios
    )


def _thresholds(workdir: Path, progress: dict[str, Any], count: int) -> np.ndarray:
    """The thresholds of labels in the progress of a checkpoint, which may be anybody's.

    Before the first epoch has been validated there are none: all are a half.
    """
    import numpy as np

    found = progress.get("thresholds")
    if found is None:
        return np.full(count, 0.5)
    numbers = isinstance(found, list) and all(type(value) is float for value in found)
    if not numbers or len(found) != count or not all(0 < value < 1 for value in found):
        raise WorkdirError(f"--workdir: no trained model in {workdir} (no threshold per label)")
    return np.array(found)


def _load_ngrams(folder: Path, num_outputs: int) -> NgramClassifier:
    from safetensors import SafetensorError

    if problem := files.find_corruption(folder):
        raise WorkdirError(f"--workdir: {folder}: {problem}; train the model again")
    try:
        classifier = NgramClassifier.from_files({n: (folder / n).read_bytes() for n in FILES})
        classifier.check(num_outputs)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, SafetensorError) as error:
        raise WorkdirError(f"--workdir: {folder}: no n-gram classifier ({error})") from None
    return classifier


def _load_ratios(folder: Path, model: TextModel) -> RatioTable:
    from safetensors import SafetensorError

    if problem := files.find_corruption(folder):
        raise WorkdirError(f"--workdir: {folder}: {problem}; train the model again")
    try:
        table = RatioTable.from_file((folder / RATIOS).read_bytes())
        table.check(model.config.ratio_ngrams, model.num_outputs)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise WorkdirError(f"--workdir: {folder}: no table of ratios ({error})") from None
    return table

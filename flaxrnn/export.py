"""Exports a trained classifier to a folder that does not need flaxrnn.

python -m flaxrnn.export --workdir runs/imdb --out served

The folder contains:

* `program.jax`: the classifier as StableHLO, serialized by `jax.export`, for CPU, CUDA and TPU. It
  takes the parameters by path; tokens, int32 [B, T], padded on the right whatever `data.padding`
  is; and lengths, int32 [B]. It reads the last `data.maxlen` tokens of each text and returns
  probabilities, float32 [B, C]. B and T may be any number from 1 on.
* `parameters.safetensors`. They are an argument of the program rather than part of it, so that they
  are stored once, can be inspected and replaced, and cost XLA no time for constant folding. Those
  of an ensemble (a workdir of several seeds) are stacked, and the program returns the mean of their
  probabilities.
* `vocabulary.json` and `labels.json`, as in the workdir; `ngrams.safetensors` and `ngrams.json` of
  a model with n-grams, whose program also takes the scores of that classifier; `thresholds.json` of
  one whose texts may have several labels, the probability above which a text gets each.
* `load.py`, which puts these together: a copy of `flaxrnn/inference/loader.py`. It reads
  `splitting.py` and `ngrams.py`, copies of modules in `flaxrnn/data/`.
* `checksums.json`: the SHA-256 of each file.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path

from flaxrnn.errors import ConfigError, WorkdirError
from flaxrnn.inference import saved
from flaxrnn.runtime import files, terminal


def main(arguments: list[str] | None = None) -> None:
    """Exports a workdir, and prints the size of each file.

    Raises:
        ConfigError: A flag is unknown, or flatbuffers is not installed.
        WorkdirError: The workdir holds no trained model, or the folder cannot be written.
    """
    parser = terminal.Parser(
        prog="python -m flaxrnn.export",
        description="Exports a trained classifier to a folder that does not need flaxrnn.",
    )
    parser.add_argument("--workdir", required=True, help="workdir of a trained run")
    terminal.add_allow_module(parser)
    parser.add_argument("--out", required=True, type=Path, help="folder to write, new or empty")
    flags = parser.parse_args(arguments)
    written = export(flags.workdir, files.expand(flags.out, "--out"), flags.allow_module)
    for name, content in written.items():
        print(f"{len(content):>12,} bytes  {flags.out / name}")


def export(
    workdir: str | Path, folder: Path, allow_modules: Iterable[str] = ()
) -> dict[str, bytes]:
    """Exports a workdir to a new or empty folder.

    Args:
        workdir: Of a run or of several seeds.
        folder: Where to.
        allow_modules: See `saved.load`.

    Returns:
        File name → content.

    Raises:
        ConfigError: flatbuffers is not installed, JAX cannot be used as it is set, or the workdir
            names a module that is not allowed, or the model does not classify texts.
        WorkdirError: The workdir holds no trained model, or the folder is not empty or cannot be
            written.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise ConfigError("--out: jax.export needs flatbuffers; pip install 'flaxrnn[export]'")
    if folder.is_dir() and any(folder.iterdir()):
        raise WorkdirError(f"--out: {folder} is not empty; name a new folder")
    # These import JAX: only once the flags are valid.
    import safetensors.numpy

    from flaxrnn.inference import stablehlo
    from flaxrnn.runtime import devices

    devices.initialize()
    model = saved.load(workdir, allow_modules)
    if model.model.head.per_token:
        raise ConfigError(
            f"--workdir: {workdir} was trained with model.target={model.config.model.target}; only"
            " classifiers, of model.target=label, can be exported"
        )
    contents = {
        "program.jax": bytes(stablehlo.lower(model).serialize()),
        "parameters.safetensors": safetensors.numpy.save(stablehlo.parameters(model)),
        "vocabulary.json": model.vocabulary.to_json().encode(),
        "labels.json": json.dumps(model.label_names, ensure_ascii=False).encode(),
    }
    if model.thresholds is not None:
        contents["thresholds.json"] = json.dumps(model.thresholds.tolist()).encode()
    modules = {"load": "inference/loader", "splitting": "data/splitting"}
    if model.ngrams is not None:
        contents |= model.ngrams.to_files()
        modules["ngrams"] = "data/ngrams"
    for name, module in modules.items():
        contents[f"{name}.py"] = (Path(__file__).parent / f"{module}.py").read_bytes()
    try:
        files.write_folder(folder, contents)
    except OSError as error:
        raise WorkdirError(f"--out: {folder} cannot be written ({error.strerror})") from None
    return contents


if __name__ == "__main__":
    terminal.run(main)

"""Exports a trained classifier to a folder that does not need flaxrnn.

python -m flaxrnn.export --workdir runs/imdb --out served
python -m flaxrnn.export --workdir runs/imdb --out served --format onnx    (needs no JAX there)

The folder contains:

* `program.jax`: the classifier as StableHLO, serialized by `jax.export`, for CPU, CUDA and TPU. It
  takes the parameters by path; tokens, int32 [B, T], padded on the right whatever `data.padding`
  is; and lengths, int32 [B]. It reads the last `data.maxlen` tokens of each text and returns
  probabilities, float32 [B, C]. B and T may be any number from 1 on.
* `parameters.safetensors`. They are an argument of the program rather than part of it, so that they
  are stored once, can be inspected and replaced, and cost XLA no time for constant folding. Those
  of an ensemble (a workdir of several seeds) are stacked, and the program returns the mean of their
  probabilities. Those of the embedding are folded into the layer that reads it: "folded/…".
* Instead of both, `model.onnx`: the same as an ONNX model with its parameters.
* `vocabulary.json` and `labels.json`, as in the workdir; `ngrams.safetensors` and `ngrams.json` of
  a model with n-grams, whose program also takes the scores of that classifier;
  `ratios.safetensors` of one that reads log-count ratios, whose program takes these features, too;
  `thresholds.json` of one whose texts may have several labels, the probability above which a text
  gets each.
* `load.py`, which puts these together: a copy of `flaxrnn/inference/loader.py`. It reads
  `splitting.py` and `ngrams.py`, copies of modules in `flaxrnn/data/`.
* `checksums.json`: the SHA-256 of each file.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path

from flaxrnn.data.ngrams import RATIOS
from flaxrnn.errors import ConfigError, WorkdirError
from flaxrnn.inference import saved
from flaxrnn.runtime import files, terminal

# Format → the library it needs, which its extra installs.
_NEEDS = {"stablehlo": ("flatbuffers", "export"), "onnx": ("onnx", "onnx")}


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
    parser.add_argument(
        "--format", choices=_NEEDS, default="stablehlo", help="of the program; default: stablehlo"
    )
    flags = parser.parse_args(arguments)
    folder = files.expand(flags.out, "--out")
    written = export(flags.workdir, folder, flags.allow_module, flags.format)
    for name, content in written.items():
        print(f"{len(content):>12,} bytes  {flags.out / name}")


def export(
    workdir: str | Path,
    folder: Path,
    allow_modules: Iterable[str] = (),
    program_format: str = "stablehlo",
) -> dict[str, bytes]:
    """Exports a workdir to a new or empty folder.

    Args:
        workdir: Of a run or of several seeds.
        folder: Where to.
        allow_modules: See `saved.load`.
        program_format: "stablehlo" or "onnx".

    Returns:
        File name → content.

    Raises:
        ConfigError: A library is not installed, JAX cannot be used as it is set, the workdir names
            a module that is not allowed, its model does not classify texts, or the format cannot
            hold it.
        WorkdirError: The workdir holds no trained model, or the folder is not empty or cannot be
            written.
    """
    library, extra = _NEEDS[program_format]
    if importlib.util.find_spec(library) is None:
        raise ConfigError(
            f"--format: {program_format} needs {library}; pip install 'flaxrnn[{extra}]'"
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise WorkdirError(f"--out: {folder} is not empty; name a new folder")
    from flaxrnn.runtime import devices  # imports JAX: only once the flags are valid

    devices.initialize()
    model = saved.load(workdir, allow_modules)
    if model.model.head.per_token:
        raise ConfigError(
            f"--workdir: {workdir} was trained with model.target={model.config.model.target}; only"
            " classifiers, of model.target=label, can be exported"
        )
    contents = contents_of(model, program_format)
    try:
        files.write_folder(folder, contents)
    except OSError as error:
        raise WorkdirError(f"--out: {folder} cannot be written ({error.strerror})") from None
    return contents


def contents_of(model: saved.SavedModel, program_format: str) -> dict[str, bytes]:
    """The files of a folder that needs no flaxrnn: name → content.

    Raises:
        ConfigError: The format cannot hold the model.
    """
    contents = {
        **_program(model, program_format),
        "vocabulary.json": model.vocabulary.to_json().encode(),
        "labels.json": json.dumps(model.label_names, ensure_ascii=False).encode(),
    }
    if model.thresholds is not None:
        contents["thresholds.json"] = json.dumps(model.thresholds.tolist()).encode()
    modules = {"load": "inference/loader", "splitting": "data/splitting"}
    if model.ngrams is not None:
        contents |= model.ngrams.to_files()
    if model.ratios is not None:
        contents[RATIOS] = model.ratios.to_file()
    if model.ngrams is not None or model.ratios is not None:
        modules["ngrams"] = "data/ngrams"
    for name, module in modules.items():
        contents[f"{name}.py"] = (Path(__file__).parent / f"{module}.py").read_bytes()
    return contents


def _program(model: saved.SavedModel, program_format: str) -> dict[str, bytes]:
    if program_format == "onnx":
        from flaxrnn.inference import onnx_graph

        return {"model.onnx": onnx_graph.build(model)}
    import safetensors.numpy

    from flaxrnn.inference import stablehlo

    return {
        "program.jax": bytes(stablehlo.lower(model).serialize()),
        "parameters.safetensors": safetensors.numpy.save(stablehlo.parameters(model)),
    }


if __name__ == "__main__":
    terminal.run(main)

"""A trained workdir → a folder that labels texts without flaxrnn.

python -m flaxrnn.export --workdir runs/imdb --out served

In the folder:

* `stablehlo.jax`: the classifier as StableHLO, serialized by `jax.export`, for CPU, CUDA and TPU.
  Its arguments: the parameters by name; tokens, int32 [B, T], padded on the right, whatever
  `data.padding` is; lengths, int32 [B]. It reads the last `data.maxlen` tokens of each text and
  returns probabilities, float32 [B, C]. B and T are any from 1 on.
* `parameters.safetensors`. They are given to the program, not part of it: so they are stored once,
  can be looked at and exchanged, and XLA does not spend its time on folding them.
* `vocabulary.json`, `labels.json`: as in the workdir.
* `load.py`: reads all this, see `flaxrnn/loader.py`.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from flaxrnn.errors import ConfigError, WorkdirError
from flaxrnn.runtime import files, terminal


def main(arguments: list[str] | None = None) -> None:
    """Exports the workdir that the arguments name.

    Raises:
        ConfigError: A flag is unknown, or flatbuffers is not installed.
        WorkdirError: The workdir holds no trained model, or the folder cannot be written.
    """
    parser = terminal.Parser(
        prog="python -m flaxrnn.export",
        description="Writes a folder that labels texts without flaxrnn.",
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", required=True, help="of a trained run")
    parser.add_argument("--out", required=True, type=Path, help="the folder, new or empty")
    given = parser.parse_args(arguments)
    written = export(given.workdir, given.out.expanduser())
    for name, content in written.items():
        print(f"{len(content):>12,} bytes  {given.out / name}")


def export(workdir: str | Path, folder: Path) -> dict[str, bytes]:
    """Writes the export of a workdir.

    Returns:
        The files by name.

    Raises:
        ConfigError: flatbuffers is not installed.
        WorkdirError: The workdir holds no trained model, or the folder is not empty or cannot be
            written.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise ConfigError("--out: jax.export needs flatbuffers; pip install 'flaxrnn[export]'")
    if folder.is_dir() and any(folder.iterdir()):
        raise WorkdirError(f"--out: {folder} is not empty; name a new folder")
    import safetensors.numpy  # with JAX: a mistaken flag is answered before that
    from flax.traverse_util import flatten_dict

    from flaxrnn.inference import predictor, stablehlo

    trained = predictor.read(workdir)
    params = flatten_dict(trained.params, sep="/")
    settings = trained.settings.data
    exported = stablehlo.lower(trained.model, params, settings.maxlen, settings.padding)
    contents = {
        "program.jax": bytes(exported.serialize()),
        "parameters.safetensors": safetensors.numpy.save(params),
        "vocabulary.json": trained.vocabulary.to_json().encode(),
        "labels.json": json.dumps(trained.label_names, ensure_ascii=False).encode(),
        "load.py": (Path(__file__).parent / "inference" / "loader.py").read_bytes(),
    }
    try:
        files.write_folder(folder, contents)
    except OSError as error:
        raise WorkdirError(f"--out: {folder} cannot be written ({error.strerror})") from None
    return contents


if __name__ == "__main__":
    terminal.run(main)

"""An exported folder, in a process that cannot import flaxrnn, predicts what the workdir does."""

import functools
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import WORDS, loaded, saved_workdir

from configs import imdb, reuters
from flaxrnn import export
from flaxrnn.runtime import terminal

MAXLEN = 20
TEXTS = [
    "good",
    "Not a VERY good film: the plot (bad!) of oil&grain.",
    "it's 평 of\ttabs\u00a0and İ",
    "the " * MAXLEN,
    "grain not a very bad " * 10,
]
# What a process that has only the folders does with each of them.
STANDALONE = """
import json, sys
from pathlib import Path

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("flaxrnn", "flax"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
for folder in sys.argv[1:]:
    sys.path.insert(0, folder)
    from load import load
    sys.path.pop(0), sys.modules.pop("load")
    labels, probabilities = load(folder)(json.loads(Path(folder, "../texts.json").read_text()))
    print(json.dumps([labels, probabilities.tolist()]))
"""


def settings(module, variant="", **model):
    config = module.get_config(variant) if variant else module.get_config()
    config.model.update({"embedding_size": 6, "hidden_size": 5, **model})
    config.data.update({"maxlen": MAXLEN, "num_words": 16})
    config.model.conv_filters = min(config.model.conv_filters, 4)
    config.train.eval_batch_size = 17
    return config


CASES = {  # name → config, labels
    "imdb": (settings(imdb), ["neg", "pos"]),
    "imdb_keras": (settings(imdb, "keras"), ["neg", "pos"]),
    "wide": (settings(imdb, "fast", conv_pool=30, layers=2, word_ngrams=0), ["neg", "pos"]),
    "reuters": (settings(reuters), ["earn", "acq", "grain"]),
    "reuters_keras": (settings(reuters, "keras"), ["earn", "acq", "grain"]),
    "gru": (settings(reuters, cell="gru", pooling="attention", recompute=7), ["a", "b"]),
    "simple": (settings(reuters, cell="simple", recurrence="scan"), ["평", "a"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The workdirs, and in `out` their exports."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "out").mkdir()
    for name, case in CASES.items():
        export.export(saved_workdir(folder / name, *case), folder / "out" / name)
    return folder


def test_an_export_predicts_what_the_workdir_does(folder, tmp_path):
    rng = np.random.default_rng(0)  # more texts than the loader's batch
    texts = TEXTS + [" ".join(rng.choice(WORDS, n)) for n in rng.integers(1, 2 * MAXLEN, 70)]
    (folder / "out" / "texts.json").write_text(json.dumps(texts))
    done = subprocess.run(
        [sys.executable, "-c", STANDALONE, *(str(folder / "out" / name) for name in CASES)],
        cwd=tmp_path,
        env={"PYTHONDONTWRITEBYTECODE": "1", "XLA_FLAGS": os.environ["XLA_FLAGS"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, line in zip(CASES, done.stdout.splitlines(), strict=True):
        labels, probabilities = loaded(folder / name).predict(texts)
        found_labels, found = json.loads(line)
        np.testing.assert_allclose(found, probabilities, rtol=0, atol=1e-6, err_msg=name)
        assert found_labels == labels
        assert np.ptp(probabilities, axis=0).max() > 0.1, name


def test_files_and_program(folder):
    out = folder / "out" / "imdb"
    assert sorted(path.name for path in out.iterdir()) == [
        "checksums.json", "labels.json", "load.py", "parameters.safetensors",
        "program.jax", "splitting.py", "vocabulary.json",
    ]  # fmt: skip
    program = jax.export.deserialize(bytearray((out / "program.jax").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")


def error_of(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        terminal.run(functools.partial(export.main, list(map(str, arguments))))
    assert caught.value.code == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_a_mistake_is_one_line_and_exit_code_2(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    (tmp_path / "file").write_text("x")
    flags = ["--workdir", folder / "imdb", "--out"]
    assert "required: --out" in error_of(capsys, *flags[:2])
    assert f"--out: {tmp_path} is not empty" in error_of(capsys, *flags, tmp_path)
    not_a_folder = error_of(capsys, *flags, tmp_path / "file" / "x")
    assert "/file/x cannot be written (Not a directory)" in not_a_folder
    nowhere = error_of(capsys, "--workdir", "/nope", "--out", tmp_path / "new")
    assert "--workdir: no trained model in /nope" in nowhere
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    missing = error_of(capsys, *flags, tmp_path / "new")
    assert "needs flatbuffers; pip install 'flaxrnn[export]'" in missing
    assert not (tmp_path / "new").exists()


def test_the_command_lists_its_files(folder, tmp_path, capsys):
    export.main(["--workdir", str(folder / "reuters"), "--out", str(tmp_path / "out")])
    listed = [line.split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert {str(path) for path in (tmp_path / "out").iterdir()} - set(listed) == {
        str(tmp_path / "out" / "checksums.json")
    }

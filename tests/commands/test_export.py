"""An exported folder, in a process that cannot import flaxrnn, says what `flaxrnn.load` says."""

import functools
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import WORDS

import flaxrnn
from configs import imdb, reuters
from configs import text as text_config
from flaxrnn import export
from flaxrnn.data import tokenizers
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.inference import loader
from flaxrnn.nn import models
from flaxrnn.runtime import terminal
from flaxrnn.training import checkpoint

MAXLEN = 20
TEXTS = [
    "good",
    "Not a VERY good film: the plot (bad!) of oil&grain.",
    "it's 평 of\ttabs\u00a0and İ",
    "the " * MAXLEN,
    "grain not a very bad " * 10,
]
# What a process that has only the folder does with each of its arguments.
ALONE = """
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


# name → config, labels, tokenizer
CASES = {
    "imdb": (settings(imdb), ["neg", "pos"], "keras"),
    "imdb_keras": (settings(imdb, "keras"), ["neg", "pos"], "keras"),
    "wide": (settings(imdb, "fast", conv_pool=30, layers=2), ["neg", "pos"], "keras"),
    "reuters": (settings(reuters), ["earn", "acq", "grain"], "keras"),
    "reuters_keras": (settings(reuters, "keras"), ["earn", "acq", "grain"], "keras"),
    "gru": (settings(reuters, cell="gru", pooling="attention", recompute=7), ["a", "b"], "keras"),
    "words": (settings(text_config, cell="simple", recurrence="scan"), ["평", "a"], "words"),
}


def make_workdir(folder, config, labels, tokenizer):
    """What a run leaves for predictions, with parameters that are far from even."""
    if config.task == "text":
        config.data.path = "reviews.csv"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    (folder / "labels.json").write_text(json.dumps(labels))
    Vocabulary(WORDS, tokenizers.Tokenizer(tokenizer)).save(folder / "vocabulary.json")
    model = models.build(config.model, config.data.num_words, len(labels))
    shapes = jax.eval_shape(lambda: models.init_params(model, jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    checkpoint.write_weights(folder / "checkpoints", params)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The workdirs, and in `out` their exports."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "out").mkdir()
    for name, case in CASES.items():
        make_workdir(folder / name, *case)
        export.export(folder / name, folder / "out" / name)
    return folder


def texts():
    """More than the loader takes at once."""
    rng = np.random.default_rng(0)
    some = [" ".join(rng.choice(WORDS, n)) for n in rng.integers(1, 2 * MAXLEN, 70)]
    return TEXTS + some


def run(*arguments, **keywords):
    command = [sys.executable, "-c", ALONE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **keywords)


def test_an_export_says_what_the_workdir_says(folder, tmp_path):
    names = [name for name, (*_, tokenizer) in CASES.items() if tokenizer == "keras"]
    (folder / "out" / "texts.json").write_text(json.dumps(texts()))
    done = run(
        *(folder / "out" / name for name in names),
        cwd=tmp_path,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    for name, line in zip(names, done.stdout.splitlines(), strict=True):
        labels, probabilities = flaxrnn.load(folder / name).predict(texts())
        found_labels, found = json.loads(line)
        np.testing.assert_allclose(found, probabilities, rtol=0, atol=1e-6, err_msg=name)
        assert found_labels == labels
        assert np.ptp(probabilities, axis=0).max() > 0.1, name


def test_texts_of_other_tokenizers_are_given_as_tokens(folder):
    classify = loader.load(folder / "out" / "words")
    with pytest.raises(ValueError, match="the tokenizer is 'words': give the list of tokens"):
        classify(["good film"])
    labels, probabilities = classify([tokenizers.words(raw) for raw in TEXTS])
    expected = flaxrnn.load(folder / "words").predict(TEXTS)
    np.testing.assert_allclose(probabilities, expected[1], rtol=0, atol=1e-6)
    assert labels == expected[0]


def test_one_short_text_has_fewer_tokens_than_the_table_has_rows(folder):
    _, found = loader.load(folder / "out" / "reuters")(["good"])
    _, expected = flaxrnn.load(folder / "reuters").predict(["good"])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_the_loader_refuses_a_text_without_words(folder):
    classify = loader.load(folder / "out" / "imdb")
    with pytest.raises(ValueError, match="not a single word"):
        classify(["good", " .,"])
    labels, probabilities = classify([])
    assert (labels, probabilities.shape) == ([], (0, 2))


def test_files_and_program(folder):
    out = folder / "out" / "imdb"
    assert sorted(path.name for path in out.iterdir()) == [
        "checksums.json", "labels.json", "load.py", "parameters.safetensors",
        "program.jax", "vocabulary.json",
    ]  # fmt: skip
    program = jax.export.deserialize(bytearray((out / "program.jax").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert [str(shape.shape) for shape in program.in_avals[-2:]] == ["(batch, length)", "(batch,)"]


def complaint(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        terminal.run(functools.partial(export.main, list(map(str, arguments))))
    assert caught.value.code == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_a_mistake_is_one_line_and_exit_code_2(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *a: None)
    (tmp_path / "mine").write_text("x")
    given = ["--workdir", folder / "imdb", "--out"]
    assert "required: --out" in complaint(capsys, *given[:2])
    assert f"--out: {tmp_path} is not empty" in complaint(capsys, *given, tmp_path)
    assert "/mine/x cannot be written (Not a directory)" in complaint(
        capsys, *given, tmp_path / "mine" / "x"
    )
    nowhere = complaint(capsys, "--workdir", "/nope", "--out", tmp_path / "new")
    assert "/nope: no trained model here" in nowhere
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    missing = complaint(capsys, *given, tmp_path / "new")
    assert "needs flatbuffers; pip install 'flaxrnn[export]'" in missing
    assert not (tmp_path / "new").exists()


def test_the_command_lists_its_files(folder, tmp_path, capsys):
    export.main(["--workdir", str(folder / "reuters"), "--out", str(tmp_path / "out")])
    listed = [line.split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert {str(path) for path in (tmp_path / "out").iterdir()} - set(listed) == {
        str(tmp_path / "out" / "checksums.json")
    }

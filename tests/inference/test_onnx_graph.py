"""ONNX models in ONNX Runtime, through the exported `load.py`, give what flaxrnn gives."""

import json
import subprocess
import sys

import numpy as np
import pytest
from helpers import WORDS, saved_model, saved_workdir, shrink

from configs import imdb, reuters, tagging
from configs import text as text_config
from flaxrnn import export
from flaxrnn.data import ngrams
from flaxrnn.errors import ConfigError
from flaxrnn.inference import loader, predictor
from flaxrnn.runtime import files

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

MAXLEN = 20
TOPICS = ["earn", "acq", "grain"]
CASES = {  # name → config module, variant, changes of the model, labels
    "imdb": (imdb, "", {}, ["neg", "pos"]),
    "imdb_keras": (imdb, "keras", {}, ["neg", "pos"]),
    "reuters": (reuters, "", {}, TOPICS),
    "reuters_keras": (reuters, "keras", {}, TOPICS),
    "gru": (reuters, "", {"cell": "gru", "pooling": "attention", "layers": 2}, TOPICS),
    "simple": (reuters, "", {"cell": "simple", "pooling": "mean", "bidirectional": True}, TOPICS),
    "text": (text_config, "", {"segment": 7, "word_ngrams": 0, "character_ngrams": 0}, TOPICS),
    "several": (text_config, "", {"target": "labels", "cell": "simple"}, TOPICS),
    "deep": (text_config, "", {"segment": 4, "layers": 2, "cell": "gru"}, ["평", "a"]),
}
TEXTS = ["good", "Not a VERY good film: the plot (bad!)", "the " * 50]


def model_of(name, seeds=(0,)):
    module, variant, changes, labels = CASES[name]
    config = shrink(module.get_config(variant) if variant else module.get_config(), **changes)
    if module is text_config:
        config.data.path = "texts.csv"
    views = config.model.word_ngrams or config.model.character_ngrams
    classifier = classifier_of(1 if len(labels) == 2 else len(labels)) if views else None
    return saved_model(config, labels, seeds, "words", classifier)


def classifier_of(outputs):
    """One that knows the words and their pairs in `WORDS`."""
    rng, view = np.random.default_rng(1), ngrams.View("words", 2)
    counts = ngrams.count(ngrams.hash_tokens(WORDS), np.array([len(WORDS)]), view)
    codes, _ = ngrams.document_frequencies(counts)
    weights = rng.normal(size=(len(codes), outputs)).astype(np.float32)
    idf = rng.uniform(1, 2, len(codes)).astype(np.float32)
    return ngrams.NgramClassifier((view,), (codes,), (idf,), (weights,), np.ones(outputs, "f4"))


def exported(model, folder):
    files.write_folder(folder, export.contents_of(model, "onnx"))
    return loader.load(folder)


def some_texts():
    rng = np.random.default_rng(0)  # more than the loader's batch
    return TEXTS + [" ".join(rng.choice(WORDS, n)) for n in rng.integers(1, 2 * MAXLEN, 70)]


@pytest.mark.parametrize("name", CASES)
def test_onnx_equals_flaxrnn(name, tmp_path):
    model = model_of(name)
    labels, probabilities = exported(model, tmp_path / "out")(some_texts())
    expected = predictor.TextPredictor(model).predict(some_texts())
    np.testing.assert_allclose(probabilities, expected[1], rtol=0, atol=1e-5)
    assert labels == expected[0]
    assert np.ptp(probabilities, axis=0).max() > 0.1


def test_a_batch_does_not_change_a_text(tmp_path):
    for name in ("imdb", "text"):
        classify = exported(model_of(name), tmp_path / name)
        together = classify(TEXTS)[1]
        alone = [classify([text])[1][0] for text in TEXTS]
        np.testing.assert_allclose(alone, together, rtol=0, atol=1e-6)


def test_an_ensemble_is_the_mean_of_its_members(tmp_path):
    model = model_of("reuters", seeds=(3, 4, 7))
    expected = predictor.TextPredictor(model).predict(TEXTS)[1]
    found = exported(model, tmp_path / "out")(TEXTS)[1]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_folder_needs_neither_flaxrnn_nor_jax(tmp_path):
    model = model_of("imdb")
    exported(model, tmp_path / "out")
    code = """
import json, sys
sys.modules.update(dict.fromkeys(["flaxrnn", "flax", "jax", "onnx", "safetensors"]))
sys.path.insert(0, "out")
from load import load
print(json.dumps(load("out")(json.loads(sys.argv[1]))[0]))
"""
    command = [sys.executable, "-c", code, json.dumps(TEXTS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == predictor.TextPredictor(model).predict(TEXTS)[0]


def test_the_command_writes_one_program(tmp_path, capsys):
    workdir = saved_workdir(tmp_path / "run", shrink(reuters.get_config()), TOPICS)
    flags = ["--workdir", str(workdir), "--out", str(tmp_path / "out"), "--format", "onnx"]
    export.main(flags)
    listed = [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()]
    assert listed == ["model.onnx", "vocabulary.json", "labels.json", "load.py", "splitting.py"]
    expected = predictor.load(workdir).predict(TEXTS)[1]
    found = loader.load(tmp_path / "out")(TEXTS)[1]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_what_onnx_cannot_hold_is_refused_in_one_line():
    config = shrink(tagging.get_config())
    with pytest.raises(ConfigError, match=r"^--format: onnx is for .* model\.target=tags$"):
        export.contents_of(saved_model(config, ["a", "b"]), "onnx")
    config = shrink(reuters.get_config(), cell="flaxrnn.nn.cells:GRU")
    with pytest.raises(ConfigError, match=r"^--format: onnx has no operator for model\.cell=flax"):
        export.contents_of(saved_model(config, TOPICS), "onnx")


def test_without_the_library_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"--format: onnx needs onnx; pip install 'flaxrnn\[onnx"):
        export.export(tmp_path, tmp_path / "out", program_format="onnx")

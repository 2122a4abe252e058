"""An exported folder, in a process that has only what `load.py` names, predicts as the workdir."""

import functools
import json
import os
import re
import subprocess
import sys
from importlib import metadata

import jax
import numpy as np
import pytest
from helpers import WORDS, loaded, saved_workdir

from configs import imdb, language_model, reuters, tagging
from configs import text as text_config
from flaxrnn import export
from flaxrnn.data import ngrams
from flaxrnn.data.tokenizers import TOKENIZERS, Tokenizer
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.runtime import files, terminal

MAXLEN = 20
TEXTS = [
    "good",
    "Not a VERY good film: the plot (bad!) of oil&grain.",
    "it's 평 of\ttabs\u00a0and İ",
    "the " * MAXLEN,
    "grain not a very bad " * 10,
]
# What a process that has only the folders, and a folder of packages, does with each of them.
STANDALONE = """
import json, sys
from pathlib import Path

site, *folders = sys.argv[1:]
sys.path.append(site)
for folder in folders:
    sys.path.insert(0, folder)
    from load import load
    sys.path.pop(0), sys.modules.pop("load")
    labels, probabilities = load(folder)(json.loads(Path(folder, "../texts.json").read_text()))
    print(json.dumps([labels, probabilities.tolist(), "sentencepiece" in sys.modules]))
"""
NEEDED = ("jax", "flatbuffers", "numpy", "safetensors", "sentencepiece")  # by load.py


def settings(module, variant="", **model):
    config = module.get_config(variant) if variant else module.get_config()
    config.model.update({"embedding_size": 6, "hidden_size": 5, **model})
    config.data.update({"maxlen": MAXLEN, "num_words": 16})
    config.model.conv_filters = min(config.model.conv_filters, 4)
    config.train.eval_batch_size = 17
    return config


def own(**model):
    options = {"cell": "simple", "word_ngrams": 0, "character_ngrams": 0, **model}
    config = settings(text_config, **options)
    config.data.path = "reviews.csv"
    return config


CASES = {  # name → config, labels
    "imdb": (settings(imdb), ["neg", "pos"]),
    "imdb_keras": (settings(imdb, "keras"), ["neg", "pos"]),
    "wide": (settings(imdb, "fast", conv_pool=30, layers=2, word_ngrams=0), ["neg", "pos"]),
    "reuters": (settings(reuters), ["earn", "acq", "grain"]),
    "reuters_keras": (settings(reuters, "keras"), ["earn", "acq", "grain"]),
    "gru": (settings(reuters, cell="gru", pooling="attention", recompute=7), ["a", "b"]),
    "simple": (settings(reuters, cell="simple", recurrence="scan"), ["평", "a"]),
    "words": (own(), ["평", "a"]),
    "characters": (own(), ["평", "a", "b"]),
    "ngrams": (own(word_ngrams=2), ["평", "a", "b"]),
    "subword": (own(), ["평", "a", "b"]),  # the last one, which imports SentencePiece
}


def write_vocabulary(folder, name):
    """Replaces the vocabulary of a workdir by that of another tokenizer."""
    tokenizer = Tokenizer("words" if name == "ngrams" else name)
    if name == "subword":
        tokenizer = Tokenizer.learn(TEXTS, 60)
    vocabulary = Vocabulary.build(map(tokenizer, TEXTS), tokenizer).limit(16)
    vocabulary.save(folder / "vocabulary.json")


def write_ngrams(folder, longest, classes):
    """Adds a classifier of n-grams of words, with weights at random, to a workdir."""
    view = ngrams.View("words", longest)
    tokenized = [Tokenizer("words")(text) for text in TEXTS]
    hashes = ngrams.hash_tokens([token for tokens in tokenized for token in tokens])
    counts = ngrams.count(hashes, np.array([len(tokens) for tokens in tokenized]), view)
    codes, _ = ngrams.document_frequencies(counts)
    weights = np.random.default_rng(0).normal(size=(len(codes), classes)).astype(np.float32)
    idf = np.ones(len(codes), np.float32)
    bias = np.zeros(classes, np.float32)
    classifier = ngrams.NgramClassifier((view,), (codes,), (idf,), (weights,), bias)
    files.write_folder(folder / "ngrams", classifier.to_files())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The workdirs, and in `out` their exports."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "out").mkdir()
    for name, (config, labels) in CASES.items():
        workdir = saved_workdir(folder / name, config, labels)
        if name in (*TOKENIZERS, "ngrams"):
            write_vocabulary(workdir, name)
        if name == "ngrams":
            write_ngrams(workdir, config.model.word_ngrams, len(labels))
        export.export(workdir, folder / "out" / name)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of packages: those that `load.py` needs, and what they need themselves."""
    folder = tmp_path_factory.mktemp("site")
    names, found = list(NEEDED), set()
    while names:
        if (name := names.pop()) in found:
            continue
        found.add(name)
        package = metadata.distribution(name)
        wanted = [line for line in package.requires or [] if "extra ==" not in line]
        names += [re.match(r"[\w.-]+", line)[0] for line in wanted]
        for part in {file.parts[0] for file in package.files} - {".."}:
            (folder / part).symlink_to(package.locate_file(part))
    return folder


def test_every_tokenizer_is_exported():
    assert set(TOKENIZERS) < set(CASES)


def test_an_export_predicts_what_the_workdir_does(folder, site, tmp_path):
    rng = np.random.default_rng(0)  # more texts than the loader's batch
    texts = TEXTS + [" ".join(rng.choice(WORDS, n)) for n in rng.integers(1, 2 * MAXLEN, 70)]
    (folder / "out" / "texts.json").write_text(json.dumps(texts))
    folders = [str(folder / "out" / name) for name in CASES]
    done = subprocess.run(
        [sys.executable, "-ISB", "-c", STANDALONE, str(site), *folders],
        cwd=tmp_path,
        env={"XLA_FLAGS": os.environ["XLA_FLAGS"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, line in zip(CASES, done.stdout.splitlines(), strict=True):
        labels, probabilities = loaded(folder / name).predict(texts)
        found_labels, found, has_sentencepiece = json.loads(line)
        np.testing.assert_allclose(found, probabilities, rtol=0, atol=1e-6, err_msg=name)
        assert found_labels == labels
        assert np.ptp(probabilities, axis=0).max() > 0.1, name
        assert has_sentencepiece == (name == "subword")


@pytest.mark.parametrize(("module", "target"), [(language_model, "next"), (tagging, "tags")])
def test_what_is_no_classifier_is_refused(module, target, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    workdir = saved_workdir(tmp_path / "run", settings(module), ["0", "1", "2"], "characters")
    error = error_of(capsys, "--workdir", workdir, "--out", tmp_path / "out")
    assert f"{workdir} was trained with model.target={target}; only classifiers" in error
    assert not (tmp_path / "out").exists()


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

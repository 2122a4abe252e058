"""Weights from Keras files predict here what they predict in Keras."""

import importlib.util
import io
import os
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest
from helpers import ROOT, WORDS, python, write_keras_file

import flaxrnn
from configs import imdb, reuters
from flaxrnn import from_keras, loop
from flaxrnn.data import splitting
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.datasets import preparation, registry
from flaxrnn.errors import ConfigError, DataError, WorkdirError

MAXLEN, V, E, F, K, POOL, H = 20, 16, 6, 4, 5, 4, 3
TASKS = {"imdb": imdb, "reuters": reuters}
TEXTS = ["good", "Not a very good film", "the plot of oil, of grain " * 6, "unheard of"]


def settings(task, **changes):
    config = TASKS[task].get_config("keras")
    config.data.update({"maxlen": MAXLEN, "num_words": V})
    config.model.update({"embedding_size": E, "hidden_size": H, **changes})
    config.model.conv_filters = min(config.model.conv_filters, F)
    return config


def variables(task):
    """The chapter's model, made small: path in a Keras file → array."""
    rng = np.random.default_rng(0)
    shapes = {"embedding/vars/0": (V, E)}
    if task == "imdb":
        shapes |= {"conv1d/vars/0": (K, E, F), "conv1d/vars/1": (F,)}
    D = F if task == "imdb" else E
    shapes |= {f"lstm/cell/vars/{i}": s for i, s in enumerate([(D, 4 * H), (H, 4 * H), (4 * H,)])}
    outputs = 1 if task == "imdb" else 46
    shapes |= {"dense/vars/0": (H, outputs), "dense/vars/1": (outputs,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def architecture(task):
    """How a `.keras` file describes its layers."""
    layers = {
        "InputLayer": {},
        "Embedding": {"mask_zero": False},
        "Dropout": {"rate": 0.5},
        "Conv1D": {"activation": "relu", "padding": "valid", "strides": [1], "dilation_rate": [1]},
        "MaxPooling1D": {"pool_size": [POOL], "strides": [POOL], "padding": "valid"},
        "LSTM": {"activation": "tanh", "recurrent_activation": "sigmoid", "go_backwards": False},
        "Dense": {"activation": "sigmoid" if task == "imdb" else "softmax"},
    }
    if task == "reuters":
        del layers["Dropout"], layers["Conv1D"], layers["MaxPooling1D"]
    return layers


def write(path, arrays, layers=None):
    """Writes a file in the layout of Keras."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name, array in arrays.items():
            file[f"layers/{name}"] = array
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)
        file.create_group("layers/max_pooling1d/vars")
        file["optimizer/vars/0"] = 7
    described = [{"class_name": kind, "config": config} for kind, config in (layers or {}).items()]
    return write_keras_file(path, content.getvalue(), {"config": {"layers": described}})


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def keras(arrays, ids):
    """The probabilities of a padded text, int [T], by Keras's definitions of the layers."""
    x = arrays["embedding/vars/0"][ids]
    if "conv1d/vars/0" in arrays:
        kernel, bias = arrays["conv1d/vars/0"], arrays["conv1d/vars/1"]
        windows = [x[t : t + K] for t in range(len(x) - K + 1)]
        x = np.maximum([np.einsum("ke,kef->f", w, kernel) + bias for w in windows], 0)
        x = np.array([x[t : t + POOL].max(0) for t in range(0, len(x) - POOL + 1, POOL)])
    kernel, recurrent, bias = (arrays[f"lstm/cell/vars/{i}"] for i in range(3))
    h = c = np.zeros(H)
    for step in x:
        i, f, g, o = np.split(step @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    out = h @ arrays["dense/vars/0"] + arrays["dense/vars/1"]
    if len(out) == 1:
        return np.array([1 - sigmoid(out[0]), sigmoid(out[0])])
    return np.exp(out) / np.exp(out).sum()


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("task", TASKS)
def test_a_file_predicts_what_keras_would(task, suffix, tiny_corpus, tmp_path, capsys):
    arrays = variables(task)
    path = write(tmp_path / f"model{suffix}", arrays, architecture(task))
    from_keras.convert(path, settings(task), tmp_path / "run")
    size = sum(array.size for array in arrays.values())
    assert capsys.readouterr().out == f"{tmp_path / 'run'}: {size:,} parameters from {path}\n"
    assert tiny_corpus == [(task, "real")]
    _, probabilities = flaxrnn.load(tmp_path / "run").predict(TEXTS)
    vocabulary = Vocabulary(WORDS)
    rows = np.zeros((len(TEXTS), MAXLEN), np.int32)
    for row, t in zip(rows, TEXTS, strict=True):
        ids = vocabulary.encode(splitting.tokenize(t))[-MAXLEN:]
        row[MAXLEN - len(ids) :] = ids
    expected = np.array([keras(arrays, row) for row in rows])
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)
    assert np.ptp(expected, axis=0).max() > 1e-3  # texts do differ


def test_rows_of_words_that_the_corpus_lacks_are_dropped(tiny_corpus, tmp_path):
    arrays, more = variables("imdb"), np.ones((4, E), np.float32)
    arrays["embedding/vars/0"] = np.concatenate([arrays["embedding/vars/0"], more])
    config = settings("imdb")
    config.data.num_words = V + 4
    from_keras.convert(write(tmp_path / "a.weights.h5", arrays), config, tmp_path / "more")
    path = write(tmp_path / "b.weights.h5", variables("imdb"))
    from_keras.convert(path, settings("imdb"), tmp_path / "run")
    more, exact = (flaxrnn.load(tmp_path / name).predict(TEXTS)[1] for name in ("more", "run"))
    np.testing.assert_array_equal(more, exact)


def test_training_cannot_resume_from_weights(tiny_corpus, tmp_path):
    path = write(tmp_path / "a.weights.h5", variables("imdb"))
    from_keras.convert(path, settings("imdb"), tmp_path / "run")
    with pytest.raises(WorkdirError, match="holds only weights; training cannot resume"):
        loop.train_and_evaluate(settings("imdb"), tmp_path / "run")
    with pytest.raises(WorkdirError, match="run already holds a run; name a new folder"):
        from_keras.convert(path, settings("imdb"), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lstm/cell/vars/1": np.zeros((5, 20))}, "kernel of layer lstm is [5, 20], not [3, 12]"),
        ({"conv1d/vars/0": None}, "the file lacks the kernel [5, 6, 4] of layer conv1d"),
        ({"dense_1/vars/0": np.zeros((3, 2))}, "a layer dense_1, [3, 2], that the config does not"),
    ],
)  # fmt: skip
def test_another_model_is_named_by_layer_and_shape(changes, message, tiny_corpus, tmp_path):
    arrays = {name: a for name, a in (variables("imdb") | changes).items() if a is not None}
    path = write(tmp_path / "a.weights.h5", arrays)
    with pytest.raises(DataError) as caught:
        from_keras.convert(path, settings("imdb"), tmp_path / "run")
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("layer", "changes", "message"),
    [
        ("LSTM", None, "its layers are Embedding, Conv1D, MaxPooling1D, Dense, not Embedding, "),
        ("LSTM", {"activation": "relu"}, "activation of layer LSTM is 'relu', not 'tanh'"),
        ("MaxPooling1D", {"strides": [2]}, "strides of layer MaxPooling1D is [2], not [4]"),
    ],
)
def test_another_architecture_is_named(layer, changes, message, tiny_corpus, tmp_path):
    layers = architecture("imdb")
    if changes:
        layers[layer] |= changes
    else:
        del layers[layer]
    path = write(tmp_path / "a.keras", variables("imdb"), layers)
    with pytest.raises(DataError) as caught:
        from_keras.convert(path, settings("imdb"), tmp_path / "run")
    assert message in str(caught.value)


def test_other_files_are_refused(tiny_corpus, tmp_path):
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.create_group("model_weights")
    (tmp_path / "a.keras").write_bytes(b"x")
    (tmp_path / "a.weights.h5").write_bytes(b"x")
    with h5py.File(tmp_path / "flat.weights.h5", "w") as file:
        file["layers"] = 1
    for name in ("old.h5", "a.keras", "a.weights.h5", "flat.weights.h5"):
        with pytest.raises(DataError, match=r"not a \.keras, \.weights\.h5 or \.h5 file of Keras"):
            from_keras.convert(tmp_path / name, settings("imdb"), tmp_path / "run")
    with pytest.raises(DataError, match="there is no file nope"):
        from_keras.convert("nope", settings("imdb"), tmp_path / "run")


def test_another_kind_of_config_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"model\.cell: 'a:B' must be 'lstm' or 'gru' or 'simple'"
    ):
        from_keras.convert("x", settings("imdb", cell="a:B"), tmp_path)
    with pytest.raises(ConfigError, match=r"model\.word_ngrams: 2 must be 0 for a Keras model"):
        from_keras.convert("x", settings("imdb", word_ngrams=2), tmp_path)
    config = settings("imdb")
    config.task, config.data.path = "text", "a.csv"
    with pytest.raises(ConfigError, match="task: text has no Keras script"):
        from_keras.convert("x", config, tmp_path)


def hostile(tmp_path, attack):
    """A file of Reuters' model with one thing that Keras would not write."""
    path = tmp_path / "model.weights.h5"
    name = "layers/dense/vars/0"
    arrays = {**variables("reuters")}
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = arrays["dense/vars/0"]
    if attack in HOSTILE_NUMBERS:
        array = arrays["dense/vars/0"].astype(np.float64)
        array[0, 0] = HOSTILE_NUMBERS[attack]
        arrays["dense/vars/0"] = array
    write(path, arrays)
    shape = arrays["dense/vars/0"].shape
    with h5py.File(path, "a") as file:
        if attack not in HOSTILE_NUMBERS:
            del file[name]
        if attack == "external link":
            file[name] = h5py.ExternalLink(str(secret), "/x")
        elif attack == "soft link":
            file[name] = h5py.SoftLink("/layers/elsewhere")
        elif attack == "external storage":
            stored = [(str(secret), 0, h5py.h5f.UNLIMITED)]
            file.create_dataset(name, shape, "f4", external=stored)
        elif attack == "virtual":
            layout = h5py.VirtualLayout(shape, "f4")
            layout[:] = h5py.VirtualSource(str(secret), "x", shape)
            file.create_virtual_dataset(name, layout)
        elif attack == "compressed":
            file.create_dataset(name, shape, "f4", compression="gzip")
        elif attack == "large chunks":
            many = {"maxshape": (None, None), "chunks": (2**14, 2**14)}
            file.create_dataset(name, shape, "f4", **many)
        elif attack == "strings":
            file.create_dataset(name, shape, "S1000000")
        elif attack == "cycle":
            file["layers/dense/again"] = file["layers/dense"]
    return path


HOSTILE_NUMBERS = {"nan": np.nan, "infinite": np.inf, "too large for float32": 1e300}
HOSTILE = {
    "external link": "0 is a link, perhaps to another file",
    "soft link": "0 is a link",
    "external storage": "dense/kernel is stored in another file",
    "virtual": "dense/kernel is stored in another file",
    "compressed": "dense/kernel is compressed",
    "large chunks": "dense/kernel is stored in chunks",
    "strings": r"dense/kernel holds \|S1000000",
    "cycle": "nested too deeply",
    **dict.fromkeys(HOSTILE_NUMBERS, "dense/kernel has numbers that are not finite"),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_what_keras_does_not_write_is_refused(attack, tiny_corpus, tmp_path):
    path = hostile(tmp_path, attack)
    with pytest.raises(DataError, match=HOSTILE[attack]):
        from_keras.convert(path, settings("reuters"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_zip_bomb_is_not_unpacked(tiny_corpus, tmp_path):
    path = write(tmp_path / "model.keras", variables("reuters"), architecture("reuters"))
    with zipfile.ZipFile(path) as archive:
        described = archive.read("config.json")
    for name in ("model.weights.h5", "config.json"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            if name != "config.json":
                archive.writestr("config.json", described)
            with archive.open(name, "w") as member:
                for _ in range(70):
                    member.write(bytes(2**20))
        with pytest.raises(DataError, match=f"{name} unpacks to more than (16|64) MiB"):
            from_keras.convert(path, settings("reuters"), tmp_path / "run")


def test_a_named_pipe_is_not_opened(tiny_corpus, tmp_path):
    os.mkfifo(tmp_path / "model.keras")
    with pytest.raises(DataError, match="there is no regular file"):
        from_keras.convert(tmp_path / "model.keras", settings("reuters"), tmp_path / "run")


def test_without_h5py_one_line_says_so(tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"needs h5py; pip install 'flaxrnn\[keras\]'"):
        from_keras.convert("x", settings("imdb"), tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "configs/imdb.py:keras", "--workdir", "x"], "WEIGHTS: missing"),
        (["a", "--config", "configs/imdb.py:keras"], "--workdir: missing"),
        (["a", "b", "--config", "configs/imdb.py:keras"], "b: unexpected argument"),
        (["a", "--config", "configs/imdb.py", "--workdir", "x"], "data.padding: 'post' must be"),
        (
            ["a", "--config", "configs/reuters.py:fast", "--workdir", "x"],
            "model.pooling: 'max' must",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message):
    command = [*python(), "-m", "flaxrnn.from_keras", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


# The chapter's two scripts, for a few steps: files, and probabilities of 200 test texts.
CHAPTER = """
import sys
import keras
import numpy as np
import flaxrnn
from benchmarks import baselines

keras.utils.set_random_seed(0)
for task, words, maxlen, count in (("reuters", 1_000, 100, 800), ("imdb", 5_000, 500, 160)):
    data = flaxrnn.load_data(task, num_words=words, maxlen=maxlen, source="real")
    (x_train, y_train), (x_test, _) = data
    loss = "sparse_categorical_crossentropy" if task == "reuters" else "binary_crossentropy"
    model = baselines.chapter_model(task)
    model.compile(loss=loss, optimizer=keras.optimizers.Adam(0.01))
    model.fit(x_train[:count], y_train[:count], batch_size=20, epochs=1, verbose=0)
    model.save(f"{sys.argv[1]}/{task}.keras")
    model.save(f"{sys.argv[1]}/{task}.h5")
    model.save_weights(f"{sys.argv[1]}/{task}.weights.h5")
    np.save(f"{sys.argv[1]}/{task}.npy", model.predict(x_test[:200], verbose=0))
"""


def test_keras_itself_predicts_the_same(tmp_path):
    if importlib.util.find_spec("keras") is None:
        pytest.skip("needs Keras, which the tests do not install")
    if not all(
        (preparation.data_root(None) / name).is_dir()
        for name in ("imdb_sentiment", "reuters_topics")
    ):
        pytest.skip("needs the real corpora, prepared by a run on each")
    env = {**os.environ, "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-c", CHAPTER, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=env, check=True)
    for task, config in TASKS.items():
        builder = preparation.prepare(registry.TASKS[task], "real")
        source = builder.as_data_source("test")
        texts = [source[i]["text"].decode() for i in range(200)]
        expected = np.load(tmp_path / f"{task}.npy")
        if task == "imdb":
            expected = np.hstack([1 - expected, expected])
        assert np.ptp(expected, axis=0).max() > 1e-3  # they do differ
        for suffix in (".keras", ".h5", ".weights.h5"):
            run = tmp_path / f"{task}{suffix}-run"
            from_keras.convert(tmp_path / f"{task}{suffix}", config.get_config("keras"), run)
            _, probabilities = flaxrnn.load(run).predict(texts)
            np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-5)

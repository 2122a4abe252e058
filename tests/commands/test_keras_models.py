"""Every kind of file that Keras writes, and every kind of model that is read from it.

`model` makes the variables of a model, `LAYOUTS` puts them where a version of Keras does.
"""

import importlib.util
import io
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from helpers import ROOT, WORDS, write_keras_file

import flaxrnn
from configs import imdb, reuters
from flaxrnn import from_keras
from flaxrnn.data import splitting
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.errors import ConfigError, DataError

MAXLEN, V, E, H = 20, 16, 6, 3
TASKS = {"imdb": imdb, "reuters": reuters}
CLASSES = {"lstm": "LSTM", "gru": "GRU", "simple": "SimpleRNN"}
GATES = {"lstm": 4, "gru": 3, "simple": 1}
TEXTS = ["good", "Not a very good film", "the plot of oil, of grain " * 6, "unheard of"]
# Task, cell, whether it reads in both directions, whether padding is masked, outputs.
MODELS = {
    "lstm": ("reuters", "lstm", False, False, 46),
    "masked lstm": ("reuters", "lstm", False, True, 46),
    "gru": ("imdb", "gru", False, False, 1),
    "both directions of a masked gru": ("reuters", "gru", True, True, 46),
    "both directions of a simple rnn": ("imdb", "simple", True, False, 2),
}


def settings(task, cell, bidirectional, masked, outputs):
    config = TASKS[task].get_config()
    config.data.update({"maxlen": MAXLEN, "num_words": V, "padding": "post" if masked else "pre"})
    config.model.update({"embedding_size": E, "hidden_size": H, "conv_filters": 0})
    config.model.update({"cell": cell, "bidirectional": bidirectional})
    return config


def model(task, cell, bidirectional, masked, outputs):
    """What a layer is, and the variable → numbers, in Keras' layout."""
    rng = np.random.default_rng(0)
    width = GATES[cell] * H
    bias = (2, width) if cell == "gru" else (width,)
    shapes = {"embed/embeddings": (V, E)}
    for direction in ("forward/", "backward/") if bidirectional else ("",):
        shapes[f"recurrent/{direction}kernel"] = (E, width)
        shapes[f"recurrent/{direction}recurrent_kernel"] = (H, width)
        shapes[f"recurrent/{direction}bias"] = bias
    features = 2 * H if bidirectional else H
    shapes |= {"dense/kernel": (features, outputs), "dense/bias": (outputs,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def architecture(task, cell, bidirectional, masked, outputs):
    """How Keras describes the layers, some of which do nothing in prediction."""
    one_way = {"activation": "tanh", "recurrent_activation": "sigmoid", "go_backwards": False}
    one_way |= {"return_sequences": False, "stateful": False, "reset_after": True, "dropout": 0.1}
    layer = {"class_name": CLASSES[cell], "config": one_way}
    if bidirectional:
        other_way = {"class_name": CLASSES[cell], "config": one_way | {"go_backwards": True}}
        both = {"merge_mode": "concat", "layer": layer, "backward_layer": other_way}
        layer = {"class_name": "Bidirectional", "config": both}
    activation = "sigmoid" if outputs == 1 else "softmax"
    layers = [
        {"class_name": "InputLayer", "config": {}},
        {"class_name": "Embedding", "config": {"mask_zero": masked}},
        {"class_name": "SpatialDropout1D", "config": {"rate": 0.5}},
        layer,
        {"class_name": "Dropout", "config": {"rate": 0.5}},
        {"class_name": "Dense", "config": {"units": outputs, "activation": activation}},
    ]
    return {"class_name": "Sequential", "config": {"layers": layers}}


def numbered(arrays, cell):
    """The variables as Keras 3 numbers them."""
    orders = {"embed": ["embeddings"], "dense": ["kernel", "bias"]}
    orders["recurrent"] = ["kernel", "recurrent_kernel", "bias"]
    kind = {"simple": "simple_rnn"}.get(cell, cell)
    found = {}
    for name, array in arrays.items():
        role, *direction, variable = name.split("/")
        place = {"embed": "embedding", "dense": "dense", "recurrent": f"{kind}/cell"}[role]
        if direction:
            place = f"bidirectional/{direction[0]}_layer/cell"
        found[f"{place}/vars/{orders[role].index(variable)}"] = array
    return found


def named(arrays, cell, layers, path):
    """The variables by their names, as older files have them."""
    found = {}
    for name, array in arrays.items():
        role, *direction, variable = name.split("/")
        layer = layers[role]
        inner = f"{direction[0]}_{cell}_2/{cell}_cell/" if direction else f"{cell}_cell/"
        inner = inner if role == "recurrent" else ""
        found[f"{layer}/" + path.format(layer=layer, inner=inner, variable=variable)] = array
    return found


USERS_NAMES = {"embed": "words", "recurrent": "reader", "dense": "topics"}
NUMBERED_NAMES = {"embed": "embedding_3", "recurrent": "bidirectional_1", "dense": "dense_2"}
# Suffix → the group of all layers, then where the variables are in it.
LAYOUTS = {
    "numbered.keras": ("layers", numbered),
    "numbered.weights.h5": ("layers", numbered),
    "early.weights.h5": ("_layer_checkpoint_dependencies", numbered),
    "keras2.h5": (
        "model_weights",
        lambda a, cell: named(a, cell, USERS_NAMES, "{layer}/{inner}{variable}:0"),
    ),
    "keras3.h5": (
        "model_weights",
        lambda a, cell: named(a, cell, NUMBERED_NAMES, "sequential/{layer}/{inner}{variable}"),
    ),
    "weights_of_keras2.h5": (
        "",
        lambda a, cell: named(a, cell, USERS_NAMES, "{layer}/{inner}{variable}:0"),
    ),
}


def write(path, arrays, described, cell):
    """Writes a file in the layout that its name says."""
    group, place = LAYOUTS[path.name]
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        root = file.create_group(group) if group else file
        for name, array in place(arrays, cell).items():
            root[name] = array
        if place is not numbered:
            root.attrs["layer_names"] = np.array([b"words", b"reader", b"topics"])
            root.create_group("dropout")
            root.create_group("top_level_model_weights")
        if group == "model_weights":
            file.attrs["model_config"] = json.dumps(described).encode()
            file["optimizer_weights/Adam/iterations:0"] = 7
    return write_keras_file(path, content.getvalue(), described)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def last_state(cell, kernel, recurrent, bias, inputs):
    """The output after the last input, by Keras' definitions of its cells."""
    h = c = np.zeros(H)
    for x in inputs:
        if cell == "gru":
            z, r, n = np.split(x @ kernel + bias[0], 3)
            z_h, r_h, n_h = np.split(h @ recurrent + bias[1], 3)
            z = sigmoid(z + z_h)
            h = z * h + (1 - z) * np.tanh(n + sigmoid(r + r_h) * n_h)
        elif cell == "simple":
            h = np.tanh(x @ kernel + h @ recurrent + bias)
        else:
            i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
    return h


def keras(arrays, cell, ids):
    """The probabilities of a text, int [T]."""
    inputs = arrays["embed/embeddings"][ids]
    names = ("kernel", "recurrent_kernel", "bias")
    if "recurrent/forward/kernel" in arrays:
        ways = {"forward": inputs, "backward": inputs[::-1]}
        states = [
            last_state(cell, *(arrays[f"recurrent/{way}/{n}"] for n in names), x)
            for way, x in ways.items()
        ]
        state = np.concatenate(states)
    else:
        state = last_state(cell, *(arrays[f"recurrent/{n}"] for n in names), inputs)
    out = state @ arrays["dense/kernel"] + arrays["dense/bias"]
    if len(out) == 1:
        return np.array([1 - sigmoid(out[0]), sigmoid(out[0])])
    return np.exp(out) / np.exp(out).sum()


def encoded(masked):
    """The ids of `TEXTS`, padded on the left unless they are masked."""
    vocabulary, rows = Vocabulary(WORDS), []
    for text in TEXTS:
        ids = vocabulary.encode(splitting.tokenize(text))[-MAXLEN:]
        rows.append(np.array(ids if masked else [0] * (MAXLEN - len(ids)) + ids))
    return rows


@pytest.mark.parametrize("name", MODELS)
def test_a_model_predicts_what_keras_would(name, tiny_corpus, tmp_path):
    kind = MODELS[name]
    _, cell, _, masked, _ = kind
    arrays = model(*kind)
    path = write(tmp_path / "keras2.h5", arrays, architecture(*kind), cell)
    from_keras.convert(path, settings(*kind), tmp_path / "run")
    _, probabilities = flaxrnn.load(tmp_path / "run").predict(TEXTS)
    expected = np.array([keras(arrays, cell, ids) for ids in encoded(masked)])
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)
    assert np.ptp(expected, axis=0).max() > 1e-3  # texts do differ


def shapes_of(arrays, cell):
    """The shapes of our parameters."""
    found = {"embed/embedding": (V, E), "dense/bias": (1,)}
    found["dense/kernel"] = (arrays["dense/kernel"].shape[0], 1)
    for name, array in arrays.items():
        if name.startswith("recurrent/"):
            found[name.replace("recurrent/", f"{cell}_0/", 1)] = array.shape[-1:]
            if not name.endswith("bias"):
                found[name.replace("recurrent/", f"{cell}_0/", 1)] = array.shape
            elif cell == "gru":
                found[name.replace("recurrent/", "gru_0/").replace("bias", "recurrent_bias")] = (H,)
    return found


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CLASSES)
def test_every_file_has_the_same_weights(cell, bidirectional, tmp_path):
    kind = ("imdb", cell, bidirectional, True, 1)
    arrays = model(*kind)
    shapes = shapes_of(arrays, cell)
    read = {}
    for name in LAYOUTS:
        path = write(tmp_path / name, arrays, architecture(*kind), cell)
        read[name] = from_keras.read_weights(path, shapes, 4, masked=True)
    for name, params in read.items():
        assert {n: a.shape for n, a in params.items()} == shapes
        for parameter, array in params.items():
            np.testing.assert_array_equal(array, read["keras2.h5"][parameter], err_msg=name)


def test_a_convolution_is_read_from_an_older_file_whatever_the_mask(tmp_path):
    kind = ("imdb", "lstm", False, True, 1)
    arrays, described = model(*kind), architecture(*kind)
    shapes = shapes_of(arrays, "lstm") | {"conv/kernel": (5, E, E), "conv/bias": (E,)}
    arrays |= {"conv/kernel": np.ones((5, E, E)), "conv/bias": np.ones(E)}
    conv = {"activation": "relu", "padding": "valid", "strides": [1], "dilation_rate": 1}
    pool = {"pool_size": 4, "strides": [4], "padding": "valid"}
    described["config"] = described["config"]["layers"]  # as the first releases of Keras 2 did
    described["config"][3:3] = [
        {"class_name": "Conv1D", "config": conv},
        {"class_name": "MaxPooling1D", "config": pool},
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(USERS_NAMES, "conv", "phrases")
        path = write(tmp_path / "keras2.h5", arrays, described, "lstm")
    params = from_keras.read_weights(path, shapes, 4)
    np.testing.assert_array_equal(params["conv/kernel"], arrays["conv/kernel"])


def test_settings_that_a_file_does_not_have_are_the_configs(tmp_path, capsys):
    kind = ("imdb", "lstm", False, True, 1)
    arrays = model(*kind)
    for name in LAYOUTS:
        path = write(tmp_path / name, arrays, architecture(*kind), "lstm")
        from_keras.read_weights(path, shapes_of(arrays, "lstm"), 4, masked=True)
        note = f"note: {path} says no settings of layers: they are the config's, mask_zero=True\n"
        assert capsys.readouterr().err == (note if "weights" in name else "")


def recurrent_settings(described):
    """The settings of the layer that reads the text."""
    return described["config"]["layers"][3]["config"]


@pytest.mark.parametrize(
    ("cell", "bidirectional", "changes", "message"),
    [
        ("gru", False, {"reset_after": False}, "reset_after of layer GRU is False, not True"),
        ("lstm", False, {"stateful": True}, "stateful of layer LSTM is True, not False"),
        ("lstm", False, {"return_sequences": True}, "return_sequences of layer LSTM is True"),
        ("lstm", False, {"recurrent_activation": "hard_sigmoid"}, "is 'hard_sigmoid', not"),
        ("simple", False, {"activation": "relu"}, "activation of layer SimpleRNN is 'relu'"),
        ("lstm", True, {"merge_mode": "sum"}, "merge_mode of layer Bidirectional is 'sum'"),
    ],
)
def test_what_our_layers_do_not_compute_is_refused_by_name(
    cell, bidirectional, changes, message, tmp_path
):
    kind = ("imdb", cell, bidirectional, False, 1)
    arrays, described = model(*kind), architecture(*kind)
    recurrent_settings(described).update(changes)
    for name in ("keras2.h5", "numbered.keras"):
        path = write(tmp_path / name, arrays, described, cell)
        with pytest.raises(DataError, match=message):
            from_keras.read_weights(path, shapes_of(arrays, cell), 4)


def test_a_backward_layer_of_another_kind_is_refused(tmp_path):
    kind = ("imdb", "lstm", True, False, 1)
    arrays = model(*kind)
    for part, value, message in (
        ("class_name", "GRU", "its backward layer is not LSTM"),
        ("config", {"go_backwards": False}, "go_backwards of layer backward LSTM is False"),
        ("config", {"activation": "relu"}, "activation of layer backward LSTM is 'relu'"),
    ):
        described = architecture(*kind)
        recurrent_settings(described)["backward_layer"][part] = value
        path = write(tmp_path / "keras3.h5", arrays, described, "lstm")
        with pytest.raises(DataError, match=message):
            from_keras.read_weights(path, shapes_of(arrays, "lstm"), 4)


def test_a_mask_belongs_to_the_padding_of_the_config(tmp_path):
    kind = ("imdb", "lstm", False, True, 1)
    arrays = model(*kind)
    path = write(tmp_path / "keras2.h5", arrays, architecture(*kind), "lstm")
    with pytest.raises(
        DataError, match=r"mask_zero .* is True, not False; that is data\.padding=p"
    ):
        from_keras.read_weights(path, shapes_of(arrays, "lstm"), 4)
    config = TASKS["imdb"].get_config()
    with pytest.raises(ConfigError, match=r"data\.padding: 'post' must be 'pre' with a convolut"):
        from_keras.convert(path, config, tmp_path / "run")


def test_another_gru_and_another_cell_are_named_by_their_shapes(tmp_path):
    kind = ("imdb", "gru", False, False, 1)
    arrays = model(*kind)
    old = arrays | {"recurrent/bias": arrays["recurrent/bias"][0]}
    path = write(tmp_path / "weights_of_keras2.h5", old, None, "gru")
    with pytest.raises(DataError, match=r"bias of layer reader is \[9\], .*reset_after=False"):
        from_keras.read_weights(path, shapes_of(arrays, "gru"), 4)
    lstm = model("imdb", "lstm", False, False, 1)
    path = write(tmp_path / "weights_of_keras2.h5", lstm, None, "lstm")
    with pytest.raises(DataError, match=r"kernel of layer reader is \[6, 12\], not \[6, 9\]"):
        from_keras.read_weights(path, shapes_of(arrays, "gru"), 4)
    path = write(tmp_path / "keras2.h5", lstm, architecture("imdb", "lstm", 0, 0, 1), "lstm")
    with pytest.raises(DataError, match="its layers are Embedding, LSTM, Dense, not Embedding, G"):
        from_keras.read_weights(path, shapes_of(arrays, "gru"), 4)


def test_a_variable_that_is_there_twice_is_refused(tmp_path):
    kind = ("imdb", "lstm", False, False, 1)
    arrays = model(*kind)
    path = write(tmp_path / "keras2.h5", arrays, architecture(*kind), "lstm")
    with h5py.File(path, "a") as file:
        file["model_weights/topics/again/kernel:0"] = arrays["dense/kernel"]
    with pytest.raises(DataError, match="the file has a layer topics, "):
        from_keras.read_weights(path, shapes_of(arrays, "lstm"), 4)


HOSTILE = {
    "soft link": "model_weights is a link",
    "external link": "model_weights is a link",
    "link in a layer": "topics is a link",
    "numbers": "its model_config is not a single text",
    "many texts": "its model_config is not a single text",
    "long text": "its model_config has more than 16 MiB",
    "no JSON": "not a .keras, .weights.h5 or .h5 file of Keras .is not valid JSON",
    "large": "has more than 64 MiB",
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_what_keras_does_not_write_is_refused(attack, tmp_path):
    kind = ("imdb", "lstm", False, False, 1)
    arrays = model(*kind)
    path = write(tmp_path / "keras2.h5", arrays, architecture(*kind), "lstm")
    secret = write(tmp_path / "keras3.h5", arrays, architecture(*kind), "lstm")
    texts = {
        "numbers": np.ones(3),
        "many texts": [b"{}", b"{}"],
        "long text": b" " * (17 * 2**20),
        "no JSON": b"{",
    }
    with h5py.File(path, "a") as file:
        if attack in texts:
            file.attrs["model_config"] = texts[attack]
        elif attack == "soft link":
            file.move("model_weights", "elsewhere")
            file["model_weights"] = h5py.SoftLink("/elsewhere")
        elif attack == "external link":
            del file["model_weights"]
            file["model_weights"] = h5py.ExternalLink(str(secret), "/model_weights")
        elif attack == "link in a layer":
            del file["model_weights/topics"]
            file["model_weights/topics"] = h5py.ExternalLink(str(secret), "/model_weights/dense_2")
    if attack == "large":
        os.truncate(path, 65 * 2**20)
    with pytest.raises(DataError, match=HOSTILE[attack]):
        from_keras.read_weights(path, shapes_of(arrays, "lstm"), 4)


# Builds the models in Keras and trains each for a step: their files, and what they predict.
TRAIN = """
import json, sys
import keras
import numpy as np
from keras import layers

folder, V, E, H, maxlen = sys.argv[1], *map(int, sys.argv[2:6])
rows = np.load(f"{folder}/rows.npy")
cells = {"lstm": layers.LSTM, "gru": layers.GRU, "simple": layers.SimpleRNN}
for i, (task, cell, bidirectional, masked, outputs) in enumerate(json.loads(sys.argv[6])):
    keras.utils.set_random_seed(i)
    layer = cells[cell](H, dropout=0.2, recurrent_dropout=0.2)
    model = keras.Sequential([
        keras.Input((maxlen,)),
        layers.Embedding(V, E, mask_zero=masked),
        layers.SpatialDropout1D(0.3),
        layers.Bidirectional(layer) if bidirectional else layer,
        layers.GaussianNoise(0.1),
        layers.Dense(outputs, activation="sigmoid" if outputs == 1 else "softmax"),
    ])
    model.set_weights([np.random.normal(size=w.shape) for w in model.get_weights()])
    loss = "binary_crossentropy" if outputs == 1 else "sparse_categorical_crossentropy"
    model.compile(loss=loss, optimizer="adam")
    model.train_on_batch(rows, np.arange(len(rows)) % min(outputs + 1, 2))
    model.save(f"{folder}/{i}.keras")
    model.save(f"{folder}/{i}.h5")
    model.save_weights(f"{folder}/{i}.weights.h5")
    np.save(f"{folder}/{i}.npy", model.predict(rows, verbose=0))
"""


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="needs Keras")
def test_keras_itself_predicts_the_same(tiny_corpus, tmp_path):
    np.save(tmp_path / "rows.npy", encoded(masked=False))
    env = {**os.environ, "KERAS_BACKEND": "jax"}
    kinds = json.dumps(list(MODELS.values()))
    arguments = [str(tmp_path), *map(str, (V, E, H, MAXLEN)), kinds]
    subprocess.run([sys.executable, "-c", TRAIN, *arguments], cwd=ROOT, env=env, check=True)
    for i, kind in enumerate(MODELS.values()):
        expected = np.load(tmp_path / f"{i}.npy")
        if kind[-1] == 1:
            expected = np.hstack([1 - expected, expected])
        assert np.ptp(expected, axis=0).max() > 1e-3  # texts do differ
        for suffix in (".keras", ".h5", ".weights.h5"):
            run = tmp_path / f"{i}{suffix}-run"
            from_keras.convert(tmp_path / f"{i}{suffix}", settings(*kind), run)
            _, probabilities = flaxrnn.load(run).predict(TEXTS)
            np.testing.assert_allclose(probabilities, expected, 0, 1e-5, err_msg=f"{kind}{suffix}")


def test_words_have_the_ids_of_a_word_index(tiny_corpus, tmp_path):
    kind = MODELS["masked lstm"]
    arrays = model(*kind)
    path = write(tmp_path / "keras2.h5", arrays, architecture(*kind), "lstm")
    ranks = {word: rank for rank, word in enumerate(reversed(WORDS), 1)}
    (tmp_path / "index.json").write_text(json.dumps(ranks))
    from_keras.convert(path, settings(*kind), tmp_path / "run", str(tmp_path / "index.json"))
    _, probabilities = flaxrnn.load(tmp_path / "run").predict(TEXTS[:1])
    ids = np.array([1, ranks["good"] + 3])
    np.testing.assert_allclose(probabilities[0], keras(arrays, "lstm", ids), rtol=0, atol=1e-6)

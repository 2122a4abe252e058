"""The parameters of a trained model in a new one."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import ROOT, WORDS, init_params, saved_workdir, shrink

from configs import imdb, language_model, reuters, text
from flaxrnn.config import parse
from flaxrnn.data.vocabulary import FIRST_WORD, Vocabulary
from flaxrnn.errors import ConfigError, DataError, WorkdirError
from flaxrnn.nn import models
from flaxrnn.training import checkpoint, trained, transfer

OTHER = ["plot", "new", "the"]  # two of WORDS, in another order, and one more


def carry_over(source, words=OTHER, labels=("neg", "pos"), **fields):
    """Initial parameters of a model like the source's but for some fields, and what they become."""
    vocabulary = Vocabulary(words)
    config = dataclasses.replace(source.config.model, **fields)
    model = models.build(config, vocabulary.num_words, len(labels))
    params = init_params(model, jax.random.key(1))
    return params, *transfer.carry_over(params, model, vocabulary, list(labels), source)


def old_params(source):
    return checkpoint.read_weights(source.checkpoint)


def assert_rows_are_carried_by_word(new, old, initial):
    """Of arrays with one row per word."""
    special = slice(0, FIRST_WORD)
    np.testing.assert_array_equal(new[special], old[special])
    for row, word in enumerate(OTHER, FIRST_WORD):
        known = word in WORDS
        expected = old[FIRST_WORD + WORDS.index(word)] if known else initial[row]
        np.testing.assert_array_equal(new[row], expected)


def test_rows_go_with_their_words_and_layers_as_they_are(imdb_workdir):
    source = trained.read(imdb_workdir)
    initial, new, ids, same_outputs = carry_over(source)
    old = old_params(source)
    embedding = new["embed"]["embedding"]
    assert_rows_are_carried_by_word(
        embedding, old["embed/embedding"], initial["embed"]["embedding"]
    )
    assert ids.tolist() == [FIRST_WORD, FIRST_WORD + 2]
    assert same_outputs
    others = checkpoint.flatten_by_path({k: v for k, v in new.items() if k != "embed"})
    assert {path.partition("/")[0] for path in others} == {"conv", "lstm_0", "dense"}
    for path, array in others.items():
        np.testing.assert_array_equal(array, old[path])


@pytest.mark.parametrize(
    "change", [{"labels": ("pos", "neg")}, {"pooling": "mean"}, {"labels": ("a", "b", "c")}]
)
def test_other_outputs_have_a_new_layer(change, imdb_workdir):
    initial, new, _, same_outputs = carry_over(trained.read(imdb_workdir), **change)
    assert not same_outputs
    np.testing.assert_array_equal(new["dense"]["kernel"], initial["dense"]["kernel"])
    assert (new["lstm_0"]["kernel"] != initial["lstm_0"]["kernel"]).any()


@pytest.fixture
def language(tmp_path):
    config = shrink(reuters.get_config())
    config.model.target = "next"
    return trained.read(saved_workdir(tmp_path / "language", config, ["unused", "labels"]))


def test_the_outputs_of_a_language_model_are_words(language):
    initial, new, _, same_outputs = carry_over(language)
    assert same_outputs
    old = old_params(language)
    for name in ("kernel", "bias"):
        arrays = (new["dense"][name], old[f"dense/{name}"], initial["dense"][name])
        assert_rows_are_carried_by_word(*(np.asarray(array).T for array in arrays))


def test_the_forward_direction_starts_with_a_model_of_one_direction(language):
    fields = {"target": "label", "bidirectional": True, "pooling": "attention"}
    initial, new, _, same_outputs = carry_over(language, **fields)
    assert not same_outputs
    for name, array in new["lstm_0"]["forward"].items():
        np.testing.assert_array_equal(array, old_params(language)[f"lstm_0/{name}"])
    for layer in (("lstm_0", "backward"), ("pool",), ("dense",)):
        before, after = initial, new
        for name in layer:
            before, after = before[name], after[name]
        jax.tree.map(np.testing.assert_array_equal, before, after)


def test_no_shared_word_is_refused(imdb_workdir):
    with pytest.raises(DataError, match=r"train\.init_from: .*imdb has none of the 1 words"):
        carry_over(trained.read(imdb_workdir), words=["new"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("lstm_0/kernel"), r"lstm_0/kernel is float64\[0\], not float32\[4, 20\]"),
        (lambda a: a.update({"lstm_0/kernel": np.zeros((4, 8), np.float32)}), r"float32\[4, 8\]"),
        (lambda a: a["embed/embedding"].fill(np.nan), "the weights of .* are not finite"),
        (lambda a: a.update({"embed/embedding": np.zeros((9, 6), np.float32)}), r"\[9, 6\], not"),
    ],
)
def test_weights_that_are_not_those_of_the_config_are_refused(
    change, message, imdb_workdir, monkeypatch
):
    source = trained.read(imdb_workdir)
    arrays = old_params(source)
    change(arrays)
    monkeypatch.setattr(checkpoint, "read_weights", lambda folder: arrays)
    with pytest.raises(WorkdirError, match=rf"train\.init_from: .*{message}"):
        carry_over(source)


@pytest.mark.parametrize(
    ("group", "field", "value", "message"),
    [
        ("model", "hidden_size", 7, "must be 5, not 7"),
        ("model", "embedding_size", 7, "must be 6, not 7"),
        ("model", "layers", 2, "must be 1, not 2"),
        ("model", "cell", "gru", "must be lstm, not gru"),
        ("model", "conv_filters", 0, "must be 4, not 0"),
        ("model", "conv_width", 3, "must be 5, not 3"),
        ("data", "tokenizer", "characters", "must be words, not characters"),
    ],
)
def test_other_layers_and_tokens_are_refused_by_name(group, field, value, message, imdb_workdir):
    config = shrink(imdb.get_config())
    transfer.check(parse(config), trained.read(imdb_workdir))
    config[group][field] = value
    with pytest.raises(ConfigError) as refused:
        transfer.check(parse(config), trained.read(imdb_workdir))
    assert str(refused.value) == (
        f"{group}.{field}: {message}: that of train.init_from={imdb_workdir}"
    )


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("is_two", [False, True])
def test_a_backward_direction_can_be_added_to_one_layer(layers, is_two, tmp_path):
    config = shrink(reuters.get_config(), layers=layers, bidirectional=is_two)
    source = trained.read(saved_workdir(tmp_path / "run", config, ["a", "b"]))
    config.model.bidirectional = not is_two
    if not is_two and layers == 1:
        transfer.check(parse(config), source)
        return
    with pytest.raises(ConfigError, match=rf"bidirectional: must be {is_two}, not {not is_two}: "):
        transfer.check(parse(config), source)


def test_an_automatic_tokenizer_is_the_sources(imdb_workdir):
    config = shrink(imdb.get_config())
    config.data.tokenizer = "auto"
    transfer.check(parse(config), trained.read(imdb_workdir))


def test_the_models_of_both_commands_of_the_page_fit_each_other():
    language, classifier = language_model.get_config("text").model, text.get_config().model
    assert language.embedding_size == classifier.embedding_size
    flag = f"--config.model.hidden_size={classifier.hidden_size}\n"
    assert flag in (ROOT / "docs" / "howto" / "unlabelled.md").read_text("utf-8")
    assert (language.cell, language.layers) == (classifier.cell, classifier.layers)

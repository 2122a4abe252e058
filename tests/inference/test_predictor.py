"""Predictions for any text, one by one or in batches, and workdirs that cannot predict."""

import functools
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import loaded, saved_workdir, shrink
from hypothesis import given, settings
from hypothesis import strategies as st

import flaxrnn
from configs import imdb
from flaxrnn.data import splitting
from flaxrnn.errors import ConfigError, DataError, WorkdirError
from flaxrnn.inference import saved
from flaxrnn.nn import models
from flaxrnn.runtime import files

MAXLEN = 20

# Up to 10,000 characters of any kind, without the time it takes to draw each of them.
any_text = st.text(max_size=60) | st.builds(
    lambda piece, times: (piece * times)[:10_000],
    st.text(min_size=1, max_size=40) | st.sampled_from(["good ", "bad ", "film "]),
    st.integers(1, 10_000),
)


@settings(max_examples=60)
@given(texts=st.lists(any_text, max_size=40))
def test_the_batch_does_not_change_a_prediction(imdb_workdir, reuters_workdir, texts):
    texts = [text for text in texts if splitting.tokenize(text)]
    for workdir in (imdb_workdir, reuters_workdir):
        model = loaded(workdir)
        labels, probabilities = model.predict(texts)
        assert labels == [model.label_names[row.argmax()] for row in probabilities]
        np.testing.assert_allclose(probabilities.sum(axis=1), np.ones(len(texts)), rtol=1e-5)
        for i, text in enumerate(texts[:3]):
            np.testing.assert_allclose(model.predict([text])[1][0], probabilities[i], atol=1e-5)
        reverse = model.predict(texts[::-1])[1][::-1]
        np.testing.assert_allclose(reverse, probabilities, atol=1e-5)


@given(text=any_text)
def test_spans_are_the_words_as_spelled(imdb_workdir, text):
    encoded, expected = loaded(imdb_workdir).encode(text), splitting.tokenize(text)
    words = [encoded.text[begin:end] for begin, end in encoded.spans]
    assert len(words) == min(len(expected), MAXLEN)
    assert encoded.total_words == len(expected)
    assert [word.lower() for word in words] == expected[-MAXLEN:] or "Σ" in text


def test_the_end_of_a_long_text_is_read(imdb_workdir):
    encoded = loaded(imdb_workdir).encode("Bad start, " + "a " * (MAXLEN - 2) + "good END!")
    assert encoded.text == "a " * (MAXLEN - 2) + "good END!"
    assert encoded.text[slice(*encoded.spans[-2])] == "good"
    assert (encoded.total_words, len(encoded.spans), len(encoded.ids)) == (
        MAXLEN + 2,
        MAXLEN,
        MAXLEN,
    )
    assert encoded.unknown_fraction == 1 / MAXLEN
    assert loaded(imdb_workdir).encode(" .,").unknown_fraction == 0


def test_an_attribution_is_what_the_logit_would_lose(imdb_workdir, reuters_workdir):
    """The slope of the logit as the embedding of one word shrinks, measured on both sides."""
    for workdir, text in (
        (imdb_workdir, "not A very Good film"),
        (reuters_workdir, "oil, grain of bad plot"),
    ):
        model, run = loaded(workdir), saved.load(workdir)
        encoded = model.encode(text)
        (probabilities,), (attributions,) = model.explain([encoded])
        np.testing.assert_allclose(probabilities, model.predict([text])[1][0], atol=1e-6)
        logits = functools.partial(models.logits, run.model)
        label, tokens = probabilities.argmax(), encoded.ids
        if run.config.data.padding == "pre":
            tokens = np.pad(tokens, (MAXLEN - len(tokens), 0))

        @jax.jit
        def logit(word, factor, params=run.members[0], tokens=tokens, logits=logits, label=label):
            table = jnp.array(params["embed"]["embedding"]).at[word].multiply(factor)
            changed = {**params, "embed": {"embedding": table}}
            out = logits(changed, tokens[None], jnp.array([len(tokens)]))[0]
            return out[label] if len(out) > 1 else (2 * label - 1) * out[0]

        slopes = [(logit(word, 1.01) - logit(word, 0.99)) / 0.02 for word in encoded.ids[1:]]
        assert max(map(abs, slopes)) > 0.01
        np.testing.assert_allclose(attributions, slopes, rtol=0.05, atol=1e-3)


def test_an_empty_text_is_refused_by_number(imdb_workdir):
    with pytest.raises(DataError, match=r"text 1 contains no words: ' \.,'"):
        loaded(imdb_workdir).predict(["good", " .,"])
    labels, probabilities = loaded(imdb_workdir).predict([])
    assert (labels, probabilities.shape) == ([], (0, 2))


def test_a_single_string_is_one_text(imdb_workdir):
    model = loaded(imdb_workdir)
    labels, probabilities = model.predict("Great film")
    assert (labels, probabilities.shape) == (model.predict(["Great film"])[0], (1, 2))
    np.testing.assert_array_equal(probabilities, model.predict(["Great film"])[1])
    assert model.predict(text for text in ("good", "bad"))[1].shape == (2, 2)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["good", float("nan")], "text 1 is not a string but float: nan"),
        (["good", None], "text 1 is not a string but NoneType: None"),
        ([b"good"], "text 0 is not a string but bytes: b'good'"),
        (b"good", "texts: b'good' is neither a string nor a list of strings"),
        (float("nan"), "texts: nan is neither a string nor a list of strings"),
    ],
)
def test_what_is_not_a_string_is_refused_by_number(texts, message, imdb_workdir):
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        loaded(imdb_workdir).predict(texts)


def test_what_the_model_was_not_trained_for_is_refused(imdb_workdir):
    for method in (loaded(imdb_workdir).tag, loaded(imdb_workdir).generate):
        with pytest.raises(ConfigError, match=r"model\.target: must be \w+ for this; .* label"):
            method(["good"])


def test_loading_changes_nothing_in_the_workdir(imdb_workdir, tmp_path):
    """A run that is in progress writes to it."""
    shutil.copytree(imdb_workdir, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "checkpoints"
    (folder / "9.123.part").mkdir()
    files.write_folder(folder / "8", {"weights.safetensors": b""})
    (folder / "8" / "weights.safetensors").write_bytes(b"x")
    before = sorted(folder.rglob("*"))
    assert flaxrnn.load(tmp_path).predict(["good"])[0] == loaded(imdb_workdir).predict(["good"])[0]
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "no trained model in .*run"),
        ("config.json", '{"seed": -1}', r"no trained model .*config\.json: seed: -1 must be"),
        ("labels.json", None, "no trained model in .*run"),
        ("vocabulary.json", "[]", "no readable vocabulary"),
        ("checkpoints", None, "no intact checkpoint in .*run"),
    ],
)
def test_an_incomplete_workdir_is_refused(name, content, message, tmp_path):
    workdir = saved_workdir(tmp_path / "run", shrink(imdb.get_config()), ["neg", "pos"])
    (workdir / name).rename(workdir / "moved")
    if content is not None:
        (workdir / name).write_text(content)
    with pytest.raises(WorkdirError, match=message):
        flaxrnn.load(workdir)

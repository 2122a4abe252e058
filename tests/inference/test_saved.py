"""Workdirs of several seeds: the ensemble that they make, and those that make none."""

import json

import numpy as np
import pytest
from helpers import WORDS, loaded, saved_seeds, saved_workdir, shrink

import flaxrnn
from configs import imdb, language_model, reuters
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.errors import WorkdirError
from flaxrnn.inference import saved

TEXTS = [*WORDS, "not a VERY good film", "the plot of oil and grain", "bad " * 30]


@pytest.fixture(scope="module", params=[(imdb, ["neg", "pos"]), (reuters, ["earn", "acq", "oil"])])
def ensemble(request, tmp_path_factory):
    module, labels = request.param
    return saved_seeds(
        tmp_path_factory.mktemp("ensemble") / "run", shrink(module.get_config()), labels, (0, 4)
    )


def members(workdir):
    return [loaded(folder) for folder in saved.finished_members(workdir)]


def test_its_probability_is_the_mean(ensemble):
    model = loaded(ensemble)
    labels, probabilities = model.predict(TEXTS)
    single = [member.predict(TEXTS) for member in members(ensemble)]
    np.testing.assert_allclose(probabilities, np.mean([p for _, p in single], axis=0), atol=1e-6)
    assert labels == [model.label_names[row.argmax()] for row in probabilities]
    assert single[0][0] != single[1][0]  # the runs do not agree
    assert (model.num_members, members(ensemble)[0].num_members) == (2, 1)


def test_its_attributions_are_the_means_of_those_of_its_own_label(ensemble):
    """A run that prefers the other of two classes has opposite attributions."""
    model, runs = loaded(ensemble), members(ensemble)
    encoded = [model.encode(text) for text in TEXTS]
    probabilities, attributions = model.explain(encoded)
    np.testing.assert_allclose(probabilities, model.predict(TEXTS)[1], atol=1e-6)
    single = [run.explain(encoded) for run in runs]
    compared = 0
    for i, weights in enumerate(attributions):
        label, own = probabilities[i].argmax(), [p[i].argmax() for p, _ in single]
        if len(model.label_names) > 2 and own != [label, label]:
            continue
        signs = [1 if other == label else -1 for other in own]
        expected = sum(sign * w[i] for sign, (_, w) in zip(signs, single, strict=True)) / 2
        np.testing.assert_allclose(weights, expected, atol=1e-4)
        compared += 1
    assert compared > 2


def test_workdirs_without_a_record_have_the_members_that_have_begun(ensemble, tmp_path):
    workdir = saved_seeds(tmp_path / "run", shrink(imdb.get_config()), ["neg", "pos"], (2, 10))
    expected = loaded(workdir).predict(TEXTS)[1]
    (workdir / saved.SEEDS).unlink()
    np.testing.assert_array_equal(flaxrnn.load(workdir).predict(TEXTS)[1], expected)
    assert not saved.holds_several(workdir / "seed-2")
    assert not saved.holds_several(tmp_path / "nope")


def test_the_config_of_an_ensemble_is_that_of_a_member(ensemble, tmp_path):
    assert saved.load_config(ensemble) == saved.load(ensemble).config
    with pytest.raises(WorkdirError, match="--workdir: no trained model in "):
        saved.load_config(tmp_path)


def test_an_unfinished_run_is_named(tmp_path):
    workdir = saved_seeds(tmp_path / "run", shrink(imdb.get_config()), ["neg", "pos"])
    (workdir / "seed-1" / "result.json").unlink()
    record = {"members": ["seed-0", "seed-1", "seed-2"]}
    (workdir / saved.SEEDS).write_text(json.dumps(record))
    with pytest.raises(WorkdirError, match=r"run is unfinished, seed-1, seed-2 of 3 runs: start"):
        flaxrnn.load(workdir)
    (workdir / saved.SEEDS).write_text("{")
    with pytest.raises(WorkdirError, match=r"--workdir: .*seeds\.json cannot be read"):
        flaxrnn.load(workdir)


def test_runs_that_make_no_ensemble_are_refused(tmp_path):
    config = shrink(imdb.get_config())
    workdir = saved_seeds(tmp_path / "run", config, ["neg", "pos"])
    Vocabulary(WORDS[::-1]).save(workdir / "seed-1" / "vocabulary.json")
    with pytest.raises(WorkdirError, match="seed-1 and seed-0 have different vocabularies"):
        flaxrnn.load(workdir)
    Vocabulary(WORDS).save(workdir / "seed-1" / "vocabulary.json")
    (workdir / "seed-1" / "labels.json").write_text('["pos", "neg"]')
    with pytest.raises(WorkdirError, match="seed-1 and seed-0 have different labels"):
        flaxrnn.load(workdir)


def test_only_classifiers_make_an_ensemble(tmp_path):
    config = shrink(language_model.get_config(), hidden_size=3)
    workdir = saved_seeds(tmp_path / "run", config, ["0", "1"])
    with pytest.raises(
        WorkdirError, match=r"several runs with model\.target=next, but only classi"
    ):
        flaxrnn.load(workdir)
    single = saved_workdir(tmp_path / "single", config, ["0", "1"])
    assert flaxrnn.load(single).generate(["good"], 1)

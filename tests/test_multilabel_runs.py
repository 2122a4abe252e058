"""Runs on texts with any number of labels: trained, resumed, predicted, evaluated, exported."""

import json
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import loaded, shrink, train_until_killed, weights, write_csv
from sklearn.metrics import f1_score

import flaxrnn
from configs import text as text_config
from flaxrnn import compare, evaluate, export, predict, seeds
from flaxrnn.data import corpora
from flaxrnn.errors import ConfigError, DataError, WorkdirError
from flaxrnn.training import checkpoint

pytestmark = pytest.mark.usefixtures("no_plots")

WORDS = {"oil": ["crude", "barrel"], "war": ["army", "front"], "grain": ["wheat", "corn"]}
FILLERS = ["the", "a", "said", "today", "price", "report", "week"]


def made(n=300, seed=0):
    """Texts with words of each of their labels, mostly, as rows of a table; some have none."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        labels = [name for name in WORDS if rng.random() < 0.4]
        words = [*rng.choice(FILLERS, 4), *(rng.choice(WORDS[name]) for name in labels)]
        if rng.random() < 0.2:  # a word that says nothing
            words.append(rng.choice(WORDS[rng.choice(list(WORDS))]))
        rows.append((" ".join(rng.permutation(words)), "|".join(labels)))
    return rows


def settings(folder, **model):
    config = shrink(text_config.get_config(), epochs=3, cell="simple", **model)
    config.data.path = str(folder / "news.csv")
    config.data.data_dir = str(folder / "data")
    config.data.num_words = 100
    config.data.label_separator = "|"
    config.data.test_fraction = 0.4
    config.model.character_ngrams = 0
    config.model.ngram_fit = "quick"
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run: its config, workdir and result."""
    folder = tmp_path_factory.mktemp("labels")
    write_csv(folder / "news.csv", made())
    config = settings(folder)
    config.train.baseline = True
    return config, folder / "run", flaxrnn.train(config, folder / "run")


def test_the_result_has_the_scores_of_the_thresholds(run):
    _, workdir, result = run
    assert json.loads((workdir / "config.json").read_text())["model"]["target"] == "labels"
    rows = [(text, names.split("|")) for text, names in made(400, seed=1)]
    predicted, probabilities = loaded(workdir).predict([text for text, _ in rows])
    truth = np.array([[name in names for name in sorted(WORDS)] for _, names in rows])
    found = np.array([[name in names for name in sorted(WORDS)] for names in predicted])
    assert f1_score(truth, found, average="micro") > 0.8
    thresholds = loaded(workdir).thresholds
    assert (np.abs(thresholds - 0.5) > 1e-3).any()
    np.testing.assert_array_equal(found, probabilities > thresholds)
    assert result["test_micro_f1"] > 0.8
    assert result["val_micro_f1"] == pytest.approx(1, abs=0.2)
    assert result["test_macro_f1"] <= 1
    assert 0 < result["temperature"] != 1  # calibrated
    assert result["baseline"]["test_micro_f1"] > 0.8
    assert result["warnings"] == []


def test_test_scores_are_those_of_the_predictions(run):
    config, workdir, result = run
    custom = corpora.CustomTexts(config.data.path, test_fraction=0.4, several=True, separator="|")
    corpus = corpora.load_corpus("text", data_dir=config.data.data_dir, custom=custom)
    texts = [corpus.vocabulary.decode(ids) for ids in corpus.test.texts()]
    found = loaded(workdir).predict(texts)[0]
    guess = np.array([[name in names for name in corpus.label_names] for names in found])
    for average in ("micro", "macro"):
        expected = f1_score(corpus.test.labels, guess, average=average)
        assert result[f"test_{average}_f1"] == pytest.approx(expected)
    right = (guess == corpus.test.labels).all(axis=1).mean()
    assert result["test_accuracy"] == pytest.approx(right)


def test_the_network_alone_learns_too(run, tmp_path):
    config = run[0].copy_and_resolve_references()
    config.model.update({"word_ngrams": 0, "hidden_size": 16, "embedding_size": 16})
    config.train.update({"epochs": 8, "monitor": "micro_f1", "baseline": False})
    config.train.learning_rate = 0.02
    result = flaxrnn.train(config, tmp_path / "alone")
    assert result["test_micro_f1"] > 0.8


def test_thresholds_are_in_the_checkpoint_and_resumed(run, tmp_path):
    config, workdir, result = run
    train_until_killed(config, tmp_path / "run")
    resumed = flaxrnn.train(config, tmp_path / "run")
    same = ("test_loss", "test_micro_f1", "test_accuracy")
    assert [resumed[name] for name in same] == [result[name] for name in same]
    jax.tree.map(np.testing.assert_array_equal, weights(tmp_path / "run"), weights(workdir))
    np.testing.assert_array_equal(loaded(tmp_path / "run").thresholds, loaded(workdir).thresholds)


def test_every_report_shows_micro_f1(run, capsys):
    _, workdir, result = run
    compare.main([str(workdir)])
    out = capsys.readouterr().out
    assert "micro-F1" in out
    assert f"{result['test_micro_f1']:.4f}" in out
    page = (workdir / "report.html").read_text()
    assert "threshold" in page
    assert "Confusion" not in page
    assert f"micro-F1 {result['test_micro_f1']:.4f}" in page
    history = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert all("val_micro_f1" in row for row in history)


def predicted(workdir, *arguments, capsys):
    predict.main(["--workdir", str(workdir), "--format", "jsonl", *arguments])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_predict_prints_all_labels(run, capsys):
    _, workdir, _ = run
    texts = ["crude army said", "the week", "..."]
    names, probabilities = loaded(workdir).predict(texts[:2])
    assert names == [["oil", "war"], []]
    both, none, empty = predicted(workdir, *texts, capsys=capsys)
    assert sorted(both["labels"]) == ["oil", "war"]
    assert sorted(both["probabilities"]) == pytest.approx(sorted(probabilities[0][1:]), abs=1e-5)
    assert (none["labels"], none["note"]) == ([], "no label is above its threshold")
    assert (empty["labels"], empty["note"]) == (None, "no words")
    (all_,) = predicted(workdir, "--threshold", "0.000001", texts[1], capsys=capsys)
    assert len(all_["labels"]) == 3
    (explained,) = predicted(workdir, "--explain", "--top", "2", texts[0], capsys=capsys)
    assert len(explained["top"]) == 2
    assert [word["word"] for word in explained["explanation"]] == ["crude", "army", "said"]
    predict.main(["--workdir", str(workdir), "--format", "table", *texts])
    rows = capsys.readouterr().out.splitlines()[1:]
    assert len(rows) == 4  # two labels, none, and no words


def test_evaluate_counts_labels(run, tmp_path, capsys):
    _, workdir, _ = run
    rows = [*made(60, seed=2), ("crude army", "oil|unheard"), ("...", "oil")]
    path = write_csv(tmp_path / "labelled.csv", rows)
    flags = ["--workdir", str(workdir), "--file", str(path)]
    evaluate.main([*flags, "--json", str(tmp_path / "e.json"), "--page", str(tmp_path / "e.html")])
    found = json.loads((tmp_path / "e.json").read_text())
    names = loaded(workdir).predict([text for text, _ in rows[:-1]])[0]
    truth = [[name in labels.split("|") for name in sorted(WORDS)] for _, labels in rows[:-1]]
    guess = [[name in labels for name in sorted(WORDS)] for labels in names]
    assert found["texts"] == 61
    assert found["micro_f1"] == pytest.approx(f1_score(truth, guess, average="micro"))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro"))
    assert found["accuracy"] == np.mean([t == g for t, g in zip(truth, guess, strict=True)])
    assert found["classes"]["oil"]["threshold"] == loaded(workdir).thresholds[1]
    assert found["unknown_labels"] == {"unheard": 1}
    assert found["without_words"] == 1
    out = capsys.readouterr().out
    assert out.startswith(f"micro-F1           {found['micro_f1']:.4f}  (61 texts)\n")
    assert "Confusion" not in (tmp_path / "e.html").read_text()
    lists = tmp_path / "labelled.jsonl"
    lists.write_text(
        "".join(json.dumps({"text": t, "label": n.split("|")}) + "\n" for t, n in rows)
    )
    evaluate.main([*flags[:3], str(lists)])
    assert capsys.readouterr().out == out.partition("written to")[0]


def test_a_separator_of_evaluate_must_make_sense(run, imdb_workdir):
    for workdir, separator, message in (
        (run[1], " ", "--label_separator: ' ' must be a single character that is no letter"),
        (imdb_workdir, "|", "--label_separator: the model knows a single label per text"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            evaluate.main(
                ["--workdir", str(workdir), "--file", "a.csv", "--label_separator", separator]
            )


def test_an_export_gives_the_same_labels(run, tmp_path):
    _, workdir, _ = run
    export.export(workdir, tmp_path / "out")
    texts = ["crude army said", "the week", "wheat"]
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); from load import load;"
        "labels, p = load(sys.argv[1])(json.loads(sys.argv[2]));"
        "print(json.dumps([labels, p.tolist()])); sys.exit('flaxrnn' in sys.modules)"
    )
    command = [sys.executable, "-c", code, tmp_path / "out", json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    labels, probabilities = json.loads(done.stdout.splitlines()[-1])
    expected = loaded(workdir).predict(texts)
    assert labels == expected[0]
    np.testing.assert_allclose(probabilities, expected[1], rtol=0, atol=1e-6)


def test_seeds_make_an_ensemble(run, tmp_path):
    config = run[0].copy_and_resolve_references()
    config.train.baseline = False
    config.train.refit = True
    results = seeds.train(config, 2, tmp_path / "many")
    record = json.loads((tmp_path / "many" / "seeds.json").read_text())
    assert record["single"]["test_micro_f1"]["mean"] == np.mean(
        [result["test_micro_f1"] for result in results]
    )
    model = flaxrnn.load(tmp_path / "many")
    members = [flaxrnn.load(tmp_path / "many" / f"seed-{i}").thresholds for i in range(2)]
    np.testing.assert_allclose(model.thresholds, np.mean(members, axis=0))
    assert record["ensemble"]["test_micro_f1"] > 0.8


def test_fit_takes_lists(tmp_path):
    rows = made(120)
    texts, labels = [text for text, _ in rows], [names.split("|") for _, names in rows]
    options = {"epochs": 2, "character_ngrams": 0, "ngram_fit": "quick", "train.baseline": False}
    options |= {"num_words": 100, "hidden_size": 5, "embedding_size": 5, "tokenizer": "words"}
    model = flaxrnn.fit(texts, labels, max_padding=1.0, **options)
    assert model.predict("crude army said")[0] == [["oil", "war"]]
    figures = model.evaluate(texts, labels)
    assert figures["micro_f1"] > 0.8
    folder = model.save(tmp_path / "saved")
    assert flaxrnn.load(folder).predict(["crude army said"])[0] == [["oil", "war"]]
    with pytest.raises(DataError, match="a matrix has no names"):
        flaxrnn.fit(texts, np.zeros((120, 3)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model.target": "tags"}, "model.target: must be label or next with task=text"),
        ({"train.class_weights": "balanced"}, "train.class_weights: must be none with model.targ"),
        ({"data.label_separator": None, "model.target": "label", "train.monitor": "micro_f1"},
         "train.monitor: micro_f1 needs model.target=labels"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(run, fields, message, tmp_path):
    config = run[0].copy_and_resolve_references()
    config.update_from_flattened_dict(fields)
    with pytest.raises(ConfigError, match=message):
        flaxrnn.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_separator_belongs_to_custom_texts():
    from configs import imdb

    config = imdb.get_config()
    config.data.label_separator = "|"
    with pytest.raises(ConfigError, match=r"data\.label_separator: must be unset with task=imdb"):
        flaxrnn.train(config)
    config.data.label_separator = None
    config.model.target = "labels"
    with pytest.raises(ConfigError, match=r"model\.target: must not be labels with task=imdb"):
        flaxrnn.train(config)


@pytest.mark.parametrize("damaged", [[0.5], [0.5, 0.5, 2.0], [0.5, 0.5, "x"], "x"])
def test_thresholds_of_another_model_are_refused(run, damaged, tmp_path):
    _, workdir, _ = run
    shutil.copytree(workdir, tmp_path / "run")
    newest = checkpoint.find_intact(tmp_path / "run" / "checkpoints")
    progress = checkpoint.read(newest)["progress"]
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    checkpoint.write_weights(
        tmp_path / "run" / "checkpoints", weights(workdir), {**progress, "thresholds": damaged}
    )
    with pytest.raises(WorkdirError, match="no threshold per label"):
        flaxrnn.load(tmp_path / "run")

"""Accuracy against seconds: flaxrnn, and the linear models that a user would try first.

    python -m benchmarks.frontier --texts FOLDER            each .csv in FOLDER, configs/text.py
    python -m benchmarks.frontier --tasks reuters imdb      the real corpora and their variants

Every contender has the same splits and runs in turn. The linear models are scikit-learn's TF-IDF of
words (1-2) or characters (1-4) with LinearSVC or LogisticRegression, NB-SVM of words (Wang &
Manning, 2012), and fastText of words (1-2). C, or fastText's learning rate and epochs, are chosen
on flaxrnn's validation texts, and the model is then fitted to all training texts. Their seconds are
those of vectorizing, choosing and fitting; flaxrnn's are those of the whole command, start-up and
compilation included. Test texts are used once, at the end. Writes
benchmarks/results/frontier-NAME.json, and a plot of each set.
"""

import argparse
import functools
import importlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import throughput
from flaxrnn.config import Config, parse
from flaxrnn.data import batching
from flaxrnn.training import metrics, texts

RESULTS = Path(__file__).parent / "results"
VARIANTS = {"reuters": ("fast", "", "best"), "imdb": ("fast", "", "best")}
PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0)  # C
RATES_AND_EPOCHS = ((0.1, 5), (0.5, 5), (0.1, 25), (0.5, 25), (1.0, 25))  # of fastText
MANY_CHARACTERS = 5_000_000  # of a set: then n-grams of a single text are left out
MOST_CHARACTERS = 10_000_000  # of a set whose n-grams of characters are tried


def load(config: Config) -> tuple[list[str], np.ndarray, batching.TrainingData, int]:
    """The texts as characters, spaces and punctuation included, their labels, splits, classes."""
    by_words = texts.load_corpus(config, config.data.tokenizer)
    kept_by = by_words.vocabulary.tokenizer.kind if config.task == "text" else None
    by_characters = texts.load_corpus(config, "characters", kept_by)
    data = texts.prepare_data(by_words, config.data, config.seed)
    both = by_characters.train + by_characters.held_out
    raw = [by_characters.vocabulary.decode(ids) for ids in both.texts()]
    return raw, both.labels, data, len(by_words.label_names)


def linear_models(
    raw: list[str], labels: np.ndarray, data: batching.TrainingData, num_labels: int
) -> list[dict[str, Any]]:
    """The linear models: name, seconds, C, accuracies and macro-F1."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    train, val, test = (data.rows[split] for split in ("train", "val", "test"))
    found = []
    characters = sum(map(len, raw))
    min_df = 2 if characters > MANY_CHARACTERS else 1
    for unit, options in (
        ("words (1-2)", {"ngram_range": (1, 2)}),
        ("characters (1-4)", {"analyzer": "char", "ngram_range": (1, 4)}),
    )[: 1 + (characters < MOST_CHARACTERS)]:
        start = time.perf_counter()
        everything = np.concatenate([train, val])
        vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32, min_df=min_df, **options)
        features = vectorizer.fit([raw[i] for i in everything]).transform(raw)
        vectorizing = time.perf_counter() - start
        kinds: list[tuple[str, Any, dict[str, Any]]] = [
            ("LinearSVC", LinearSVC, {"random_state": 0}),
            ("LogisticRegression", LogisticRegression, {"max_iter": 300}),
        ]
        if unit.startswith("words"):
            kinds.append(("NB-SVM", one_against_the_rest, {}))
        for name, kind, more in kinds:
            start = time.perf_counter()
            accuracy, C = max(
                (kind(C=C, **more).fit(features[train], labels[train]).score(
                    features[val], labels[val]), -C)
                for C in PENALTIES
            )  # fmt: skip
            model = kind(C=-C, **more).fit(features[everything], labels[everything])
            seconds = vectorizing + time.perf_counter() - start
            predicted = model.predict(features[test])
            scores = metrics.of_predictions(labels[test], predicted, num_labels)
            found.append(
                {"name": f"{name}, {unit}", "seconds": seconds, "C": -C, "val_accuracy": accuracy}
                | {f"test_{metric}": score for metric, score in scores.items()}
            )
    return found


def one_against_the_rest(**penalty: float) -> Any:
    """An NB-SVM for each class."""
    from sklearn.multiclass import OneVsRestClassifier

    return OneVsRestClassifier(_naive_bayes_svm_class()(**penalty))


@functools.cache
def _naive_bayes_svm_class() -> Any:
    from sklearn.svm import LinearSVC

    class NaiveBayesSVM(LinearSVC):
        """A linear SVM of features times their naive-Bayes log-count ratios."""

        def fit(self, features: Any, labels: np.ndarray) -> Any:
            """Fits to features [N, G] and labels 0 or 1, [N]."""
            present = features.astype(bool).astype(np.float64)
            inside, outside = 1 + present.T @ labels, 1 + present.T @ (1 - labels)
            ratios = np.log(inside / inside.sum() / (outside / outside.sum()))
            super().fit(features.multiply(ratios).tocsr(), labels)
            self.coef_ = self.coef_ * ratios
            return self

    return NaiveBayesSVM


def fast_text(
    raw: list[str], labels: np.ndarray, data: batching.TrainingData, num_labels: int
) -> list[dict[str, Any]]:
    """FastText, as `linear_models`; nothing if it is not installed."""
    try:
        import fasttext
    except ImportError:
        print("Not installed, not timed: fastText (pip install -e '.[bench]')")
        return []
    train, val, test = (data.rows[split] for split in ("train", "val", "test"))
    words = [" ".join(re.findall(r"\w+|[^\w\s]", text)) for text in raw]

    def predict(fitted_to: np.ndarray, rows: np.ndarray, rate: float, epochs: int) -> np.ndarray:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.writelines(f"__label__{labels[i]} {words[i]}\n" for i in fitted_to)
            file.flush()
            options = {"wordNgrams": 2, "thread": os.cpu_count(), "verbose": 0}
            model = fasttext.train_supervised(file.name, lr=rate, epoch=epochs, **options)
        found, _ = model.predict([words[i] for i in rows])
        return np.array([int(first.removeprefix("__label__")) for (first, *_) in found])

    start = time.perf_counter()
    accuracy, chosen = max(
        ((predict(train, val, *one) == labels[val]).mean(), one) for one in RATES_AND_EPOCHS
    )
    predicted = predict(np.concatenate([train, val]), test, *chosen)
    scores = metrics.of_predictions(labels[test], predicted, num_labels)
    one = {"name": "fastText, words (1-2)", "seconds": time.perf_counter() - start}
    one |= {"rate_and_epochs": chosen, "val_accuracy": float(accuracy)}
    return [one | {f"test_{metric}": score for metric, score in scores.items()}]


def flaxrnn(name: str, flags: list[str], seeds: int) -> dict[str, Any]:
    """A config's command, with several seeds: means of seconds, accuracy and macro-F1."""
    runs, seconds = [], []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "train.py", *flags, "--workdir", folder]
            command += [f"--config.seed={seed}", "--config.train.baseline=False"]
            command.append("--config.train.explain=False")
            if "--config.task=text" in flags:
                command.append("--config.data.split_seed=0")
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
            runs.append(json.loads((Path(folder) / "result.json").read_text()))
    shown = {
        metric: [run[metric] for run in runs]
        for metric in ("val_accuracy", "test_accuracy", "test_macro_f1")
    }
    return {
        "name": name,
        "seconds": statistics.mean(seconds),
        **{metric: statistics.mean(values) for metric, values in shown.items()},
        "seeds": seeds,
        "test_accuracies": shown["test_accuracy"],
    }


def plot(name: str, contenders: list[dict[str, Any]]) -> None:
    """Plots accuracy against seconds; the line joins those that nobody beats in both."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    ordered = sorted(contenders, key=lambda one: one["seconds"])
    best, frontier = -1.0, []
    for one in ordered:
        axes.plot(one["seconds"], one["test_accuracy"], "o", label=one["name"])
        if one["test_accuracy"] > best:
            best = one["test_accuracy"]
            frontier.append(one)
    axes.plot(
        [one["seconds"] for one in frontier],
        [one["test_accuracy"] for one in frontier],
        drawstyle="steps-post",
        color="0.6",
        lw=1,
        zorder=0,
    )
    axes.legend(fontsize=8)
    axes.set(title=name, xscale="log", xlabel="seconds", ylabel="test accuracy")
    figure.savefig(RESULTS / f"frontier-{name}.png", dpi=110)


def compare(
    name: str, config: Any, contenders: dict[str, list[str]], seeds: int, provenance: dict[str, Any]
) -> None:
    """Runs all contenders on one set, prints a table and writes the result file."""
    loaded = load(parse(config))
    found = linear_models(*loaded) + fast_text(*loaded)
    found += [flaxrnn(label, flags, seeds) for label, flags in contenders.items()]
    print(f"\n{name}\n{'':34}{'seconds':>9}{'val acc':>9}{'test acc':>10}{'macro-F1':>10}")
    for one in sorted(found, key=lambda one: -one["test_accuracy"]):
        figures = (one["val_accuracy"], one["test_accuracy"], one["test_macro_f1"])
        shown = "".join(f"{figure:>9.4f} " for figure in figures)
        print(f"{one['name']:34}{one['seconds']:>9.1f}{shown}", flush=True)
    record = {**provenance, "set": name, "contenders": found}
    (RESULTS / f"frontier-{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    plot(name, found)


def main() -> None:
    """Compares on each corpus and each file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=[], choices=list(VARIANTS))
    parser.add_argument("--texts", type=Path, help="folder of .csv files for configs/text.py")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    provenance = throughput.provenance()  # before result files are written into the checkout
    for task in arguments.tasks:
        module = importlib.import_module(f"configs.{task}")
        config = module.get_config("best")
        config.data.source = "real"
        contenders = {
            f"flaxrnn {task}.py{variant and ':'}{variant}": [
                "--config",
                f"configs/{task}.py{variant and ':'}{variant}",
                "--config.data.source=real",
            ]
            for variant in VARIANTS[task]
        }
        compare(task, config, contenders, arguments.seeds, provenance)
    for path in sorted(arguments.texts.glob("*.csv")) if arguments.texts else []:
        config = importlib.import_module("configs.text").get_config()
        config.data.path, config.data.split_seed = str(path), 0
        flags = ["--config", "configs/text.py", f"--config.data.path={path}"]
        flags += ["--config.task=text"]
        compare(path.stem, config, {"flaxrnn text.py": flags}, arguments.seeds, provenance)


if __name__ == "__main__":
    main()

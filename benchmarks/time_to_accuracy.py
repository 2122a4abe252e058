"""Times training to the book's accuracy: the chapter's Keras scripts against flaxrnn's `:fast`.

    python -m benchmarks.time_to_accuracy               both tasks, 5 seeds
    python -m benchmarks.time_to_accuracy --tasks imdb --seeds 3
    python -m benchmarks.time_to_accuracy --frameworks flaxrnn --device epyc

Needs the real corpora. The two are interleaved, each run in a separate process. For Keras only
training counts, up to the end of the first epoch whose test accuracy reaches the book's. For
flaxrnn the fit to n-grams, compilation without a cache, training and every validation count; when
to stop is decided on validation alone. Imports and data preparation count for neither. Writes
benchmarks/results/time-to-accuracy-DEVICE.json.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import baselines, cases, throughput
from flaxrnn.config import parse
from flaxrnn.data import corpora
from flaxrnn.training import texts

BOOK = {"reuters": 0.7177, "imdb": 0.8796}  # test accuracy
MAX_EPOCHS = {"reuters": 30, "imdb": 10}  # for Keras


def keras(task: str, seed: int) -> dict[str, Any]:
    """The chapter's script with Keras on TensorFlow, on the same texts."""
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")
    import keras

    import flaxrnn

    keras.utils.set_random_seed(seed)
    reuters = task == "reuters"
    words, maxlen, batch = (1_000, 100, 20) if reuters else (5_000, 500, 40)
    (x_train, y_train), (x_test, y_test) = flaxrnn.load_data(
        task, num_words=words, maxlen=maxlen, source="real"
    )
    if reuters:
        y_train, y_test = (keras.utils.to_categorical(y, 46) for y in (y_train, y_test))
        loss = "categorical_crossentropy"
    else:
        loss = "binary_crossentropy"
        held_out = round(0.25 * len(x_train))  # the last quarter, as with validation_split
        x_train, y_train = x_train[:-held_out], y_train[:-held_out]
    model = baselines.chapter_model(task)
    model.compile(loss=loss, optimizer="adam", metrics=["accuracy"])
    seconds, accuracies = 0.0, []
    while len(accuracies) < MAX_EPOCHS[task]:
        start = time.perf_counter()
        model.fit(x_train, y_train, batch_size=batch, epochs=1, verbose=0)
        seconds += time.perf_counter() - start
        accuracies.append(model.evaluate(x_test, y_test, batch_size=250, verbose=0)[1])
        if accuracies[-1] >= BOOK[task]:
            break
    return {"seconds": seconds, "epochs": len(accuracies), "test_accuracy": accuracies[-1]}


def flaxrnn(task: str, seed: int) -> dict[str, Any]:
    """`configs/TASK.py:fast`, without a compilation cache."""
    import flaxrnn

    config = importlib.import_module(f"configs.{task}").get_config("fast")
    config.seed, config.data.source = seed, "real"
    config.train.baseline = config.train.explain = False
    with tempfile.TemporaryDirectory() as folder:
        config.compile_cache = str(Path(folder) / "compiled")
        result = flaxrnn.train(config, Path(folder) / "run")
    parts = {part: result["seconds"][part] for part in ("ngrams", "compile", "train", "eval")}
    return {
        "seconds": sum(parts.values()),
        **parts,
        "epochs": result["epochs"],
        "val_accuracy": result["val_accuracy"],
        "test_accuracy": result["test_accuracy"],
    }


RUNS = {"keras": keras, "flaxrnn": flaxrnn}


def shares_of_peak(task: str, runs: dict[str, list], peak: float) -> dict[str, float]:
    """Share of the machine's matrix-product peak that training reaches, by framework.

    The work is that of the matrix products: over padded texts for Keras, over tokens for flaxrnn.
    """
    module = importlib.import_module(f"configs.{task}")
    shares = {}
    for name in runs:
        config = parse(module.get_config("fast" if name == "flaxrnn" else "keras"))
        corpus = corpora.load_corpus(task, "real")
        data = texts.prepare_data(corpus, config.data, config.seed)
        tokens = data.lengths[data.rows["train"]].sum()
        work = 3 * tokens * cases.flops_per_token(config.model)
        seconds = statistics.mean(
            run.get("train", run["seconds"]) / run["epochs"] for run in runs[name]
        )
        shares[name] = float(work / seconds / peak)
    return shares


def in_process(name: str, task: str, seed: int) -> dict[str, Any]:
    """A run in a separate process."""
    command = [sys.executable, "-m", "benchmarks.time_to_accuracy", "--run", name, task, str(seed)]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


def main() -> None:
    """Runs both over the seeds and writes the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=list(BOOK), choices=list(BOOK))
    parser.add_argument("--frameworks", nargs="*", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="used in the name of the result file")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        name, task, seed = arguments.run
        print(json.dumps(RUNS[name](task, int(seed))))
        return
    peak = throughput.matmul_peak()
    record: dict[str, Any] = {**throughput.provenance(), "seeds": arguments.seeds, "tasks": {}}
    record["peak_gflops"] = peak / 1e9
    for task in arguments.tasks:
        runs: dict[str, list] = {name: [] for name in arguments.frameworks}
        for seed in range(arguments.seeds):
            for name in runs:
                runs[name].append(in_process(name, task, seed))
                print(task, name, runs[name][-1], flush=True)
        means = {
            name: {
                key: statistics.mean(run[key] for run in finished)
                for key in ("seconds", "epochs", "test_accuracy")
            }
            for name, finished in runs.items()
        }
        shares = shares_of_peak(task, runs, peak)
        found = {"book": BOOK[task], "means": means, "shares_of_peak": shares}
        if len(means) == len(RUNS):
            found["ratio"] = means["flaxrnn"]["seconds"] / means["keras"]["seconds"]
            print(f"{task}: flaxrnn takes {found['ratio']:.3f} of Keras's time")
        record["tasks"][task] = {**found, "runs": runs}
        for name in runs:
            print(
                f"{task}, {name}: {means[name]['seconds']:.1f} s, accuracy"
                f" {means[name]['test_accuracy']:.4f}; training reaches {shares[name]:.1%} of the"
                f" machine's {peak / 1e9:.0f} GFLOP/s"
            )
    path = throughput.RESULTS / f"time-to-accuracy-{arguments.device}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

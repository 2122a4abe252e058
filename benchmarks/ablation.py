"""What each ingredient of a recipe brings: the config without it, over seeds.

    python -m benchmarks.ablation configs/reuters.py:best --seeds 3
    python -m benchmarks.ablation configs/imdb.py:best --seeds 3 --only "no n-grams" "no refit"

Each row takes one ingredient away and changes nothing else. A refit doubles the time, so only
"complete" has one: the other rows are compared with "no refit". "the n-grams alone" is the
classifier that the network is blended with. Writes benchmarks/results/ablation-CONFIG.json after
every row, with the commit of each; started again, the command goes on with the rows that are
missing: remove the file first to measure all of them anew.
"""

import argparse
import importlib
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from benchmarks import throughput
from flaxrnn import seeds
from flaxrnn.config import parse
from flaxrnn.training import texts
from flaxrnn.training.workdir import NGRAMS

RESULTS = Path(__file__).parent / "results"
WITHOUT: dict[str, dict[str, Any]] = {
    "no refit": {},
    "no n-grams": {"model.word_ngrams": 0, "model.character_ngrams": 0},
    "no ratios": {"model.ratio_ngrams": 0},
    "ratios of single words": {"model.ratio_ngrams": 1},
    "n-grams fitted quickly": {"model.ngram_fit": "quick"},
    "no segments": {"model.segment": 0},
    "one direction": {"model.bidirectional": False},
    "maximum pooling only": {"model.pooling": "max"},
    "mean pooling only": {"model.pooling": "mean"},
    "no spatial dropout": {"model.spatial_dropout": 0.0},
    "no word dropout": {"model.word_dropout": 0.0},
    "no output dropout": {"model.output_dropout": 0.0},
    "no label smoothing": {"train.label_smoothing": 0.0},
    "no weight decay": {"train.weight_decay": 0.0},
    "no clipping": {"train.clip_norm": 0.0},
    "constant learning rate": {"train.schedule": "constant"},
    "no averaging": {"train.averaging": False},
    "the chapter's vocabulary and length": {"data.num_words": 1_000, "data.maxlen": 100},
}
METRICS = ("val_accuracy", "test_accuracy", "test_macro_f1")


def main() -> None:
    """Trains every row and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("config", help="configs/NAME.py:VARIANT")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, starting at 0")
    parser.add_argument("--only", nargs="+", choices=WITHOUT, default=list(WITHOUT))
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"), help="workdirs")
    arguments = parser.parse_args()

    path, _, variant = arguments.config.partition(":")
    name = "-".join(filter(None, (Path(path).stem, variant)))
    file, runs = RESULTS / f"ablation-{name}.json", arguments.runs / name
    provenance = throughput.provenance()
    recorded = json.loads(file.read_text()) if file.exists() else {}
    rows = recorded.get("rows", {})
    for title in ("complete", *arguments.only):
        config = importlib.import_module(f"configs.{Path(path).stem}").get_config(variant)
        config.data.source, config.train.baseline, config.train.explain = "real", False, False
        complete = config.to_json()
        config.update_from_flattened_dict(WITHOUT.get(title, {}))
        if title in WITHOUT and title != "no refit" and config.to_json() == complete:
            continue  # the recipe does not have it
        config.train.refit = config.train.refit and title == "complete"
        if title not in rows:
            folder = runs / title.replace(" ", "-")
            _share_ngrams(runs / "complete", folder)
            found = seeds.train(config, arguments.seeds, folder)
            rows[title] = {metric: _mean_and_std(found, metric) for metric in METRICS}
            rows[title]["commit"] = provenance["commit"]
        if title == "complete" and "the n-grams alone" not in rows:
            rows["the n-grams alone"] = _ngrams_alone(config, runs / "complete")
        content = {"config": arguments.config, "seeds": arguments.seeds, "rows": rows}
        file.write_text(json.dumps({**provenance, **content}, indent=1) + "\n")
        print(title, rows[title], flush=True)


def _share_ngrams(source: Path, folder: Path) -> None:
    """Copies a fitted classifier, which a run uses if it depends on the same texts and settings."""
    saved, target = source / "seed-0" / NGRAMS, folder / "seed-0" / NGRAMS
    if saved.is_dir() and not target.exists():
        shutil.copytree(saved, target)


def _ngrams_alone(config: Any, folder: Path) -> dict[str, Any]:
    """The test accuracy of the classifier of the first seed."""
    parsed = parse(config)
    corpus = texts.load_corpus(parsed, parsed.data.tokenizer)
    arrays = safetensors.numpy.load_file(folder / "seed-0" / NGRAMS / "scores.safetensors")
    scores = arrays["scores"][-len(corpus.test) :]
    predicted = scores[:, 0] > 0 if scores.shape[1] == 1 else scores.argmax(axis=1)
    return {"test_accuracy": {"mean": float(np.mean(predicted == corpus.test.labels)), "std": 0.0}}


def _mean_and_std(runs: list[dict[str, Any]], metric: str) -> dict[str, float]:
    values = [run[metric] for run in runs]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "std": spread}


if __name__ == "__main__":
    main()

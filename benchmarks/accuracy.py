"""Trains a config with several seeds and records the mean and spread of its accuracy.

    python -m benchmarks.accuracy configs/reuters.py --seeds 5
    python -m benchmarks.accuracy configs/imdb.py:keras --seeds 3
    python -m benchmarks.accuracy configs/imdb.py:unlabelled --teacher runs/accuracy/imdb-best

Writes benchmarks/results/accuracy-CONFIG.json, with a teacher accuracy-CONFIG-taught.json. Runs are
kept in runs/accuracy/; started again, the command resumes one that was interrupted.
"""

import argparse
import importlib
import json
import os
import statistics
from pathlib import Path

from flaxrnn import seeds
from flaxrnn.inference import saved

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Trains every seed and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("config", help="configs/NAME.py or configs/NAME.py:VARIANT")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, starting at 0")
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"), help="workdirs")
    parser.add_argument("--teacher", help="workdir that labels the texts without labels")
    arguments = parser.parse_args()

    path, _, variant = arguments.config.partition(":")
    name = "-".join(filter(None, (Path(path).stem, variant, arguments.teacher and "taught")))
    config = importlib.import_module(f"configs.{Path(path).stem}").get_config(variant)
    config.data.source = "real"
    config.train.baseline = config.train.explain = False
    config.train.teacher = arguments.teacher
    runs = seeds.train(config, arguments.seeds, arguments.runs / name)

    scores = {
        metric: [run[metric] for run in runs]
        for metric in ("val_accuracy", "test_accuracy", "test_macro_f1")
    }
    summary = {
        "config": arguments.config,
        "seeds": arguments.seeds,
        "cores": os.cpu_count(),
        **{
            metric: {"mean": statistics.mean(values), "std": statistics.stdev(values)}
            for metric, values in scores.items()
            if len(values) > 1
        },
        "ensemble": saved.read_record(arguments.runs / name).get("ensemble"),
        "runs": runs,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"accuracy-{name}.json").write_text(json.dumps(summary, indent=1) + "\n")
    for metric, values in scores.items():
        print(f"{name} {metric}: {' '.join(f'{v:.4f}' for v in values)}")
    print(f"{name} ensemble: {summary['ensemble']}")


if __name__ == "__main__":
    main()

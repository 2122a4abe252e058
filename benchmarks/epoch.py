"""Times epochs of the training loop: padded to full length, in length buckets, and streamed.

    python -m benchmarks.epoch
    python -m benchmarks.epoch --tasks reuters --rounds 9

Needs the real corpora. The settings are interleaved in one process, one epoch each per round, with
dispatches of the bare training step on random full-length tokens, as `benchmarks.throughput` times
it, for comparison. Writes benchmarks/results/epoch-DEVICE.json.
"""

import argparse
import importlib
import json
import statistics
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import jax

from benchmarks import baselines, throughput
from benchmarks.cases import Case
from flaxrnn.config import parse
from flaxrnn.data import corpora
from flaxrnn.nn import models
from flaxrnn.runtime import devices
from flaxrnn.training import optimizers, steps, texts
from flaxrnn.training.trainer import Trainer

SETTINGS: dict[str, dict[str, float]] = {  # changes to the data group of the task's config
    "padded": {"max_padding": 1.0},
    "buckets": {},
    "streamed": {"device_memory": 0.0},
}


class Epochs:
    """Training of a task under one of the settings, epoch by epoch.

    Attributes:
        config: The task's config.
        training_data: Its texts.
        input_seconds: Time spent waiting for the next batches.
    """

    def __init__(self, task: str, corpus: corpora.Corpus, changes: dict[str, float]):
        """Compiles the training step."""
        config = importlib.import_module(f"configs.{task}").get_config()
        config.data.update(changes)
        self.config = parse(config)
        data, train = self.config.data, self.config.train
        self.training_data = texts.prepare_data(corpus, data, self.config.seed)
        model = models.build(self.config.model, data.num_words, len(corpus.label_names))
        optimizer = optimizers.adam(train.learning_rate)
        self._trainer = Trainer(
            self.training_data,
            model,
            optimizer,
            averaging=train.averaging,
            batch_size=train.batch_size,
            eval_batch_size=train.eval_batch_size,
            device_memory=data.device_memory,
            seed=0,
        )
        state = steps.init_state(model, optimizer, 0)
        self._state = self._trainer.replicate(jax.tree.map(jax.numpy.copy, state))
        self._trainer.compile(self._state)
        self._epoch = 0
        self.input_seconds = 0.0

    def seconds(self) -> float:
        """Trains the next epoch and returns its duration."""
        self._epoch += 1
        start = time.perf_counter()
        dispatches = self._trainer.epoch(self._state, self._epoch, watch=self._timed)
        self._state, sums = deque(dispatches, maxlen=1).pop()
        jax.block_until_ready(sums)
        return time.perf_counter() - start

    def _timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            start = time.perf_counter()
            item = next(batches, None)
            self.input_seconds += time.perf_counter() - start
            if item is None:
                return
            yield item

    def padding(self) -> float:
        """Share of padding among the tokens of an epoch."""
        data, size = self.training_data, self.config.train.batch_size
        batches = data.epoch_batches(size, seed=0, epoch=1)
        tokens = sum(int(data.lengths[batch.rows].sum()) for batch in batches)
        return 1 - tokens / sum(size * data.buckets[batch.bucket] for batch in batches)


def measure(
    task: str, runs: dict[str, Epochs], steps_per_epoch: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds per epoch under each of the settings, and of as many bare steps, interleaved.

    The first of each is a warm-up.
    """
    config = next(iter(runs.values())).config
    case = Case(
        task, config.train.batch_size, config.data.maxlen, config.model.hidden_size, "train"
    )
    bare_step = baselines.flaxrnn(case)
    dispatches = -(-steps_per_epoch // bare_step.steps)
    times: dict[str, list[float]] = {name: [] for name in [*runs, "bare step"]}
    for _ in range(rounds + 1):
        for name, epochs in runs.items():
            times[name].append(epochs.seconds())
        start = time.perf_counter()
        for _ in range(dispatches):
            bare_step.run()
        seconds = time.perf_counter() - start
        times["bare step"].append(seconds * steps_per_epoch / (dispatches * bare_step.steps))
    return times


def time_task(task: str, rounds: int) -> dict[str, Any]:
    """Times an epoch of a task under each of the settings."""
    corpus = corpora.load_corpus(task, "real")
    runs = {name: Epochs(task, corpus, changes) for name, changes in SETTINGS.items()}
    batch_size = runs["padded"].config.train.batch_size
    steps_per_epoch = runs["padded"].training_data.num_batches(batch_size)
    times = measure(task, runs, steps_per_epoch, rounds)
    medians = {name: statistics.median(seconds[1:]) for name, seconds in times.items()}
    print(f"\n{task}, batches of {batch_size}, {steps_per_epoch} steps per epoch")
    rows = {}
    for name, median in medians.items():
        low, _, high = statistics.quantiles(times[name][1:], n=4)
        rows[name] = {"median_s": median, "quartiles_s": [low, high]}
        line = f"  {name:10} {median:7.3f} s  {low:7.3f}-{high:7.3f}"
        line += f"  {median / medians['padded']:.3f} of padded"
        if run := runs.get(name):
            rows[name] |= {
                "padding": run.padding(),
                "buckets": list(run.training_data.buckets),
                "input_share": run.input_seconds / sum(times[name]),
            }
            line += f"  padding {run.padding():.1%}, input {rows[name]['input_share']:.2%}"
        print(line, flush=True)
    ratios = {
        "buckets_over_padded": medians["buckets"] / medians["padded"],
        "streamed_over_buckets": medians["streamed"] / medians["buckets"],
        "loop_over_bare_step": medians["padded"] / medians["bare step"],
    }
    return {"rounds": rounds, "steps_per_epoch": steps_per_epoch, "settings": rows, **ratios}


def main() -> None:
    """Times the tasks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=["reuters", "imdb"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu", help="used in the name of the result file")
    arguments = parser.parse_args()
    devices.initialize()
    devices.enable_compilation_cache(None)
    tasks = {task: time_task(task, arguments.rounds) for task in arguments.tasks}
    path = throughput.RESULTS / f"epoch-{arguments.device}.json"
    path.write_text(json.dumps({**throughput.provenance(), "tasks": tasks}, indent=1) + "\n")


if __name__ == "__main__":
    main()

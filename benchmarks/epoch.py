"""Times epochs of the real training loop: texts padded, in length buckets, and streamed.

    python -m benchmarks.epoch
    python -m benchmarks.epoch --tasks reuters --rounds 9

Needs the real corpora. The ways take turns, an epoch each, in one process; beside them a dispatch
of training steps on random full-length tokens, as `benchmarks.throughput` times it, so that the
loop can be held against the step. Writes benchmarks/results/epoch-DEVICE.json.
"""

import argparse
import importlib
import json
import statistics
import time
from collections import deque
from typing import Any

import jax

from benchmarks import peers, throughput
from flaxrnn import loop
from flaxrnn.data import corpora
from flaxrnn.nn import models
from flaxrnn.runtime import devices
from flaxrnn.training import optimizers, steps
from flaxrnn.training.trainer import Trainer

WAYS: dict[str, dict[str, float]] = {  # changes of the data group of the task's config
    "padded": {"max_padding": 1.0},
    "buckets": {},
    "streamed": {"device_memory": 0.0},
}


class Epochs:
    """A task trained in one way, epoch by epoch."""

    def __init__(self, task: str, corpus: corpora.Corpus, changes: dict[str, float]):
        """Compiles it."""
        self.config = importlib.import_module(f"configs.{task}").get_config()
        self.config.data.update(changes)
        settings, train = self.config.data, self.config.train
        self.training_data = loop.arranged(corpus, settings)
        model = models.build(self.config.model, settings.num_words, len(corpus.label_names))
        optimizer = optimizers.adam(train.learning_rate, train.schedule, 1)
        self._trainer = Trainer(
            self.training_data,
            model,
            optimizer,
            averaging=train.averaging,
            batch_size=train.batch_size,
            eval_batch_size=train.eval_batch_size,
            device_memory=settings.device_memory,
            seed=0,
        )
        state = steps.init_state(model, optimizer, 0)
        self._state = self._trainer.place(jax.tree.map(jax.numpy.copy, state))
        self._trainer.compile(self._state)
        self._done = 0
        self.waited = 0.0  # seconds for the next batches

    def seconds(self) -> float:
        """Trains an epoch."""
        self._done += 1
        began = time.perf_counter()
        dispatches = self._trainer.epoch(self._state, self._done, watch=self._watch)
        self._state, sums = deque(dispatches, maxlen=1).pop()
        jax.block_until_ready(sums)
        return time.perf_counter() - began

    def _watch(self, fed: Any) -> Any:
        while True:
            began = time.perf_counter()
            item = next(fed, None)
            self.waited += time.perf_counter() - began
            if item is None:
                return
            yield item

    def padding(self) -> float:
        """Share of the tokens of an epoch that are padding."""
        training_data, size = self.training_data, self.config.train.batch_size
        batches = training_data.epoch_batches(size, seed=0, epoch=1)
        tokens = sum(int(training_data.lengths[batch.rows].sum()) for batch in batches)
        return 1 - tokens / sum(size * training_data.buckets[batch.bucket] for batch in batches)


def time_task(task: str, rounds: int) -> dict[str, Any]:
    """Times every way of a task, in turns, and the bare step."""
    corpus = corpora.load_corpus(task, "real")
    ways = {name: Epochs(task, corpus, changes) for name, changes in WAYS.items()}
    config = ways["padded"].config
    spec = {
        "model": task,
        "batch": config.train.batch_size,
        "length": config.data.maxlen,
        "hidden": config.model.hidden_size,
        "mode": "train",
    }
    bare_step = peers.flaxrnn(spec)
    dispatch = bare_step.steps  # type: ignore[attr-defined]
    steps_an_epoch = ways["padded"].training_data.num_batches(config.train.batch_size)
    times: dict[str, list[float]] = {name: [] for name in [*ways, "bare step"]}
    for _ in range(rounds + 1):  # the first is a warm-up
        for name, epochs in ways.items():
            times[name].append(epochs.seconds())
        count = -(-steps_an_epoch // dispatch)
        began = time.perf_counter()
        for _ in range(count):
            bare_step()
        seconds = time.perf_counter() - began
        times["bare step"].append(seconds * steps_an_epoch / (count * dispatch))
    medians = {name: statistics.median(some[1:]) for name, some in times.items()}
    print(f"\n{task}, batches of {config.train.batch_size}, {steps_an_epoch} steps an epoch")
    rows = {}
    for name, median in medians.items():
        low, _, high = statistics.quantiles(times[name][1:], n=4)
        rows[name] = {"median_s": median, "quartiles_s": [low, high]}
        line = f"  {name:10} {median:7.3f} s  {low:7.3f}-{high:7.3f}"
        line += f"  {median / medians['padded']:.3f} of padded"
        if name in ways:
            way = ways[name]
            rows[name] |= {
                "padding": way.padding(),
                "buckets": list(way.training_data.buckets),
                "waited_share": way.waited / sum(times[name]),
            }
            line += f"  padding {way.padding():.1%}, waits {rows[name]['waited_share']:.2%}"
        print(line, flush=True)
    ratios = {
        "buckets_over_padded": medians["buckets"] / medians["padded"],
        "streamed_over_buckets": medians["streamed"] / medians["buckets"],
        "loop_over_bare_step": medians["padded"] / medians["bare step"],
    }
    return {"rounds": rounds, "steps_an_epoch": steps_an_epoch, "ways": rows, **ratios}


def main() -> None:
    """Times the tasks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=["reuters", "imdb"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu", help="part of the result file's name")
    arguments = parser.parse_args()
    devices.use_all_cores()
    devices.enable_compilation_cache(None)
    tasks = {task: time_task(task, arguments.rounds) for task in arguments.tasks}
    path = throughput.RESULTS / f"epoch-{arguments.device}.json"
    path.write_text(json.dumps({**throughput.provenance(), "tasks": tasks}, indent=1) + "\n")


if __name__ == "__main__":
    main()

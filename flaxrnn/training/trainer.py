"""A run's texts through the compiled steps: an epoch of training, an evaluation."""

from __future__ import annotations

import contextlib
import functools
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import PartitionSpec

from flaxrnn.data import batching
from flaxrnn.data.prefetch import DevicePrefetcher
from flaxrnn.nn import models
from flaxrnn.runtime import devices
from flaxrnn.training import metrics, steps

STEPS_PER_DISPATCH = 16  # batches that one program runs through


class MetricAccumulator:
    """Adds up what the dispatches of an epoch came to.

    On accelerators it reads the dispatch before the last, so that they always have the next one
    while the host looks.

    Attributes:
        first_bad: The first step that was not finite; None: all were.
        stop: The signal that asks to stop; 0: none.
    """

    def __init__(self, total: metrics.Sums):
        """Goes on from what the earlier dispatches of the epoch came to."""
        self.first_bad: int | None = None
        self.stop = 0
        self._total = total
        self._unread: deque[metrics.Sums] = deque()
        self._behind = 0 if jax.default_backend() == "cpu" else 1

    def append(self, sums: metrics.Sums) -> None:
        """Takes the sums of the next dispatch, see `steps.train_steps`."""
        self._unread.append(sums)
        self._read(self._behind)

    def read(self) -> dict[str, float]:
        """All sums so far; waits for the last dispatch."""
        self._read(0)
        return {name: float(value) for name, value in self._total.items()}

    @property
    def loss(self) -> float:
        """Mean in nats of what was read so far, NaN of nothing."""
        return metrics.means(self._total)["loss"] if self._total.get("weight") else math.nan

    def _read(self, down_to: int) -> None:
        while len(self._unread) > down_to:
            sums = jax.device_get(self._unread.popleft())
            first_bad, stop = int(sums.pop("first_bad")), int(sums.pop("stop"))
            if first_bad != steps.NO_STEP and self.first_bad is None:
                self.first_bad = first_bad
            self.stop = max(self.stop, stop)
            self._total = metrics.add(self._total, sums)


class Trainer:
    """Trains and evaluates a model on the texts of a run, over all devices.

    `compile` comes first.
    """

    def __init__(
        self,
        training_data: batching.TrainingData,
        model: models.TextModel,
        optimizer: optax.GradientTransformation,
        *,
        averaging: bool,
        batch_size: int,
        eval_batch_size: int,
        device_memory: float,
        seed: int,
    ):
        """Sends the texts to the devices, if they fit.

        Args:
            training_data: The texts.
            model: What to train.
            optimizer: Of the state.
            averaging: See `steps.train_step`.
            batch_size: Texts a training step.
            eval_batch_size: Texts a step of an evaluation.
            device_memory: MiB of each device for texts.
            seed: Of the order.
        """
        self._material = training_data
        self._batch_size, self._eval_batch_size, self._seed = batch_size, eval_batch_size, seed
        self._mesh = devices.make_mesh(batch_size)
        self._feed = DevicePrefetcher(training_data, self._mesh, device_memory)
        settings: dict[str, Any] = {"model": model, "buckets": training_data.buckets}
        train = functools.partial(
            steps.train_steps, optimizer=optimizer, averaging=averaging, **settings
        )
        evaluate = functools.partial(steps.evaluate, **settings)
        lie = (self._mesh, self._feed.spec)
        self._train: Any = steps.in_parallel(train, *lie, donate=True)
        self._evaluate: Any = steps.in_parallel(evaluate, *lie, donate=False)

    @property
    def resident(self) -> bool:
        """Whether all texts lie on the devices."""
        return self._feed.resident

    def place(self, tree: Any) -> Any:
        """A state or parameters on all devices."""
        return devices.shard(tree, self._mesh, PartitionSpec())

    def compile(self, state: steps.TrainState) -> None:
        """Compiles both programs for a state like this one.

        Raises:
            OutOfMemoryError: A device or the host has too little.
        """
        some = self._material.rows["train"][:1]
        for name, size, tree in (
            ("_train", self._batch_size, state),
            ("_evaluate", self._eval_batch_size, state.average),
        ):
            texts, chunk = next(self._feed(self._chunks([batching.Batch(0, some)], size)))
            with self._memory(name == "_train", self._material.buckets[-1]):
                program = devices.compiled(getattr(self, name), tree, texts, self._place(chunk))
            setattr(self, name, program)

    def batches(self) -> int:
        """Batches an epoch."""
        return self._material.num_batches(self._batch_size)

    def epoch(
        self,
        state: steps.TrainState,
        number: int,
        done: int = 0,
        stop: Callable[[], int] = lambda: 0,
        watch: Callable[[Iterator[Any]], Iterator[Any]] = iter,
    ) -> Iterator[tuple[steps.TrainState, metrics.Sums]]:
        """Trains an epoch, a dispatch of many steps at a time.

        Args:
            state: Its memory is used for the next one; so is that of each state given.
            number: Of the epoch, which decides on its order.
            done: Batches of it that are done already.
            stop: Gives the signal that asks this process to stop, 0: none.
            watch: Is given what the devices are fed with, a dispatch each, and gives it back.

        Yields:
            After each dispatch, the new state, and the sums of `steps.train_steps`, both perhaps
            still being computed.

        Raises:
            OutOfMemoryError: A device or the host has too little.
        """
        batches = self._material.epoch_batches(self._batch_size, self._seed, number)[done:]
        chunks = self._chunks(batches, self._batch_size)
        for texts, chunk in watch(self._feed(chunks)):
            chunk = chunk._replace(stop=np.full_like(chunk.stop, stop()))
            length = self._material.buckets[chunk.buckets[: chunk.used].max()]
            with self._memory(True, length):
                state, sums = self._train(state, texts, self._place(chunk))
                if jax.default_backend() == "cpu":
                    # Two programs under way can wait for each other's threads for ever.
                    jax.block_until_ready(sums)
            yield state, sums

    def evaluate(
        self, params: steps.Params, split: str
    ) -> tuple[metrics.Sums, dict[str, np.ndarray]]:
        """Evaluates on the N texts of "train", "val" or "test".

        Returns:
            Sums over them, and of each, in the order of the split, the class "predicted", int32
            [N], and its "probability", float32 [N], unless outputs are per token; see
            `steps.evaluate`.
        """
        batches = self._material.batches(split, self._eval_batch_size)
        total: metrics.Sums = {}
        parts: dict[str, list[np.ndarray]] = {}
        with self._memory(False, self._material.buckets[-1]):
            for texts, chunk in self._feed(self._chunks(batches, self._eval_batch_size)):
                sums, found = self._evaluate(params, texts, self._place(chunk))
                total = metrics.add(total, sums)
                for name, rows in jax.device_get(found).items():
                    parts.setdefault(name, []).append(rows[chunk.weights > 0])
        order = np.argsort(np.concatenate([batch.rows for batch in batches]))
        return total, {name: np.concatenate(rows)[order] for name, rows in parts.items()}

    def _chunks(self, batches: list[batching.Batch], batch_size: int) -> list[batching.BatchGroup]:
        return list(
            batching.group_batches(batches, batch_size, STEPS_PER_DISPATCH, self._mesh.size)
        )

    def _place(self, chunk: batching.BatchGroup) -> batching.BatchGroup:
        return devices.shard(chunk, self._mesh, steps.CHUNK)

    def _memory(self, training: bool, length: int) -> contextlib.AbstractContextManager[None]:
        size = self._batch_size if training else self._eval_batch_size
        field = "train.batch_size" if training else "train.eval_batch_size"
        return devices.raise_on_oom(
            f"out of memory with a batch of {size:,} texts of {length:,} tokens on"
            f" {self._mesh.size} devices; lower {field}, data.maxlen or model.hidden_size, or set"
            " model.recompute"
        )

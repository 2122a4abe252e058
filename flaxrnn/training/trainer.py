"""Runs the compiled steps over the texts of a run: a training epoch or an evaluation."""

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
from jax.sharding import Mesh, PartitionSpec

from flaxrnn.data import batching
from flaxrnn.data.prefetch import DevicePrefetcher
from flaxrnn.nn import models
from flaxrnn.runtime import devices
from flaxrnn.training import metrics, parallel, steps
from flaxrnn.training.objective import Objective

STEPS_PER_DISPATCH = 16  # batches per call of the compiled program


class MetricAccumulator:
    """Adds up the sums of an epoch's dispatches.

    If dispatches overlap, it reads one dispatch late, so that the next one is already running while
    the host waits.

    Attributes:
        first_nonfinite_step: The first step with a non-finite loss or gradient; None: none had one.
        stop: Number of the signal that asks the run to stop; 0: none.
    """

    def __init__(self, total: metrics.Sums, overlap: bool = False):
        """Starts from the sums of the epoch's earlier dispatches; see `Trainer.overlap`."""
        self.first_nonfinite_step: int | None = None
        self.stop = 0
        self._total = total
        self._unread: deque[metrics.Sums] = deque()
        self._lag = 1 if overlap else 0

    def append(self, sums: metrics.Sums) -> None:
        """Adds the sums of the next dispatch; see `steps.train_steps`."""
        self._unread.append(sums)
        self._read_until(self._lag)

    def read(self) -> dict[str, float]:
        """All sums so far; waits for the last dispatch."""
        self._read_until(0)
        return {name: float(value) for name, value in self._total.items()}

    @property
    def loss(self) -> float:
        """Mean loss in nats over what has been read so far; NaN if nothing has."""
        return metrics.means(self._total)["loss"] if self._total.get("count") else math.nan

    def _read_until(self, unread: int) -> None:
        while len(self._unread) > unread:
            sums = jax.device_get(self._unread.popleft())
            first = int(sums.pop("first_nonfinite_step"))
            if first != steps.NO_STEP and self.first_nonfinite_step is None:
                self.first_nonfinite_step = first
            self.stop = max(self.stop, int(sums.pop("stop")))
            self._total = metrics.add(self._total, sums)


@functools.lru_cache(maxsize=4)
def _programs(
    mesh: Mesh,
    texts: PartitionSpec,
    model: models.TextModel,
    optimizer: optax.GradientTransformation,
    averaging: bool,
    objective: Objective,
    buckets: tuple[int, ...],
    shards: int,
    measured: tuple[metrics.Metric, ...],
) -> tuple[Any, Any]:
    """The programs of training and evaluation, which equal runs of a process, like seeds, share.

    Args:
        mesh: Devices.
        texts: How the texts are sharded.
        model: See `Trainer.__init__`.
        optimizer: See `Trainer.__init__`.
        averaging: See `Trainer.__init__`.
        objective: See `Trainer.__init__`.
        buckets: Lengths of the texts.
        shards: See `Trainer.__init__`.
        measured: All metrics: one that is added later needs programs of its own.
    """
    del measured
    settings: dict[str, Any] = {
        "model": model,
        "buckets": buckets,
        "num_shards": shards // mesh.size,
    }
    train = functools.partial(
        steps.train_steps,
        optimizer=optimizer,
        averaging=averaging,
        objective=objective,
        **settings,
    )
    evaluate = functools.partial(steps.evaluate, **settings)
    compiled_for = functools.partial(parallel.in_parallel, ynnpack=not shards)
    return (
        compiled_for(train, mesh, texts, parallel.STOP_SPEC, donate=True),
        compiled_for(evaluate, mesh, texts, donate=False),
    )


class Trainer:
    """Trains and evaluates a model on the texts of a run, on as many devices as its batches fill.

    `compile` comes first, so that its time is known and nothing compiles later.
    """

    def __init__(
        self,
        training_data: batching.TrainingData,
        model: models.TextModel,
        optimizer: optax.GradientTransformation,
        *,
        averaging: bool,
        objective: Objective = Objective(),  # noqa: B008 (frozen)
        batch_size: int,
        eval_batch_size: int,
        device_memory: float,
        seed: int,
        precision: str = "default",
        shards: int = 0,
    ):
        """Sends the texts to the devices, if they fit.

        Args:
            training_data: The texts.
            model: The model to train.
            optimizer: The optimizer of the state.
            averaging: See `steps.train_step`.
            objective: See `steps.train_step`.
            batch_size: Texts per training step.
            eval_batch_size: Texts per step of an evaluation.
            device_memory: MiB per device that the texts may use.
            seed: Seed of the shuffling.
            precision: See `devices.matmul_precision`.
            shards: Parts of each batch that are computed by themselves, see `training.shards`; 0:
                each device computes its rows at once.
        """
        self._data = training_data
        self._batch_size, self._eval_batch_size, self._seed = batch_size, eval_batch_size, seed
        self._mesh, self._shards = devices.make_mesh(batch_size, shards=shards), shards
        self._precision = precision
        self._prefetcher = DevicePrefetcher(training_data, self._mesh, device_memory)
        self._train, self._evaluate = _programs(
            self._mesh,
            self._prefetcher.spec,
            model,
            optimizer,
            averaging,
            objective,
            training_data.buckets,
            shards,
            tuple(metrics.METRICS.values()),
        )

    @property
    def overlap(self) -> bool:
        """Whether a dispatch is sent while the one before it runs.

        On CPU, two programs in flight can deadlock, each waiting for the other's threads.
        """
        return devices.platform(self._mesh) != "cpu"

    @property
    def resident(self) -> bool:
        """Whether all texts are on the devices."""
        return self._prefetcher.resident

    def replicate(self, tree: Any) -> Any:
        """Copies a state or parameters to every device.

        No buffer is one of `tree`, or appears twice, so that a step may take them all.
        """
        # By the host: a copy on the devices would be a program to compile for each shape.
        return devices.shard(jax.tree.map(np.array, tree), self._mesh, PartitionSpec())

    def compile(self, state: steps.TrainState) -> None:
        """Compiles both programs for states with these shapes.

        Raises:
            OutOfMemoryError: A device or the host ran out of memory.
        """
        batches = [batching.Batch(0, self._data.rows["train"][:1])]
        longest = self._data.buckets[-1]
        texts, group = next(self._groups(batches, self._batch_size))
        with self._raise_on_oom(True, longest), devices.matmul_precision(self._precision):
            self._train = devices.compiled(
                self._train, state, texts, self._shard(group), self._signal_per_device(0)
            )
        texts, group = next(self._groups(batches, self._eval_batch_size))
        with self._raise_on_oom(False, longest), devices.matmul_precision(self._precision):
            self._evaluate = devices.compiled(
                self._evaluate, state.average, texts, self._shard(group)
            )

    @property
    def num_texts(self) -> int:
        """Texts per epoch."""
        return len(self._data.fitted_to)

    def num_batches(self) -> int:
        """Batches per epoch."""
        return self._data.num_batches(self._batch_size)

    def epoch(
        self,
        state: steps.TrainState,
        number: int,
        done: int = 0,
        stop: Callable[[], int] = lambda: 0,
        watch: Callable[[Iterator[Any]], Iterator[Any]] = iter,
    ) -> Iterator[tuple[steps.TrainState, metrics.Sums]]:
        """Trains an epoch, one dispatch of many steps at a time.

        Args:
            state: Donated, as is each state yielded: the next dispatch reuses its memory.
            number: Number of the epoch, which determines the order of its batches.
            done: Batches of the epoch that are already done.
            stop: Returns the number of the signal that asks this process to stop, or 0.
            watch: Wraps the iterator over the inputs of the dispatches, to time the wait for them.

        Yields:
            After each dispatch, the new state and the sums of `steps.train_steps`, neither of which
            need be computed yet.

        Raises:
            OutOfMemoryError: A device or the host ran out of memory.
        """
        batches = self._data.epoch_batches(self._batch_size, self._seed, number)[done:]
        for texts, group in watch(self._groups(batches, self._batch_size)):
            length = self._data.buckets[group.buckets[: group.used].max()]
            with self._raise_on_oom(True, length):
                signal = self._signal_per_device(stop())
                state, sums = self._train(state, texts, self._shard(group), signal)
                if not self.overlap:
                    jax.block_until_ready(sums)
            yield state, sums

    def evaluate(
        self, params: steps.Params, split: str
    ) -> tuple[metrics.Sums, dict[str, np.ndarray]]:
        """Evaluates on the N texts of "train", "val" or "test".

        Returns:
            The sums over all texts; and, unless the head has one example per token, for each text
            in the order of the split the class "predicted", int32 [N], its "probability", float32
            [N], and of not too many classes the "logits", float32 [N, C]. See `steps.evaluate`.
        """
        batches = self._data.batches(split, self._eval_batch_size)
        total: metrics.Sums = {}
        parts: dict[str, list[np.ndarray]] = {}
        with self._raise_on_oom(False, self._data.buckets[-1]):
            for texts, group in self._groups(batches, self._eval_batch_size):
                sums, per_text = self._evaluate(params, texts, self._shard(group))
                total = metrics.add(total, jax.device_get(sums))
                for name, rows in jax.device_get(per_text).items():
                    parts.setdefault(name, []).append(rows[group.weights > 0])
        order = np.argsort(np.concatenate([batch.rows for batch in batches]))
        return total, {name: np.concatenate(rows)[order] for name, rows in parts.items()}

    def _groups(
        self, batches: list[batching.Batch], batch_size: int
    ) -> Iterator[tuple[Any, batching.BatchGroup]]:
        """The inputs of each dispatch: texts and a group of batches that index them."""
        parts = self._shards or self._mesh.size
        groups = batching.group_batches(batches, batch_size, STEPS_PER_DISPATCH, parts)
        return self._prefetcher(groups)

    def _shard(self, group: batching.BatchGroup) -> batching.BatchGroup:
        return devices.shard(group, self._mesh, parallel.GROUP_SPEC)

    def _signal_per_device(self, signal: int) -> jax.Array:
        return devices.shard(
            np.full(self._mesh.size, signal, np.int32), self._mesh, parallel.STOP_SPEC
        )

    def _raise_on_oom(self, training: bool, length: int) -> contextlib.AbstractContextManager[None]:
        size = self._batch_size if training else self._eval_batch_size
        field = "train.batch_size" if training else "train.eval_batch_size"
        return devices.raise_on_oom(
            f"out of memory with a batch of {size:,} texts of {length:,} tokens on"
            f" {self._mesh.size} devices; lower {field}, data.maxlen or model.hidden_size, or set"
            " model.recompute"
        )

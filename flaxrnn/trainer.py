"""A run's texts through the compiled steps: an epoch of training, an evaluation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import optax

from flaxrnn import data, devices, metrics, models, steps
from flaxrnn.feed import Feed

STEPS_A_DISPATCH = 16  # batches that one program runs through


class Trainer:
    """Trains and evaluates a model on the texts of a run, over all devices.

    `compile` comes first.
    """

    def __init__(
        self,
        material: data.Material,
        model: models.TextClassifier,
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
            material: The texts.
            model: What to train.
            optimizer: Of the state.
            averaging: See `steps.train_step`.
            batch_size: Texts a training step.
            eval_batch_size: Texts a step of an evaluation.
            device_memory: MiB of each device for texts.
            seed: Of the order.
        """
        self._material = material
        self._batch_size, self._eval_batch_size, self._seed = batch_size, eval_batch_size, seed
        self._mesh = devices.mesh_for(batch_size)
        self._feed = Feed(material, self._mesh, device_memory)
        settings: dict[str, Any] = {"model": model, "buckets": material.buckets}
        train = functools.partial(
            steps.train_steps, optimizer=optimizer, averaging=averaging, **settings
        )
        evaluate = functools.partial(steps.evaluate, **settings)
        self._train: Any = steps.in_parallel(train, self._mesh, donate=True)
        self._evaluate: Any = steps.in_parallel(evaluate, self._mesh, donate=False)

    @property
    def resident(self) -> bool:
        """Whether all texts lie on the devices."""
        return self._feed.resident

    def place(self, tree: Any) -> Any:
        """A state or parameters on all devices."""
        return devices.everywhere(tree, self._mesh)

    def compile(self, state: steps.TrainState) -> None:
        """Compiles both programs for a state like this one."""
        some = self._material.rows["train"][:1]
        fed = next(self._feed(self._chunks([data.Batch(0, some)], self._batch_size)))
        self._train = devices.compiled(self._train, state, *fed)
        fed = next(self._feed(self._chunks([data.Batch(0, some)], self._eval_batch_size)))
        self._evaluate = devices.compiled(self._evaluate, state.average, *fed)

    def epoch(
        self,
        state: steps.TrainState,
        number: int,
        watch: Callable[[Iterable[Any], int], Iterable[Any]] = lambda fed, count: fed,
    ) -> tuple[steps.TrainState, metrics.Sums, int | None]:
        """Trains an epoch.

        Args:
            state: Its memory is used for the next one.
            number: Of the epoch, which decides on its order.
            watch: Is given what the devices are fed with, a dispatch each, and the number of
                dispatches; gives it back.

        Returns:
            The new state, sums over the epoch, and the number of the first step that was not
            finite, where the epoch broke off, else None.
        """
        material = self._material
        batches = data.epoch_batches(
            material.rows["train"],
            material.lengths,
            material.buckets,
            self._batch_size,
            self._seed,
            number,
        )
        chunks = self._chunks(batches, self._batch_size)
        parts: list[metrics.Sums] = []
        for texts, chunk in watch(self._feed(chunks), len(chunks)):
            state, sums = self._train(state, texts, chunk)
            parts.append(sums)
            # A look at the dispatch before, so that an accelerator always has the next one. On
            # CPU, two programs under way can wait for each other's threads for ever.
            look = parts[-1 if jax.default_backend() == "cpu" else max(-2, -len(parts))]
            if look["first_bad"] != steps.NO_STEP:
                break
        first_bad = min(int(sums.pop("first_bad")) for sums in parts)
        return state, _sum_up(parts), None if first_bad == steps.NO_STEP else first_bad

    def evaluate(self, params: steps.Params, split: str) -> metrics.Sums:
        """Sums over the texts of "train", "val" or "test", see `steps.evaluate`."""
        material = self._material
        batches = data.batches(
            material.rows[split], material.lengths, material.buckets, self._eval_batch_size
        )
        chunks = self._chunks(batches, self._eval_batch_size)
        return _sum_up(self._evaluate(params, *fed) for fed in self._feed(chunks))

    def _chunks(self, batches: list[data.Batch], batch_size: int) -> list[data.Chunk]:
        return list(data.chunks(batches, batch_size, STEPS_A_DISPATCH, self._mesh.size))


def _sum_up(parts: Iterable[metrics.Sums]) -> metrics.Sums:
    """Adds up dispatches, in float64 on the host."""
    total: metrics.Sums = {}
    for part in parts:
        for name, value in jax.device_get(part).items():
            total[name] = total.get(name, 0) + np.float64(value)
    return total

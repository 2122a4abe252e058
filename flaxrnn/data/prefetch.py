"""Texts where the devices can read them: all there from the start, or sent ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flaxrnn.data import batching
from flaxrnn.runtime import devices

_AHEAD = 2  # chunks under way to the devices


class DevicePrefetcher:
    """Gives each chunk of batches the arrays that its rows point into.

    Texts that fit into `memory_mib` of each device lie on all of them and are sent once. Of others,
    each device is sent those of its own rows of a chunk, while it works on the chunks before.

    Attributes:
        resident: Whether all texts lie on the devices.
        spec: How the arrays lie on them.
    """

    def __init__(self, training_data: batching.TrainingData, mesh: Mesh, memory_mib: float):
        """Sends the texts if they fit.

        Args:
            training_data: The texts that chunks may name.
            mesh: Devices that share each batch.
            memory_mib: Of each device, for texts.
        """
        self._texts, maxlen = training_data.texts, training_data.buckets[-1]
        small = self._texts.ids.max(initial=0) < 2**16
        self._shape = (maxlen, training_data.padding, np.uint16 if small else np.int32)
        self._mesh = mesh
        one = self._texts.take(np.arange(1)).padded(*self._shape)
        size = len(self._texts) * sum(array.nbytes for array in one.values())
        self.resident = size <= memory_mib * 2**20
        self.spec = PartitionSpec() if self.resident else PartitionSpec("data")
        if self.resident:
            self._sent = devices.shard(self._texts.padded(*self._shape), mesh, self.spec)

    def __call__(
        self, chunks: Iterable[batching.BatchGroup]
    ) -> Iterator[tuple[Any, batching.BatchGroup]]:
        """Each chunk with the arrays of its texts, see `ragged.RaggedTexts.padded`."""
        if self.resident:
            return ((self._sent, chunk) for chunk in chunks)
        return _ahead(self._with_texts, chunks)

    def _with_texts(self, chunk: batching.BatchGroup) -> tuple[Any, batching.BatchGroup]:
        size, (S, B) = self._mesh.size, chunk.rows.shape
        own = [d.process_index == jax.process_index() for d in self._mesh.devices.flat]
        rows = chunk.rows.reshape(S, size, B // size).swapaxes(0, 1)[own]  # by device
        arrays = self._texts.take(rows.ravel()).padded(*self._shape)
        sharding = NamedSharding(self._mesh, self.spec)
        sent = {
            name: jax.make_array_from_process_local_data(sharding, array)
            for name, array in arrays.items()
        }
        numbers = np.arange(S * B // size, dtype=np.int32).reshape(S, B // size)
        return sent, chunk._replace(rows=np.tile(numbers, size))


def _ahead(function: Callable, items: Iterable[Any]) -> Iterator[Any]:
    """The results of a function, computed by a thread before they are asked for."""
    with ThreadPoolExecutor(1) as pool:
        under_way: deque = deque()
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) > _AHEAD:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

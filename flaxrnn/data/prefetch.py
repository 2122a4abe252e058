"""Texts where the devices can read them: resident from the start, or sent ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flaxrnn.data.batching import BatchGroup, TrainingData
from flaxrnn.runtime import devices

_AHEAD = 2  # groups on their way to the devices


class DevicePrefetcher:
    """Provides each group of batches with the arrays that its rows index.

    Texts that fit into `memory_mib` of each device are sent once, to all of them. Otherwise each
    device is sent the texts of its own rows of a group, while it works on the previous groups.

    Attributes:
        resident: Whether all texts are on every device.
        spec: How the arrays are sharded.
    """

    def __init__(self, training_data: TrainingData, mesh: Mesh, memory_mib: float):
        """Sends the texts if they fit.

        Args:
            training_data: The texts that groups may index.
            mesh: Devices that share each batch.
            memory_mib: Memory of each device for texts, in MiB.
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
            self._resident = devices.shard(self._texts.padded(*self._shape), mesh, self.spec)

    def __call__(self, groups: Iterable[BatchGroup]) -> Iterator[tuple[Any, BatchGroup]]:
        """Each group with the arrays of its texts; see `ragged.RaggedTexts.padded`."""
        if self.resident:
            return ((self._resident, group) for group in groups)
        return _ahead(self._send, groups)

    def _send(self, group: BatchGroup) -> tuple[Any, BatchGroup]:
        """Sends each device its texts; the rows of the group returned index those."""
        size, (S, B) = self._mesh.size, group.rows.shape
        local = [d.process_index == jax.process_index() for d in self._mesh.devices.flat]
        rows = group.rows.reshape(S, size, B // size).swapaxes(0, 1)[local]  # by device
        arrays = self._texts.take(rows.ravel()).padded(*self._shape)
        sharding = NamedSharding(self._mesh, self.spec)
        sent = {
            name: jax.make_array_from_process_local_data(sharding, array)
            for name, array in arrays.items()
        }
        numbers = np.arange(S * B // size, dtype=np.int32).reshape(S, B // size)
        return sent, group._replace(rows=np.tile(numbers, size))


def _ahead(function: Callable, items: Iterable[Any]) -> Iterator[Any]:
    """The results of a function, computed by a thread up to `_AHEAD` items before their use."""
    with ThreadPoolExecutor(1) as pool:
        pending: deque = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

"""Texts where the devices can read them: all there from the start, or sent ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jax.sharding import Mesh

from flaxrnn import data, devices

_AHEAD = 2  # chunks under way to the devices


class Feed:
    """Gives each chunk of batches the arrays that its rows point into.

    Texts that fit into `memory_mib` of each device lie there and are sent once. Of others, those of
    a chunk are sent while the devices work on the chunks before it.
    """

    def __init__(self, material: data.Material, mesh: Mesh, memory_mib: float):
        """Sends the texts if they fit.

        Args:
            material: The texts that chunks may name.
            mesh: Devices that each get the texts.
            memory_mib: Of each device, for texts.
        """
        self._texts, maxlen = material.texts, material.buckets[-1]
        small = self._texts.ids.max(initial=0) < 2**16
        self._shape = (maxlen, material.padding, np.uint16 if small else np.int32)
        self._mesh = mesh
        size = len(self._texts) * (maxlen * np.dtype(self._shape[2]).itemsize + 8)
        self.resident = size <= memory_mib * 2**20
        if self.resident:
            self._sent = self._send(self._texts)

    def __call__(self, chunks: Iterable[data.Chunk]) -> Iterator[tuple[Any, data.Chunk]]:
        """Each chunk with the arrays of its texts, see `data.Split.padded`."""
        if self.resident:
            return ((self._sent, chunk) for chunk in chunks)
        return _ahead(self._with_texts, chunks)

    def _with_texts(self, chunk: data.Chunk) -> tuple[Any, data.Chunk]:
        rows = np.arange(chunk.rows.size, dtype=np.int32).reshape(chunk.rows.shape)
        return self._send(self._texts.take(chunk.rows.ravel())), chunk._replace(rows=rows)

    def _send(self, texts: data.Split) -> Any:
        return devices.everywhere(texts.padded(*self._shape), self._mesh)


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

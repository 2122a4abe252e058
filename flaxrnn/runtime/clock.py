"""Wall-clock seconds spent in each phase of a run, summed over its restarts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

PHASES = ("startup", "ngrams", "compile", "train", "input", "eval", "test")


class Clock:
    """Accumulates seconds per phase.

    "ngrams", the fit of the n-gram classifier, is part of "startup", and "input", the wait for the
    next batches, of "train". "eval" covers every validation,
    "test" the single evaluation on the test split.
    """

    def __init__(self) -> None:
        """Starts the total."""
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._started = time.perf_counter()
        self._earlier = 0.0
        self._final: dict[str, float] | None = None

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Adds the duration of a block that does not raise to `phase`."""
        started = time.perf_counter()
        yield
        self._seconds[phase] += time.perf_counter() - started

    def each(self, phase: str, items: Iterator[Any]) -> Iterator[Any]:
        """Yields the items, none of them None; adds the time spent waiting for them to `phase`."""
        while True:
            with self(phase):
                item = next(items, None)
            if item is None:
                return
            yield item

    def add(self, earlier: dict[str, float]) -> None:
        """Adds what `read` returned before the run was restarted; {}: it was not."""
        for phase in self._seconds:
            self._seconds[phase] += earlier.get(phase, 0.0)
        self._earlier += earlier.get("total", 0.0)

    def freeze(self, final: dict[str, float]) -> None:
        """Ends the count at what `read` returned at the end of the run."""
        self._final = final

    def read(self) -> dict[str, float]:
        """Seconds per phase, and "total", which also counts the time between phases."""
        if self._final is not None:
            return self._final
        total = self._earlier + time.perf_counter() - self._started
        return {**self._seconds, "total": total}

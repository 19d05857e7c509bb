"""Timing of several ways to do the same: in turns, so that what disturbs one of them disturbs all."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

LARGER = 4
"""The buffer that is streamed through is so many times the last-level cache."""
WITHIN = 0.005
"""Seconds: a way that is quicker runs several times in its turn."""
MOST = 20
"""Runs in one turn."""


class Way(NamedTuple):
    """A way to read the rows.

    Attributes:
        name: Of the row in the table.
        run: What is timed.
        rows: Gives the rows of such a run, to be held against those of the others.
        prepare: Done before each run, not timed.
    """

    name: str
    run: Callable[[], object]
    rows: Callable[[], list[tuple[Any, ...]]]
    prepare: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Times:
    """Seconds: the median of each round.

    Attributes:
        rounds: One number each.
    """

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of all rounds."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """First and third quartile."""
        if len(self.rounds) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return low, high

    def over(self, other: Times) -> float:
        """Return the median of the ratios in each round: what slows a whole round down takes no part in it."""
        return statistics.median(a / b for a, b in zip(self.rounds, other.rounds, strict=True))

    def to_json(self) -> dict[str, float]:
        """Return microseconds."""
        low, high = self.spread
        return {"median_us": self.median * 1e6, "low_us": low * 1e6, "high_us": high * 1e6}


class Flusher:
    """Pushes everything out of the CPU's caches, by reading and writing each line of a large buffer.

    Args:
        function: ``flush`` of ``limit.c``.
    """

    def __init__(self, function: Any) -> None:
        self.cache = last_level_cache()
        self.size = LARGER * self.cache
        self._buffer = ctypes.create_string_buffer(self.size)
        self._function = function
        function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_uint64], ctypes.c_uint64

    def __call__(self) -> None:
        """Do it."""
        self._function(ctypes.addressof(self._buffer), self.size // 8)


def last_level_cache() -> int:
    """Return the bytes of this machine's largest cache; 32 MiB where it does not tell."""
    sizes = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()
        sizes.append(int(text[:-1]) << {"K": 10, "M": 20}[text[-1]])
    return max(sizes, default=32 << 20)


def in_turns(ways: Sequence[Way], rounds: int, flush: Callable[[], None] | None = None) -> dict[str, Times]:
    """Time ways, one after the other in each round.

    Args:
        ways: What to time.
        rounds: How often.
        flush: Empties the CPU's caches before each run; without it each turn begins with a run that does not count.
    """
    found: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            found[way.name].append(_turn(way, flush))
    return {name: Times(tuple(times)) for name, times in found.items()}


def _turn(way: Way, flush: Callable[[], None] | None) -> float:
    if flush:
        way.prepare()
        flush()
        return _once(way)
    way.prepare()
    first = _once(way)
    times = []
    for _ in range(max(1, min(MOST, int(WITHIN / first)))):
        way.prepare()
        times.append(_once(way))
    return statistics.median(times)


def _once(way: Way) -> float:
    started = time.perf_counter()
    way.run()
    return time.perf_counter() - started

"""A bitmap of pages in a dump: which are set, and how many before a page; read as needed, never whole."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from functools import lru_cache

from yamori.hypervisors.vm import Source

_PART = 512
"""Bytes whose set bits are counted ahead: 4096 pages; the counts take 1/64 of the bitmap."""
_BITS = 8 * _PART
_AT_ONCE = 1 << 20
_KEPT = 64

_ONES = re.compile("1+")


class Bitmap:
    """A bitmap in a source, the lowest bit of each byte first, as the kernel's and ``makedumpfile``'s are.

    Args:
        source: Where it lies.
        offset: Of its first byte.
        bits: How many count; what is beyond the source's end is not set.
    """

    def __init__(self, source: Source, offset: int, bits: int) -> None:
        self._source = source
        self._offset = offset
        self._bits = bits
        self._size = -(-bits // 8)
        self._part = lru_cache(maxsize=_KEPT)(self._load)
        self._before = array("Q", [0])
        for data in self._pieces():
            if not data.strip(b"\0"):
                self._before.extend([self._before[-1]] * -(-len(data) // _PART))
                continue
            for at in range(0, len(data), _PART):
                part = int.from_bytes(data[at : at + _PART], "little")
                self._before.append(self._before[-1] + part.bit_count())

    @property
    def count(self) -> int:
        """How many bits are set."""
        return self._before[-1]

    def __contains__(self, index: int) -> bool:
        """Say whether a bit is set, which lies within the bitmap."""
        number, rest = divmod(index, _BITS)
        return bool(self._part(number) >> rest & 1)

    def before(self, index: int) -> int:
        """Return how many bits are set before one, which lies within the bitmap or right behind it."""
        number, rest = divmod(index, _BITS)
        base = self._before[number]
        return base + (self._part(number) & ((1 << rest) - 1)).bit_count() if rest else base

    def runs(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield (first, first behind) of the runs of set bits within a range, in ascending order."""
        end = min(end, self._bits)
        first = behind = start
        for number in range(start // _BITS, -(-end // _BITS)):
            base = number * _BITS
            for low, high in self._runs_of(number):
                low, high = max(base + low, start), min(base + high, end)  # noqa: PLW2901  cut to the range
                if low >= high:
                    continue
                if low != behind:
                    if behind > first:
                        yield first, behind
                    first = low
                behind = high
        if behind > first:
            yield first, behind

    def _runs_of(self, number: int) -> Iterator[tuple[int, int]]:
        set_here = self._before[number + 1] - self._before[number]
        if set_here in {0, _BITS}:
            return iter([(0, _BITS)] if set_here else [])
        text = f"{self._part(number):b}"[::-1]
        return (match.span() for match in _ONES.finditer(text))

    def _pieces(self) -> Iterator[bytes]:
        for at in range(0, self._size, _AT_ONCE):
            yield self._read(at, min(_AT_ONCE, self._size - at))

    def _load(self, number: int) -> int:
        at = number * _PART
        return int.from_bytes(self._read(at, min(_PART, self._size - at)), "little")

    def _read(self, at: int, size: int) -> bytes:
        """Return bytes of the bitmap, with zeros for bits that do not count."""
        data = bytearray(self._source.read(size, self._offset + at).ljust(size, b"\0"))
        if at + size == self._size and self._bits % 8:
            data[-1] &= (1 << self._bits % 8) - 1
        return bytes(data)

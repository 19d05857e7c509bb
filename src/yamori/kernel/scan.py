"""The one streaming pass over a guest's RAM: where do the things lie that a kernel can be recognised by?

Positioned reads over the populated parts only (``PhysicalMemory.populated``): reading a hole of a mapped memfd would
make the host allocate it. Each needle is searched for by itself, by the C library's ``memmem``: many times faster than
a regular expression with alternatives, and two to five times faster than ``bytes.find``. What is found is only a
sighting: decoys exist by nature (old copies, format strings, boot logs) and by malice, and every reader of these lists
checks what it takes from them.
"""

from __future__ import annotations

import ctypes
import re
from array import array
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple, cast

from yamori.address import GPA
from yamori.errors import MemoryFault
from yamori.memory.physical import PhysicalMemory

CHUNK = 1 << 20
"""Bytes a read; the buffer is reused, so this bounds the pass's memory."""

MOST_SIGHTINGS = 1 << 18
"""Sightings kept a needle: 2 MB. A guest that plants more is reported as flooded."""

PAGE = 4096
MOST_IN_PAGE = 8
"""Sightings kept a page, so that a program needs much memory to flood a scan. A kernel has each thing once."""

Progress = Callable[[int, int], None]
"""Called with bytes read so far and bytes to read in all."""


class Sightings:
    """Where each needle was seen.

    Attributes:
        places: Needle name → GPAs, ascending.
        flooded: Names of needles of which more were seen than are kept.
        bytes_read: Bytes of guest RAM that were read.
        bytes_lost: Bytes that could not be read.
    """

    def __init__(self, names: Mapping[str, bytes]) -> None:
        self.places: dict[str, array[int]] = {name: array("Q") for name in names}
        self.flooded: set[str] = set()
        self.bytes_read = 0
        self.bytes_lost = 0


class _Needle(NamedTuple):
    """A needle split for speed: searching for something that does not end in zeros is several times faster.

    Attributes:
        name: What it stands for.
        find: Returns where it is, without trailing zeros, from a place on; -1 where it is not.
        text: How long it is without them.
        zeros: The zeros that must follow.
        size: Bytes of all.
    """

    name: str
    find: Callable[[bytes, int], int]
    text: int
    zeros: bytes
    size: int


def _needle(name: str, full: bytes) -> _Needle:
    text = full.rstrip(b"\0")
    return _Needle(name, _finder(text), len(text), full[len(text) :], len(full))


def _finder(text: bytes) -> Callable[[bytes, int], int]:
    """Return what finds a text in data, from a place on."""
    memmem = _memmem()
    if memmem is None:
        pattern = re.compile(re.escape(text))

        def search(data: bytes, start: int) -> int:
            match = pattern.search(data, start)
            return match.start() if match else -1

        return search

    def find(data: bytes, start: int) -> int:
        first = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0  # bytes, so that it stays there
        place = memmem(first + start, max(0, len(data) - start), text, len(text))
        return place - first if place else -1

    return find


@cache
def _memmem() -> Callable[[int, int, bytes, int], int | None] | None:
    """Return ``void *memmem(haystack, size_t, needle, size_t)`` of glibc, musl and the BSDs; ``None`` elsewhere."""
    try:
        function = ctypes.CDLL(None).memmem
    except (AttributeError, OSError, TypeError):
        return None
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    return cast("Callable[[int, int, bytes, int], int | None]", function)


def scan(memory: PhysicalMemory, needles: Mapping[str, bytes], progress: Progress | None = None) -> Sightings:
    """Read all populated RAM once and note where each needle occurs.

    Args:
        memory: The guest's RAM.
        needles: Name → byte string of at most a few dozen bytes that are not all zeros.
        progress: Told after every chunk.
    """
    found = Sightings(needles)
    split = [_needle(name, full) for name, full in needles.items()]
    extents = list(memory.populated())
    total = sum(extent.size for extent in extents)
    overlap = max(map(len, needles.values())) - 1
    zeros = bytes(CHUNK + overlap)
    tail, end = b"", -1
    for extent in extents:
        tail = tail if end == extent.gpa else b""
        first = extent.gpa
        for gpa in range(extent.gpa, extent.end, CHUNK):
            size, behind = min(CHUNK, extent.end - gpa), min(overlap, gpa - first)
            try:
                data = tail + memory.read(GPA(gpa - behind), behind + size)  # to read twice costs less than to join
            except MemoryFault:
                found.bytes_lost += size
                tail, first, end = b"", gpa + size, -1
                continue
            found.bytes_read += size
            if data != zeros:
                seen = len(data) - size
                _search(data, gpa - seen, seen, split, found)
            tail, end = b"", gpa + size
            if progress:
                progress(found.bytes_read, total)
        if end == extent.end:
            tail = data[-overlap:]
    return found


def _search(data: bytes, gpa: int, seen: int, needles: list[_Needle], found: Sightings) -> None:
    """Note every needle in ``data`` that does not lie wholly within its first ``seen`` bytes."""
    for name, find, text, zeros, size in needles:
        places = found.places[name]
        at = find(data, max(0, seen - size + 1))
        while at >= 0:
            if data.startswith(zeros, at + text) and at + size <= len(data):
                if len(places) >= MOST_SIGHTINGS:
                    found.flooded.add(name)
                    break
                places.append(gpa + at)
                if len(places) >= MOST_IN_PAGE and (places[-MOST_IN_PAGE] ^ (gpa + at)) < PAGE:
                    at += PAGE - 1 - (gpa + at) % PAGE
            at = find(data, at + 1)

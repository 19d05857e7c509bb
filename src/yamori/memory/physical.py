"""Physical memory of a guest, as everything above it sees it: regions, and ``read(gpa, size)``."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from yamori.address import GPA
from yamori.errors import MemoryFault


class Region(NamedTuple):
    """A range of guest physical addresses.

    Attributes:
        gpa: First address.
        size: Bytes.
    """

    gpa: int
    size: int

    @property
    def end(self) -> int:
        """First GPA behind the region."""
        return self.gpa + self.size


class PhysicalMemory(Protocol):
    """Where guest bytes come from. One method matters; a test double needs forty lines."""

    @property
    def regions(self) -> tuple[Region, ...]:
        """The guest's RAM, in ascending order, not overlapping."""

    def read(self, gpa: GPA, size: int) -> bytes:
        """Return exactly ``size`` bytes at ``gpa``.

        Raises:
            MemoryFault: Any of the bytes lies outside the guest's RAM, or the host no longer gives it.
        """

    def populated(self) -> Iterator[Region]:
        """Yield the parts of the regions that may hold something other than zeros, in ascending order.

        Reading only these, by ``read``, makes the host allocate nothing.
        """


class HostExtent(NamedTuple):
    """Where the host keeps a part of the guest's RAM: what native code needs to load it without Python.

    A memory that can tell has a method ``extents`` that returns these for all of its RAM.

    Attributes:
        gpa: First GPA.
        size: Bytes.
        buffer: What can be loaded from directly and can never shrink, or ``None``: then it is read from ``fd``.
        offset: Of the first byte, in the buffer or in the file.
        fd: An open file.
        holes: Where the file cannot be read is no RAM, as with a process's memory; otherwise its reader is gone.
    """

    gpa: int
    size: int
    buffer: bytes | bytearray | mmap.mmap | None
    offset: int
    fd: int = -1
    holes: bool = False


def host_extents(memory: PhysicalMemory) -> tuple[HostExtent, ...] | None:
    """Return where the host keeps a guest's RAM; ``None`` where only ``read`` can tell what is in it."""
    tell: Callable[[], tuple[HostExtent, ...] | None] | None = getattr(memory, "extents", None)
    return tell() if tell else None


def forget(memory: PhysicalMemory, *, renew: bool = False) -> bool:
    """Let a memory that keeps what it read, since it comes over a slow line, read it anew from now on.

    Such a memory has a method ``forget``, which says whether it is one.

    Args:
        memory: The guest's RAM.
        renew: Whether another command or detector begins: such a memory gives each a share.
    """
    drop: Callable[..., bool] | None = getattr(memory, "forget", None)
    return bool(drop and drop(renew=renew))


def lacks(memory: PhysicalMemory) -> str:
    """Say what a memory that comes over a slow line did not give since its share was renewed; empty where nothing."""
    tell: Callable[[], str] | None = getattr(memory, "lacks", None)
    return tell() if tell else ""


def read_some(memory: PhysicalMemory, gpa: int, size: int) -> bytes:
    """Read up to ``size`` bytes at ``gpa``, fewer where the RAM region ends, none outside RAM."""
    for region in memory.regions:
        if region.gpa <= gpa < region.end:
            return memory.read(GPA(gpa), min(size, region.end - gpa))
    return b""


class BytesMemory:
    """Physical memory over byte strings: for synthetic guests, tests and the prompt.

    Args:
        blocks: GPA → content, not overlapping.
    """

    def __init__(self, blocks: dict[int, bytes | bytearray]) -> None:
        self._blocks = sorted(blocks.items())
        self.regions = tuple(Region(gpa, len(data)) for gpa, data in self._blocks)

    def read(self, gpa: GPA, size: int) -> bytes:
        """Return ``size`` bytes at ``gpa``; the bytes must lie in one block."""
        for base, data in self._blocks:
            if base <= gpa and gpa + size <= base + len(data):
                return bytes(data[gpa - base : gpa - base + size])
        raise MemoryFault(gpa, size)

    def populated(self) -> Iterator[Region]:
        """Yield every region whole."""
        yield from self.regions

    def extents(self) -> tuple[HostExtent, ...]:
        """Say where the bytes lie, for native code."""
        return tuple(HostExtent(gpa, len(data), data, 0) for gpa, data in self._blocks)

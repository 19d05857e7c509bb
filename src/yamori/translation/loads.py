"""Aligned loads over ``PhysicalMemory``: what walkers read through."""

from __future__ import annotations

from yamori.address import GPA
from yamori.errors import MemoryFault
from yamori.memory.physical import PhysicalMemory


class PhysicalLoads:
    """Loads straight from physical memory, nothing cached.

    Args:
        memory: The guest's RAM.
    """

    def __init__(self, memory: PhysicalMemory) -> None:
        self._read = memory.read

    def u32(self, gpa: GPA) -> int:
        """Load an aligned ``u32``."""
        if gpa & 3:
            raise MemoryFault(gpa, 4, "misaligned")
        return int.from_bytes(self._read(gpa, 4), "little")

    def u64(self, gpa: GPA) -> int:
        """Load an aligned ``u64``."""
        if gpa & 7:
            raise MemoryFault(gpa, 8, "misaligned")
        return int.from_bytes(self._read(gpa, 8), "little")

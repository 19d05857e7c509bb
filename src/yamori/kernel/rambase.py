"""Where RAM starts, from the guest's page tables: for boards that nobody told us about.

With an unknown base every place is known as an offset from the start of RAM only. The kernel's root then lies at a
known offset too, and its entries hold true physical addresses: a base is right if with it the root can be
proved.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from yamori.address import GPA, GVA
from yamori.errors import Fault, MemoryFault, NoKernelError
from yamori.kernel.init_task import InitTask
from yamori.kernel.root import Anchor, Evidence, prove
from yamori.memory.physical import HostExtent, PhysicalMemory, Region, host_extents
from yamori.translation.format import Geometry
from yamori.translation.formats import geometries
from yamori.translation.loads import PhysicalLoads

PATIENCE = 20.0
"""Seconds for one ``find_base``. 0.1 s is usual; a hostile guest can offer hundreds of tables, each of which allows
as many bases as RAM has steps."""

STEP = 1 << 21
"""RAM bases are multiples of this: 2 MiB is what arm64 and RISC-V kernels ask for, and 32-bit boards have more."""


class Rebased:
    """Physical memory whose addresses count from ``base`` instead of 0.

    Args:
        memory: The memory, its addresses counted from 0.
        base: GPA of its first byte.
    """

    def __init__(self, memory: PhysicalMemory, base: int) -> None:
        self._memory = memory
        self._base = base
        self.regions = tuple(Region(region.gpa + base, region.size) for region in memory.regions)

    def extents(self) -> tuple[HostExtent, ...] | None:
        """Say where the host keeps the guest's RAM, for native code, if the memory can tell."""
        inner = host_extents(self._memory)
        return None if inner is None else tuple(extent._replace(gpa=extent.gpa + self._base) for extent in inner)

    def read(self, gpa: GPA, size: int) -> bytes:
        """Return exactly ``size`` bytes at ``gpa``.

        Raises:
            MemoryFault: It lies outside of RAM, as far as that is known; the address is the one asked for.
        """
        if gpa < self._base:
            raise MemoryFault(gpa, size)
        try:
            return self._memory.read(GPA(gpa - self._base), size)
        except MemoryFault as fault:
            if gpa + size <= self.regions[-1].end:
                raise MemoryFault(gpa, size) from fault
            end = f"beyond the end of RAM, {self.regions[-1].end:#x}"
            base = (
                f"was the image cut short, or is the RAM base {self._base:#x}, which was inferred, wrong (--ram-base)?"
            )
            raise MemoryFault(gpa, size, f"{end}: {base}") from fault

    def populated(self) -> Iterator[Region]:
        """Yield the populated parts."""
        return (Region(part.gpa + self._base, part.size) for part in self._memory.populated())


def find_base(evidence: Evidence, tables: Iterable[int]) -> int | None:
    """Return the GPA of the first byte of RAM, or ``None``.

    Args:
        evidence: What to judge by, its addresses counted from 0.
        tables: Where the kernel's root may lie, likewise.

    Raises:
        NoKernelError: ``PATIENCE`` is over.
    """
    latest = time.monotonic() + PATIENCE
    for geometry, table, base in _choices(evidence, tables):
        if prove(_moved(evidence, base), table + base, geometry, ""):
            return base
        if time.monotonic() > latest:
            raise NoKernelError(
                f"the RAM base was not found in the {PATIENCE:g} s that may be spent on it: either RAM is very large, "
                "or it is full of what looks like a kernel's page tables",
                hint="give it with --ram-base, as in 0x40000000",
            )
    return None


def _choices(evidence: Evidence, tables: Iterable[int]) -> Iterator[tuple[Geometry, int, int]]:
    """Yield (geometry, table, base) of whatever is worth a proof."""
    memory, init, _ = evidence
    size = sum(region.size for region in memory.regions)
    for table in tables:
        for geometry in geometries(init.word_size):
            if geometry.canonical(GVA(init.gva)):
                for base in _bases(memory, geometry, table, init, size):
                    yield geometry, table, base


def _moved(evidence: Evidence, base: int) -> Evidence:
    """Return the evidence with addresses that count from ``base``."""
    init = evidence.init
    moved = init._replace(gpa=init.gpa + base, comm=init.comm + base, image_offset=init.image_offset - base)
    anchors = [Anchor(name, gpa + base) for name, gpa in evidence.anchors]
    return Evidence(Rebased(evidence.memory, base), moved, anchors)


class _FirstLoadOnly:
    """Loads that serve the root and tell where the walk goes on."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self._loads = PhysicalLoads(memory)
        self._served = False
        self.next_table = -1

    def _may(self, gpa: int, size: int) -> None:
        if self._served:
            self.next_table = gpa
            raise MemoryFault(gpa, size, "a table whose place depends on the RAM base")
        self._served = True

    def u32(self, gpa: GPA) -> int:
        """Load an aligned ``u32``, once."""
        self._may(gpa, 4)
        return self._loads.u32(gpa)

    def u64(self, gpa: GPA) -> int:
        """Load an aligned ``u64``, once."""
        self._may(gpa, 8)
        return self._loads.u64(gpa)


def _bases(memory: PhysicalMemory, geometry: Geometry, table: int, init: InitTask, size: int) -> Iterator[int]:
    """Yield the bases that the root's entry for ``init_task`` allows."""
    loads = _FirstLoadOnly(memory)
    try:
        base = geometry.walk(loads, GPA(table), GVA(init.gva)).gpa - init.gpa
    except Fault:
        if loads.next_table < 0:
            return
        last = loads.next_table // STEP * STEP
        yield from range(max(0, last - size // STEP * STEP), last + STEP, STEP)
        return
    if base >= 0 and base % STEP == 0:
        yield base

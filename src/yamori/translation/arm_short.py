"""ARM short-descriptor page tables, as ARMv7 and ARMv6 (``SCTLR.XP`` = 1) have them: ARM DDI 0406C, B3.5.

Two levels. The first-level table has an entry for each MiB: a section of 1 MiB, one sixteenth of a supersection of
16 MiB, or a second-level table of 256 entries for small pages (4 KiB) and large pages (64 KiB).

Domains are left out: Linux makes its domains clients of the permissions, or managers only while it copies to user mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from yamori.address import GPA
from yamori.llview.language import Walker, helper, phys_u32, stop, u64, walker
from yamori.translation.format import Loads, Mapping, TableGeometry

NAME = "arm-short"

SPLITS = (0x4000_0000, 0x8000_0000, 0xB000_0000, 0xC000_0000)
"""``PAGE_OFFSET`` (``arch/arm/Kconfig``, ``VMSPLIT_1G`` to ``VMSPLIT_3G``)."""

MODULES = 16 << 20
"""Bytes of the modules' addresses, which lie below ``PAGE_OFFSET`` (``arch/arm/include/asm/memory.h``)."""

LOWEST_KERNEL_GVA = SPLITS[0] - MODULES
"""The lowest address that an Arm kernel uses."""

HARDWARE_HALF = 0x800
"""Bytes before a page's two second-level tables of the hardware: the two of Linux."""

# Of Linux's own entries: arch/arm/include/asm/pgtable-2level.h
L_PTE_PRESENT = 1 << 0
L_PTE_RDONLY = 1 << 7
L_PTE_USER = 1 << 8
L_PTE_XN = 1 << 9
L_PTE_NONE = 1 << 11

SMALL_PAGE = 1 << 12
LARGE_PAGE = 1 << 16
SECTION = 1 << 20
SUPERSECTION = 1 << 24


@dataclass(frozen=True, slots=True)
class ArmShort(TableGeometry):
    """A guest that uses short descriptors.

    Attributes:
        n: ``TTBCR.N`` (B3.5.4): addresses whose topmost ``n`` bits are zero are translated by TTBR0, all others by
            TTBR1. The walk is the same from either root, since the smaller table of TTBR0 is only cut off at its end.
            Linux has 0.
    """

    n: int = 0
    format: ClassVar[str] = NAME
    word_size: ClassVar[int] = 4
    page_size: ClassVar[int] = SMALL_PAGE

    def __post_init__(self) -> None:
        if not 0 <= self.n <= 7:
            raise ValueError(f"TTBCR.N is a field of three bits, not {self.n}")

    @property
    def root_alignment(self) -> int:
        """16 KiB, the size of the table; the table of TTBR0 gets smaller with ``n``."""
        return 0x4000 >> self.n

    def describe(self) -> str:
        """Say it in one line."""
        return f"ARM short descriptors, 4K pages, TTBCR.N = {self.n}"

    @property
    def walker(self) -> Walker:
        """The walk of this format."""
        return walk

    @property
    def parameters(self) -> tuple[int, ...]:
        """What the walk is told of the geometry."""
        return ()

    @property
    def kernel(self) -> tuple[int, int]:
        """Where Linux has its kernel, or, with ``n``, what TTBR1 translates."""
        return (1 << (32 - self.n) if self.n else LOWEST_KERNEL_GVA), (1 << 32) - 1

    def user_tables(self, loads: Loads, root: GPA, image: int) -> Iterator[tuple[int, int]]:  # noqa: ARG002  see Geometry
        """Yield the entries of the addresses below the kernel's."""
        yield root, end_of_user(image) // SECTION * 4


def end_of_user(image: int) -> int:
    """Return where the addresses of programs end at the latest, by an address in the kernel's image."""
    return max((split for split in SPLITS if split <= image), default=SPLITS[0]) - MODULES


def geometries() -> Iterator[ArmShort]:
    """Yield the one that Linux sets up (``arch/arm/mm/proc-v7-2level.S``)."""
    yield ArmShort()


@walker
def walk(root: u64, gva: u64) -> Mapping:
    """Translate ``gva`` from the first-level table at ``root`` (B3.5.1, B3.5.5)."""
    if gva >> 32 != 0:
        stop("it has more than 32 bits", gva)
    entry = u64(phys_u32(root + (gva >> 20) * 4))
    kind = entry & 3
    if kind == 0:
        stop("its first-level entry is invalid", entry)
    if kind == 1:
        return second_level(entry, gva)
    # Kind 3 is kind 2 with PXN. Where a CPU lacks PXN it is reserved, and Linux does not use it there.
    access = (entry >> 10 & 3) | (entry >> 13 & 4)
    never = (entry >> 4 | entry) & 1
    if entry & 1 << 18:
        base = (entry & 0xFF00_0000) | (entry >> 20 & 0xF) << 32 | (entry >> 5 & 0xF) << 36
        return leaf(gva, base, SUPERSECTION, access, never)
    return leaf(gva, entry & 0xFFF0_0000, SECTION, access, never)


@helper
def second_level(table: u64, gva: u64) -> Mapping:
    """Go on with a second-level table."""
    entry = u64(phys_u32((table & 0xFFFF_FC00) + (gva >> 12 & 0xFF) * 4))
    access = (entry >> 4 & 3) | (entry >> 7 & 4)
    privileged_never = table >> 2 & 1
    if entry & 2:
        return leaf(gva, entry & 0xFFFF_F000, SMALL_PAGE, access, privileged_never | (entry & 1))
    if entry & 1 == 0:
        return linux_entry(table, gva)
    return leaf(gva, entry & 0xFFFF_0000, LARGE_PAGE, access, privileged_never | (entry >> 15 & 1))


@helper
def linux_entry(table: u64, gva: u64) -> Mapping:
    """Read the entry that Linux keeps for itself, 2 KiB before the one of the hardware, in the same page.

    The hardware's is 0 while a page that is in memory was not used since it was last looked at, or since a fork
    (``pte_mkold``), for these CPUs have no bit for that: see the top of ``arch/arm/include/asm/pgtable-2level.h``
    (order of the halves since 2.6.38, d30e45eeabef).
    """
    entry: u64 = 0
    if table & HARDWARE_HALF:
        entry = u64(phys_u32((table & 0xFFFF_FC00) - HARDWARE_HALF + (gva >> 12 & 0xFF) * 4))
    if entry & L_PTE_PRESENT == 0 or entry & L_PTE_NONE:
        stop("its second-level entry is invalid", entry)
    return Mapping(
        gpa=(entry & 0xFFFF_F000) | (gva & (SMALL_PAGE - 1)),
        page_size=SMALL_PAGE,
        writable=entry & L_PTE_RDONLY == 0,
        executable=entry & L_PTE_XN == 0 and table & 4 == 0,
        user=entry & L_PTE_USER != 0,
    )


@helper
def leaf(gva: u64, base: u64, size: u64, access: u64, never: u64) -> Mapping:
    """Read AP[2:0] as Table B3-8 has it with ``SCTLR.AFE`` = 0, which is what Linux sets."""
    if access == 4:
        stop("its access permissions are the reserved encoding", access)
    return Mapping(
        gpa=base | (gva & (size - 1)),
        page_size=size,
        writable=access == 1 or access == 2 or access == 3,  # noqa: PLR1714  `in` is not part of the language
        executable=never == 0,
        user=access & 2 != 0,
    )

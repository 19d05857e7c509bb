"""ARM long-descriptor page tables of the Large Physical Address Extension: ARM DDI 0406C, B3.6.

Three levels of 64-bit entries, 4 KiB pages, blocks of 2 MiB and 1 GiB, physical addresses of 40 bits.

``init_mm.pgd`` and every ``mm->pgd`` of Linux is a table of four entries for all 4 GiB. TTBR1 may hold something else:
``cpu_v7_switch_mm`` and ``v7_ttb_setup`` (``arch/arm/mm/proc-v7-3level.S``) set ``TTBCR.T1SZ`` by the split and
move TTBR1 by ``TTBR1_OFFSET``: past two entries for ``CONFIG_VMSPLIT_2G``, and to the last second-level table for
``CONFIG_VMSPLIT_3G``, since a region of 1 GiB starts at level 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from yamori.address import GPA
from yamori.llview.language import Walker, helper, phys_u64, stop, u64, walker
from yamori.translation.arm_short import LOWEST_KERNEL_GVA, end_of_user
from yamori.translation.format import Loads, Mapping, TableGeometry

NAME = "arm-lpae"

# Descriptor fields, B3.6.1 and B3.6.2. Bits 47:40 of an address are ignored, as ARMv7 CPUs do: a guest cannot
# hide a page from us by setting them.
ADDRESS = 0x00FF_FFFF_F000
USER = 1 << 6
READ_ONLY = 1 << 7
PRIVILEGED_EXECUTE_NEVER = 1 << 53
EXECUTE_NEVER = 1 << 54
TABLE_PRIVILEGED_EXECUTE_NEVER = 1 << 59
TABLE_EXECUTE_NEVER = 1 << 60
TABLE_NO_USER = 1 << 61
TABLE_READ_ONLY = 1 << 62

BLOCK, GIGABYTE = 1 << 21, 1 << 30


@dataclass(frozen=True, slots=True)
class ArmLpae(TableGeometry):
    """A guest that uses long descriptors.

    Attributes:
        t1sz: ``TTBCR.T1SZ`` (B3.6.4). 0: the root is a table for all 4 GiB, as ``init_mm.pgd`` and ``mm->pgd`` are.
            Otherwise a kernel address (one whose topmost ``t1sz`` bits are ones) is walked from a root as TTBR1
            holds it, and any other address from a table for all 4 GiB, as TTBR0 holds it.
    """

    t1sz: int = 0
    format: ClassVar[str] = NAME
    word_size: ClassVar[int] = 4
    page_size: ClassVar[int] = 4096

    def __post_init__(self) -> None:
        if not 0 <= self.t1sz <= 7:
            raise ValueError(f"TTBCR.T1SZ is a field of three bits, not {self.t1sz}")

    @property
    def root_alignment(self) -> int:
        """The size of the smallest root: four entries of TTBR0, or fewer of TTBR1."""
        return 16 if self.t1sz == 1 else 32

    def describe(self) -> str:
        """Say it in one line."""
        return f"ARM long descriptors (LPAE), 4K pages, TTBCR.T1SZ = {self.t1sz}"

    @property
    def walker(self) -> Walker:
        """The walk of this format."""
        return walk

    @property
    def parameters(self) -> tuple[int, ...]:
        """What the walk is told of the geometry."""
        return (self.t1sz, self.kernel[0])

    @property
    def kernel(self) -> tuple[int, int]:
        """What TTBR1 translates, or, where ``t1sz`` is 0, where Linux has its kernel.

        Modules lie just below the split, so that TTBR0 translates them: they are reached from ``init_mm.pgd`` only.
        """
        return ((1 << 32) - (1 << (32 - self.t1sz)) if self.t1sz else LOWEST_KERNEL_GVA), (1 << 32) - 1

    def user_tables(self, loads: Loads, root: GPA, image: int) -> Iterator[tuple[int, int]]:
        """Yield the second-level tables, and entries that lead to none, of the addresses below the kernel's.

        ``swapper_pg_dir`` has all four second-level tables, the user's empty (``arch/arm/kernel/head.S``). Where TTBR1
        has a smaller table, the user's addresses have a root of their own.
        """
        end = end_of_user(image) if not self.t1sz else 0
        for gva in range(0, end, GIGABYTE):
            place = GPA(root + gva // GIGABYTE * 8)
            entry = loads.u64(place)
            if entry & 3 == 3:
                yield entry & ADDRESS, min(end - gva, GIGABYTE) // BLOCK * 8
            else:
                yield place, 8


def geometries() -> Iterator[ArmLpae]:
    """Yield the table for all 4 GiB, then what TTBR1 holds with the 3G/1G and the 2G/2G split."""
    yield ArmLpae(0)
    yield ArmLpae(2)
    yield ArmLpae(1)


@walker
def walk(root: u64, gva: u64, t1sz: u64, lowest: u64) -> Mapping:
    """Translate ``gva`` from the table at ``root`` (B3.6.6); ``lowest`` is where TTBR1's part begins."""
    if gva >> 32 != 0:
        stop("it has more than 32 bits", gva)
    bits: u64 = 32
    if t1sz != 0 and gva >= lowest:
        bits = 32 - t1sz
    offset = gva & ((u64(1) << bits) - 1)
    shift: u64 = 30 if bits > 30 else 21
    entry = phys_u64(root + (offset >> shift) * 8)
    inherited: u64 = 0
    while shift > 12 and entry & 3 == 3:
        inherited |= entry
        shift -= 9
        entry = phys_u64((entry & ADDRESS) + (offset >> shift & 511) * 8)
    if entry & 3 != (3 if shift == 12 else 1):
        stop("an entry is invalid", entry)
    return leaf(gva, entry, inherited, u64(1) << shift)


@helper
def leaf(gva: u64, entry: u64, inherited: u64, size: u64) -> Mapping:
    """Combine the leaf's permissions with those of the tables on the way (B3.7.1)."""
    never = entry & (PRIVILEGED_EXECUTE_NEVER | EXECUTE_NEVER)
    table_never = inherited & (TABLE_PRIVILEGED_EXECUTE_NEVER | TABLE_EXECUTE_NEVER)
    return Mapping(
        gpa=(entry & ADDRESS & ~(size - 1)) | (gva & (size - 1)),
        page_size=size,
        writable=entry & READ_ONLY == 0 and inherited & TABLE_READ_ONLY == 0,
        executable=never == 0 and table_never == 0,
        user=entry & USER != 0 and inherited & TABLE_NO_USER == 0,
    )

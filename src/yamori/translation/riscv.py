"""RISC-V 64 page tables, Sv39, Sv48 and Sv57: The RISC-V Instruction Set Manual volume II, "Supervisor-Level ISA".

Three to five levels of 512 entries; a leaf may stand at any level. The extensions Svnapot (64 KiB pages made of
sixteen entries) and Svpbmt (memory types) are part of it, and so are the memory types that T-Head's cores have in bits
59 to 63 (XTheadMae; ``arch/riscv/include/asm/pgtable-64.h``). On a CPU that has Svrsw60t59b bits 59 and 60 are
software's; Linux marks pages with them since 6.19 (2a3ebad4db63, c64da3950cf4). Linux chooses the levels at boot and
leaves out those it does not use (``pgtable_l4_enabled``, ``pgtable_l5_enabled``), so ``init_mm.pgd`` is an ordinary
root of each mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from yamori.address import GPA
from yamori.llview.language import Walker, helper, phys_u64, stop, u64, walker
from yamori.translation.format import Loads, Mapping, TableGeometry

NAME = "riscv64"

# Fields of an entry, "Sv39: Page-Based 39-bit Virtual-Memory System".
VALID = 1 << 0
READ = 1 << 1
WRITE = 1 << 2
EXECUTE = 1 << 3
USER = 1 << 4
ACCESSED = 1 << 6
DIRTY = 1 << 7
RESERVED = 0x1F << 54  # 59 and 60 are, too, unless the CPU has Svrsw60t59b, and which CPU it is cannot be seen here
MEMORY_TYPE = 3 << 61
NAPOT = 1 << 63
PAGE_NUMBER = (1 << 44) - 1  # from bit 10 on
THEAD_MEMORY, THEAD_IO = 0b01110, 0b10010
"""Bits 59 to 63 that Linux gives a T-Head core; a third type, 0b00110, reads like one of Svpbmt. The last one reads as
Svnapot elsewhere, marked by software; but it is for registers of devices, which are no RAM, and Linux marks only huge
pages so."""
LEAF = READ | WRITE | EXECUTE
NOT_IN_POINTER = USER | ACCESSED | DIRTY | MEMORY_TYPE | NAPOT


@dataclass(frozen=True, slots=True)
class RiscV(TableGeometry):
    """A guest that uses Sv39, Sv48 or Sv57.

    Attributes:
        levels: 3, 4 or 5.
    """

    levels: int = 3
    format: ClassVar[str] = NAME
    word_size: ClassVar[int] = 8
    page_size: ClassVar[int] = 4096
    root_alignment: ClassVar[int] = 4096

    def __post_init__(self) -> None:
        if self.levels not in {3, 4, 5}:
            raise ValueError(f"RISC-V 64 has 3 to 5 levels, not {self.levels}")

    def describe(self) -> str:
        """Say it in one line."""
        return f"RISC-V Sv{12 + 9 * self.levels}, 4K pages, {self.levels} levels"

    @property
    def walker(self) -> Walker:
        """The walk of this format."""
        return walk

    @property
    def parameters(self) -> tuple[int, ...]:
        """What the walk is told of the geometry."""
        return (self.levels,)

    @property
    def kernel(self) -> tuple[int, int]:
        """The upper half, where Linux has its kernel."""
        return (1 << 64) - (1 << (11 + 9 * self.levels)), (1 << 64) - 1

    def user_tables(self, loads: Loads, root: GPA, image: int) -> Iterator[tuple[int, int]]:  # noqa: ARG002  see Geometry
        """Yield the lower half of the table."""
        yield root, self.page_size // 2


def geometries() -> Iterator[RiscV]:
    """Yield Sv39, Sv48 and Sv57."""
    yield RiscV(3)
    yield RiscV(4)
    yield RiscV(5)


@walker
def walk(root: u64, gva: u64, levels: u64) -> Mapping:
    """Translate ``gva`` from the table at ``root`` ("Virtual Address Translation Process").

    The accessed and dirty flags of a leaf are not looked at: Linux sets them on demand, and the page stays where it is.
    """
    sign = 11 + 9 * levels
    if gva >> sign != 0 and gva >> sign != (u64(1) << (64 - sign)) - 1:
        stop("its topmost bits are not all equal", gva)
    shift = 3 + 9 * levels
    entry = phys_u64(root + (gva >> shift & 511) * 8)
    while shift > 12 and entry & (VALID | LEAF | RESERVED | NOT_IN_POINTER) == VALID:
        shift -= 9
        entry = phys_u64(((entry >> 10 & PAGE_NUMBER) << 12) + (gva >> shift & 511) * 8)
    thead = entry >> 59
    if thead == THEAD_MEMORY or thead == THEAD_IO:  # noqa: PLR1714, SIM109  there is no `in`
        entry &= (1 << 59) - 1
    if is_malformed(entry):
        stop("an entry is invalid or reserved", entry)
    return leaf(gva, entry, shift)


@helper
def is_malformed(entry: u64) -> bool:
    """Say whether an entry that should be a leaf is not a proper one."""
    return (
        entry & VALID == 0
        or entry & (READ | EXECUTE) == 0
        or entry & (READ | WRITE) == WRITE
        or entry & RESERVED != 0
        or entry & MEMORY_TYPE == MEMORY_TYPE
    )


@helper
def leaf(gva: u64, entry: u64, level_shift: u64) -> Mapping:
    """Read a leaf entry."""
    shift = level_shift
    base = (entry >> 10 & PAGE_NUMBER) << 12
    if entry & NAPOT:
        # Svnapot: a run of 16 pages; the lowest four bits of the page number are the code for that.
        if shift != 12 or base >> 12 & 0xF != 8:
            stop("an entry is a reserved form of Svnapot", entry)
        base -= 8 << 12
        shift = 16
    size = u64(1) << shift
    if base & (size - 1):
        stop("an entry is a misaligned superpage", entry)
    user = entry & USER != 0
    return Mapping(
        gpa=base | (gva & (size - 1)),
        page_size=size,
        writable=entry & WRITE != 0,
        executable=entry & EXECUTE != 0 and not user,
        user=user and entry & READ != 0,
    )

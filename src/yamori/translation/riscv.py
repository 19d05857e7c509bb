"""RISC-V 64 page tables, Sv39, Sv48 and Sv57: The RISC-V Instruction Set Manual volume II, "Supervisor-Level ISA".

Three to five levels of 512 entries; a leaf may stand at any level. The extensions Svnapot (64 KiB pages made of
sixteen entries) and Svpbmt (memory types) are part of it, and so are the memory types that T-Head's cores have in bits
59 to 63 (XTheadMae; ``arch/riscv/include/asm/pgtable-64.h``). Linux chooses the levels at boot and leaves out those it
does not use (``pgtable_l4_enabled``, ``pgtable_l5_enabled``), so ``init_mm.pgd`` is an ordinary root of
each mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from yamori.address import GPA, GVA
from yamori.errors import TranslationFault
from yamori.translation.format import Loads, Mapping

NAME = "riscv64"

# Fields of an entry, "Sv39: Page-Based 39-bit Virtual-Memory System".
VALID = 1 << 0
READ = 1 << 1
WRITE = 1 << 2
EXECUTE = 1 << 3
USER = 1 << 4
ACCESSED = 1 << 6
DIRTY = 1 << 7
RESERVED = 0x7F << 54
MEMORY_TYPE = 3 << 61
NAPOT = 1 << 63
THEAD_TYPES = frozenset({0b00110, 0b01110, 0b10010})
"""Bits 59 to 63 that Linux gives a T-Head core: non-cacheable, memory, I/O. Bit 60 is reserved elsewhere."""
LEAF = READ | WRITE | EXECUTE
NOT_IN_POINTER = USER | ACCESSED | DIRTY | MEMORY_TYPE | NAPOT


@dataclass(frozen=True, slots=True)
class RiscV:
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

    def canonical(self, gva: GVA) -> bool:
        """Say whether the address lies in the upper half, where Linux has its kernel."""
        sign = 11 + 9 * self.levels
        return gva >> sign == (1 << (64 - sign)) - 1

    def walk(self, loads: Loads, root: GPA, gva: GVA) -> Mapping:
        """Translate one address with at most ``levels`` loads; see ``walk`` of this module."""
        return walk(loads, root, gva, self.levels)


def geometries() -> Iterator[RiscV]:
    """Yield Sv39, Sv48 and Sv57."""
    yield RiscV(3)
    yield RiscV(4)
    yield RiscV(5)


def walk(loads: Loads, root: GPA, gva: GVA, levels: int) -> Mapping:
    """Translate ``gva`` from the table at ``root`` ("Virtual Address Translation Process").

    The accessed and dirty flags of a leaf are not looked at: Linux sets them on demand, and the page stays where it is.

    Raises:
        TranslationFault: An entry is invalid or reserved, or the address is not a sign-extended one.
        MemoryFault: A table lies outside the guest's RAM.
    """
    sign = 11 + 9 * levels
    if gva >> sign not in {0, (1 << (64 - sign)) - 1}:
        raise TranslationFault(gva, "its topmost bits are not all equal")
    shift = 3 + 9 * levels
    entry = loads.u64(GPA(root + (gva >> shift & 511) * 8))
    while shift > 12 and entry & (VALID | LEAF | RESERVED | NOT_IN_POINTER) == VALID:
        shift -= 9
        entry = loads.u64(GPA((entry >> 10 << 12) + (gva >> shift & 511) * 8))
    if entry >> 59 in THEAD_TYPES:
        entry &= (1 << 59) - 1
    if _malformed(entry):
        raise TranslationFault(gva, f"level {(shift - 12) // 9} entry {entry:#018x} is invalid or reserved")
    return _leaf(gva, entry, shift)


def _malformed(entry: int) -> bool:
    """Say whether an entry that should be a leaf is not a proper one."""
    return (
        not entry & VALID
        or entry & (READ | EXECUTE) == 0
        or entry & (READ | WRITE) == WRITE
        or entry & RESERVED != 0
        or entry & MEMORY_TYPE == MEMORY_TYPE
    )


def _leaf(gva: GVA, entry: int, shift: int) -> Mapping:
    base = (entry >> 10 & 0xFFF_FFFF_FFFF) << 12
    if entry & NAPOT:
        # Svnapot: a run of 16 pages; the lowest four bits of the page number are the code for that.
        if shift != 12 or base >> 12 & 0xF != 8:
            raise TranslationFault(gva, f"entry {entry:#018x} is a reserved form of Svnapot")
        base -= 8 << 12
        shift = 16
    size = 1 << shift
    if base & (size - 1):
        raise TranslationFault(gva, f"entry {entry:#018x} is a misaligned superpage")
    user = entry & USER != 0
    return Mapping(
        gpa=GPA(base | (gva & (size - 1))),
        page_size=size,
        writable=entry & WRITE != 0,
        executable=entry & EXECUTE != 0 and not user,
        user=user and entry & READ != 0,
    )

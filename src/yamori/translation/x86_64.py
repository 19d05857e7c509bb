"""x86-64 page tables: Intel SDM volume 3, chapter 4 (4.5, 4-level and 5-level paging).

Four or five levels of 512 entries, pages of 4 KiB, 2 MiB and 1 GiB. A Linux kernel built for five levels that runs on a
CPU without them (or with ``no5lvl``) folds its second level away, so its ``init_mm.pgd`` is an ordinary root of four.

Protection keys, SMEP and SMAP are not looked at: they depend on registers, not on the tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from yamori.address import GPA, GVA
from yamori.errors import TranslationFault
from yamori.translation.format import Loads, Mapping

NAME = "x86-64"

# Fields of an entry, SDM 4.5. MAXPHYADDR is 52 at most; a smaller one is not known from here.
PRESENT = 1 << 0
WRITABLE = 1 << 1
USER = 1 << 2
LARGE = 1 << 7
ADDRESS = 0x000F_FFFF_FFFF_F000
EXECUTE_DISABLE = 1 << 63


@dataclass(frozen=True, slots=True)
class X86Paging:
    """A guest that runs in 64-bit mode.

    Attributes:
        levels: 4, or 5 with ``CR4.LA57``.
    """

    levels: int = 4
    format: ClassVar[str] = NAME
    word_size: ClassVar[int] = 8
    page_size: ClassVar[int] = 4096
    root_alignment: ClassVar[int] = 4096

    def __post_init__(self) -> None:
        if self.levels not in {4, 5}:
            raise ValueError(f"x86-64 has 4 or 5 levels, not {self.levels}")

    def describe(self) -> str:
        """Say it in one line."""
        return f"x86-64, 4K pages, {12 + 9 * self.levels}-bit VA, {self.levels} levels"

    def canonical(self, gva: GVA) -> bool:
        """Say whether the address lies in the upper half, where Linux has its kernel."""
        sign = 11 + 9 * self.levels
        return gva >> sign == (1 << (64 - sign)) - 1

    def walk(self, loads: Loads, root: GPA, gva: GVA) -> Mapping:
        """Translate one address with at most ``levels`` loads; see ``walk`` of this module."""
        return walk(loads, root, gva, self.levels)


def geometries() -> Iterator[X86Paging]:
    """Yield four levels, then five."""
    yield X86Paging(4)
    yield X86Paging(5)


def walk(loads: Loads, root: GPA, gva: GVA, levels: int) -> Mapping:
    """Translate ``gva`` from the PML4 or PML5 table at ``root`` (4.5.4).

    Raises:
        TranslationFault: An entry is not present or has reserved bits set, or the address is not canonical.
        MemoryFault: A table lies outside the guest's RAM.
    """
    sign = 11 + 9 * levels
    if gva >> sign not in {0, (1 << (64 - sign)) - 1}:
        raise TranslationFault(gva, "it is not canonical")
    shift = 3 + 9 * levels
    entry = loads.u64(GPA(root + (gva >> shift & 511) * 8))
    allowed, forbidden = entry, entry
    while shift > 12 and entry & (PRESENT | LARGE) == PRESENT:
        shift -= 9
        entry = loads.u64(GPA((entry & ADDRESS) + (gva >> shift & 511) * 8))
        allowed &= entry
        forbidden |= entry
    if not entry & PRESENT:
        raise TranslationFault(gva, f"level {(shift - 3) // 9} entry {entry:#018x} is not present")
    size = 1 << shift
    # Bit 12 of a large page's entry is PAT; the bits from 13 up to the page's own size are reserved (4.7).
    if shift > 30 or entry & (size - 1) & ADDRESS & ~0x1000:
        raise TranslationFault(gva, f"level {(shift - 3) // 9} entry {entry:#018x} has reserved bits set")
    return Mapping(
        gpa=GPA((entry & ADDRESS & -size) | (gva & (size - 1))),
        page_size=size,
        writable=allowed & WRITABLE != 0,
        executable=not forbidden & EXECUTE_DISABLE,
        user=allowed & USER != 0,
    )

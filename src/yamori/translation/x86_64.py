"""x86-64 page tables: Intel SDM volume 3, chapter 4 (4.5, 4-level and 5-level paging).

Four or five levels of 512 entries, pages of 4 KiB, 2 MiB and 1 GiB. A Linux kernel built for five levels that runs on a
CPU without them (or with ``no5lvl``) folds its second level away, so its ``init_mm.pgd`` is an ordinary root of four.

Protection keys, SMEP and SMAP are not looked at: they depend on registers, not on the tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from yamori.address import GPA
from yamori.llview.language import Walker, phys_u64, stop, u64, walker
from yamori.translation.format import Loads, Mapping, TableGeometry

NAME = "x86-64"

# Fields of an entry, SDM 4.5. MAXPHYADDR is 52 at most; a smaller one is not known from here.
PRESENT = 1 << 0
WRITABLE = 1 << 1
USER = 1 << 2
LARGE = 1 << 7
ADDRESS = 0x000F_FFFF_FFFF_F000
EXECUTE_DISABLE = 1 << 63
PAT_CLEARED = ~0x1000 & (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class X86Paging(TableGeometry):
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
        """The upper half."""
        return (1 << 64) - (1 << (11 + 9 * self.levels)), (1 << 64) - 1

    def user_tables(self, loads: Loads, root: GPA, image: int) -> Iterator[tuple[int, int]]:  # noqa: ARG002  see Geometry
        """Yield the lower half of the table."""
        yield root, self.page_size // 2


def geometries() -> Iterator[X86Paging]:
    """Yield four levels, then five."""
    yield X86Paging(4)
    yield X86Paging(5)


@walker
def walk(root: u64, gva: u64, levels: u64) -> Mapping:
    """Translate ``gva`` from the table at ``root`` (SDM 4.5.4).

    A page is writable where every entry on the way says so, and executable where none forbids it (4.6.1).
    """
    sign = 11 + 9 * levels
    if gva >> sign != 0 and gva >> sign != (u64(1) << (64 - sign)) - 1:
        stop("it is not canonical", gva)
    shift = 3 + 9 * levels
    entry = phys_u64(root + (gva >> shift & 511) * 8)
    allowed = entry
    forbidden = entry
    while shift > 12 and entry & (PRESENT | LARGE) == PRESENT:
        shift -= 9
        entry = phys_u64((entry & ADDRESS) + (gva >> shift & 511) * 8)
        allowed &= entry
        forbidden |= entry
    if entry & PRESENT == 0:
        stop("an entry is not present", entry)
    size = u64(1) << shift
    # Bit 12 of a large page's entry is PAT; the bits from 13 up to the page's own size are reserved (4.7).
    if shift > 30 or entry & (size - 1) & ADDRESS & PAT_CLEARED:
        stop("an entry has reserved bits set", entry)
    return Mapping(
        gpa=(entry & ADDRESS & ~(size - 1)) | (gva & (size - 1)),
        page_size=size,
        writable=allowed & WRITABLE != 0,
        executable=forbidden & EXECUTE_DISABLE == 0,
        user=allowed & USER != 0,
    )

"""Random page tables, built from the entry formats of the RISC-V privileged manual, against the walker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.translation.cases import Case, edges, found

from yamori.address import GPA, GVA
from yamori.errors import TranslationFault
from yamori.memory.physical import BytesMemory
from yamori.translation.loads import PhysicalLoads
from yamori.translation.riscv import RiscV, geometries

PAGE = 4096
INDEX = [12, 21, 30, 39, 48]  # level → lowest address bit of VPN[level]
RWX = {(1, 0, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1)}  # the encodings of a leaf that are not reserved
V, R, W, X, U = 1, 2, 4, 8, 16
N = 1 << 63


class Mapped(NamedTuple):
    gva: int
    size: int
    gpa: int
    entry: int


class Tables:
    """Tables of ``levels`` levels that begin at ``root``."""

    def __init__(self, root: int, levels: int) -> None:
        self.root, self.levels = root, levels
        self.blocks = {root: bytearray(PAGE)}
        self.pages: list[Mapped] = []

    def map(self, gva: int, level: int, gpa: int, flags: int) -> None:
        table = self.root
        for above in range(self.levels - 1, level, -1):
            index = gva >> INDEX[above] & 511
            entry = self.get(table, index)
            if entry == 0:
                address = self.root + len(self.blocks) * PAGE
                self.blocks[address] = bytearray(PAGE)
                entry = address >> 12 << 10 | flags & 0x320 | V  # G and RSW are all that a pointer may have
                self.put(table, index, entry)
            elif entry & 0xE:
                return
            table = entry >> 10 << 12
        index = gva >> INDEX[level] & 511
        if self.get(table, index) == 0:
            entry = gpa >> 12 << 10 | flags | V
            self.put(table, index, entry)
            self.pages.append(Mapped(gva, 1 << INDEX[level], gpa, entry))

    def get(self, table: int, index: int) -> int:
        return int.from_bytes(self.blocks[table][index * 8 : index * 8 + 8], "little")

    def put(self, table: int, index: int, entry: int) -> None:
        self.blocks[table][index * 8 : index * 8 + 8] = entry.to_bytes(8, "little")


def canonical(gva: int, levels: int) -> int:
    """Extend the sign of an address's low bits."""
    bits = {3: 39, 4: 48, 5: 57}[levels]
    gva &= (1 << bits) - 1
    return gva | (1 << 64) - (1 << bits) if gva >> bits - 1 else gva


# Hypothesis likes small numbers; the product has bits all over the word.
PLACES = st.integers(0, (1 << 64) - 1).map(lambda number: number * 0x9E37_79B9_7F4A_7C15 % (1 << 64))


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    levels = draw(st.sampled_from([3, 4, 5]))
    made = Tables(draw(st.integers(0, 0xFFF_FFFF_0000)) << 12, levels)
    bases = draw(st.lists(PLACES, min_size=1, max_size=2))
    for _ in range(draw(st.integers(1, 12))):
        level = draw(st.integers(0, levels - 1))
        size = 1 << INDEX[level]
        gva = (draw(st.sampled_from(bases)) ^ draw(st.integers(0, 3)) << draw(st.integers(12, 56))) & -size
        gpa = draw(PLACES) >> 8 & -size
        read, write, execute = draw(st.sampled_from(sorted(RWX)))
        flags = R * read | W * write | X * execute | draw(st.integers(0, 0x3F)) << 4 | draw(st.integers(0, 2)) << 61
        made.map(canonical(gva, levels), level, gpa, flags)
    return made


def rights(page: Mapped) -> tuple[bool, bool, bool]:
    """Return what the manual says: writable, executable for the kernel, readable for user mode."""
    user = bool(page.entry & U)
    return bool(page.entry & W), bool(page.entry & X) and not user, user and bool(page.entry & R)


def cases(made: Tables, probes: set[int]) -> Iterator[Case]:
    """Yield what the tables say of the addresses, and of those in and around every page."""
    shape = RiscV(made.levels)
    memory = BytesMemory(dict(made.blocks))
    near = [(p.gva - 1, p.gva, p.gva + 0x123, p.gva + p.size - 1, p.gva + p.size) for p in made.pages]
    for gva in probes.union(*near):
        page = next((page for page in made.pages if page.gva <= gva < page.gva + page.size), None)
        yield Case(shape, memory, made.root, gva, page and (page.gpa + gva - page.gva, page.size, *rights(page)))


@settings(max_examples=100, deadline=None)
@given(tables(), st.sets(st.integers(0, (1 << 64) - 1), max_size=3))
def test_random_tables(made: Tables, probes: set[int]) -> None:
    for case in cases(made, probes):
        assert found(case) == case.expected


def memory_of(entries: list[int]) -> BytesMemory:
    """Return tables at 0x10000, 0x20000, ... filled with these entries."""
    return BytesMemory({0x1_0000 * (i + 1): value.to_bytes(8, "little") * 512 for i, value in enumerate(entries)})


TO_SECOND, TO_THIRD = 0x2_0000 >> 2 | V, 0x3_0000 >> 2 | V
NAPOT = 0x8000_8000 >> 2 | V | R
"""A leaf that with ``N`` stands for the 64 KiB at 0x80000000, else for the page at 0x80008000."""

RESERVED = [
    [TO_SECOND & ~V],
    [TO_SECOND | U],  # a pointer with U, A or D
    [TO_SECOND | 1 << 6],
    [TO_SECOND | 1 << 7],
    [TO_SECOND | 1 << 61],  # a pointer with a memory type
    [TO_SECOND | N],
    [TO_SECOND | 1 << 54],
    [TO_SECOND | 0b01110 << 59],  # a pointer with a memory type of T-Head
    [R],
    [R | W | X],
    [W | V],  # write without read
    [W | X | V],
    [R | V | 1 << 54],
    [R | V | 1 << 58],
    [R | V | 1 << 58 | 0b01110 << 59],  # T-Head's types do not make the bits below them good
    [R | V | 3 << 61],  # the reserved memory type
    [R | V | N | 0x8000 >> 2],  # Svnapot above the lowest level
    [R | V | 1 << 10],  # a misaligned superpage
    [R | V | 1 << 27],
    [TO_SECOND, R | V | 1 << 10],
    [TO_SECOND, R | V | 1 << 18],
    [TO_SECOND, R | V | N | 0x8000 >> 2],
    [TO_SECOND, TO_THIRD, R | V | N | 0x4000 >> 2],  # other sizes of Svnapot
    [TO_SECOND, TO_THIRD, R | V | N | 0xC000 >> 2],
    [TO_SECOND, TO_THIRD, R | V | N | 0x9000 >> 2],
    [TO_SECOND, TO_THIRD, R | V | N],
    [TO_SECOND, TO_THIRD, V],  # a pointer at the lowest level
    [TO_SECOND, TO_THIRD, V | 0x1_0000 >> 2],
]
"""Entries through which address 0x5123 is not mapped by Sv39."""

THEAD_MEMORY, THEAD_IO = 0b01110, 0b10010
PAGES = {*range(0b01100), THEAD_MEMORY, THEAD_IO}
RUNS = {*range(0b10000, 0b11100)} - {THEAD_IO}
"""Bits 59 to 63 of a leaf: two of software (Svrsw60t59b), the memory type of Svpbmt, of which 3 is reserved, Svnapot.
``_PAGE_PMA_THEAD`` and ``_PAGE_IO_THEAD`` of Linux read as something else in part, ``_PAGE_NOCACHE_THEAD`` does not."""


def forms() -> Iterator[Case]:
    """Yield what random tables seldom hold: reserved forms, Svnapot, memory types, addresses at the halves' edges."""
    for entries in RESERVED:
        yield Case(RiscV(3), memory_of(entries), 0x1_0000, 0x5123, None)
    for kind in range(32):
        page = (0x8000_8123, PAGE, False, False, False) if kind in PAGES else None
        run = (0x8000_5123, 1 << 16, False, False, False) if kind in RUNS else None
        memory = memory_of([TO_SECOND, TO_THIRD, NAPOT | kind << 59])
        yield Case(RiscV(3), memory, 0x1_0000, 0x5123, page or run)
    for marks in (0b01, 0b10, 0b11):  # hardware looks at these of pointers as little as at those of leaves
        memory = memory_of([TO_SECOND | marks << 59, TO_THIRD | marks << 59, NAPOT])
        yield Case(RiscV(3), memory, 0x1_0000, 0x5123, (0x8000_8123, PAGE, False, False, False))
    top_page = (1 << 44) - 1  # of a pointer, too
    high = {0: (top_page << 10 | V).to_bytes(8, "little") * 512, top_page << 12: (R | V).to_bytes(8, "little") * 512}
    yield Case(RiscV(3), BytesMemory({**high}), 0, 0x5123, (0x5123, 1 << 21, False, False, False))
    # The highest page number that there is, on a T-Head core: its memory type is no part of the number.
    highest = memory_of([TO_SECOND, TO_THIRD, (1 << 54) - (1 << 10) | V | R | 0b01110 << 59])
    yield Case(RiscV(3), highest, 0x1_0000, 0x5123, ((1 << 56) - PAGE + 0x123, PAGE, False, False, False))
    top = BytesMemory({0: (R | V).to_bytes(8, "little") * 512})
    for shape in geometries():
        size = 1 << 3 + 9 * shape.levels
        for gva in edges(12 + 9 * shape.levels):
            mapped = canonical(gva, shape.levels) == gva
            yield Case(shape, top, 0, gva, (gva & size - 1, size, False, False, False) if mapped else None)


def test_forms() -> None:
    for case in forms():
        assert found(case) == case.expected


@pytest.mark.parametrize("shape", list(geometries()), ids=str)
@given(gva=st.integers(-5, 1 << 65))
def test_canonical(shape: RiscV, gva: int) -> None:
    half = 1 << 11 + 9 * shape.levels
    assert shape.canonical(GVA(gva)) == ((1 << 64) - half <= gva < 1 << 64)
    if half <= gva < (1 << 64) - half or not 0 <= gva < 1 << 64:
        with pytest.raises(TranslationFault, match="equal"):
            shape.walk(PhysicalLoads(BytesMemory({})), GPA(0), GVA(gva))


def test_there_are_three() -> None:
    assert [shape.describe().split(",")[0] for shape in geometries()] == ["RISC-V Sv39", "RISC-V Sv48", "RISC-V Sv57"]
    with pytest.raises(ValueError, match="3 to 5"):
        RiscV(2)

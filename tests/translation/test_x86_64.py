"""Random page tables, built from the entry formats of the Intel SDM, volume 3, 4.5, against the walker."""

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
from yamori.translation.x86_64 import X86Paging, geometries

GIB, TWO_MIB, PAGE = 1 << 30, 1 << 21, 1 << 12
INDEX = {5: 48, 4: 39, 3: 30, 2: 21, 1: 12}  # level → lowest address bit of its index
LEVEL = {GIB: 3, TWO_MIB: 2, PAGE: 1}
IN_ENTRY = 0xFFF0_0000_0000_0F7E  # all but P, PS and the address


class Mapped(NamedTuple):
    gva: int
    size: int
    gpa: int
    path: list[int]


class Tables:
    """Tables of ``levels`` levels that begin at ``root``."""

    def __init__(self, root: int, levels: int) -> None:
        self.root, self.levels = root, levels
        self.blocks = {root: bytearray(PAGE)}
        self.pages: list[Mapped] = []

    def map(self, gva: int, size: int, gpa: int, flags: int, table_flags: int) -> None:
        table, path = self.root, []
        for level in range(self.levels, LEVEL[size], -1):
            index = gva >> INDEX[level] & 511
            entry = self.get(table, index)
            if entry == 0:
                address = self.root + len(self.blocks) * PAGE
                self.blocks[address] = bytearray(PAGE)
                entry = address | table_flags ^ 7  # as in Linux, most tables let everything pass
                self.put(table, index, entry)
            elif entry & 0x80:
                return
            path.append(entry)
            table = entry & 0xF_FFFF_FFFF_F000
        index = gva >> INDEX[LEVEL[size]] & 511
        if self.get(table, index) == 0:
            # Bit 7 is PAT in a page's entry, and says "large" in the others, where bit 12 is PAT.
            pat = flags & 0x80 if size == PAGE else flags & 0x1000 | 0x80
            entry = gpa | flags & IN_ENTRY | pat | 1
            self.put(table, index, entry)
            self.pages.append(Mapped(gva, size, gpa, [*path, entry]))

    def get(self, table: int, index: int) -> int:
        return int.from_bytes(self.blocks[table][index * 8 : index * 8 + 8], "little")

    def put(self, table: int, index: int, entry: int) -> None:
        self.blocks[table][index * 8 : index * 8 + 8] = entry.to_bytes(8, "little")


def canonical(gva: int, levels: int) -> int:
    """Extend the sign of an address's low bits."""
    bits = {4: 48, 5: 57}[levels]
    gva &= (1 << bits) - 1
    return gva | (1 << 64) - (1 << bits) if gva >> bits - 1 else gva


# Hypothesis likes small numbers; the product has bits all over the word.
FLAGS = st.integers(0, (1 << 64) - 1).map(lambda number: number * 0x9E37_79B9_7F4A_7C15 % (1 << 64))
TABLE_FLAGS = st.sampled_from([0, 0, *(1 << bit for bit in (1, 2, 5, 6, 9, 52, 62, 63))])


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    levels = draw(st.sampled_from([4, 5]))
    made = Tables(draw(st.integers(0, 0xFF_FFFF_0000)) << 12, levels)
    bases = draw(st.lists(FLAGS, min_size=1, max_size=2))
    for _ in range(draw(st.integers(1, 12))):
        size = draw(st.sampled_from([GIB, TWO_MIB, PAGE, PAGE]))
        gva = (draw(st.sampled_from(bases)) ^ draw(st.integers(0, 3)) << draw(st.integers(12, 57))) & -size
        gpa = draw(FLAGS) >> 12 & -size
        flags = draw(FLAGS)
        made.map(canonical(gva, levels), size, gpa, flags, draw(TABLE_FLAGS))
    return made


def rights(page: Mapped) -> tuple[bool, bool, bool]:
    """Return what the manual says: writable, executable for the kernel, readable for user mode."""
    path = page.path
    return all(entry & 2 for entry in path), not any(entry >> 63 for entry in path), all(entry & 4 for entry in path)


def cases(made: Tables, probes: set[int]) -> Iterator[Case]:
    """Yield what the tables say of the addresses, and of those in and around every page."""
    shape = X86Paging(made.levels)
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


RESERVED = [
    ([0x83], "reserved"),  # PS in a PML4 entry
    ([0x2083], "reserved"),
    ([0x2003, 0x4000_2083], "reserved"),  # bit 13 of a 1 GiB page
    ([0x2003, 0x6000_0083], "reserved"),  # bit 29 of a 1 GiB page
    ([0x2003, 0x3003, 0x10_0083], "reserved"),  # bit 20 of a 2 MiB page
    ([0x2003, 0x3003, 0x4003, 0x5002], "not present"),
]
"""First entries of tables at 0x1000, 0x2000, ..., through which address 0 is not mapped."""


def memory_of(entries: list[int]) -> BytesMemory:
    return BytesMemory({0x1000 * (i + 1): value.to_bytes(8, "little") for i, value in enumerate(entries)})


@pytest.mark.parametrize(("entries", "reason"), RESERVED)
def test_reserved_forms_fault(entries: list[int], reason: str) -> None:
    with pytest.raises(TranslationFault, match=reason):
        X86Paging(4).walk(PhysicalLoads(memory_of(entries)), GPA(0x1000), GVA(0))


def forms() -> Iterator[Case]:
    """Yield what random tables seldom hold: each bit alone, reserved forms, addresses at the edges."""
    for size in (GIB, TWO_MIB, PAGE):
        for flags, table_flags in ((f, t) for bit in range(64) for f, t in ((1 << bit, 0), (6, 1 << bit & IN_ENTRY))):
            made = Tables((1 << 52) - (1 << 20), 4)
            made.map(0xFFFF_8000_D234_5000 & -size, size, (1 << 52) - size, flags, table_flags)
            yield from cases(made, set())
    for entries, _ in RESERVED:
        yield Case(X86Paging(4), memory_of(entries), 0x1000, 0, None)
    itself = BytesMemory({0: (3).to_bytes(8, "little") * 512})
    for shape in geometries():
        for gva in edges(12 + 9 * shape.levels):
            mapped = canonical(gva, shape.levels) == gva
            yield Case(shape, itself, 0, gva, (gva & 0xFFF, PAGE, True, True, False) if mapped else None)


def test_forms() -> None:
    for case in forms():
        assert found(case) == case.expected


@pytest.mark.parametrize("shape", list(geometries()), ids=str)
@given(gva=st.integers(-5, 1 << 65))
def test_canonical(shape: X86Paging, gva: int) -> None:
    half = 1 << 11 + 9 * shape.levels
    assert shape.canonical(GVA(gva)) == ((1 << 64) - half <= gva < 1 << 64)
    if half <= gva < (1 << 64) - half or not 0 <= gva < 1 << 64:
        with pytest.raises(TranslationFault, match="canonical"):
            shape.walk(PhysicalLoads(BytesMemory({})), GPA(0), GVA(gva))


def test_there_are_two() -> None:
    assert [shape.describe() for shape in geometries()] == [
        "x86-64, 4K pages, 48-bit VA, 4 levels",
        "x86-64, 4K pages, 57-bit VA, 5 levels",
    ]
    with pytest.raises(ValueError, match="4 or 5"):
        X86Paging(3)

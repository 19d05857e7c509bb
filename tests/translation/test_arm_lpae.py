"""Random page tables, built from the descriptor formats of ARM DDI 0406C B3.6, against the walker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.translation.cases import Case, found

from yamori.address import GPA, GVA
from yamori.errors import TranslationFault
from yamori.memory.physical import BytesMemory
from yamori.translation.arm_lpae import ArmLpae, geometries
from yamori.translation.loads import PhysicalLoads

GIB, TWO_MIB, PAGE = 1 << 30, 1 << 21, 1 << 12
UPPER, LOWER = 0xFFF0_0000_0000_0000, 0xFFC  # attribute fields of a leaf
BEYOND_40_BITS = 0xFF << 40  # ignored by ARMv7


class Mapped(NamedTuple):
    gva: int
    size: int
    gpa: int
    flags: int
    tables: int


class Tables:
    """A table of four entries for all 4 GiB, and what hangs on it."""

    def __init__(self, base: int) -> None:
        self.root = base + 32
        self.blocks = {self.root: bytearray(32)}
        self.pages: list[Mapped] = []

    def below(self, table: int, index: int, flags: int) -> int:
        """Return the table descriptor at an entry, made if the entry is empty; 0 if it is a block."""
        entry = self.get(table, index)
        if entry == 0:
            address = ((self.root >> 12) + len(self.blocks)) << 12
            entry = address | flags & (UPPER | LOWER | BEYOND_40_BITS) | 3
            self.put(table, index, entry)
            self.blocks[address] = bytearray(PAGE)
        return entry if entry & 3 == 3 else 0

    def map(self, gva: int, size: int, gpa: int, flags: int, table_flags: int) -> None:
        table, index, above = self.root, gva // GIB, 0
        for step in (TWO_MIB, PAGE):
            if size > step:
                break
            entry = self.below(table, index, table_flags)
            if entry == 0:
                return
            table, above, index = entry & 0xFF_FFFF_F000, above | entry, gva // step % 512
        if self.get(table, index) == 0:
            # The bits of a block's address that are below its size are ignored, too.
            flags &= UPPER | LOWER | BEYOND_40_BITS | size - PAGE
            self.put(table, index, gpa | flags | (3 if size == PAGE else 1))
            self.pages.append(Mapped(gva, size, gpa, flags, above))

    def get(self, table: int, index: int) -> int:
        return int.from_bytes(self.blocks[table][index * 8 : index * 8 + 8], "little")

    def put(self, table: int, index: int, entry: int) -> None:
        self.blocks[table][index * 8 : index * 8 + 8] = entry.to_bytes(8, "little")


# Hypothesis likes small numbers; the product has bits all over the word.
FLAGS = st.integers(0, (1 << 64) - 1).map(lambda number: number * 0x9E37_79B9_7F4A_7C15 % (1 << 64))
TABLE_FLAGS = st.sampled_from([0, 0, *(1 << bit for bit in (2, 45, 59, 60, 61, 62, 63))])


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    made = Tables(draw(FLAGS) >> 44 << 20)
    bases = draw(st.lists(FLAGS.map(lambda number: number >> 32), min_size=1, max_size=2))
    for _ in range(draw(st.integers(1, 12))):
        size = draw(st.sampled_from([GIB, TWO_MIB, PAGE, PAGE]))
        gva = (draw(st.sampled_from(bases)) ^ draw(st.integers(0, 3)) << draw(st.integers(12, 30))) & -size
        gpa = draw(FLAGS) >> 24 & -size
        made.map(gva, size, gpa, draw(FLAGS), draw(TABLE_FLAGS))
    return made


def rights(page: Mapped) -> tuple[bool, bool, bool]:
    writable = not page.flags >> 7 & 1 and not page.tables >> 62 & 1
    executable = not page.flags >> 53 & 3 and not page.tables >> 59 & 3
    user = page.flags >> 6 & 1 and not page.tables >> 61 & 1
    return bool(writable), bool(executable), bool(user)


def cases(made: Tables, probes: set[int]) -> Iterator[Case]:
    """Yield what the tables say of the addresses, and of those in and around every page."""
    shape = ArmLpae()
    memory = BytesMemory(dict(made.blocks))
    near = [(p.gva - 1, p.gva, p.gva + 0x123, p.gva + p.size - 1, p.gva + p.size) for p in made.pages]
    for gva in probes.union(*near):
        page = next((page for page in made.pages if page.gva <= gva < page.gva + page.size), None)
        yield Case(shape, memory, made.root, gva, page and (page.gpa + gva - page.gva, page.size, *rights(page)))


@settings(max_examples=100, deadline=None)
@given(tables(), st.sets(st.integers(0, (1 << 32) - 1), max_size=3))
def test_random_tables(made: Tables, probes: set[int]) -> None:
    for case in cases(made, probes):
        assert found(case) == case.expected


def entry(value: int) -> bytes:
    return value.to_bytes(8, "little")


def linux_tables() -> BytesMemory:
    """Lay tables out as Linux does: the table of four entries, then the four second-level tables, all in a row."""
    pgd = b"".join(entry(0x1000 * (i + 1) | 3) for i in range(4)).ljust(PAGE, b"\0")
    pmds = b"".join(entry(0x80_0000_0000 + i * TWO_MIB | 0x701) for i in range(4 * 512))
    return BytesMemory({0: pgd + pmds})


@pytest.mark.parametrize("gva", [0xC000_0000, 0xC123_4567, 0xFFFF_FFFF, 0x8000_0000, 0xBFFF_0000])
def test_every_root_that_linux_puts_into_a_register_leads_to_the_same_page(gva: int) -> None:
    loads = PhysicalLoads(linux_tables())
    whole = ArmLpae(0).walk(loads, GPA(0), GVA(gva))
    assert whole.gpa == 0x80_0000_0000 + gva
    assert ArmLpae(1).walk(loads, GPA(16), GVA(gva)) == whole  # CONFIG_VMSPLIT_2G: TTBR1_OFFSET is 16
    root = 0x4000 if gva >= 0xC000_0000 else 0  # CONFIG_VMSPLIT_3G: TTBR1_OFFSET is 4096 * (1 + 3), TTBR0 is whole
    assert ArmLpae(2).walk(loads, GPA(root), GVA(gva)) == whole


def forms() -> Iterator[Case]:
    """Yield what random tables seldom hold: each bit alone, the parts of tables of TTBR1, and more than 32 bits."""
    for size in (GIB, TWO_MIB, PAGE):
        for flags, table_flags in ((f, t) for bit in range(64) for f, t in ((1 << bit, 0), (1 << 6, 1 << bit))):
            made = Tables((1 << 40) - (1 << 20))
            made.map(0xD234_5000 & -size, size, (1 << 40) - size, flags, table_flags)
            yield from cases(made, set())
    memory = linux_tables()
    ends = ((0, 0xFFFF_FFFF), (1, 0x7FFF_FFFF), (2, 0xBFFF_FFFF))  # of what the table for all 4 GiB translates
    whole = [(ArmLpae(t1sz), 0, gva) for t1sz, last in ends for gva in (0, last)]
    parts = [(ArmLpae(1), 16, gva) for gva in (0x8000_0000, 0xBFFF_FFFF, 0xC000_0000, 0xFFFF_FFFF)]
    for t1sz in range(2, 8):
        lowest = (1 << 32) - (1 << 32 - t1sz)
        root = 0x4000 + (lowest - 0xC000_0000) // TWO_MIB * 8
        parts += [(ArmLpae(t1sz), root, gva) for gva in (lowest, lowest + 0x12_3456, 0xFFFF_FFFF)]
    for shape, root, gva in (*whole, *parts):
        yield Case(shape, memory, root, gva, (0x80_0000_0000 + gva, TWO_MIB, True, True, False))
    for gva in (1 << 32, 1 << 33, (1 << 64) - 1):
        yield Case(ArmLpae(), memory, 0, gva, None)
    for first in (0, 0x2, 0x4000_0002, 0x1003):  # at last a level 3 entry of type 1, which is reserved
        tables = BytesMemory({0: entry(first), 0x1000: entry(0x2003), 0x2000: entry(0x5001)})
        yield Case(ArmLpae(), tables, 0, 0, None)


def test_forms() -> None:
    for case in forms():
        assert found(case) == case.expected


@pytest.mark.parametrize(
    ("root", "gva", "reason"),
    [
        (entry(0x2), 0, "an entry is invalid"),
        (entry(0x1003) + entry(0x2003), 0, "an entry is invalid"),  # a level 3 entry of type 1 is reserved
        (entry(0x1003) + entry(0x2003), 1 << 32, "32 bits"),
        (entry(0x1003) + entry(0x2003), -4096, "32 bits"),
    ],
)
def test_reserved_forms_fault(root: bytes, gva: int, reason: str) -> None:
    blocks: dict[int, bytes | bytearray] = {0: root.ljust(32, b"\0"), 0x1000: root[8:16], 0x2000: entry(0x5001)}
    with pytest.raises(TranslationFault, match=reason):
        ArmLpae().walk(PhysicalLoads(BytesMemory(blocks)), GPA(0), GVA(gva))


def test_canonical_and_alignment() -> None:
    assert [shape.t1sz for shape in geometries()] == [0, 2, 1]
    assert ArmLpae(0).canonical(GVA(0xBF00_0000))  # modules
    assert not ArmLpae(2).canonical(GVA(0xBF00_0000))
    assert ArmLpae(2).canonical(GVA(0xC000_0000))
    assert not ArmLpae(0).canonical(GVA(1 << 32))
    assert [shape.root_alignment for shape in geometries()] == [32, 32, 16]
    with pytest.raises(ValueError, match="three bits"):
        ArmLpae(8)

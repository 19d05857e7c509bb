"""Random page tables, built from the descriptor formats of ARM DDI 0406C B3.5.1, against the walker."""

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
from yamori.translation.arm_short import ArmShort, geometries
from yamori.translation.loads import PhysicalLoads

MIB = 1 << 20
SMALL, LARGE, SECTION, SUPERSECTION = 1 << 12, 1 << 16, MIB, 16 * MIB
# AP[2:0] → writable by the kernel, readable by user mode (Table B3-8); 0b100 is reserved.
ACCESS = {0: (0, 0), 1: (1, 0), 2: (1, 1), 3: (1, 1), 5: (0, 0), 6: (0, 1), 7: (0, 1)}


class Mapped(NamedTuple):
    gva: int
    size: int
    gpa: int
    rights: tuple[bool, bool, bool]


class Tables:
    """A first-level table at ``root`` and the second-level tables behind it."""

    def __init__(self, root: int, *, linux: bool) -> None:
        self.root = root
        self.linux = linux  # two tables of Linux's lie before two of the hardware's in each page
        self.first = bytearray(0x4000)
        self.second: dict[int, bytearray] = {}
        self.shadows: dict[int, bytearray] = {}
        self.pages: list[Mapped] = []

    def map(self, gva: int, size: int, gpa: int, access: int, never: int, junk: int, *, aged: bool) -> None:
        """Map a page; ``junk`` is for the fields that do not matter: domain, TEX, C, B, S, nG, NS.

        A small page that has ``aged`` is not in the hardware's table.
        """
        ap, apx = access & 3, access >> 2
        first = gva // MIB
        if size >= SECTION:
            entry = 2 | junk & 0xB_720C | ap << 10 | apx << 15 | (never & 1) << 4 | never >> 1
            if size == SECTION:
                entry |= junk & 0x1E0 | gpa
            else:
                entry |= 1 << 18 | gpa & 0xFF00_0000 | (gpa >> 32 & 15) << 20 | gpa >> 36 << 5
            if any(self.get(self.first, first + i) for i in range(size // MIB)):
                return
            for i in range(size // MIB):
                self.put(self.first, first + i, entry)
        else:
            # PXN is the table's: it is set in the tables of every other MiB, and never asked of the leaf.
            never = (first & 1) << 1 | never & 1
            if self.get(self.first, first) == 0:
                number = len(self.second)
                table = self.root + 0x4000 + number // 2 * 0x1000 + number % 2 * 0x400 + 0x800 * self.linux
                self.put(self.first, first, 1 | (first & 1) << 2 | junk & 0x3E8 | table)
                self.second[table] = bytearray(0x400)
            if self.get(self.first, first) & 3 != 1:
                return
            second = self.second[self.get(self.first, first) & 0xFFFF_FC00]
            entry = gpa | junk & 0xC0C | ap << 4 | apx << 9
            entry |= 2 | junk & 0x1C0 | never & 1 if size == SMALL else 1 | junk & 0x7000 | (never & 1) << 15
            index = gva >> 12 & 255
            tables = second, self.shadows.get(id(second), bytes(0x400))
            if any(self.get(table, index + i) for table in tables for i in range(size // SMALL)):
                return
            if aged and self.linux and size == SMALL:
                # Linux's own: L_PTE_* of arch/arm/include/asm/pgtable-2level.h
                writable, user = ACCESS[access]
                entry = gpa | 1 | (not writable) << 7 | user << 8 | (never & 1) << 9 | junk & 0x47E
                second = self.shadows.setdefault(id(second), bytearray(0x400))
            for i in range(size // SMALL):
                self.put(second, index + i, entry)
        writable, user = ACCESS[access]
        self.pages.append(Mapped(gva, size, gpa, (bool(writable), not never, bool(user))))

    def memory(self) -> BytesMemory:
        shadows = {place - 0x800: self.shadows.get(id(table), bytes(0x400)) for place, table in self.second.items()}
        return BytesMemory({self.root: self.first, **self.second, **(shadows if self.linux else {})})

    @staticmethod
    def get(table: bytes | bytearray, index: int) -> int:
        return int.from_bytes(table[index * 4 : index * 4 + 4], "little")

    @staticmethod
    def put(table: bytearray, index: int, entry: int) -> None:
        table[index * 4 : index * 4 + 4] = entry.to_bytes(4, "little")


# Hypothesis likes small numbers; the product has bits all over the word.
JUNK = st.integers(0, (1 << 32) - 1).map(lambda number: number * 0x9E37_79B1 % (1 << 32))
PLACES = st.integers(0, (1 << 40) - 1).map(lambda number: number * 0x9E_3779_B97F % (1 << 40))


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    made = Tables(draw(JUNK) >> 16 << 16, linux=draw(st.booleans()))
    bases = draw(st.lists(JUNK, min_size=1, max_size=2))
    for _ in range(draw(st.integers(1, 12))):
        size = draw(st.sampled_from([SMALL, LARGE, SECTION, SUPERSECTION]))
        gva = (draw(st.sampled_from(bases)) ^ draw(st.integers(0, 3)) << draw(st.integers(12, 30))) & -size
        gpa = draw(PLACES) >> (0 if size == SUPERSECTION else 8) & -size
        access = draw(st.sampled_from(sorted(ACCESS)))
        made.map(gva, size, gpa, access, draw(st.integers(0, 3)), draw(JUNK), aged=draw(st.booleans()))
    return made


def cases(made: Tables, probes: set[int]) -> Iterator[Case]:
    """Yield what the tables say of the addresses, and of those in and around every page."""
    shape = ArmShort()
    memory = made.memory()
    near = [(p.gva - 1, p.gva, p.gva + 0x123, p.gva + p.size - 1, p.gva + p.size) for p in made.pages]
    for gva in probes.union(*near):
        page = next((page for page in made.pages if page.gva <= gva < page.gva + page.size), None)
        yield Case(shape, memory, made.root, gva, page and (page.gpa + gva - page.gva, page.size, *page.rights))


@settings(max_examples=150, deadline=None)
@given(tables(), st.sets(st.integers(0, (1 << 32) - 1), max_size=3))
def test_random_tables(made: Tables, probes: set[int]) -> None:
    for case in cases(made, probes):
        assert found(case) == case.expected


def memory_of(first: int, second: int = 0) -> BytesMemory:
    """Return a first-level table at 0 and a second-level table at 0x4000, full of these entries."""
    return BytesMemory({0: first.to_bytes(4, "little") * 4096, 0x4000: second.to_bytes(4, "little") * 256})


RESERVED = [(0x8000 | 2, 0), (0x8000 | 1 << 18 | 2, 0), (0x4001, 0x1000 | 0x200 | 2), (0x4001, 0x200 | 1)]
"""First and second-level entries with the access permissions that are reserved."""


@pytest.mark.parametrize(("first", "second"), RESERVED)
def test_reserved_access_permissions_fault(first: int, second: int) -> None:
    with pytest.raises(TranslationFault, match="reserved"):
        ArmShort().walk(PhysicalLoads(memory_of(first, second)), GPA(0), GVA(0))


def forms() -> Iterator[Case]:
    """Yield each bit alone, all access permissions of every kind of page, reserved forms, and more than 32 bits."""
    for size in (SMALL, LARGE, SECTION, SUPERSECTION):
        for access, never, bit in ((a, n, b) for a in (0, 1, 6) for n in (0, 1, 2) for b in range(20)):
            for aged in (False, True):
                made = Tables(0xFFFF_0000, linux=aged)
                gpa = (1 << (40 if size == SUPERSECTION else 32)) - size
                made.map(0xD234_0000 & -size, size, gpa, access, never, 1 << bit, aged=aged)
                yield from cases(made, set())
    for shadow in (0, 2, 0xFFFF_F801):  # none, a swapped page's, one that nobody may use (PROT_NONE)
        made = Tables(0xFFFF_0000, linux=True)
        made.map(0xD234_5000, SMALL, 0x5000, 1, 0, 0, aged=True)
        made.put(next(iter(made.shadows.values())), 0x45, shadow)
        yield Case(ArmShort(), made.memory(), made.root, 0xD234_5000, None)
    gva = 0x123_4567
    for access, (writable, user) in ACCESS.items():
        section, page = (access & 3) << 10 | access >> 2 << 15, (access & 3) << 4 | access >> 2 << 9
        for first, second, size in (
            (section | 2, 0, SECTION),
            (section | 1 << 18 | 2, 0, SUPERSECTION),
            (0x4001, page | 2, SMALL),
            (0x4001, page | 1, LARGE),
        ):
            expected = (gva & size - 1, size, bool(writable), True, bool(user))
            yield Case(ArmShort(), memory_of(first, second), 0, gva, expected)
    for first, second in (*RESERVED, (0, 0), (0x400 | 4, 0), (0x4001, 0), (0x4001, 0x10), (0x4001, 0xFFFF_FFFC)):
        yield Case(ArmShort(), memory_of(first, second), 0, 0, None)
    for gva in (0, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF):
        yield Case(
            ArmShort(), memory_of(0x8000_0402), 0, gva, (0x8000_0000 | gva & SECTION - 1, SECTION, True, True, False)
        )
    for beyond in (1 << 32, 1 << 33, (1 << 64) - 1):
        yield Case(ArmShort(), memory_of(0x402, 0x402), 0, beyond, None)


def test_forms() -> None:
    for case in forms():
        assert found(case) == case.expected


@pytest.mark.parametrize("gva", [-1, 1 << 32, 0xFFFF_FFFF_8000_0000])
def test_more_than_32_bits_fault(gva: int) -> None:
    with pytest.raises(TranslationFault, match="32 bits"):
        ArmShort().walk(PhysicalLoads(BytesMemory({0: bytes(0x4000)})), GPA(0), GVA(gva))
    assert not ArmShort().canonical(GVA(gva))


def test_split_of_the_address_space() -> None:
    """B3.5.4: with N = 1 the upper half is TTBR1's, and TTBR0 may have a table of 8 KiB."""
    assert list(geometries()) == [ArmShort(0)]
    assert ArmShort(0).canonical(GVA(0x4000_0000))
    assert not ArmShort(0).canonical(GVA(0x3000_0000))
    assert not ArmShort(1).canonical(GVA(0x7FFF_FFFF))
    assert ArmShort(1).canonical(GVA(0x8000_0000))
    assert [ArmShort(n).root_alignment for n in (0, 1, 7)] == [0x4000, 0x2000, 0x80]
    with pytest.raises(ValueError, match="three bits"):
        ArmShort(8)

"""Random page tables, built from the entry formats of the RISC-V privileged manual, against the walker."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    levels = draw(st.sampled_from([3, 4, 5]))
    made = Tables(draw(st.integers(0, 0xFFF_FFFF_0000)) << 12, levels)
    bases = draw(st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=2))
    for _ in range(draw(st.integers(1, 12))):
        level = draw(st.integers(0, levels - 1))
        size = 1 << INDEX[level]
        gva = (draw(st.sampled_from(bases)) ^ draw(st.integers(0, 3)) << draw(st.integers(12, 56))) & -size
        gpa = draw(st.integers(0, (1 << 56) // size - 1)) * size
        read, write, execute = draw(st.sampled_from(sorted(RWX)))
        flags = R * read | W * write | X * execute | draw(st.integers(0, 0x3F)) << 4 | draw(st.integers(0, 2)) << 61
        made.map(canonical(gva, levels), level, gpa, flags)
    return made


@settings(max_examples=100, deadline=None)
@given(tables(), st.sets(st.integers(0, (1 << 64) - 1), max_size=3))
def test_random_tables(made: Tables, probes: set[int]) -> None:
    shape, loads = RiscV(made.levels), PhysicalLoads(BytesMemory(dict(made.blocks)))
    for page in made.pages:
        probes |= {page.gva - 1, page.gva, page.gva + 0x123, page.gva + page.size - 1, page.gva + page.size}
    for gva in probes:
        mapped = [page for page in made.pages if page.gva <= gva < page.gva + page.size]
        for page in mapped:
            user = bool(page.entry & U)
            rights = bool(page.entry & W), bool(page.entry & X) and not user, user and bool(page.entry & R)
            assert shape.walk(loads, GPA(made.root), GVA(gva)) == (page.gpa + gva - page.gva, page.size, *rights)
        if not mapped:
            with pytest.raises(TranslationFault):
                shape.walk(loads, GPA(made.root), GVA(gva))


def walk_entries(*entries: int) -> int:
    """Walk address 0x5123 through Sv39 tables at 0x10000, 0x20000, ... filled with these entries."""
    blocks = {0x1_0000 * (i + 1): value.to_bytes(8, "little") * 512 for i, value in enumerate(entries)}
    found = RiscV(3).walk(PhysicalLoads(BytesMemory({**blocks})), GPA(0x1_0000), GVA(0x5123))
    assert found.page_size == 1 << 16
    return found.gpa


TO_SECOND, TO_THIRD = 0x2_0000 >> 2 | V, 0x3_0000 >> 2 | V


def test_svnapot_page_of_64_kib() -> None:
    assert walk_entries(TO_SECOND, TO_THIRD, N | 0x8000_8000 >> 2 | V | R) == 0x8000_5123


@pytest.mark.parametrize(
    "entries",
    [
        [TO_SECOND & ~V],
        [TO_SECOND | U],  # a pointer with U, A or D
        [TO_SECOND | 1 << 6],
        [TO_SECOND | 1 << 7],
        [TO_SECOND | 1 << 61],  # a pointer with a memory type
        [TO_SECOND | N],
        [TO_SECOND | 1 << 54],
        [W | V],  # write without read
        [W | X | V],
        [R | V | 1 << 60],
        [R | V | 3 << 61],  # the reserved memory type
        [R | V | N | 0x8000 >> 2],  # Svnapot above the lowest level
        [R | V | 1 << 10],  # a misaligned superpage
        [TO_SECOND, R | V | 1 << 18],
        [TO_SECOND, TO_THIRD, R | V | N | 0x4000 >> 2],  # another size of Svnapot
        [TO_SECOND, TO_THIRD, V],  # a pointer at the lowest level
    ],
)
def test_reserved_forms_fault(entries: list[int]) -> None:
    with pytest.raises(TranslationFault):
        walk_entries(*entries)


def test_memory_types_of_t_head() -> None:
    """``_PAGE_NOCACHE_THEAD``, ``_PAGE_PMA_THEAD`` and ``_PAGE_IO_THEAD`` of Linux; bit 60 is reserved otherwise."""
    for kind in range(32):
        leaf = 0x8000_8000 >> 2 | V | R | kind << 59
        if kind in {0b00000, 0b00100, 0b01000, 0b00110, 0b01110, 0b10010}:  # Svpbmt's first
            assert walk_root(leaf) == (0x8000_8123, 1 << 12)
        elif kind in {0b10000, 0b10100, 0b11000}:
            assert walk_root(leaf) == (0x8000_5123, 1 << 16)  # Svnapot
        else:
            with pytest.raises(TranslationFault):
                walk_root(leaf)


def walk_root(leaf: int) -> tuple[int, int]:
    blocks = {
        0x1_0000 * (i + 1): entry.to_bytes(8, "little") * 512 for i, entry in enumerate((TO_SECOND, TO_THIRD, leaf))
    }
    found = RiscV(3).walk(PhysicalLoads(BytesMemory({**blocks})), GPA(0x1_0000), GVA(0x5123))
    return found.gpa, found.page_size


def test_pointer_has_no_memory_type_of_t_head() -> None:
    with pytest.raises(TranslationFault):
        walk_entries(TO_SECOND | 0b01110 << 59)


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

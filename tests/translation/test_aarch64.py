"""Random page tables, built from the field tables of ARM DDI 0487 D8, against the walker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamori.address import GPA, GVA
from yamori.errors import TranslationFault
from yamori.memory.physical import BytesMemory
from yamori.translation.aarch64 import AArch64, geometries
from yamori.translation.loads import PhysicalLoads

# Granule → level → (lowest, highest) address bit that indexes the level's table.
INDEX_BITS = {
    12: {-1: (48, 51), 0: (39, 47), 1: (30, 38), 2: (21, 29), 3: (12, 20)},
    14: {0: (47, 51), 1: (36, 46), 2: (25, 35), 3: (14, 24)},
    16: {1: (42, 51), 2: (29, 41), 3: (16, 28)},
}
# Granule → (fewest address bits, level at which their walk starts).
START = {
    12: ((49, -1), (40, 0), (31, 1), (25, 2)),
    14: ((48, 0), (37, 1), (26, 2), (25, 3)),
    16: ((43, 1), (30, 2), (25, 3)),
}
# (granule, output address bits) → levels that may have a leaf.
LEAVES = {
    (12, 48): (3, 2, 1),
    (12, 52): (3, 2, 1, 0),
    (14, 48): (3, 2),
    (14, 52): (3, 2, 1),
    (16, 48): (3, 2),
    (16, 52): (3, 2, 1),
}
KERNEL, USER = True, False


class Page(NamedTuple):
    gva: int
    size: int
    gpa: int
    flags: int
    table_flags: tuple[int, ...]


@dataclass
class Tables:
    """One half's tables, with a root that is no larger than it has to be."""

    granule: int
    bits: int
    pa_bits: int
    root: int
    blocks: dict[int, bytearray] = field(default_factory=dict)
    children: dict[tuple[int, int], int] = field(default_factory=dict)
    pages: list[Page] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start = next(level for fewest, level in START[self.granule] if self.bits >= fewest)
        entries = 1 << (self.bits - INDEX_BITS[self.granule][self.start][0])
        self.blocks[self.root] = bytearray(8 * entries)
        self.next_table = (self.root >> 16 << 16) + 0x20000

    def encode(self, gpa: int) -> int:
        if self.pa_bits == 48:
            return gpa
        if self.granule == 16:
            return gpa & 0xFFFF_FFFF_FFFF | gpa >> 48 << 12
        return gpa & 0x3_FFFF_FFFF_FFFF | gpa >> 50 << 8

    def flag_bits(self, *, block: bool = False) -> int:
        """Bits of a descriptor that are no part of its address or type, those that are RES0 or ignored included."""
        bits = 0xFFFC_0000_0000_0FFC | (1 << 16 if block else 0)
        if self.granule == 16 or self.pa_bits == 48:
            bits |= 3 << 48
        if self.granule == 16 and self.pa_bits == 48:
            bits |= 0xF000
        return bits & ~0x300 if self.granule != 16 and self.pa_bits == 52 else bits

    def map(self, gva: int, level: int, gpa: int, flags: int, table_flags: int) -> None:
        """Map a page unless something is in the way; a table that is made for it gets ``table_flags``."""
        table = self.root
        path: list[int] = []
        for here in range(self.start, 4):
            low, high = INDEX_BITS[self.granule][here]
            offset = (gva >> low & (1 << (min(high, self.bits - 1) - low + 1)) - 1) * 8
            entry = int.from_bytes(self.blocks[table][offset : offset + 8], "little")
            if here == level:
                if entry == 0:
                    flags &= self.flag_bits(block=level != 3)
                    self.put(table, offset, self.encode(gpa) | flags | (3 if level == 3 else 1))
                    self.pages.append(Page(gva >> low << low, 1 << low, gpa, flags, tuple(path)))
                return
            if entry == 0:
                entry = self.encode(self.next_table) | table_flags & self.flag_bits() | 3
                self.put(table, offset, entry)
                self.blocks[self.next_table] = bytearray(1 << self.granule)
                self.children[table, offset] = self.next_table
                self.next_table += 0x10000
            elif entry & 3 == 1:
                return
            path.append(entry)
            table = self.children[table, offset]

    def put(self, table: int, offset: int, entry: int) -> None:
        self.blocks[table][offset : offset + 8] = entry.to_bytes(8, "little")


def rights(page: Page) -> tuple[bool, bool, bool]:
    """Return what the manual says: writable, executable for the kernel, readable for user mode."""
    no_user = any(entry >> 61 & 1 for entry in page.table_flags)
    read_only = any(entry >> 62 & 1 for entry in page.table_flags)
    never = any(entry >> 59 & 1 for entry in page.table_flags) or page.flags >> 53 & 1
    user = bool(page.flags >> 6 & 1) and not no_user
    writable = (not page.flags >> 7 & 1 or bool(page.flags >> 51 & 1)) and not read_only
    return writable, not never and not (user and writable), user


# Hypothesis likes small numbers; the product has bits all over the word.
FLAGS = st.integers(0, (1 << 64) - 1).map(lambda number: number * 0x9E37_79B9_7F4A_7C15 % (1 << 64))
TABLE_FLAGS = st.sampled_from([0, 0, *(1 << bit for bit in (2, 58, 59, 60, 61, 62, 63))])


@st.composite
def shapes(draw: st.DrawFn) -> AArch64:
    granule, pa_bits = draw(st.sampled_from(sorted(LEAVES)))
    sizes = st.integers(12 if pa_bits == 52 or granule == 16 else 16, 39)
    return AArch64(granule, draw(sizes), draw(sizes), pa_bits)


@st.composite
def tables(draw: st.DrawFn, shape: AArch64, half: bool) -> Tables:
    bits = 64 - (shape.t1sz if half else shape.t0sz)
    made = Tables(shape.page_shift, bits, shape.pa_bits, 0)
    root_size = len(made.blocks[0])
    high = draw(st.integers(0, (1 << shape.pa_bits - 24) - 1)) << 24
    made = Tables(shape.page_shift, bits, shape.pa_bits, high + root_size)
    levels = [level for level in LEAVES[shape.page_shift, shape.pa_bits] if level >= made.start]
    bases = draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=1, max_size=2))
    for _ in range(draw(st.integers(1, 12))):
        level = draw(st.sampled_from(levels))
        low = INDEX_BITS[shape.page_shift][level][0]
        gva = draw(st.sampled_from(bases)) ^ draw(st.integers(0, 3)) << draw(st.integers(low, 50))
        gva &= (1 << bits) - 1
        gpa = draw(st.integers(0, (1 << shape.pa_bits - low) - 1)) << low
        gva |= -(1 << bits) & (1 << 64) - 1 if half else 0
        made.map(gva, level, gpa, draw(FLAGS), draw(TABLE_FLAGS))
    return made


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_random_tables(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    half = data.draw(st.sampled_from([KERNEL, USER]))
    made = data.draw(tables(shape, half))
    loads = PhysicalLoads(BytesMemory(dict(made.blocks)))
    assert made.root % shape.root_alignment == 0
    probes = {data.draw(st.integers(0, (1 << 64) - 1)) for _ in range(3)}
    for page in made.pages:
        probes |= {page.gva - 1, page.gva, page.gva + 0x123, page.gva + page.size - 1, page.gva + page.size}
    ones = -(1 << made.bits) & (1 << 64) - 1 if half else 0
    for gva in probes:
        if gva >> made.bits << made.bits != ones:
            continue
        mapped = [page for page in made.pages if page.gva <= gva < page.gva + page.size]
        if not mapped:
            with pytest.raises(TranslationFault):
                shape.walk(loads, GPA(made.root), GVA(gva))
        for page in mapped:
            found = shape.walk(loads, GPA(made.root), GVA(gva))
            assert found == (page.gpa + gva - page.gva, page.size, *rights(page))
            assert shape.canonical(GVA(gva)) == half


@given(shapes(), st.integers(-5, 1 << 65))
def test_addresses_of_neither_half_fault(shape: AArch64, gva: int) -> None:
    kernel = (1 << 64) - (1 << 64 - shape.t1sz) <= gva < 1 << 64
    assert shape.canonical(GVA(gva)) == kernel
    if not kernel and not 0 <= gva < 1 << 64 - shape.t0sz:
        with pytest.raises(TranslationFault, match="between"):
            shape.walk(PhysicalLoads(BytesMemory({})), GPA(0), GVA(gva))


@pytest.mark.parametrize(
    ("shape", "bits"),
    [
        (AArch64(12, 16, 16), 39),  # no block of 512 GiB without LPA2
        (AArch64(14, 17, 17), 36),  # no block of 64 GiB without LPA2
        (AArch64(16, 16, 16), 42),  # no block of 4 TiB without LPA
        (AArch64(12, 12, 12, 52), 48),  # none at level -1 at all
        (AArch64(14, 12, 12, 52), 47),  # none at level 0 of 16K at all
    ],
)
def test_block_at_a_level_that_cannot_have_one(shape: AArch64, bits: int) -> None:
    table = (0x0000_0000_0000_0401).to_bytes(8, "little") * (1 << 64 - shape.t1sz - bits)
    with pytest.raises(TranslationFault, match="cannot have"):
        shape.walk(PhysicalLoads(BytesMemory({0: table})), GPA(0), GVA((1 << 64) - 1))


def test_level_3_entry_of_block_type_is_reserved() -> None:
    blocks = {0: (0x1003).to_bytes(8, "little") * 512, 0x1000: (0x2401).to_bytes(8, "little") * 512}
    with pytest.raises(TranslationFault, match="an entry is invalid"):
        AArch64(12, 34, 34).walk(PhysicalLoads(BytesMemory({**blocks})), GPA(0), GVA(0))


def test_52_bit_kernel_on_a_48_bit_cpu_with_64k_pages() -> None:
    """From ``init_mm.pgd`` with 52 bits, from TTBR1 (which is moved by 0x1e00) with 48: the same page."""
    pgd = bytearray(1024 * 8)
    pgd[960 * 8 : 961 * 8] = (0x1_0000 | 3).to_bytes(8, "little")
    loads = PhysicalLoads(BytesMemory({0: pgd, 0x1_0000: (0x4000_0000 | 0x701).to_bytes(8, "little") * 8192}))
    gva = GVA(0xFFFF_0000_1234_5678)
    assert AArch64(16, 12, 12).walk(loads, GPA(0), gva) == AArch64(16, 16, 16).walk(loads, GPA(0x1E00), gva)


def test_geometries_are_what_kconfig_offers() -> None:
    offered = {(shape.page_shift, 64 - shape.t1sz) for shape in geometries()}
    assert offered == {
        (12, 39),
        (12, 48),
        (12, 52),
        (14, 36),
        (14, 47),
        (14, 48),
        (14, 52),
        (16, 42),
        (16, 48),
        (16, 52),
    }
    assert next(geometries()).describe() == "AArch64, 4K granule, 48-bit VA, 48-bit PA, 4 levels"
    assert AArch64(12, 12, 12, 52).describe() == "AArch64, 4K granule, 52-bit VA, 52-bit PA, 5 levels"


@pytest.mark.parametrize("fields", [(13, 16, 16, 48), (12, 15, 16, 48), (12, 16, 40, 48), (12, 16, 16, 50)])
def test_impossible_geometries_are_refused(fields: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"no granule|TxSZ"):
        AArch64(*fields)

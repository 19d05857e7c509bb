"""Random page tables, built from the field tables of ARM DDI 0487 D8, against the walker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.translation.cases import Case, found

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
TABLE_FLAGS = st.sampled_from([0, 0, *(1 << bit for bit in (2, 8, 13, 58, 59, 60, 61, 62, 63))])


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
    high = draw(FLAGS) >> 64 - shape.pa_bits + 24 << 24
    made = Tables(shape.page_shift, bits, shape.pa_bits, high + root_size)
    levels = [level for level in LEAVES[shape.page_shift, shape.pa_bits] if level >= made.start]
    bases = draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=1, max_size=2))
    for _ in range(draw(st.integers(1, 12))):
        level = draw(st.sampled_from(levels))
        low = INDEX_BITS[shape.page_shift][level][0]
        gva = draw(st.sampled_from(bases)) ^ draw(st.integers(0, 3)) << draw(st.integers(low, 50))
        gva &= (1 << bits) - 1
        gpa = draw(FLAGS) >> 64 - shape.pa_bits + low << low
        gva |= -(1 << bits) & (1 << 64) - 1 if half else 0
        made.map(gva, level, gpa, draw(FLAGS), draw(TABLE_FLAGS))
    return made


class Half(NamedTuple):
    shape: AArch64
    is_kernel: bool
    tables: Tables


@st.composite
def halves(draw: st.DrawFn) -> Half:
    shape, is_kernel = draw(shapes()), draw(st.sampled_from([KERNEL, USER]))
    return Half(shape, is_kernel, draw(tables(shape, is_kernel)))


def cases(half: Half, probes: set[int]) -> Iterator[Case]:
    """Yield what the tables say of those addresses that lie in the half, and of those in and around every page."""
    made = half.tables
    memory = BytesMemory(dict(made.blocks))
    near = [(p.gva - 1, p.gva, p.gva + 0x123, p.gva + p.size - 1, p.gva + p.size) for p in made.pages]
    ones = -(1 << made.bits) & (1 << 64) - 1 if half.is_kernel else 0
    for gva in probes.union(*near):
        if gva >> made.bits << made.bits == ones:
            page = next((page for page in made.pages if page.gva <= gva < page.gva + page.size), None)
            expected = page and (page.gpa + gva - page.gva, page.size, *rights(page))
            yield Case(half.shape, memory, made.root, gva, expected)


@settings(max_examples=150, deadline=None)
@given(halves(), st.sets(st.integers(0, (1 << 64) - 1), max_size=3))
def test_random_tables(half: Half, probes: set[int]) -> None:
    assert half.tables.root % half.shape.root_alignment == 0
    for case in cases(half, probes):
        assert found(case) == case.expected
        assert half.shape.canonical(GVA(case.gva)) == half.is_kernel


@given(shapes(), st.integers(-5, 1 << 65))
def test_addresses_of_neither_half_fault(shape: AArch64, gva: int) -> None:
    kernel = (1 << 64) - (1 << 64 - shape.t1sz) <= gva < 1 << 64
    assert shape.canonical(GVA(gva)) == kernel
    if not kernel and not 0 <= gva < 1 << 64 - shape.t0sz:
        with pytest.raises(TranslationFault, match="between"):
            shape.walk(PhysicalLoads(BytesMemory({})), GPA(0), GVA(gva))


NO_BLOCKS = [
    (AArch64(12, 16, 16), 39),  # no block of 512 GiB without LPA2
    (AArch64(14, 17, 17), 36),  # no block of 64 GiB without LPA2
    (AArch64(16, 16, 16), 42),  # no block of 4 TiB without LPA
    (AArch64(12, 12, 12, 52), 48),  # none at level -1 at all
    (AArch64(14, 12, 12, 52), 47),  # none at level 0 of 16K at all
]


def full_of(entry: int, bits: int) -> BytesMemory:
    """Return a table at 0 that has this entry for all values of ``bits`` bits."""
    return BytesMemory({0: entry.to_bytes(8, "little") * (1 << bits)})


@pytest.mark.parametrize(("shape", "bits"), NO_BLOCKS)
def test_block_at_a_level_that_cannot_have_one(shape: AArch64, bits: int) -> None:
    with pytest.raises(TranslationFault, match="cannot have"):
        shape.walk(PhysicalLoads(full_of(0x401, 64 - shape.t1sz - bits)), GPA(0), GVA((1 << 64) - 1))


LEVEL_3_BLOCK = {0: (0x1003).to_bytes(8, "little") * 512, 0x1000: (0x2401).to_bytes(8, "little") * 512}


def test_level_3_entry_of_block_type_is_reserved() -> None:
    with pytest.raises(TranslationFault, match="an entry is invalid"):
        AArch64(12, 34, 34).walk(PhysicalLoads(BytesMemory({**LEVEL_3_BLOCK})), GPA(0), GVA(0))


def single_bits() -> Iterator[Case]:
    """Yield pages at the highest addresses that there are, with one bit of the leaf or of its tables set."""
    bits = (2, 6, 7, 8, 9, 12, 13, 14, 15, 49, 51, 53, 54, 58, 59, 60, 61, 62, 63)
    gva = 0xFFFF_8000_1234_5678
    for granule, pa_bits in LEAVES:
        shape = AArch64(granule, 16, 16, pa_bits)
        low = INDEX_BITS[granule][3][0]
        for flags, table_flags in (
            (f, t) for bit in bits for f, t in ((1 << bit, 0), (0, 1 << bit), (1 << 6, 1 << bit))
        ):
            made = Tables(granule, 48, pa_bits, (1 << pa_bits) - (1 << 24))
            made.map(gva, 3, ((1 << pa_bits) - 1) >> low << low, flags, table_flags)
            yield from cases(Half(shape, KERNEL, made), set())


def forms() -> Iterator[Case]:
    """Yield what random tables seldom hold: each bit alone, reserved forms, and addresses of neither half."""
    yield from single_bits()
    for shape, bits in NO_BLOCKS:
        yield Case(shape, full_of(0x401, 64 - shape.t1sz - bits), 0, (1 << 64) - 1, None)
    yield Case(AArch64(12, 34, 34), BytesMemory({**LEVEL_3_BLOCK}), 0, 0, None)
    itself = full_of(3, 9)
    for kernel, user in ((48, 39), (39, 48)):
        ends = {0, (1 << user) - 1, (1 << 64) - (1 << kernel), (1 << 64) - 1}
        for gva in ends:
            yield Case(AArch64(12, 64 - kernel, 64 - user), itself, 0, gva, (gva & 0xFFF, 4096, True, True, False))
        for gva in (1 << user, 1 << 63, (1 << 64) - (1 << kernel) - 1):
            yield Case(AArch64(12, 64 - kernel, 64 - user), itself, 0, gva, None)


def test_forms() -> None:
    for case in forms():
        assert found(case) == case.expected


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

"""What holds for every format and geometry: they are found, they are values, and no guest can lead a walk astray."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamori.address import GPA, GVA
from yamori.errors import Fault, MemoryFault
from yamori.memory.physical import BytesMemory
from yamori.translation.format import Geometry
from yamori.translation.formats import formats, geometries
from yamori.translation.loads import PhysicalLoads

ALL = [*geometries(4), *geometries(8)]
MOST_LOADS = {"arm-short": 2, "arm-lpae": 3, "aarch64": 5, "x86-64": 5, "riscv64": 5}
BASE, SIZE = 0x4000_0000, 0x8_0000


class CountingLoads(PhysicalLoads):
    """Physical loads that are counted."""

    def __init__(self, blocks: dict[int, bytes]) -> None:
        super().__init__(BytesMemory({**blocks}))
        self.done = 0

    def u32(self, gpa: GPA) -> int:
        self.done += 1
        return super().u32(gpa)

    def u64(self, gpa: GPA) -> int:
        self.done += 1
        return super().u64(gpa)


def noise(seed: int, *, word: int) -> bytes:
    """Return random bytes, most of whose words look like descriptors that point back into the same memory."""
    dice = random.Random(seed)
    words = (
        dice.getrandbits(64)
        if dice.random() < 0.2
        else BASE + dice.randrange(SIZE >> 10 << 10) & ~0xFFC | dice.randrange(4)
        for _ in range(SIZE // word // 64)
    )
    return b"".join((value & (1 << 8 * word) - 1).to_bytes(word, "little") for value in words) * 64


CONTENT: dict[str, Callable[[int, Geometry], bytes]] = {
    "random": lambda seed, _: random.Random(seed).randbytes(SIZE),
    "inward": lambda seed, shape: noise(seed, word=shape.word_size),
    "self-referring tables": lambda seed, shape: (BASE | 3).to_bytes(8, "little") * (SIZE // 8),
    "self-referring RISC-V tables": lambda seed, shape: (BASE >> 2 | 1).to_bytes(8, "little") * (SIZE // 8),
    "self-referring short tables": lambda seed, shape: (BASE | 1).to_bytes(4, "little") * (SIZE // 4),
    "tables outside RAM": lambda seed, shape: ((seed & 0xFFFF_FFFF) << 14 | 3).to_bytes(8, "little") * (SIZE // 8),
}


def addresses(shape: Geometry) -> st.SearchStrategy[int]:
    top = 1 << shape.word_size * 8
    return st.one_of(st.integers(0, top - 1), st.integers(0, 1 << 36).map(lambda low: top - 1 - low), st.integers())


@pytest.mark.parametrize("content", CONTENT)
@pytest.mark.parametrize("shape", ALL, ids=str)
@settings(max_examples=8, deadline=None)
@given(data=st.data(), seed=st.integers(0, (1 << 64) - 1))
def test_hostile_tables_end_in_a_mapping_or_a_fault(
    shape: Geometry, content: str, data: st.DataObject, seed: int
) -> None:
    loads = CountingLoads({BASE: CONTENT[content](seed, shape)})
    root = BASE + data.draw(st.integers(0, SIZE // shape.root_alignment + 1)) * shape.root_alignment
    for gva in data.draw(st.lists(addresses(shape), min_size=1, max_size=20)):
        before = loads.done
        try:
            found = shape.walk(loads, GPA(root), GVA(gva))
        except Fault:
            pass
        else:
            assert 0 <= found.gpa < 1 << 56
            assert (found.gpa ^ gva) & (shape.page_size - 1) == 0
            assert found.page_size >= shape.page_size
        assert loads.done - before <= MOST_LOADS[shape.format]


@pytest.mark.parametrize("shape", ALL, ids=str)
def test_root_outside_ram_is_a_memory_fault(shape: Geometry) -> None:
    highest = GVA((1 << shape.word_size * 8) - 1)
    assert shape.canonical(highest)
    with pytest.raises(MemoryFault):
        shape.walk(PhysicalLoads(BytesMemory({BASE: bytes(64)})), GPA(1 << 60), highest)


@pytest.mark.parametrize("shape", ALL, ids=str)
def test_root_alignment_covers_the_table(shape: Geometry) -> None:
    alignment = shape.root_alignment
    assert alignment & alignment - 1 == 0
    assert 16 <= alignment <= 1 << 16


def test_geometries_are_values_and_told_apart() -> None:
    assert len(set(ALL)) == len({shape.describe() for shape in ALL}) == len(ALL)
    assert [*geometries(4), *geometries(8)] == ALL
    shape: Any
    for shape in ALL:
        with pytest.raises(FrozenInstanceError):
            setattr(shape, fields(shape)[0].name, 1)


def test_every_format_is_found_and_its_usual_geometry_comes_early() -> None:
    assert {format_.NAME for format_ in formats()} == MOST_LOADS.keys()
    for word_size, names in ((4, {"arm-short", "arm-lpae"}), (8, {"aarch64", "x86-64", "riscv64"})):
        shapes = list(geometries(word_size))
        assert {shape.format for shape in shapes[: len(names)]} == names
        assert {shape.word_size for shape in shapes} == {word_size}
    assert list(geometries(2)) == []

from __future__ import annotations

import itertools
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.memory.writers import Kdump, flattened

from yamori.address import GPA
from yamori.errors import MemoryFault, TargetError
from yamori.memory import image
from yamori.memory.host import HostMemory
from yamori.memory.physical import Region, host_extents

RNG = random.Random(5)
WORDS = bytes(RNG.choice(b"abcdefgh") for _ in range(4096))
NOISE = RNG.randbytes(4096)
ZERO = bytes(4096)
EXCLUDED = None
PAGES: dict[int, bytes | None] = {
    **dict.fromkeys(range(8, 12), ZERO),
    12: WORDS,
    13: NOISE,
    14: EXCLUDED,
    15: WORDS[::-1],
    5000: NOISE[::-1],
    5001: WORDS,
}


def opened(path: Path, data: bytes) -> HostMemory:
    path.write_bytes(data)
    (layout,) = image.attach(str(path)).layouts
    return HostMemory(layout)


def same(memory: HostMemory, pages: dict[int, bytes | None], base: int = 0) -> None:
    for number, page in pages.items():
        gpa = base + number * 4096
        if page is None:
            with pytest.raises(MemoryFault, match=r"4 bytes at GPA .* are excluded from the dump"):
                memory.read(GPA(gpa), 4)
        else:
            assert memory.read(GPA(gpa), 4096) == page
            assert memory.read(GPA(gpa + 100), 7) == page[100:107]


SHAPES: dict[str, dict[str, Any]] = {
    "64 bits": {},
    "big-endian": {"order": ">"},
    "32 bits": {"bits": 32, "time": 32, "machine": b"i686"},
    "32 bits, QEMU": {"bits": 32, "time": 32, "machine": b"Unknown", "qemu": True, "phys_base": 0x4000_0000},
    "32 bits, big-endian": {"bits": 32, "time": 32, "machine": b"mips", "order": ">"},
    "32 bits, 64-bit time": {"bits": 32, "time": 64, "machine": b"i686"},
    "one bitmap": {"one_bitmap": True},
    "version 1": {"version": 1},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(tmp_path: Path, shape: str) -> None:
    pages = {n: p for n, p in PAGES.items() if p is not None or not SHAPES[shape].get("one_bitmap")}
    with opened(tmp_path / "dump", Kdump(pages, **SHAPES[shape]).written()) as memory:
        same(memory, pages)
        assert memory.regions[-1] == Region(5000 * 4096, 2 * 4096)
        assert host_extents(memory) is None  # nothing that native code could load


@pytest.mark.parametrize("method", ["", "zlib", "lzo", "snappy", "zstd"])
def test_methods(tmp_path: Path, method: str) -> None:
    with opened(tmp_path / "dump", Kdump(PAGES, method=method).written()) as memory:
        same(memory, PAGES)


@pytest.mark.parametrize("block", [1 << 14, 1 << 16])
def test_large_pages(tmp_path: Path, block: int) -> None:
    page = RNG.randbytes(100).ljust(block, b"x")
    data = Kdump({3: page, 4: bytes(block)}, block=block).written()
    with opened(tmp_path / "dump", data) as memory:
        assert memory.regions == (Region(3 * block, 2 * block),)
        assert memory.read(GPA(3 * block + 90), 2 * block - 90) == page[90:] + bytes(block)


@pytest.mark.parametrize("time", [32, 64])
def test_arm_counts_pages_from_where_its_ram_begins(tmp_path: Path, time: int) -> None:
    dump = Kdump(PAGES, bits=32, time=time, machine=b"armv7l", phys_base=0x6000_0000)
    with opened(tmp_path / "dump", dump.written()) as memory:
        same(memory, PAGES, 0x6000_0000)
        assert next(iter(memory.populated())).gpa == 0x6000_0000 + 8 * 4096


def test_regions_and_what_is_populated(tmp_path: Path) -> None:
    with opened(tmp_path / "dump", Kdump(PAGES).written()) as memory:
        assert memory.regions == (Region(8 * 4096, 8 * 4096), Region(5000 * 4096, 2 * 4096))
        assert list(memory.populated()) == [
            Region(8 * 4096, 6 * 4096),
            Region(15 * 4096, 4096),
            Region(5000 * 4096, 2 * 4096),
        ]
        assert memory.read(GPA(12 * 4096 + 4000), 200) == WORDS[4000:] + NOISE[:104]
        with pytest.raises(MemoryFault, match="excluded from the dump"):
            memory.read(GPA(13 * 4096), 3 * 4096)
        for gpa in (0, 7 * 4096, 16 * 4096, 5002 * 4096):
            with pytest.raises(MemoryFault, match="outside the guest's RAM"):
                memory.read(GPA(gpa), 8)


def test_pages_that_were_left_out_for_being_zero_are_zero(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    with opened(path, Kdump(PAGES, level=1).written()) as memory:
        assert memory.read(GPA(14 * 4096 - 1), 4098) == NOISE[-1:] + ZERO + WORDS[-1:]
    assert any("are zeros (dump level 1)" in note for note in image.attach(str(path)).notes)
    with opened(path, Kdump(PAGES, level=3).written()) as memory:
        same(memory, PAGES)
    assert any("4096 bytes are excluded from the dump (dump level 3)" in n for n in image.attach(str(path)).notes)


def test_a_part_of_a_split_dump(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"one part of a kdump that was split; .*--reassemble"):
        opened(tmp_path / "dump", Kdump(PAGES, split=1).written())


def test_an_incomplete_dump(tmp_path: Path) -> None:
    """For want of room makedumpfile leaves the last descriptors zero, and says so."""

    def spoil(number: int, fields: tuple[int, int, int]) -> tuple[int, int, int]:
        return fields if number < 5 else (0, 0, 0)

    path = tmp_path / "dump"
    with opened(path, Kdump(PAGES, status=8, spoil=spoil).written()) as memory:
        assert memory.read(GPA(12 * 4096), 4096) == WORDS
        with pytest.raises(MemoryFault, match="cut short"):
            memory.read(GPA(13 * 4096), 4096)
    assert any("incomplete" in note for note in image.attach(str(path)).notes)


def test_a_dump_that_was_cut_short(tmp_path: Path) -> None:
    data = Kdump(PAGES).written()
    table = 4096 * 4
    path = tmp_path / "dump"
    with opened(path, data[:-1]) as memory:  # within the last page
        assert memory.read(GPA(15 * 4096), 4096) == WORDS[::-1]
        with pytest.raises(MemoryFault, match="cut short: the dump ends before them"):
            memory.read(GPA(5001 * 4096), 1)
    for length, message in (
        (table + 100, "its table of pages is cut off"),
        (table - 1, "its bitmaps are cut off"),
        (5000, "its bitmaps are cut off"),
        (4100, "the file ends within its own headers"),
        (9, "the file ends within its own headers"),
    ):
        with pytest.raises(TargetError, match=f"{path}: {message}.*cut short"):
            opened(path, data[:length])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((1 << 63, 10, 1), "cut short"),
        ((100, 4097, 1), "damaged"),
        ((100, 1 << 31, 0), "damaged"),
        ((100, 10, 0), "damaged"),
        ((100, 50, 1), "damaged"),
        ((100, 50, 2), "damaged"),
    ],
)
def test_descriptors_that_lie(tmp_path: Path, fields: tuple[int, int, int], message: str) -> None:
    dump = Kdump({0: WORDS, 1: NOISE}, spoil=lambda number, true: fields if number else true)
    with opened(tmp_path / "dump", dump.written()) as memory:
        assert memory.read(GPA(0), 4096) == WORDS
        with pytest.raises(MemoryFault, match=message):
            memory.read(GPA(4096), 4096)


def test_a_page_packed_unlike_the_header_says(tmp_path: Path) -> None:
    data = bytearray(Kdump({0: WORDS}, method="lzo").written())
    data[424:428] = bytes(4)
    with opened(tmp_path / "dump", bytes(data)) as memory:
        assert memory.read(GPA(0), 4096) == WORDS


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (428, 3, "contradicts itself"),
        (432, 0, "contradicts itself"),
        (432, 1 << 30, "contradicts itself"),
        (436, 1 << 30, "bitmaps are cut off"),
        (4096 + 96, 1 << 31, "tells of 2147483648 pages"),
    ],
)
def test_headers_that_lie(tmp_path: Path, at: int, value: int, message: str) -> None:
    data = bytearray(Kdump(PAGES).written())
    data[at : at + 4] = struct.pack("<I", value)
    with pytest.raises(TargetError, match=message):
        opened(tmp_path / "dump", bytes(data))


def test_a_dump_of_nothing(tmp_path: Path) -> None:
    data = bytearray(Kdump(PAGES).written())
    data[8192 : 8192 + 8192] = bytes(8192)
    with pytest.raises(TargetError, match="holds no memory"):
        opened(tmp_path / "dump", bytes(data))


def test_ram_in_tatters_is_bounded(tmp_path: Path) -> None:
    pages: dict[int, bytes | None] = dict.fromkeys(range(0, 10_000, 2), ZERO)
    with opened(tmp_path / "dump", Kdump(pages).written()) as memory:
        assert memory.regions == tuple(Region(number * 8192, 4096) for number in range(1024))
        assert memory.read(GPA(4 * 4096), 4096) == ZERO
    assert any("what lies behind GPA 0x7ff000 is left out" in n for n in image.attach(str(tmp_path / "dump")).notes)


def test_a_flattened_dump(tmp_path: Path) -> None:
    data = Kdump(PAGES).written()
    cuts = [0, 1, 4096, 8000, 16384, 17000, len(data)]
    records = [(low, data[low:high]) for low, high in itertools.pairwise(cuts)]
    RNG.shuffle(records)
    with opened(tmp_path / "dump", flattened([(0, b"to be written again"), *records])) as memory:
        same(memory, PAGES)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damage=st.lists(st.tuples(st.integers(8, 17_000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
    narrow=st.booleans(),
    length=st.one_of(st.none(), st.integers(1, 30_000)),
)
def test_any_damage_is_survived(
    tmp_path: Path, damage: list[tuple[int, bytes]], length: int | None, *, narrow: bool
) -> None:
    shape: dict[str, Any] = SHAPES["32 bits"] if narrow else {}
    data = bytearray(Kdump(PAGES, **shape).written())
    for at, change in damage:
        data[at : at + len(change)] = change
    try:
        memory = opened(tmp_path / "dump", bytes(data[:length]))
    except TargetError:
        return
    with memory:
        for region in memory.regions[:20]:
            for gpa in (region.gpa, region.end - 8):
                try:
                    assert len(memory.read(GPA(gpa), 8)) == 8
                except MemoryFault:
                    continue
        for part, _ in zip(memory.populated(), range(50), strict=False):
            assert any(region.gpa <= part.gpa and part.end <= region.end for region in memory.regions)

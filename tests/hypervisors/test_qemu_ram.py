from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yamori.hypervisors import qemu_boards
from yamori.hypervisors.process import Mapping
from yamori.hypervisors.qemu_boards import GIB, MIB
from yamori.hypervisors.qemu_commandline import Backend, parse
from yamori.hypervisors.qemu_ram import Block, Sources, choices, join, wanted

PAGE = 4096


def anonymous(start: int, size: int, perms: str = "rw-p", path: str = "", inode: int = 0) -> Mapping:
    return Mapping(start, start + size, perms, 0, 1, inode, path)


def test_ram_is_the_mapping_of_its_size_that_can_be_written() -> None:
    ram = anonymous(0x7F00_0000_0000, 96 * MIB)
    maps = [
        anonymous(0x1000, 96 * MIB, "rwxp"),
        anonymous(0x10_0000_0000, 96 * MIB, "---p"),
        anonymous(0x20_0000_0000, 96 * MIB, path="[heap]"),
        anonymous(0x30_0000_0000, 95 * MIB),
        ram,
    ]
    blocks = wanted(parse("qemu-system-arm", ["-m", "96"]), 128 * MIB)
    assert choices(blocks, (), maps) == [(Block(96 * MIB, ram),)]
    assert choices(wanted(parse("qemu-system-arm", []), 128 * MIB), (), maps) == []


def test_a_guard_page_behind_it_and_the_highest_place_come_first() -> None:
    low, middle, high = (anonymous(base, 64 * MIB) for base in (0x10_0000_0000, 0x20_0000_0000, 0x30_0000_0000))
    guards = [anonymous(mapping.end, PAGE, "---p") for mapping in (low, middle)]
    found = choices([Backend("", "plain", 64 * MIB)], (), [low, middle, high, *guards])
    assert [block.mapping for (block,) in found] == [middle, low, high]


def test_equal_nodes_take_different_files_in_the_order_they_were_made() -> None:
    first, second = Backend("a", "memfd", MIB), Backend("b", "memfd", MIB)
    older = anonymous(0x10_0000_0000, MIB, "rw-s", "/memfd:memory-backend-memfd (deleted)", 7)
    newer = anonymous(0x20_0000_0000, MIB, "rw-s", "/memfd:memory-backend-memfd (deleted)", 8)
    other = anonymous(0x30_0000_0000, MIB)
    found = choices([second, first], [first, second], [older, newer, other])
    assert [tuple(block.mapping for block in chosen) for chosen in found] == [(newer, older), (older, newer)]


def test_a_file_is_known_by_its_name() -> None:
    backend = Backend("a", "file", MIB, "run/ram")
    mine, other = (anonymous(n << 32, MIB, "rw-s", path, n) for n, path in ((1, "/srv/run/ram"), (2, "/srv/run/rom")))
    assert [chosen[0].mapping for chosen in choices([backend], [backend], [other, mine])] == [mine]
    unnamed = Backend("a", "file", MIB, "/dev/hugepages")
    inside = anonymous(3 << 32, MIB, "rw-s", "/dev/hugepages/qemu_back_mem.ram.x (deleted)", 3)
    assert [chosen[0].mapping for chosen in choices([unnamed], [unnamed], [other, inside])] == [inside]


def test_many_equal_mappings_give_few_layouts_quickly() -> None:
    maps = [anonymous(n << 32, MIB) for n in range(1, 300)]
    backends = [Backend(str(n), "ram", MIB) for n in range(8)]
    assert len(choices(backends, backends, maps)) <= 6


@given(st.lists(st.integers(1, 64), min_size=1, max_size=5), st.lists(st.integers(1, 64), min_size=1, max_size=5))
def test_join_covers_the_pieces_and_the_blocks(sizes: list[int], rooms: list[int]) -> None:
    gpas = [index << 40 for index in range(len(rooms))]
    placement = tuple((gpa, room * PAGE) for gpa, room in zip(gpas, rooms, strict=True))
    blocks = [Block(size * PAGE, anonymous((index + 1) << 32, size * PAGE)) for index, size in enumerate(sizes)]
    layout = join(placement, blocks, Sources(os.getpid()))
    assert sum(segment.size for segment in layout) == min(sum(sizes), sum(rooms)) * PAGE
    # Laid end to end, the guest's pages are the blocks' pages in order.
    pages = [segment.offset + at for segment in layout for at in range(0, segment.size, PAGE)]
    expected = [block.mapping.start + at for block in blocks for at in range(0, block.size, PAGE)]
    assert pages == expected[: len(pages)]
    for segment in layout:
        assert any(gpa <= segment.gpa and segment.gpa + segment.size <= gpa + size for gpa, size in placement)


@pytest.mark.parametrize(
    ("program", "options", "total", "expected"),
    [
        ("x86_64", "-M q35", 4 * GIB, [((0, 2 * GIB), (4 * GIB, 2 * GIB))]),
        ("x86_64", "-M pc-q35-rhel9.2.0", 2 * GIB, [((0, 2 * GIB),)]),
        ("x86_64", "-M q35", 0xB000_0000 - MIB, [((0, 0xB000_0000 - MIB),)]),
        ("x86_64", "-M q35,max-ram-below-4g=1G", 3 * GIB, [((0, GIB), (4 * GIB, 2 * GIB))]),
        ("x86_64", "-M pc", 3584 * MIB, [((0, 3 * GIB), (4 * GIB, 512 * MIB))]),
        ("x86_64", "", 3 * GIB, [((0, 3 * GIB),), ((0, 2 * GIB), (4 * GIB, GIB))]),
        ("x86_64", "-M pc-i440fx-1.7", 4 * GIB, [((0, 3584 * MIB), (4 * GIB, 512 * MIB))]),
        ("x86_64", "-M pc-i440fx-2.10", 4 * GIB, [((0, 3 * GIB), (4 * GIB, GIB))]),
        ("x86_64", "-M microvm", 4 * GIB, [((0, 3 * GIB), (4 * GIB, GIB))]),
        ("riscv64", "-M virt", GIB, [((0x8000_0000, GIB),)]),
        ("aarch64", "-M virt-rhel9.2.0", GIB, [((0x4000_0000, GIB),)]),
        ("arm", "-M virt-2.11", GIB, [((0x4000_0000, GIB),)]),
        ("aarch64", "-M raspi3b", GIB, [((0, GIB),)]),
        ("arm", "-M realview-pb-a8", GIB, [((0x7000_0000, GIB),), ((0, GIB),)]),
        ("aarch64", "-M sbsa-ref", GIB, [((0x100_0000_0000, GIB),)]),
    ],
)
def test_placements(program: str, options: str, total: int, expected: list[tuple[tuple[int, int], ...]]) -> None:
    places = qemu_boards.placements(parse(f"qemu-system-{program}", options.split()), total)
    assert list(places.choices) == expected
    assert places.base_known


def test_an_unknown_board_says_so() -> None:
    places = qemu_boards.placements(parse("qemu-system-arm", ["-M", "somebodys-own"]), GIB)
    assert not places.base_known
    assert places.choices == (((0, GIB),),)
    assert "somebodys-own" in places.note

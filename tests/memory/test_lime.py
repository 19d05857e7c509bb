from __future__ import annotations

import itertools
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.memory.writers import lime

from yamori.address import GPA
from yamori.errors import MemoryFault, TargetError
from yamori.hypervisors.vm import RamSegment
from yamori.memory import image
from yamori.memory.formats import lime as reader
from yamori.memory.host import HostMemory
from yamori.memory.physical import Region


def test_ranges(tmp_path: Path) -> None:
    path = tmp_path / "lime"
    path.write_bytes(lime([(0x1000, b"a" * 0x500), (0x8000_0000, b"b" * 0x1000), (0x1_0000_0000, b"c")]))
    vm = image.attach(str(path))
    assert vm.machine == "LiME image"
    assert vm.base_known
    assert vm.notes == ("LiME image of 5377 bytes of memory in 3 ranges",)
    assert vm.layouts[0][1] == RamSegment(0x8000_0000, 0x1000, str(path), 0x540, "image")
    with HostMemory(vm.layouts[0]) as memory:
        assert memory.read(GPA(0x14FF), 1) == b"a"
        assert memory.read(GPA(0x8000_0000), 0x1000) == b"b" * 0x1000
        assert memory.read(GPA(0x1_0000_0000), 1) == b"c"
        with pytest.raises(MemoryFault, match=r"outside the guest's RAM$"):
            memory.read(GPA(0x1_0000_0001), 1)


def test_pieces_that_follow_each_other_are_one_region(tmp_path: Path) -> None:
    """AVML of version 1 writes pieces of 16 MiB; the first here is behind the second in the file."""
    path = tmp_path / "avml1"
    path.write_bytes(lime([(0x2000, b"b" * 0x1000), (0x1000, b"a" * 0x1000)]))
    with HostMemory(image.attach(str(path)).layouts[0]) as memory:
        assert memory.regions == (Region(0x1000, 0x2000),)
        assert memory.read(GPA(0x1FFE), 4) == b"aabb"


def test_ranges_that_overlap_are_told_of(tmp_path: Path) -> None:
    path = tmp_path / "lime"
    path.write_bytes(lime([(0x1000, b"a" * 0x1000), (0x1800, b"b" * 0x1000)]))
    vm = image.attach(str(path))
    assert "1 segments overlap others" in vm.notes[-1]
    with HostMemory(vm.layouts[0]) as memory:
        assert memory.read(GPA(0x1FFE), 4) == b"aabb"


def test_padded_and_raw_are_raw_images(tmp_path: Path) -> None:
    path = tmp_path / "padded"
    path.write_bytes(bytes(0x1000) + b"a" * 0x1000)
    with HostMemory(image.attach(str(path), ram_base=0).layouts[0]) as memory:
        assert memory.read(GPA(0x1000), 1) == b"a"


@pytest.mark.parametrize("cut", [1, 0x1000, 0x1001, 0x101F])
def test_cut_short(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "lime"
    path.write_bytes(lime([(0, b"a" * 0x1000), (0x8000, b"b" * 0x1000)])[:-cut])
    with pytest.raises(TargetError, match=f"{path}: .*cut short"):
        image.attach(str(path))


def with_header(magic: int, version: int, first: int, last: int) -> bytes:
    return lime([(0, b"a")]) + struct.pack("<IIQQQ", magic, version, first, last, 0) + b"b" * 100


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_header(0x4C694D45, 2, 0x1000, 0x1000), "it has version 2; version 1 is the one"),
        (with_header(0x12345678, 1, 0x1000, 0x1000), "at 0x21 there is no header of a range.*damaged"),
        (with_header(0x4C694D45, 1, 0x1000, 0xFFF), "the range at 0x21 ends before it begins"),
        (with_header(0x4C694D45, 1, 0, (1 << 64) - 1), "bytes of guest memory are not in the file"),
        (with_header(0x4C694D45, 1, 0x1000, 0x2000), "3997 of 4098 bytes of guest memory are not in the file"),
    ],
)
def test_malformed(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "lime").write_bytes(data)
    with pytest.raises(TargetError, match=message):
        image.attach(str(tmp_path / "lime"))


def test_ranges_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MOST_RANGES", 10)
    (tmp_path / "lime").write_bytes(lime([(n, b"x") for n in range(11)]))
    with pytest.raises(TargetError, match="more than 10 ranges"):
        image.attach(str(tmp_path / "lime"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ranges=st.lists(
        st.tuples(st.one_of(st.integers(0, 300), st.integers(0, 2**63)), st.binary(min_size=1, max_size=60)),
        min_size=1,
        max_size=6,
    ),
    damage=st.lists(st.tuples(st.integers(4, 400), st.binary(min_size=1, max_size=8)), max_size=2),
)
def test_any_image_is_read_right_or_refused(
    tmp_path: Path, ranges: list[tuple[int, bytes]], damage: list[tuple[int, bytes]]
) -> None:
    data = bytearray(lime(ranges))
    for at, change in damage:
        data[at : at + len(change)] = change
    (tmp_path / "lime").write_bytes(data)
    try:
        (layout,) = image.attach(str(tmp_path / "lime")).layouts
    except TargetError:
        assert damage
        return
    for one, other in itertools.pairwise(layout):
        assert one.gpa + one.size <= other.gpa
    with HostMemory(layout) as memory:
        for region in memory.regions:
            assert len(memory.read(GPA(region.gpa), region.size)) == region.size
        if not damage:
            for gpa, content in ranges:
                byte = memory.read(GPA(gpa), 1)[0]
                assert byte in {c[gpa - g] for g, c in ranges if g <= gpa < g + len(c)}
                assert len(memory.read(GPA(gpa), len(content))) == len(content)

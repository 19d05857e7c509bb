from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import resource
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.memory.writers import Kdump, lime, zstd

from yamori.address import GPA
from yamori.errors import TargetError
from yamori.hypervisors.vm import PackedSegment
from yamori.memory import image
from yamori.memory.formats import packed as reader
from yamori.memory.host import HostMemory

RNG = random.Random(9)
RAM = bytes(300_000) + RNG.randbytes(100_000) + bytes(1 << 20) + b"end"


def pack_zstd(data: bytes) -> bytes:
    return bytes(zstd().compress(data))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": pack_zstd,
}


def opened(path: Path, data: bytes, *, ram_base: int | None = None) -> HostMemory:
    path.write_bytes(data)
    return HostMemory(image.attach(str(path), ram_base=ram_base).layouts[0])


@pytest.mark.parametrize("name", PACKERS)
def test_a_raw_image(tmp_path: Path, name: str) -> None:
    with opened(tmp_path / "ram", PACKERS[name](RAM), ram_base=0x4000_0000) as memory:
        assert memory.read(GPA(0x4000_0000), len(RAM)) == RAM
        assert sum(part.size for part in memory.populated()) < len(RAM) // 2  # zeros are holes
    vm = image.attach(str(tmp_path / "ram"))
    assert vm.machine == "raw image"
    assert not vm.base_known
    assert vm.notes[:2] == (f"packed with {name}; unpacked into a file", f"raw image of {len(RAM)} bytes")


@pytest.mark.parametrize("name", PACKERS)
def test_several_streams_are_one(tmp_path: Path, name: str) -> None:
    data = PACKERS[name](RAM[:1000]) + PACKERS[name](RAM[1000:]) + bytes(1024)
    with opened(tmp_path / "ram", data, ram_base=0) as memory:
        assert memory.regions[0].size == len(RAM)
        assert memory.read(GPA(0), len(RAM)) == RAM


def test_zstd_with_frames_to_be_skipped(tmp_path: Path) -> None:
    """As the seekable format and pzstd have them."""
    skipped = b"\x5e\x2a\x4d\x18\x04\0\0\0abcd"
    data = skipped + pack_zstd(RAM[:5]) + skipped + pack_zstd(RAM[5:]) + skipped
    with opened(tmp_path / "ram", data, ram_base=0) as memory:
        assert memory.read(GPA(0), len(RAM)) == RAM


@pytest.mark.parametrize("name", PACKERS)
def test_what_else_may_be_packed(tmp_path: Path, name: str) -> None:
    with opened(tmp_path / "x", PACKERS[name](lime([(0x8000_0000, RAM)]))) as memory:
        assert memory.read(GPA(0x8000_0000), len(RAM)) == RAM
    with opened(tmp_path / "x", PACKERS[name](Kdump({3: RAM[-4096:]}).written())) as memory:
        assert memory.read(GPA(3 * 4096), 4096) == RAM[-4096:]
    (tmp_path / "x").write_bytes(PACKERS[name](b"QFI\xfb" + bytes(100)))
    with pytest.raises(TargetError, match="qcow2"):
        image.attach(str(tmp_path / "x"))


def test_lime_with_its_own_compression(tmp_path: Path) -> None:
    packer = zlib.compressobj(6, zlib.DEFLATED, 11, 5)
    data = packer.compress(lime([(0x8000_0000, RAM)])) + packer.flush()
    with opened(tmp_path / "x", data) as memory:
        assert memory.read(GPA(0x8000_0000), len(RAM)) == RAM


@pytest.mark.parametrize("head", [zlib.compress(RAM)[:1000], b"\x78\x9c" + RAM[300_000:301_000], b"\x38\x8d" * 500])
def test_a_raw_image_that_begins_like_zlib(tmp_path: Path, head: bytes) -> None:
    with opened(tmp_path / "x", head, ram_base=0) as memory:
        assert memory.read(GPA(0), len(head)) == head


@pytest.mark.parametrize("name", PACKERS)
def test_cut_short_and_damaged(tmp_path: Path, name: str) -> None:
    data = PACKERS[name](RAM)
    path = tmp_path / "ram"
    for length in (len(data) - 1, len(data) // 2, 12):
        with pytest.raises(TargetError, match=f"{path}: it ends before .*cut short"):
            opened(path, data[:length])
    with pytest.raises(TargetError, match=r"cannot be unpacked: .*damaged"):
        opened(path, data + b"what is this")
    broken = bytearray(data)
    broken[len(data) // 2] ^= 0xFF
    if name != "zstd":  # whose checksum is optional
        with pytest.raises(TargetError, match=r"cannot be unpacked: .*damaged|ends before"):
            opened(path, bytes(broken))


@pytest.mark.parametrize("name", PACKERS)
def test_a_bomb_ends_at_the_limit(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_MOST", 1 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    packed = PACKERS[name](bytes(8 << 20))
    with pytest.raises(TargetError, match=r"unpacks into more than 0 GiB; unpack it first"):
        opened(tmp_path / "ram", packed)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB; bzip2 and xz pack with most


def test_packed_over_and_over(tmp_path: Path) -> None:
    data = RAM[-100:]
    for _ in range(4):
        data = gzip.compress(data)
    with pytest.raises(TargetError, match="packed more than 4 times over"):
        opened(tmp_path / "ram", data)


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    with pytest.raises(
        TargetError, match=r"no room to unpack it in .*nowhere: .*; unpack it yourself, or let \$TMPDIR"
    ):
        opened(tmp_path / "ram", gzip.compress(RAM))


def test_a_disk_that_becomes_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system then writes less than it was asked to, and only the next call fails."""
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: len(data) - 1)
    with pytest.raises(TargetError, match=r"no room to unpack it in .*: No space left on device"):
        opened(tmp_path / "ram", gzip.compress(RAM))


def test_it_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.setenv("TMPDIR", str(room))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with opened(tmp_path / "ram", gzip.compress(RAM)) as memory:
        assert list(room.iterdir()) == []
        assert memory.read(GPA(len(RAM) - 3), 3) == b"end"


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.version_info >= (3, 14):
        pytest.skip("zstd is Python's own")
    data = pack_zstd(RAM)
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    with pytest.raises(TargetError, match=r"packed with zstd, .*; install yamori\[images\]"):
        opened(tmp_path / "ram", data)


def test_one_file_serves_all_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large raw image is tried in several layouts, and is unpacked once."""
    monkeypatch.setattr(image, "_GIB", 1 << 18)
    (tmp_path / "ram").write_bytes(gzip.compress(RAM))
    layouts = image.attach(str(tmp_path / "ram")).layouts
    sources = {id(segment.source) for layout in layouts for segment in layout if isinstance(segment, PackedSegment)}
    assert len(layouts) == 3
    assert len(sources) == 1
    for layout in layouts:
        with HostMemory(layout) as memory:
            assert memory.read(GPA(memory.regions[-1].end - 3), 3) == b"end"


@pytest.mark.parametrize("name", PACKERS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(st.integers(0, 150), st.binary(min_size=1, max_size=4)), min_size=1, max_size=3))
def test_any_damage_is_survived(tmp_path: Path, name: str, damage: list[tuple[int, bytes]]) -> None:
    data = bytearray(PACKERS[name](lime([(0x1000, b"abc" * 50)])))
    for at, change in damage:
        data[at : at + len(change)] = change
    (tmp_path / "ram").write_bytes(data)
    try:
        layout = image.attach(str(tmp_path / "ram")).layouts[0]
    except TargetError:
        return
    with HostMemory(layout) as memory:
        assert memory.read(GPA(memory.regions[0].gpa), 1)

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.memory.writers import avml, snappy_stream

from yamori.address import GPA
from yamori.errors import MemoryFault, TargetError
from yamori.memory import image
from yamori.memory.formats import avml as reader
from yamori.memory.host import HostMemory
from yamori.memory.physical import Region, host_extents

RNG = random.Random(3)
TEXT = bytes(RNG.choice(b"abc") for _ in range(200_000))
NOISE = RNG.randbytes(70_000)
RANGES = [(0x1000, TEXT), (0x1000 + len(TEXT), NOISE), (0x8000_0000, bytes(65536) + b"end")]


def opened(path: Path, data: bytes) -> HostMemory:
    path.write_bytes(data)
    (layout,) = image.attach(str(path)).layouts
    return HostMemory(layout)


def test_ranges(tmp_path: Path) -> None:
    with opened(tmp_path / "avml", avml(RANGES)) as memory:
        assert memory.regions == (Region(0x1000, len(TEXT) + len(NOISE)), Region(0x8000_0000, 65539))
        whole = TEXT + NOISE
        assert memory.read(GPA(0x1000), len(whole)) == whole
        for _ in range(300):
            at = RNG.randrange(len(whole) - 9)
            size = RNG.choice([1, 8, 9, 5000, 100_000])
            assert memory.read(GPA(0x1000 + at), min(size, len(whole) - at)) == whole[at : at + size]
        assert memory.read(GPA(0x8000_FFFE), 5) == b"\0\0end"
        assert list(memory.populated()) == list(memory.regions)
        assert host_extents(memory) is None
        with pytest.raises(MemoryFault, match=r"outside the guest's RAM$"):
            memory.read(GPA(0x8001_0000), 4)
    assert image.attach(str(tmp_path / "avml")).machine == "AVML image"


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = avml([(0, b"x")])
    monkeypatch.setitem(__import__("sys").modules, "cramjam", None)
    with pytest.raises(TargetError, match=r"packed with Snappy, .*; install yamori\[images\]"):
        opened(tmp_path / "avml", data)


def test_cut_short(tmp_path: Path) -> None:
    data = avml(RANGES)
    for length in (len(data) - 1, len(data) - 8, len(data) - 9, 5000, 40, 20):
        with pytest.raises(TargetError, match=f"{tmp_path / 'avml'}: .*cut short"):
            opened(tmp_path / "avml", data[:length])


def made(stream: bytes, *, size: int = 4, said: int | None = None, version: int = 2) -> bytes:
    head = struct.pack("<IIQQQ", 0x4C4D5641, version, 0x1000, 0x1000 + size - 1, 0)
    return head + stream + struct.pack("<Q", len(stream) if said is None else said) + bytes(40)


def chunk(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + (len(body) + 4).to_bytes(3, "little") + b"crc!" + body


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (made(chunk(1, b"abcde")), "is damaged"),
        (made(chunk(1, b"")), "is damaged"),
        (made(chunk(2, b"abcd")), "is damaged"),
        (made(b"\x01\0\0\0" * 3), "is damaged"),
        (made(chunk(1, bytes(70_000)), size=70_000), "is damaged"),
        (made(chunk(0, b"\xff\xff\xff\xff\xff\xff"), size=1 << 20), "is damaged"),
        (made(chunk(0, b"\xff\xff\xff\x7f"), size=1 << 40), "is damaged"),
        (made(chunk(1, b"abcd"), said=3), "is damaged"),
        (made(snappy_stream(b"abcd"), version=1), "version 1; version 2 is the one"),
    ],
)
def test_malformed(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        opened(tmp_path / "avml", data)


def test_a_chunk_that_does_not_unpack_is_a_fault_there(tmp_path: Path) -> None:
    data = bytearray(avml([(0, TEXT)]))
    at = 32 + 10 + 8 + 100
    data[at : at + 40] = b"\xff" * 40
    with opened(tmp_path / "avml", bytes(data)) as memory:
        with pytest.raises(MemoryFault, match="damaged in the image"):
            memory.read(GPA(0), 10)
        assert memory.read(GPA(70_000), 10) == TEXT[70_000:70_010]


def test_an_image_that_is_changed_while_it_is_read(tmp_path: Path) -> None:
    data = bytearray(avml([(0, TEXT)]))
    with opened(tmp_path / "avml", bytes(data)) as memory:
        data[32 + 10 + 8] = 0x01  # the first chunk says now that it holds one byte
        data[32 + 10 + 9] = 0x00
        (tmp_path / "avml").write_bytes(data)
        with pytest.raises(MemoryFault, match="changed in the image"):
            memory.read(GPA(0), 10)
        (tmp_path / "avml").write_bytes(data[:100])
        with pytest.raises(MemoryFault, match=r"cut short|changed"):
            memory.read(GPA(70_000), 10)


def test_chunks_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_MOST_CHUNKS", 10)
    with pytest.raises(TargetError, match="damaged"):
        opened(tmp_path / "avml", made(chunk(1, b"x") * 11, size=11))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damage=st.lists(st.tuples(st.integers(4, 900), st.binary(min_size=1, max_size=8)), min_size=1, max_size=3),
    length=st.one_of(st.none(), st.integers(5, 900)),
)
def test_any_damage_is_survived(tmp_path: Path, damage: list[tuple[int, bytes]], length: int | None) -> None:
    data = bytearray(avml([(0, TEXT[:300]), (0x4000, NOISE[:200]), (0x8000, bytes(70_000))]))
    for at, change in damage:
        data[at : at + len(change)] = change
    try:
        memory = opened(tmp_path / "avml", bytes(data[:length]))
    except TargetError:
        return
    with memory:
        for region in memory.regions:
            try:
                assert len(memory.read(GPA(region.gpa), region.size)) == region.size
            except MemoryFault:
                continue

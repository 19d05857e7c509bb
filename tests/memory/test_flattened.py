from __future__ import annotations

import itertools
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.memory.writers import flattened

from yamori.address import GPA
from yamori.errors import TargetError
from yamori.memory import image
from yamori.memory.formats import flattened as reader
from yamori.memory.host import HostMemory, open_readonly
from yamori.memory.source import File


def unpacked(path: Path, data: bytes) -> reader.Flattened:
    path.write_bytes(data)
    source = reader.parse(File(open_readonly(str(path))), str(path)).source
    assert isinstance(source, reader.Flattened)
    return source


writes = st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=120)), max_size=12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=writes, places=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=5))
def test_it_is_the_file_that_the_writes_make(
    tmp_path: Path, records: list[tuple[int, bytes]], places: list[tuple[int, int]]
) -> None:
    plain = bytearray()
    for offset, data in records:
        plain = plain.ljust(offset, b"\0")
        plain[offset : offset + len(data)] = data
    source = unpacked(tmp_path / "flat", flattened(records))
    assert source.size == len(plain)
    assert source.read(1000, 0) == plain
    for offset, size in places:
        assert source.read(size, offset) == plain[offset : offset + size]


def test_an_elf_core_in_it(tmp_path: Path) -> None:
    from tests.memory.test_image import core  # noqa: PLC0415  its tests are not ours to collect

    head = core([(0x4000_0000, 0x1000, 0x1000)])
    (tmp_path / "flat").write_bytes(flattened([(0x1000, b"memory".ljust(0x1000, b"\0")), (0, head)]))
    vm = image.attach(str(tmp_path / "flat"))
    assert vm.machine == "ELF core (AArch64)"
    assert vm.notes[0] == "flattened, in 2 records"
    with HostMemory(vm.layouts[0]) as memory:
        assert memory.read(GPA(0x4000_0000), 6) == b"memory"


def test_without_its_end(tmp_path: Path) -> None:
    data = flattened([(0, b"first"), (100, b"second")], end=False)
    source = unpacked(tmp_path / "flat", data)
    assert source.read(200, 0) == b"first".ljust(100, b"\0") + b"second"
    assert unpacked(tmp_path / "flat", data[:-2]).read(200, 100) == b"seco"
    assert unpacked(tmp_path / "flat", data[:-6]).size == 5
    with pytest.raises(TargetError, match="ends within its own headers"):
        unpacked(tmp_path / "flat", data[:30])
    (tmp_path / "flat").write_bytes(data)
    found = reader.parse(File(open_readonly(str(tmp_path / "flat"))), "flat")
    assert found.note == "flattened, in 2 records; cut short: its end is missing"


def test_versions_and_records_that_are_not_known(tmp_path: Path) -> None:
    data = flattened([(0, b"x")])
    with pytest.raises(TargetError, match="version that is not known"):
        unpacked(tmp_path / "flat", data[:24] + struct.pack(">q", 2) + data[32:])
    for offset, size in ((-2, 1), (0, -1), (0, 0), (1 << 62, 1), (0, 1 << 62)):
        with pytest.raises(TargetError, match="the record at 0x1000 is malformed"):
            unpacked(tmp_path / "flat", data[:4096] + struct.pack(">qq", offset, size) + b"x")


def test_records_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_MOST_RECORDS", 10)
    with pytest.raises(TargetError, match=r"more than 10 records; rearrange it with `makedumpfile -R`"):
        unpacked(tmp_path / "flat", flattened([(0, b"x")] * 11))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(-3, 1 << 63), st.integers(-3, 1 << 63)), max_size=4))
def test_any_bytes_are_survived(tmp_path: Path, tail: bytes, records: list[tuple[int, int]]) -> None:
    packed = b"".join(struct.pack(">qQ", min(o, (1 << 63) - 1), s % (1 << 64)) for o, s in records)
    path = tmp_path / "flat"
    path.write_bytes(flattened([])[:4096] + packed + tail)
    try:
        vm = image.attach(str(path))
    except TargetError:
        return
    for layout in vm.layouts:
        for one, other in itertools.pairwise(layout):
            assert one.gpa + one.size <= other.gpa

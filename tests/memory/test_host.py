from __future__ import annotations

import ctypes
import fcntl
import itertools
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yamori.address import GPA
from yamori.errors import MemoryFault, TargetError
from yamori.hypervisors.vm import RamSegment
from yamori.memory.host import HostMemory, open_readonly
from yamori.memory.physical import Region

PAGE = mmap.PAGESIZE
MIB = 1 << 20
BASE = 0x4000_0000


class Ram:
    """A RAM file of the kind QEMU has, with a path that can be opened again."""

    def __init__(self, size: int, *, sealed: bool) -> None:
        self.fd = os.memfd_create("ram", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size)
        if sealed:
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.path = f"/proc/{os.getpid()}/fd/{self.fd}"

    def segment(self, gpa: int, size: int, offset: int = 0) -> RamSegment:
        return RamSegment(gpa, size, self.path, offset, "shared")

    @property
    def allocated(self) -> int:
        return os.fstat(self.fd).st_blocks * 512


@pytest.fixture(params=[True, False], ids=["sealed", "unsealed"])
def ram(request: pytest.FixtureRequest) -> Iterator[Ram]:
    ram = Ram(4 * MIB, sealed=request.param)
    yield ram
    os.close(ram.fd)


def test_reads_what_the_vm_writes(ram: Ram) -> None:
    with HostMemory((ram.segment(BASE, 3 * MIB, offset=MIB),)) as memory:
        assert memory.regions == (Region(BASE, 3 * MIB),)
        os.pwrite(ram.fd, b"first", MIB)
        os.pwrite(ram.fd, b"last", 4 * MIB - 4)
        assert memory.read(GPA(BASE), 5) == b"first"
        assert memory.read(GPA(BASE + 3 * MIB - 4), 4) == b"last"
        os.pwrite(ram.fd, b"again", MIB)
        assert memory.read(GPA(BASE), 5) == b"again"
        whole = memory.read(GPA(BASE), 3 * MIB)
        assert whole[:5] == b"again"
        assert whole[-4:] == b"last"
        assert memory.read(GPA(BASE), 0) == b""


@pytest.mark.parametrize(
    ("gpa", "size"),
    [(BASE - 1, 1), (BASE - 1, 8), (0, 8), (BASE + MIB, 1), (BASE + MIB - 4, 8), (BASE, MIB + 1), (BASE, 1 << 62),
     (1 << 64, 8), (-8, 8), (-8, 1 << 62), (BASE, -1), (BASE + 4, -4), (BASE, -(1 << 70)), (BASE, 1 << 70)],
)  # fmt: skip
def test_outside_is_a_fault(ram: Ram, gpa: int, size: int) -> None:
    with HostMemory((ram.segment(BASE, MIB),)) as memory, pytest.raises(MemoryFault):
        memory.read(GPA(gpa), size)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 3 * PAGE), min_size=1, max_size=4),
    gaps=st.lists(st.sampled_from([0, 1, PAGE]), min_size=4, max_size=4),
    at=st.integers(-10, 14 * PAGE),
    size=st.integers(0, 12 * PAGE),
)
def test_segments_read_like_the_guest_sees_them(
    ram: Ram, sizes: list[int], gaps: list[int], at: int, size: int
) -> None:
    os.pwrite(ram.fd, os.urandom(64 * PAGE), 0)
    segments = []
    model: dict[int, int] = {}
    gpa, offset = BASE, 40 * PAGE
    for length, gap in zip(sizes, gaps, strict=False):
        offset -= length
        segments.append(ram.segment(gpa, length, offset))
        model |= dict(enumerate(os.pread(ram.fd, length, offset), gpa))
        gpa += length + gap
    with HostMemory(tuple(segments)) as memory:
        covered = {a for region in memory.regions for a in range(region.gpa, region.end)}
        assert covered == set(model)
        assert all(a.end < b.gpa for a, b in itertools.pairwise(memory.regions))
        wanted = range(BASE + at, BASE + at + size)
        if all(address in model for address in wanted) and size:
            assert memory.read(GPA(BASE + at), size) == bytes(model[address] for address in wanted)
        elif size:
            with pytest.raises(MemoryFault):
                memory.read(GPA(BASE + at), size)
        populated = [a for region in memory.populated() for a in (region.gpa, region.end - 1)]
        assert populated == sorted(populated)
        assert set(populated) <= covered


def test_populated_parts_and_reading_them_allocates_nothing(ram: Ram) -> None:
    for offset in (0, 64 * PAGE, 65 * PAGE, 70 * PAGE, 1023 * PAGE):
        os.pwrite(ram.fd, b"x", offset)
    before = ram.allocated
    with HostMemory((ram.segment(0, 2 * MIB), ram.segment(1 << 32, 2 * MIB, 2 * MIB))) as memory:
        populated = list(memory.populated())
        assert populated == [
            Region(0, PAGE),
            Region(64 * PAGE, 7 * PAGE),
            Region((1 << 32) + 511 * PAGE, PAGE),
        ]
        for region in populated:
            memory.read(GPA(region.gpa), region.size)
        memory.read(GPA(0), 2 * MIB)
    assert ram.allocated == before == 5 * PAGE


def test_an_empty_and_a_full_file(ram: Ram) -> None:
    with HostMemory((ram.segment(BASE, 4 * MIB),)) as memory:
        assert list(memory.populated()) == []
        os.pwrite(ram.fd, b"x" * (4 * MIB), 0)
        assert list(memory.populated()) == [Region(BASE, 4 * MIB)]


def test_what_can_shrink_is_cut_off_without_a_signal(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(b"x" * MIB)
    for kind, message in (("shared", "cut off"), ("image", "became shorter")):
        os.truncate(path, MIB)
        with HostMemory((RamSegment(0, MIB, str(path), 0, kind),)) as memory:  # type: ignore[arg-type]
            assert len(memory.read(GPA(MIB - 8), 8)) == 8
            os.truncate(path, PAGE)
            assert memory.read(GPA(0), 8) == b"x" * 8
            for gpa, size in ((MIB - 8, 8), (0, MIB), (PAGE - 4, 8)):
                with pytest.raises(TargetError, match=message):
                    memory.read(GPA(gpa), size)
            assert list(memory.populated()) == [Region(0, PAGE)]


def test_a_sealed_memfd_is_mapped_and_another_is_not() -> None:
    for sealed in (True, False):
        ram = Ram(MIB, sealed=sealed)
        with HostMemory((ram.segment(0, MIB),)):
            mapped = "memfd:ram" in Path("/proc/self/maps").read_text()
            assert mapped == sealed
        assert "memfd:ram" not in Path("/proc/self/maps").read_text()
        os.close(ram.fd)


def test_too_short_a_file_is_refused(ram: Ram) -> None:
    with pytest.raises(TargetError, match=r"has 4194304 bytes where 4194305 are needed.*truncated"):
        HostMemory((ram.segment(0, MIB, 3 * MIB + 1),))


def test_private_memory_of_a_process() -> None:
    area = mmap.mmap(-1, 4 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    view = ctypes.c_char.from_buffer(area)
    hva = ctypes.addressof(view)
    del view
    area.madvise(mmap.MADV_NOHUGEPAGE)
    path = f"/proc/{os.getpid()}/mem"
    with HostMemory((RamSegment(BASE, 4 * MIB, path, hva, "process"),), pid=os.getpid()) as memory:
        assert list(memory.populated()) == []
        for offset in (0, 100 * PAGE, 101 * PAGE, 4 * MIB - PAGE):
            area[offset : offset + 4] = b"here"
        assert list(memory.populated()) == [
            Region(BASE, PAGE),
            Region(BASE + 100 * PAGE, 2 * PAGE),
            Region(BASE + 4 * MIB - PAGE, PAGE),
        ]
        assert memory.read(GPA(BASE + 101 * PAGE), 4) == b"here"
        assert memory.read(GPA(BASE + 4 * MIB - 8), 8) == bytes(8)
        memory.check_alive()
        area.close()
        with pytest.raises(MemoryFault, match="no longer given"):
            memory.read(GPA(BASE + PAGE), 8)


def test_private_memory_over_a_file_is_populated_whole(tmp_path: Path) -> None:
    path = tmp_path / "template"
    path.write_bytes(b"x" * MIB)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), MIB, mmap.MAP_PRIVATE) as area:
        view = ctypes.c_char.from_buffer(area)
        segment = RamSegment(0, MIB, f"/proc/{os.getpid()}/mem", ctypes.addressof(view), "process")
        del view
        with HostMemory((segment,)) as memory:
            assert list(memory.populated()) == [Region(0, MIB)]
            assert memory.read(GPA(MIB - 4), 4) == b"xxxx"


def test_after_close_nothing_is_left_open(ram: Ram) -> None:
    area = mmap.mmap(ram.fd, MIB)
    before = len(list(Path("/proc/self/fd").iterdir()))
    memory = HostMemory((ram.segment(0, MIB), ram.segment(MIB, MIB, MIB)), pid=os.getpid())
    memory.close()
    memory.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(MemoryFault):
        memory.read(GPA(0), 8)
    assert list(memory.populated()) == []
    with pytest.raises(TargetError):
        HostMemory((ram.segment(0, MIB), RamSegment(MIB, MIB, "/none", 0, "shared")), pid=os.getpid())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    area.close()


def test_descriptor_that_has_become_another_file_is_refused(ram: Ram, tmp_path: Path) -> None:
    with mmap.mmap(ram.fd, MIB):
        HostMemory((ram.segment(0, MIB),), pid=os.getpid()).close()
        other = tmp_path / "other"
        other.write_bytes(bytes(4 * MIB))
        kept = os.dup(ram.fd)
        fd = os.open(other, os.O_RDONLY)
        os.dup2(fd, ram.fd)
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(TargetError, match="no longer the file that the VM has"):
            HostMemory((ram.segment(0, MIB),), pid=os.getpid())
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        os.close(fd)
        os.close(kept)


def test_fifo_without_a_writer_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TargetError, match="the file has 0 bytes"):
        HostMemory((RamSegment(0, MIB, str(tmp_path / "pipe"), 0, "shared"),))


def test_beyond_a_raw_image_asks_whether_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(bytes(MIB))
    with HostMemory((RamSegment(BASE, MIB, str(path), 0, "image"),)) as memory:
        with pytest.raises(
            MemoryFault, match=r"GPA 0x40200000 are beyond the end of the image, 0x40100000: .*--ram-base"
        ):
            memory.read(GPA(BASE + 2 * MIB), 8)
        with pytest.raises(MemoryFault, match="outside the guest's RAM"):
            memory.read(GPA(BASE - 8), 8)
    in_a_core = RamSegment(BASE, MIB // 2, str(path), PAGE, "image")
    with HostMemory((in_a_core,)) as memory, pytest.raises(MemoryFault, match="outside the guest's RAM"):
        memory.read(GPA(BASE + 2 * MIB), 8)


def test_descriptors_are_for_reading_alone(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(b"x")
    fd = open_readonly(str(path))
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(fd)
    with pytest.raises(TargetError, match="no such file"):
        open_readonly(str(tmp_path / "none"))
    with pytest.raises(TargetError, match="the VM has ended"):
        open_readonly("/proc/999999999/mem")
    with pytest.raises(TargetError, match="the VM has ended"):
        HostMemory((), pid=999999999)

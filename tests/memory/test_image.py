from __future__ import annotations

import gzip
import itertools
import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yamori.address import GPA
from yamori.errors import MemoryFault, TargetError
from yamori.hypervisors.vm import PackedSegment, RamSegment
from yamori.memory import formats, image
from yamori.memory.host import HostMemory
from yamori.memory.physical import Region

GIB = 1 << 30


def core(
    loads: list[tuple[int, int, int]],
    *,
    bits: int = 64,
    order: str = "<",
    kind: int = 4,
    extended: bool = False,
    count: int | None = None,
    more: int = 0,
) -> bytes:
    """An ELF core's headers, by the book: (GPA, size, file offset) of each segment.

    ``more`` is what segments have in memory beyond what they have in the file.
    """
    number = len(loads) if count is None else count
    phnum = 0xFFFF if extended else number
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    if bits == 64:
        head, section = 64, struct.pack(order + "IIQQQQIIQQ", 0, 0, 0, 0, 0, 1, 0, number, 0, 0)
        phoff = head + len(section)
        fields = (kind, 183, 1, 0, phoff, head, 0, 64, 56, phnum, 64, 1, 0)
        header = struct.pack(order + "HHIQQQIHHHHHH", *fields)
        program = [struct.pack(order + "IIQQQQQQ", 1, 7, o, 0, gpa, size, size + more, 0) for gpa, size, o in loads]
    else:
        head, section = 52, struct.pack(order + "IIIIIIIIII", 0, 0, 0, 0, 0, 1, 0, number, 0, 0)
        phoff = head + len(section)
        fields = (kind, 40, 1, 0, phoff, head, 0, 52, 32, phnum, 40, 1, 0)
        header = struct.pack(order + "HHIIIIIHHHHHH", *fields)
        program = [struct.pack(order + "IIIIIIII", 1, o, 0, gpa, size, size + more, 7, 0) for gpa, size, o in loads]
    note = struct.pack(order + ("IIQQQQQQ" if bits == 64 else "IIIIIIII"), 4, 0, 0, 0, 0, 0, 0, 0)
    return ident + header + section + b"".join(program) + note


def write(path: Path, head: bytes, *blocks: tuple[int, bytes], size: int = 0x10000) -> str:
    with path.open("wb") as file:
        file.truncate(size)
        file.write(head)
        for offset, data in blocks:
            file.seek(offset)
            file.write(data)
    return str(path)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("extended", [False, True])
def test_elf_core(tmp_path: Path, bits: int, order: str, *, extended: bool) -> None:
    head = core([(0x8000_0000, 0x2000, 0x3000), (0x1000, 0x1000, 0x1000)], bits=bits, order=order, extended=extended)
    path = write(tmp_path / "core", head, (0x1000, b"low"), (0x4FFC, b"high"))
    vm = image.attach(path)
    assert vm.target == f"file:{path}"
    assert vm.pid is None
    assert vm.machine == ("ELF core (AArch64)" if bits == 64 else "ELF core (Arm)")
    assert vm.base_known
    assert vm.layouts == (
        (
            RamSegment(0x1000, 0x1000, path, 0x1000, "image"),
            RamSegment(0x8000_0000, 0x2000, path, 0x3000, "image"),
        ),
    )
    with HostMemory(vm.layouts[0]) as memory:
        assert memory.read(GPA(0x1000), 3) == b"low"
        assert memory.read(GPA(0x8000_1FFC), 4) == b"high"


def test_a_core_that_describes_bytes_twice(tmp_path: Path) -> None:
    loads = [(0x1000, 0x1000, 0x1000), (0x1800, 0x1000, 0x1800), (0x1000, 0x200, 0x1000), (0, 0, 2**64 - 1)]
    vm = image.attach(write(tmp_path / "core", core(loads)))
    assert [(s.gpa, s.size, s.offset) for s in vm.layouts[0]] == [(0x1000, 0x1800, 0x1000)]
    assert len(vm.notes) == 1


@pytest.mark.parametrize("bits", [32, 64])
def test_what_makedumpfile_excluded_from_a_core(tmp_path: Path, bits: int) -> None:
    loads = [(0x1000, 0x1000, 0x1000), (0x4000, 0x1000, 0x2000), (0x20000, 0, 0)]
    path = write(
        tmp_path / "core", core(loads, bits=bits, more=0x3000), (0x1000, b"a" * 0x1000), (0x2000, b"b" * 0x1000)
    )
    vm = image.attach(path)
    assert vm.notes[-1] == f"{0x8000} bytes are excluded from the dump"
    with HostMemory(vm.layouts[0]) as memory:
        assert memory.regions == (Region(0x1000, 0x7000), Region(0x20000, 0x3000))
        assert memory.read(GPA(0x1FFF), 1) + memory.read(GPA(0x4000), 1) == b"ab"
        for gpa in (0x2000, 0x3FFF, 0x5000, 0x7FFC, 0x20000):
            with pytest.raises(MemoryFault, match="excluded from the dump"):
                memory.read(GPA(gpa), 1)
        for gpa, size in ((0x1FFF, 2), (0x3FFF, 2), (0x1000, 0x7000)):
            with pytest.raises(MemoryFault):
                memory.read(GPA(gpa), size)
        with pytest.raises(MemoryFault, match="outside the guest's RAM"):
            memory.read(GPA(0x8000), 1)
        assert list(memory.populated()) == [Region(0x1000, 0x1000), Region(0x4000, 0x1000)]
        assert memory.extents() is None


@pytest.mark.parametrize("more", [1 << 43, (1 << 64) - 0x3000])
def test_sizes_in_memory_that_mean_nothing(tmp_path: Path, more: int) -> None:
    vm = image.attach(write(tmp_path / "core", core([(0x1000, 0x1000, 0x1000)], more=more)))
    assert len(vm.layouts[0]) == 1


def test_a_core_that_contradicts_itself(tmp_path: Path) -> None:
    loads = [(0x1000, 0x1000, 0x1000), (0x1800, 0x1000, 0x5000), (0x1900, 0x100, 0x9000)]
    vm = image.attach(write(tmp_path / "core", core(loads)))
    assert [(s.gpa, s.size, s.offset) for s in vm.layouts[0]] == [(0x1000, 0x1000, 0x1000), (0x2000, 0x800, 0x5800)]
    assert "2 segments overlap others" in vm.notes[-1]


def test_a_truncated_core_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "core", core([(0x1000, 0x1000, 0x1000), (0x4000, 0x8000, 0xC000)]))
    with pytest.raises(TargetError, match=r"16384 of 36864 bytes of guest memory are not in the file.*cut short"):
        image.attach(path)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (core([(0, 0x1000, 0x1000)], kind=2), "this ELF file is a program, not a memory image.*--vmlinux"),
        (core([(0, 0x1000, 0x1000)], kind=1), "relocatable"),
        (core([(0, 0x1000, 0x20000)]), "4096 of 4096 bytes of guest memory are not in the file"),
        (core([]), "holds no memory"),
        (core([(0, 0x1000, 0x1000), (0, 0x1000, 0x2000)]), "it is of a process"),
        (core([(0, 0x1000, 0x1000)], count=0xFFF0), "ends within its own headers"),
        (core([(0, 0x1000, 0x1000)], extended=True, count=1 << 31), "tells of 2147483648 segments"),
        (core([(0, 0x1000, 0x1000)])[:4] + b"\x03" + bytes(30), "malformed"),
        (core([(0, 0x1000, 0x1000)])[:54] + b"\x07" + core([(0, 0x1000, 0x1000)])[55:], "7 bytes each"),
    ],
)
def test_other_elf_files_are_refused(tmp_path: Path, head: bytes, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        image.attach(write(tmp_path / "core", head))


@pytest.mark.parametrize("length", [4, 15, 16, 40, 63, 64, 100, 130, 180])
def test_a_core_cut_off_within_its_headers(tmp_path: Path, length: int) -> None:
    path = tmp_path / "core"
    path.write_bytes(core([(0x1000, 0x1000, 0x1000)])[:length])
    with pytest.raises(TargetError, match=r"cut off|ends within its own headers"):
        image.attach(str(path))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    loads=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 0x8000), st.integers(0, 2**64 - 1)),
            st.one_of(st.integers(0, 0x4000), st.integers(0, 2**64 - 1)),
            st.one_of(st.integers(0, 0x9000), st.integers(0, 2**64 - 1)),
        ),
        max_size=8,
    ),
    damage=st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)), max_size=3),
    more=st.sampled_from([0, 0, 1, 0x800, 0x3000]),
)
def test_any_core_gives_a_sound_layout_or_one_error(
    tmp_path: Path, loads: list[tuple[int, int, int]], damage: list[tuple[int, bytes]], more: int
) -> None:
    loads = [(gpa, min(size, (1 << 64) - 1 - more), offset) for gpa, size, offset in loads]
    path = write(
        tmp_path / "core", core(loads, more=more), *((at, data) for at, data in damage if at >= 4), size=0x8000
    )
    try:
        (layout,) = image.attach(path).layouts
    except TargetError:
        return
    assert layout
    for one, other in itertools.pairwise(layout):
        assert one.gpa + one.size <= other.gpa
    kept = [segment for segment in layout if not isinstance(segment, PackedSegment)]
    for segment in kept:
        assert 0 < segment.size <= 0x8000 - segment.offset
    with HostMemory(layout) as memory:
        for segment in kept:
            assert len(memory.read(GPA(segment.gpa), segment.size)) == segment.size
        if not damage:  # every byte is where the first segment that names it says
            for segment in kept:
                assert any(g <= segment.gpa < g + s and segment.gpa - g == segment.offset - o for g, s, o in loads)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(min_size=1, max_size=300),
    st.sampled_from(
        [b"", b"\x7fELF\x01\x01", b"\x7fELF\x02\x01", *(m for kind in formats.known() for m in kind.MAGICS)]
    ),
)
def test_any_file_is_survived(tmp_path: Path, data: bytes, magic: bytes) -> None:
    path = tmp_path / "any"
    path.write_bytes(magic + data)
    try:
        vm = image.attach(str(path))
    except TargetError:
        return
    for segment in itertools.chain(*vm.layouts):
        assert isinstance(segment, PackedSegment) or segment.offset + segment.size <= len(magic + data)


def test_no_two_formats_begin_alike() -> None:
    magics = [magic for kind in formats.known() for magic in kind.MAGICS]
    assert len(magics) > 10
    for one, other in itertools.permutations(magics, 2):
        assert not one.startswith(other)
    # Nor does what is refused by name hide behind one that is read.
    assert not [magic for magic in image._FOREIGN if magic.startswith(tuple(magics))]


def test_files_are_closed(tmp_path: Path) -> None:
    path = write(tmp_path / "core", core([(0x1000, 0x1000, 0x1000)]))
    before = len(list(Path("/proc/self/fd").iterdir()))
    vm = image.attach(path)
    HostMemory(vm.layouts[0]).close()
    (tmp_path / "packed").write_bytes(gzip.compress(Path(path).read_bytes()))
    vm = image.attach(str(tmp_path / "packed"))
    HostMemory(vm.layouts[0]).close()
    del vm
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_raw_images(tmp_path: Path) -> None:
    path = write(tmp_path / "raw", b"\0", (0x5000, b"data"))
    vm = image.attach(path)
    assert not vm.base_known
    assert vm.layouts == ((RamSegment(0, 0x10000, path, 0, "image"),),)
    vm = image.attach(path, ram_base=0x4000_0000)
    assert vm.base_known
    with HostMemory(vm.layouts[0]) as memory:
        assert memory.read(GPA(0x4000_5000), 4) == b"data"


def test_sparse_and_large_raw_images(tmp_path: Path) -> None:
    path = write(tmp_path / "raw", b"\0", (3 * GIB + 0x5000, b"data"), size=4 * GIB)
    vm = image.attach(path)
    assert [[(s.gpa, s.size, s.offset) for s in layout] for layout in vm.layouts] == [
        [(0, 4 * GIB, 0)],
        [(0, 2 * GIB, 0), (4 * GIB, 2 * GIB, 2 * GIB)],
        [(0, 3 * GIB, 0), (4 * GIB, GIB, 3 * GIB)],
    ]
    with HostMemory(vm.layouts[2]) as memory:
        assert memory.read(GPA(4 * GIB + 0x5000), 4) == b"data"
        populated = list(memory.populated())
        assert any(region.gpa <= 4 * GIB + 0x5000 < region.end for region in populated)
        assert sum(region.size for region in populated) < GIB
    assert len(image.attach(path, ram_base=0).layouts) == 1


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"DISKDUMP", "a diskdump, which Yamori does not read; .*reads raw images, ELF cores, kdumps, LiME and AVML"),
        (b"Salted__", "encrypted with openssl.*decrypt it first"),
        (b"LUKS\xba\xbe", "encrypted with LUKS"),
        (b"PAGEDU64", "Windows crash dump"),
        (b"LibvirtQemudSave", "libvirt save file.*virsh dump --memory-only"),
        (b"QFI\xfb", "qcow2"),
        (b"\x04\x22\x4d\x18", "packed with lz4.*unpack"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path: Path, head: bytes, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        image.attach(write(tmp_path / "image", head))


def test_what_is_no_image_at_all(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path, message in (
        (str(tmp_path / "none"), "no such file"),
        (str(tmp_path), "this is a directory"),
        (str(empty), "the file is empty"),
        (str(tmp_path / "pipe"), "not a regular file"),
        ("/dev/zero", "not a regular file"),
        (str(tmp_path / "loop"), "cannot be opened"),
        (str(empty / "x"), "cannot be opened"),
        ("/" + "x" * 5000, "cannot be opened"),
        ("a\0b", "no NUL"),
    ):
        with pytest.raises(TargetError, match=message):
            image.attach(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="has to become somebody else")
def test_no_permission(tmp_path: Path) -> None:
    path = write(tmp_path / "raw", b"\0")
    (tmp_path / "raw").chmod(0o600)
    os.seteuid(65534)
    try:
        with pytest.raises(TargetError, match=r"no permission to read it; run as root"):
            image.attach(path)
    finally:
        os.seteuid(0)


def test_a_core_says_its_addresses_itself(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="leave the RAM base out"):
        image.attach(write(tmp_path / "core", core([(0, 0x1000, 0x1000)])), ram_base=0)

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamori.kernel.vmcoreinfo import MAX_SIZE, NEEDLE, VmCoreInfo, parse

TEXT = b"""OSRELEASE=6.1.0-56-cloud-arm64
BUILD-ID=4ac23d58ea912fbd7a16a1352646a2b5216a4bf3
PAGESIZE=4096
SYMBOL(init_uts_ns)=ffffdbb2654769c0
SYMBOL(swapper_pg_dir)=ffffdbb264e9c000
SIZE(list_head)=16
OFFSET(list_head.next)=0
OFFSET(uts_namespace.name)=4
LENGTH(free_area.free_list)=6
NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129
NUMBER(VMALLOC_START)=0xffff800080000000
NUMBER(TCR_EL1_T1SZ)=0x10
KERNELOFFSET=5bb1e3000000
CONFIG_ARM64_PAN=y
"""
INFO = VmCoreInfo(
    release="6.1.0-56-cloud-arm64",
    page_size=4096,
    build_id="4ac23d58ea912fbd7a16a1352646a2b5216a4bf3",
    kernel_offset=0x5BB1E3000000,
    symbols={"init_uts_ns": 0xFFFFDBB2654769C0, "swapper_pg_dir": 0xFFFFDBB264E9C000},
    offsets={"list_head.next": 0, "uts_namespace.name": 4},
    sizes={"list_head": 16},
    lengths={"free_area.free_list": 6},
    numbers={"PAGE_BUDDY_MAPCOUNT_VALUE": -129, "VMALLOC_START": 0xFFFF800080000000, "TCR_EL1_T1SZ": 0x10},
)


def _note(text: bytes, *, name_size: int = 11, kind: int = 0, size: int | None = None) -> bytes:
    header = struct.pack("<III", name_size, len(text) if size is None else size, kind)
    return header + b"VMCOREINFO\0\0" + text + bytes(-len(text) % 4)


@pytest.mark.parametrize(
    "data", [TEXT, TEXT + bytes(100), TEXT + b"\0garbage\xff=", _note(TEXT), _note(TEXT) + b"\1\2\3"]
)
def test_the_text_is_parsed_wherever_it_stands(data: bytes) -> None:
    assert parse(data) == INFO


def test_what_old_kernels_lack_may_lack() -> None:
    info = parse(b"OSRELEASE=3.10.0\nPAGESIZE=65536\nSYMBOL(_stext)=c0008000\n")
    assert info is not None
    assert (info.build_id, info.kernel_offset, info.page_size) == ("", None, 65536)
    assert info.symbols == {"_stext": 0xC0008000}


def test_a_crash_may_add_lines_of_kinds_unknown() -> None:
    assert parse(TEXT + b"CRASHTIME=1700000000\nFUTURE(thing.x)=zzz\n") == INFO


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"OSRELEASE=6.1.0-56-cloud-arm64\n", b"OSRELEASE=%s\n"),
        (b"6.1.0-56-cloud-arm64", b"6." + b"1" * 100),
        (b"OSRELEASE=", b"XOSRELEASE="),
        (b"PAGESIZE=4096\n", b""),
        (b"4096", b"4095"),
        (b"4096", b"%ld"),
        (b"4ac23d58", b"xac23d58"),
        (b"=5bb1e3000000", b"=0x5bb1e3000000"),
        (b"=ffffdbb2654769c0", b"=ffffdbb2654769c00"),
        (b"=ffffdbb2654769c0", b"="),
        (b"SYMBOL(init_uts_ns)=ffffdbb2654769c0\nSYMBOL(swapper_pg_dir)=ffffdbb264e9c000\n", b""),
        (b"(list_head)=16", b"(list_head)=0x10"),
        (b"(list_head)=16", b"(list head)=16"),
        (b"=-129", b"=--129"),
        (b"=6\n", b"=-6\n"),
        (b"KERNELOFFSET", b"SIZE(list_head)=17\nKERNELOFFSET"),
        (b"KERNELOFFSET", b"OSRELEASE=6.2.0\nKERNELOFFSET"),
        (b"KERNELOFFSET", b"\nKERNELOFFSET"),
        (b"KERNELOFFSET", "é=1\nKERNELOFFSET".encode()),
        (b"=y\n", b"=y"),
    ],
)
def test_one_wrong_line_makes_the_whole_unbelievable(old: bytes, new: bytes) -> None:
    assert old in TEXT
    assert parse(TEXT.replace(old, new, 1)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        NEEDLE,
        b"OSRELEASE=%s\n\0BUILD-ID=%20phN\n\0PAGESIZE=%ld\n\0",
        _note(TEXT, name_size=12),
        _note(TEXT, kind=1),
        _note(TEXT, size=len(TEXT) - 3),
        _note(TEXT, size=1 << 31),
        TEXT + b"SIZE(x)=1\n" * (MAX_SIZE // 8),
    ],
)
def test_decoys_are_refused(data: bytes) -> None:
    assert parse(data) is None


@settings(max_examples=100)
@given(st.binary(max_size=200), st.integers(0, len(TEXT)), st.integers(0, 40))
def test_no_bytes_raise(noise: bytes, at: int, cut: int) -> None:
    for data in (noise, NEEDLE + noise, TEXT[:at] + noise + TEXT[at + cut :], _note(TEXT)[:at] + noise):
        info = parse(data)
        assert info is None or info.release.isprintable()


_names = st.text("abcdefghijklmnopqrstuvwxyz_0123456789.", min_size=1, max_size=20)
_words = st.dictionaries(_names, st.integers(0, (1 << 64) - 1), max_size=8)


@settings(max_examples=50)
@given(
    symbols=_words.filter(bool),
    sizes=_words,
    offsets=_words,
    numbers=st.dictionaries(_names, st.integers(-(1 << 63), (1 << 63) - 1)),
)
def test_what_the_kernel_prints_comes_back(
    symbols: dict[str, int], sizes: dict[str, int], offsets: dict[str, int], numbers: dict[str, int]
) -> None:
    lines = ["OSRELEASE=6.6.1", "PAGESIZE=16384"]
    lines += [f"SYMBOL({name})={value:x}" for name, value in symbols.items()]
    lines += [f"SIZE({name})={value}" for name, value in sizes.items()]
    lines += [f"OFFSET({name})={value}" for name, value in offsets.items()]
    lines += [f"NUMBER({name})={value}" for name, value in numbers.items()]
    info = parse("\n".join([*lines, ""]).encode())
    assert info is not None
    assert (info.symbols, info.sizes, info.offsets, info.numbers) == (symbols, sizes, offsets, numbers)

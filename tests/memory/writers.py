"""Writers of image formats by their descriptions, for the readers to be tried on; none shares code with a reader."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import pytest

PAGE = 4096
FLAGS = {"": 0, "zlib": 1, "lzo": 2, "snappy": 4, "zstd": 0x20}


def pack(method: str, data: bytes) -> bytes:
    """A page as makedumpfile packs it; one that does not become smaller is written as it is, by the caller."""
    if method == "zlib":
        return zlib.compress(data)
    if method == "lzo":
        return lzo([(data, None)])
    if method == "snappy":
        return bytes(pytest.importorskip("cramjam").snappy.compress_raw(data))
    if method == "zstd":
        packer = zstd_packer()
        return bytes(packer.compress(data, packer.FLUSH_FRAME))
    return data


def zstd() -> Any:
    """The module that Python has from 3.14 on."""
    try:
        import compression.zstd as module  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
    except ImportError:
        return pytest.importorskip("backports.zstd")
    return module


@cache
def zstd_packer() -> Any:
    """One for all pages: to make one takes longer than to pack a page."""
    return zstd().ZstdCompressor(1)


@dataclass
class Kdump:
    """A kdump to be written.

    Attributes:
        pages: Page number → content; ``None`` is RAM that is not in the dump.
        bits: Of a word of the guest.
        time: Bits of a word in ``timeval``.
        qemu: The 32-bit subheader without padding, as QEMU has it.
        spoil: Called with each descriptor's number and (offset, size, flags); what it returns is written.
    """

    pages: Mapping[int, bytes | None]
    bits: int = 64
    time: int = 64
    order: str = "<"
    method: str = "zlib"
    level: int = 31
    version: int = 6
    block: int = PAGE
    machine: bytes = b"x86_64"
    phys_base: int = 0
    status: int = 0
    split: int = 0
    qemu: bool = False
    one_bitmap: bool = False
    spoil: Callable[[int, tuple[int, int, int]], tuple[int, int, int]] = lambda number, fields: fields

    def headers(self, pages: int, bitmap_blocks: int) -> bytes:
        """The two blocks of headers."""
        names = (b"Linux", b"host", b"6.1.0-test", b"#1", self.machine, b"")
        head = b"KDUMP   " + struct.pack(self.order + "i", self.version)
        head += b"".join(name.ljust(65, b"\0") for name in names)
        head = head.ljust(404 if self.time == 32 else 408, b"\0")
        head += struct.pack(self.order + ("II" if self.time == 32 else "QQ"), 1_700_000_000, 123_456)
        fields = (self.status | FLAGS[self.method], self.block, 1, bitmap_blocks, pages, 0, 0, 0, 0, 2)
        head += struct.pack(self.order + "IiiIIIIIIi", *fields)
        if self.bits == 64:
            sub = struct.pack(self.order + "QiiQQ", self.phys_base, self.level, self.split, 0, pages)
            sub += struct.pack(self.order + "9Q", *([0] * 6), 0, pages, pages)
        else:
            gap = b"" if self.qemu else b"\0\0\0\0"
            sub = struct.pack(self.order + "IiiII", self.phys_base, self.level, self.split, 0, pages)
            sub += (gap + struct.pack(self.order + "QI", 0, 0)) * 3 + gap
            sub += struct.pack(self.order + "QQQ", 0, pages, pages)
        return head.ljust(self.block, b"\0") + sub.ljust(self.block, b"\0")

    def written(self) -> bytes:
        """The file."""
        count = max(self.pages) + 1
        ram = bitmap(self.pages, count, self.block)
        dumped = bitmap([n for n, page in self.pages.items() if page is not None], count, self.block)
        bitmaps = dumped if self.one_bitmap else ram + dumped
        out = self.headers(count, len(bitmaps) // self.block) + bitmaps
        kept = [page for _, page in sorted(self.pages.items()) if page is not None]
        at = len(out) + 24 * len(kept)
        descriptors, data, shared = bytearray(), bytearray(), -1
        for number, page in enumerate(kept):
            zero = not page.strip(b"\0")
            packed = pack(self.method, page)
            flag = FLAGS[self.method]
            if len(packed) >= self.block or zero:
                packed, flag = page, 0
            fields = (at + len(data), len(packed), flag)
            if zero and shared >= 0:
                fields = (shared, self.block, 0)
            else:
                data += packed
                shared = fields[0] if zero else shared
            descriptors += struct.pack(self.order + "QIIQ", *self.spoil(number, fields), 0)
        return b"".join((out, descriptors, data))


def bitmap(numbers: Sequence[int] | Mapping[int, Any], count: int, block: int) -> bytes:
    """Bits in whole blocks, the lowest first."""
    bits = bytearray(-(-count // (8 * block)) * block)
    for number in numbers:
        bits[number // 8] |= 1 << number % 8
    return bytes(bits)


def flattened(records: Sequence[tuple[int, bytes]], *, end: bool = True) -> bytes:
    """What ``makedumpfile -F`` makes of writes at offsets."""
    head = (b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1)).ljust(4096, b"\0")
    body = b"".join(struct.pack(">qq", offset, len(data)) + data for offset, data in records)
    return head + body + (struct.pack(">qq", -1, -1) if end else b"")


def lime(ranges: Sequence[tuple[int, bytes]]) -> bytes:
    """A LiME image, or an AVML one of version 1."""
    return b"".join(struct.pack("<IIQQQ", 0x4C694D45, 1, gpa, gpa + len(d) - 1, 0) + d for gpa, d in ranges)


def avml(ranges: Sequence[tuple[int, bytes]]) -> bytes:
    """An AVML image of version 2."""
    parts = []
    for gpa, data in ranges:
        stream = snappy_stream(data)
        parts += [struct.pack("<IIQQQ", 0x4C4D5641, 2, gpa, gpa + len(data) - 1, 0), stream]
        parts.append(struct.pack("<Q", len(stream)))
    return b"".join(parts)


def snappy_stream(data: bytes, *, chunk: int = 1 << 16) -> bytes:
    """Snappy's framing, with all kinds of chunk that may occur; nothing reads the checksums, so there are none."""
    pytest.importorskip("cramjam")
    out = bytearray(b"\xff\x06\0\0sNaPpY")
    for number, at in enumerate(range(0, len(data), chunk)):
        part = data[at : at + chunk]
        packed = pack("snappy", part)
        kind, body = (0, packed) if len(packed) < len(part) else (1, part)
        out += bytes([kind]) + (len(body) + 4).to_bytes(3, "little") + b"crc!" + body
        if number % 2:
            out += b"\xfe\x03\0\0\0\0\0" + b"\x80\x01\0\0x"
    return bytes(out)


class Match(NamedTuple):
    """A copy of what lies ``distance`` bytes back."""

    distance: int
    length: int


def lzo(steps: Sequence[tuple[bytes, Match | None]]) -> bytes:
    """An LZO1X stream of literals, each followed by a copy but for the last.

    From Documentation/staging/lzo.rst of the kernel. The shortest instruction that can say a copy is taken.
    """
    out = bytearray()
    state = _literals(out, steps[0][0], first=True)
    for number, (_, match) in enumerate(steps):
        if match is None:
            break
        following = steps[number + 1][0] if number + 1 < len(steps) else b""
        few = len(following) if len(following) < 4 else 0
        _copy(out, match, few, state)
        state = few
        if few:
            out += following
        elif following:
            state = _literals(out, following)
    return bytes(out + b"\x11\0\0")


def _literals(out: bytearray, data: bytes, *, first: bool = False) -> int:
    """Append a run of literals; return what state it leaves: how many, with 4 for any longer."""
    if first and 0 < len(data) <= 238:
        out.append(17 + len(data))
    elif len(data) >= 4:
        _number(out, 0, len(data) - 3, 15)
    out += data
    return min(len(data), 4)


def _number(out: bytearray, code: int, value: int, largest: int) -> None:
    if value <= largest:
        out.append(code | value)
        return
    out.append(code)
    zeros, rest = divmod(value - largest - 1, 255)
    out += bytes(zeros) + bytes([rest + 1])


def _copy(out: bytearray, match: Match, few: int, state: int) -> None:
    back, length = match.distance - 1, match.length
    if length == 2 and state in {1, 2, 3} and back < 1024:
        out += bytes([(back & 3) << 2 | few, back >> 2])
    elif length == 3 and state == 4 and 2048 <= back < 3072:
        out += bytes([(back - 2048 & 3) << 2 | few, back - 2048 >> 2])
    elif 3 <= length <= 4 and back < 2048:
        out += bytes([64 | (length - 3) << 5 | (back & 7) << 2 | few, back >> 3])
    elif 5 <= length <= 8 and back < 2048:
        out += bytes([128 | (length - 5) << 5 | (back & 7) << 2 | few, back >> 3])
    elif length >= 3 and back < 16384:
        _number(out, 32, length - 2, 31)
        out += struct.pack("<H", back << 2 | few)
    else:
        assert length >= 3, "no instruction says this"
        assert 16384 <= back < 49151, "nor this"
        rest = match.distance - 16384
        _number(out, 16 | rest >> 14 << 3, length - 2, 7)
        out += struct.pack("<H", (rest & 0x3FFF) << 2 | few)

"""AVML images of version 2: a header before each range of RAM, and the range as a Snappy stream.

The format is in ``src/image.rs`` and ``src/io/snappy.rs`` of AVML's source tree: LiME's header with another magic, a
stream in Snappy's framing format (``framing_format.txt`` of Snappy), and its length in eight bytes. Ranges have up to
16 MiB, and those that are all zeros are left out, which nothing in the file tells from what is no RAM. Version 1 is
LiME's.

The checksums (CRC-32C) are not compared.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache

from yamori.errors import TargetError
from yamori.hypervisors.vm import Missing, Source
from yamori.memory.codecs import Codec, codec
from yamori.memory.formats.lime import HEADER, MOST_RANGES, header
from yamori.memory.lzo import DamagedError
from yamori.memory.source import Contents, Piece, settled

MAGIC = b"AVML"
MAGICS = (MAGIC,)
_CHUNK = 1 << 16
"""Most bytes that a chunk holds."""
_MOST_CHUNKS = 1 << 22
"""16 bytes each are kept; 256 GiB of memory in full chunks."""
_COMPRESSED, _PLAIN, _IDENTIFIER, _SKIPPABLE = 0x00, 0x01, 0xFF, 0x80
_CRC = 4
_CACHED = 64
_CUT = "copy it again"


def parse(source: Source, where: str) -> Contents:
    """Find every chunk of every range.

    Raises:
        TargetError: It is malformed or cut short, or the library for Snappy is missing.
    """
    chunks = Chunks(source, codec("snappy", where))
    pieces: list[Piece] = []
    at = 0
    while at < source.size:
        piece = header(source.read(HEADER.size, at), MAGIC, 2, at, where)
        pieces.append(piece._replace(offset=chunks.size))
        at = chunks.add(at + HEADER.size, piece.size, where)
        if len(pieces) > MOST_RANGES:
            raise TargetError(f"it has more than {MOST_RANGES} ranges of memory", where=where, hint="it is malformed")
    notes: list[str] = []
    kept = settled(pieces, notes)
    notes.insert(0, f"AVML image of {sum(piece.size for piece in kept)} bytes of memory in {len(kept)} ranges")
    return Contents("AVML image", chunks, kept, tuple(notes))


class Chunks:
    """The chunks of all streams one behind the other; a ``Source``.

    Args:
        source: The image.
        unpack: Snappy.
    """

    def __init__(self, source: Source, unpack: Codec) -> None:
        self._source = source
        self._unpack = unpack
        self._starts = array("Q")
        self._at = array("Q")
        self.size = 0
        self._chunk = lru_cache(maxsize=_CACHED)(self._unpacked)

    def add(self, at: int, size: int, where: str) -> int:
        """Take a stream in that lies at ``at`` and holds ``size`` bytes; return where what follows it begins.

        Raises:
            TargetError: It does not.
        """
        begin, end = at, self.size + size
        while True:
            if self.size == end and self._source.read(8, at) == (at - begin).to_bytes(8, "little"):
                return at + 8
            kind, length, holds = self._look(at)
            if kind in {_COMPRESSED, _PLAIN}:
                if not 0 < holds <= _CHUNK or self.size + holds > end or len(self._at) >= _MOST_CHUNKS:
                    break
                self._starts.append(self.size)
                self._at.append(at)
                self.size += holds
            elif kind < _SKIPPABLE:
                break
            at += 4 + length
        if at + 8 > self._source.size:
            raise TargetError("it ends within a range of memory", where=where, hint=f"it was cut short: {_CUT}")
        raise TargetError(f"the range at {begin:#x} is damaged", where=where, hint=_CUT)

    def read(self, size: int, offset: int) -> bytes:
        """Return ``size`` bytes at ``offset``.

        Raises:
            Missing: They are damaged or cut short.
        """
        end = min(offset + size, self.size)
        parts: list[bytes] = []
        number = bisect_right(self._starts, offset) - 1
        while offset < end:
            start = self._starts[number]
            part = self._chunk(number)[offset - start : end - start]
            parts.append(part)
            offset += len(part)
            number += 1
        return b"".join(parts)

    def data(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the range whole."""
        yield start, end

    def _look(self, at: int) -> tuple[int, int, int]:
        """Return a chunk's kind, its length behind the first four bytes, and how many bytes it holds."""
        head = self._source.read(13, at).ljust(13, b"\0")
        length = int.from_bytes(head[1:4], "little")
        if head[0] == _COMPRESSED:
            return _COMPRESSED, length, _varint(head[4 + _CRC :])
        return head[0], length, length - _CRC

    def _unpacked(self, number: int) -> bytes:
        at = self._at[number]
        kind, length, holds = self._look(at)
        data = self._source.read(length - _CRC, at + 4 + _CRC) if length > _CRC else b""
        if len(data) != length - _CRC:
            raise Missing("cut short: the image became shorter while it was read")
        # What was looked at once may be another thing now.
        behind = self._starts[number + 1] if number + 1 < len(self._starts) else self.size
        if holds != behind - self._starts[number]:
            raise Missing("changed in the image while it was read")
        try:
            return self._unpack(data, holds) if kind == _COMPRESSED else data
        except DamagedError as error:
            raise Missing(f"damaged in the image ({error})") from None


def _varint(data: bytes) -> int:
    """Read the number that Snappy's format begins with; -1 where it goes on for more than five bytes."""
    value = 0
    for number, byte in enumerate(data[:5]):
        value |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            return value
    return -1

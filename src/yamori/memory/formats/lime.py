"""LiME images: a header before each range of RAM.

The format is ``lime_mem_range_header`` of ``src/lime.h`` in LiME's source tree, which knows version 1 alone: magic,
version, first and last address, eight bytes reserved. AVML without ``--compress`` writes the same (``src/image.rs``),
in pieces of up to 16 MiB. LiME's formats ``raw`` and ``padded`` are raw images; with ``compress=1`` the whole of any of
them is one zlib stream (``src/deflate.c``).
"""

from __future__ import annotations

import struct

from yamori.errors import TargetError
from yamori.hypervisors.vm import Source
from yamori.memory.source import Contents, Piece, settled, whole

MAGIC = b"EMiL"
MAGICS = (MAGIC,)
HEADER = struct.Struct("<4sIQQ8x")
MOST_RANGES = 1 << 18
"""4 TiB in AVML's pieces; an honest LiME image has a few dozen."""


def parse(source: Source, where: str) -> Contents:
    """Read the headers of all ranges.

    Raises:
        TargetError: The image is cut short or malformed.
    """
    pieces: list[Piece] = []
    at = 0
    while at < source.size:
        piece = header(source.read(HEADER.size, at), MAGIC, 1, at, where)
        at += HEADER.size
        pieces.append(piece._replace(offset=at))
        at += piece.size
        if len(pieces) > MOST_RANGES:
            raise TargetError(f"it has more than {MOST_RANGES} ranges of memory", where=where, hint="it is malformed")
    notes: list[str] = []
    kept = settled(whole(pieces, source.size, where), notes)
    notes.insert(0, f"LiME image of {sum(piece.size for piece in kept)} bytes of memory in {len(kept)} ranges")
    return Contents("LiME image", source, kept, tuple(notes))


def header(data: bytes, magic: bytes, version: int, at: int, where: str) -> Piece:
    """Read a range's header, which AVML shares.

    Args:
        data: The header.
        magic: What it must begin with.
        version: The version it must have.
        at: Where in the image it lies.
        where: The image's name, for errors.

    Returns:
        The range, with offset 0.

    Raises:
        TargetError: There is no such header.
    """
    if len(data) < HEADER.size:
        raise TargetError(f"it ends within a header at {at:#x}", where=where, hint="it was cut short: copy it again")
    found, number, first, last = HEADER.unpack(data)
    if found != magic:
        hint = "it is damaged: copy it again"
        raise TargetError(f"at {at:#x} there is no header of a range of memory", where=where, hint=hint)
    if number != version:
        raise TargetError(f"it has version {number}", where=where, hint=f"version {version} is the one that is known")
    if last < first:
        raise TargetError(f"the range at {at:#x} ends before it begins", where=where, hint="it is malformed")
    return Piece(first, last - first + 1, 0)

"""The bytes of an image at rest, however its file packs them, and where in them the guest's memory lies."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from yamori.errors import TargetError
from yamori.hypervisors.vm import Missing, Source

ADDRESS_LIMIT = 1 << 64
_MOST_AT_ONCE = 1 << 30


class File:
    """An open file as it is; a ``Source``. It is closed with its last user.

    Args:
        fd: The file, which is its own from now on.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        weakref.finalize(self, os.close, fd)
        self.size = os.fstat(fd).st_size

    def read(self, size: int, offset: int) -> bytes:
        """Return ``size`` bytes at ``offset``, fewer where the file ends; at most 1 GiB."""
        return os.pread(self._fd, min(size, _MOST_AT_ONCE), offset) if offset < 1 << 63 else b""

    def data(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield what is no hole of the file."""
        return file_data(self._fd, start, end)


def file_data(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of a file's data within a range. Data ends where the next hole begins."""
    while start < end:
        try:
            start = os.lseek(fd, start, os.SEEK_DATA)
            behind = min(os.lseek(fd, start, os.SEEK_HOLE), end)
        except OSError as error:
            if error.errno != errno.ENXIO:  # no hole up to the end, but a file that cannot tell
                yield start, end
            return
        if start < behind:
            yield start, behind
        start = max(behind, start + 1)


def read_exactly(source: Source, size: int, offset: int, where: str) -> bytes:
    """Return bytes of an image's own headers.

    Raises:
        TargetError: The file ends before.
    """
    data = source.read(size, offset)
    if len(data) != size:
        raise TargetError("the file ends within its own headers", where=where, hint="it was cut short: copy it again")
    return data


class Piece(NamedTuple):
    """A piece of guest memory in a source.

    Attributes:
        gpa: First GPA.
        size: Bytes.
        offset: Of the first byte in the source.
    """

    gpa: int
    size: int
    offset: int

    @property
    def end(self) -> int:
        """First GPA behind it."""
        return self.gpa + self.size


class Contents(NamedTuple):
    """What an image holds.

    Attributes:
        machine: What it is, in words, such as ``ELF core (AArch64)``.
        source: What its memory is read from.
        pieces: Its memory, in ascending order of GPA, not overlapping.
        notes: What is worth saying of it, one short sentence each.
        left_out: RAM that the image tells of, but does not hold; not overlapping the pieces.
    """

    machine: str
    source: Source
    pieces: tuple[Piece, ...]
    notes: tuple[str, ...]
    left_out: tuple[Piece, ...] = ()


class LeftOut:
    """RAM that was excluded from a dump; a ``Source`` that gives nothing.

    Args:
        size: Bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def read(self, size: int, offset: int) -> bytes:  # noqa: ARG002  as a source has it
        """Raise ``Missing``."""
        raise Missing("excluded from the dump")

    def data(self, start: int, end: int) -> Iterator[tuple[int, int]]:  # noqa: ARG002  as a source has it
        """Yield nothing."""
        return iter(())


def whole(pieces: Iterable[Piece], size: int, where: str) -> list[Piece]:
    """Return the pieces, all of which must lie in a source of that size.

    Raises:
        TargetError: They do not: what is missing would read as a different guest.
    """
    pieces = list(pieces)
    promised = sum(piece.size for piece in pieces)
    present = sum(min(piece.size, max(size - piece.offset, 0)) for piece in pieces)
    if present < promised:
        lost = f"{promised - present} of {promised} bytes of guest memory are not in the file"
        raise TargetError(lost, where=where, hint="it was cut short: copy it again")
    if any(piece.end > ADDRESS_LIMIT for piece in pieces):
        raise TargetError("a segment lies beyond any physical address", where=where, hint="it is malformed")
    return pieces


def settled(pieces: Iterable[Piece], notes: list[str]) -> tuple[Piece, ...]:
    """Join what is described twice, and keep the first of what contradicts itself.

    Args:
        pieces: In any order.
        notes: Told of contradictions.
    """
    contradictions = 0
    kept: list[Piece] = []
    for piece in sorted(pieces):
        if not kept:
            kept.append(piece)
            continue
        last = kept[-1]
        same = piece.gpa - piece.offset == last.gpa - last.offset
        if same and piece.gpa <= last.end:
            kept[-1] = last._replace(size=max(last.end, piece.end) - last.gpa)
            continue
        skip = max(last.end - piece.gpa, 0)
        contradictions += bool(skip)
        if skip < piece.size:
            kept.append(Piece(piece.gpa + skip, piece.size - skip, piece.offset + skip))
    if contradictions:
        notes.append(f"{contradictions} segments overlap others and contradict them: the first of each counts")
    return tuple(kept)

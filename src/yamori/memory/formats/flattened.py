"""Flattened dumps: what ``makedumpfile -F`` and QEMU write where the output cannot be sought in, such as a pipe.

The format is ``makedumpfile_header`` and ``makedumpfile_data_header`` of makedumpfile's ``makedumpfile.h``: behind
4096 bytes come records of a file offset, a size and that many bytes, numbers in big-endian order, until both are -1.
What was written last at an offset counts, and what was never written is zeros, as in the file they stand for.
"""

from __future__ import annotations

import heapq
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple

from yamori.errors import TargetError
from yamori.hypervisors.vm import Source
from yamori.memory.formats import Unpacked

MAGICS = (b"makedumpfile\0\0\0\0",)
_HEADER = struct.Struct(">16xqq")
_RECORD = struct.Struct(">qq")
_FIRST = 4096
_TYPE, _VERSION = 1, 1
_END = -1
_MOST_RECORDS = 1 << 21
"""24 bytes each are kept, and three times that while they are sorted. QEMU's are of about 16 KiB: 32 GiB of a dump."""
_LIMIT = 1 << 62


class _Records(NamedTuple):
    """Columns of records: where each begins in the file it is for, its bytes, and where they lie here."""

    starts: array[int]
    sizes: array[int]
    at: array[int]


def parse(source: Source, where: str) -> Unpacked:
    """Read where all records lie.

    Raises:
        TargetError: It is of another version, or malformed.
    """
    head = source.read(_HEADER.size, 0)
    if len(head) < _HEADER.size:
        raise TargetError("the file ends within its own headers", where=where, hint="it was cut short: copy it again")
    if _HEADER.unpack(head) != (_TYPE, _VERSION):
        raise TargetError("this is a flattened dump of a version that is not known", where=where)
    records, ended = _records(source, where)
    note = f"flattened, in {len(records.starts)} records"
    return Unpacked(Flattened(source, records), note if ended else f"{note}; cut short: its end is missing")


class Flattened:
    """The file that a flattened dump stands for; a ``Source``."""

    def __init__(self, source: Source, records: _Records) -> None:
        self._source = source
        self._starts, self._sizes, self._at = _in_order(records)
        self.size = self._starts[-1] + self._sizes[-1] if self._starts else 0

    def read(self, size: int, offset: int) -> bytes:
        """Return ``size`` bytes at ``offset``, fewer where the last record ends."""
        end = min(offset + size, self.size)
        number = max(bisect_right(self._starts, offset) - 1, 0)
        parts: list[bytes] = []
        while offset < end:
            start = self._starts[number]
            behind = start + self._sizes[number]
            if offset < start:
                parts.append(bytes(min(start, end) - offset))
                offset = min(start, end)
            elif offset < behind:
                wanted = min(behind, end) - offset
                data = self._source.read(wanted, self._at[number] + offset - start)
                parts.append(data)
                offset += wanted
                if len(data) != wanted:  # the file became shorter
                    break
            else:
                number += 1
        return b"".join(parts)

    def data(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the range whole: what was never written is little."""
        yield start, end


def _records(source: Source, where: str) -> tuple[_Records, bool]:
    """Return all records that are there, the last perhaps in part, and whether the end is marked."""
    found = _Records(array("Q"), array("Q"), array("Q"))
    at = _FIRST
    while len(data := source.read(_RECORD.size, at)) == _RECORD.size:
        start, size = _RECORD.unpack(data)
        if start == _END:
            return found, True
        if not (0 <= start < _LIMIT and 0 < size < _LIMIT):
            raise TargetError(f"the record at {at:#x} is malformed", where=where, hint="it is damaged: copy it again")
        at += _RECORD.size
        present = min(size, source.size - at)
        if present > 0:
            found.starts.append(start)
            found.sizes.append(present)
            found.at.append(at)
        if len(found.starts) > _MOST_RECORDS:
            hint = "rearrange it with `makedumpfile -R`"
            raise TargetError(f"it has more than {_MOST_RECORDS} records", where=where, hint=hint)
        at += size
    return found, False


def _in_order(records: _Records) -> _Records:
    """Return ascending pieces that do not overlap: where records do, the last one counts."""
    starts, sizes, places = records
    pieces = _Records(array("Q"), array("Q"), array("Q"))
    order = sorted(range(len(starts)), key=starts.__getitem__)
    covering: list[int] = []  # a heap of records, negated: the last one first
    at = 0
    for number, following in zip_longest(order, order[1:]):
        at = max(at, starts[number])
        heapq.heappush(covering, -number)
        until = starts[following] if following is not None else 2 * _LIMIT
        while covering and at < until:
            last = -covering[0]
            end = min(starts[last] + sizes[last], until)
            if end <= at:
                heapq.heappop(covering)
                continue
            pieces.starts.append(at)
            pieces.sizes.append(end - at)
            pieces.at.append(places[last] + at - starts[last])
            at = end
    return pieces

"""The bytes of BTF: header, sections, and where each type starts, checked before anything is asked of it.

The format is described in ``Documentation/bpf/btf.rst`` and ``include/uapi/linux/btf.h`` of the kernel tree.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left
from enum import IntEnum
from typing import NamedTuple, Self

from yamori.errors import ProfileError

MAGIC = b"\x9f\xeb\x01\x00"
"""The first four bytes of a little-endian blob: magic 0xeb9f, version 1, flags 0. What a scan looks for."""

MAX_SIZE = 32 << 20
"""Largest blob that is read. A distribution's kernel has 4 to 8 MB."""

_MAX_TYPES = 0xFFFFF  # BTF_MAX_TYPE
_KINDS = 128  # a kind has 7 bits since Linux 7.1
_MIN_HEADER, _MAX_HEADER = 24, 256


class Kind(IntEnum):
    """``BTF_KIND_*``."""

    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


class Record(NamedTuple):
    """How a kind is laid out, in 32-bit words behind the three of ``struct btf_type``.

    Attributes:
        info: Words that follow once.
        element: Words that follow for each of ``vlen`` elements.
        names: Where in an element the name offset lies; ``None`` where there is none.
        types: Which words of the record, counted from its start, are type ids.
        element_type: Where in an element a type id lies; ``None`` where there is none.
    """

    info: int = 0
    element: int = 0
    names: int | None = None
    types: tuple[int, ...] = ()
    element_type: int | None = None


_RECORDS: dict[int, Record] = {
    Kind.INT: Record(info=1),
    Kind.ARRAY: Record(info=3, types=(3, 4)),
    Kind.STRUCT: Record(element=3, names=0, element_type=1),
    Kind.UNION: Record(element=3, names=0, element_type=1),
    Kind.ENUM: Record(element=2, names=0),
    Kind.FWD: Record(),
    Kind.FUNC_PROTO: Record(element=2, names=0, types=(2,), element_type=1),
    Kind.VAR: Record(info=1, types=(2,)),
    Kind.DATASEC: Record(element=3, element_type=0),
    Kind.FLOAT: Record(),
    Kind.DECL_TAG: Record(info=1, types=(2,)),
    Kind.ENUM64: Record(element=3, names=0),
    Kind.PTR: Record(types=(2,)),
    Kind.TYPEDEF: Record(types=(2,)),
    Kind.VOLATILE: Record(types=(2,)),
    Kind.CONST: Record(types=(2,)),
    Kind.RESTRICT: Record(types=(2,)),
    Kind.FUNC: Record(types=(2,)),
    Kind.TYPE_TAG: Record(types=(2,)),
}


class Sections(NamedTuple):
    """Where the parts of a blob lie, in bytes from its start: ``(start, length)`` each."""

    types: tuple[int, int]
    strings: tuple[int, int]
    layout: tuple[int, int]

    @property
    def end(self) -> int:
        """Bytes from the start of the blob to behind its last section."""
        return max(start + length for start, length in self)


def read_sections(header: bytes) -> Sections:
    """Check a header (``struct btf_header``, all of its ``hdr_len`` bytes) and return where the sections lie.

    Linux 7.1 added ``layout_off`` and ``layout_len``. What is behind the fields that we know must be zero, as the
    kernel demands of user space.

    Raises:
        ProfileError: A field is unknown, or a section is empty, too large, not aligned, or not where it belongs.
    """
    known = header[:32].ljust(32, b"\0")
    *fields, layout_off, layout_len = struct.unpack_from("<6I", known, 8)
    sections = Sections(
        *((len(header) + off, length) for off, length in (fields[0:2], fields[2:4], (layout_off, layout_len)))
    )
    if any(header[32:]):
        raise ProfileError("the BTF header has fields that are not known")
    if sections.end > MAX_SIZE or layout_len > 4 * _KINDS:
        raise ProfileError("the BTF sections are too large")
    if not sections.types[1] or (sections.types[0] | sections.types[1] | sections.layout[0] | sections.layout[1]) % 4:
        raise ProfileError("a BTF section is empty or not aligned")
    end = len(header)
    for start, length in sorted(section for section in sections if section[1]):
        if not end <= start < end + 4:  # contiguous, up to the alignment of the next section
            raise ProfileError("the BTF sections overlap or have gaps")
        end = start + length
    return sections


def header_length(start: bytes) -> int:
    """Check the first eight bytes of a blob and return ``hdr_len``.

    Raises:
        ProfileError: They are not those of BTF.
    """
    length: int = struct.unpack_from("<I", start, 4)[0] if len(start) >= 8 and start.startswith(MAGIC) else 0
    if not _MIN_HEADER <= length <= _MAX_HEADER or length % 4:
        raise ProfileError("not a BTF header")
    return length


def read_table(blob: bytes) -> Table:
    """Parse a whole blob; what follows the last section is ignored.

    Raises:
        ProfileError: The blob is not BTF, is malformed, is split BTF (which leans on another blob), or has kinds of
            types whose layout is not known.
    """
    length = header_length(blob)
    sections = read_sections(blob[:length])
    if sections.end > len(blob):
        raise ProfileError("the BTF is cut short")
    types, strings, layout = (blob[start : start + size] for start, size in sections)
    if not strings or strings[0] or strings[-1]:
        raise ProfileError("the BTF string section is not enclosed in NUL")
    return Table(_words(types), strings, _layout(layout))


def _words(data: bytes) -> array[int]:
    words = array("I")
    words.frombytes(data)
    if sys.byteorder != "little":
        words.byteswap()
    return words


def _layout(section: bytes) -> dict[int, Record]:
    """Return the records of all kinds: those we know, and those that the blob's layout section describes.

    The section holds a ``struct btf_layout {u8 info_sz; u8 elem_sz; u16 flags;}`` for each kind (Linux 7.1).
    """
    records = dict(_RECORDS)
    for kind, (info, element, flags) in enumerate(struct.iter_unpack("<BBH", section)):
        known = records.setdefault(kind, Record(info // 4, element // 4))
        if kind and (flags or info % 4 or element % 4 or (known.info, known.element) != (info // 4, element // 4)):
            raise ProfileError(f"the BTF lays out kind {kind} in a way that is not known")
    records.pop(0, None)  # BTF_KIND_UNKN is no type
    return records


class Table:
    """The types of one blob: where each record starts, with every name and type id checked to be in bounds.

    Attributes:
        words: The type section.
        strings: The string section.
        starts: Word at which type ``id`` starts, at ``id - 1``.
        of_kind: The same, sorted out by kind.
    """

    def __init__(self, words: array[int], strings: bytes, records: dict[int, Record]) -> None:
        self.words = words
        self.strings = strings
        self.starts = array("I")
        self.of_kind = {kind: array("I") for kind in records}
        self._index(records)
        self._check(records)

    @classmethod
    def restored(cls, blob: bytes, starts: bytes, of_kind: dict[int, bytes]) -> Self:
        """Return the table of a blob that was parsed before, with what was found then.

        Raises:
            ValueError: These do not fit each other.
            ProfileError: The blob is not what it was.
        """
        types, strings, layout = (
            blob[start : start + size] for start, size in read_sections(blob[: header_length(blob)])
        )
        table = cls.__new__(cls)
        table.words, table.strings, table.starts = _words(types), strings, array("I", starts)
        table.of_kind = {kind: array("I", of_kind.get(kind, b"")) for kind in _layout(layout)}
        if sum(map(len, table.of_kind.values())) != len(table.starts) or max(table.starts) + 3 > len(table.words):
            raise ValueError
        return table

    def id_of(self, at: int) -> int:
        """Return the id of the type whose record starts at a word."""
        return bisect_left(self.starts, at) + 1

    def _index(self, records: dict[int, Record]) -> None:
        words = self.words
        beyond = len(words) + 1  # a kind without a layout ends the walk, and not at the end of the section
        fixed = [3 + records[kind].info if kind in records else beyond for kind in range(_KINDS)]
        each = [records[kind].element if kind in records else 0 for kind in range(_KINDS)]
        note = [self.of_kind[kind].append if kind in records else _ignore for kind in range(_KINDS)]
        append = self.starts.append
        at, last = 0, len(words) - 3
        while at <= last:
            info = words[at + 1]  # kind_flag, 7 bits of kind, 24 of vlen; before f7a6b9eaff3e fewer, with zeros between
            kind = info >> 24 & 0x7F
            append(at)
            note[kind](at)
            at += fixed[kind] + (info & 0xFFFFFF) * each[kind]
        if at != len(words) or len(self.starts) > _MAX_TYPES:
            raise ProfileError("the BTF types do not fill their section")

    def _check(self, records: dict[int, Record]) -> None:
        words = self.words
        ids, names = array("I", [0]), array("I", map(words.__getitem__, self.starts))
        for kind, record in records.items():
            starts = self.of_kind[kind]
            for word in record.types:
                ids.extend(array("I", map(words[word:].__getitem__, starts)))
            if record.names is not None:
                self._gather(names, starts, record, record.names)
            if record.element_type is not None:
                self._gather(ids, starts, record, record.element_type)
        if max(ids) > len(self.starts) or max(names) >= len(self.strings):
            raise ProfileError("the BTF refers to names or types outside itself: it is split, or malformed")

    def _gather(self, into: array[int], starts: array[int], record: Record, column: int) -> None:
        """Append one word of every element of every record: slices of arrays, because there are half a million."""
        words, extend, step = self.words, into.extend, record.element
        skip = 3 + record.info
        for at in starts:
            extend(words[at + skip + column : at + skip + (words[at + 1] & 0xFFFFFF) * step : step])


def _ignore(_at: int) -> None:
    """Stand for the list of a kind that is not known."""

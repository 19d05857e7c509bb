"""Writes BTF: layouts that come from elsewhere, in the form in which all others are read.

See ``Documentation/bpf/btf.rst`` and ``include/uapi/linux/btf.h`` of the kernel tree.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from yamori.kernel.btf_format import MAGIC, Kind, Table

_KIND_FLAG = 1 << 31
_MOST_BITS = 1 << 24  # where a member of a structure with bit-fields may lie
_SIGNED, _CHAR, _BOOL = 1, 2, 4  # BTF_INT_*


class Placed(NamedTuple):
    """A member of a structure.

    Attributes:
        name: Empty for an anonymous structure or union.
        type_id: Its type.
        bit: Where it lies, in bits.
        width: Bits of a bit-field, otherwise 0.
    """

    name: str
    type_id: int
    bit: int
    width: int = 0


class Writer:
    """Gathers types. Every method returns the id of a type; 0 is ``void``."""

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._strings = bytearray(1)
        self._known: dict[bytes, int] = {}
        self._names: dict[str, int] = {"": 0}

    def integer(self, name: str, size: int, *, signed: bool = False, char: bool = False, boolean: bool = False) -> int:
        """Add an integer of ``size`` bytes."""
        how = _SIGNED * signed | _CHAR * char | _BOOL * boolean
        return self._add(name, Kind.INT, size, struct.pack("<I", how << 24 | size * 8))

    def pointer(self, to: int) -> int:
        """Add a pointer."""
        return self._add("", Kind.PTR, to)

    def array(self, of: int, length: int) -> int:
        """Add an array."""
        return self._add("", Kind.ARRAY, 0, struct.pack("<3I", of, of, length))

    def forward(self, name: str, *, union: bool = False) -> int:
        """Add a structure of which only the name is known."""
        return self._add(name, Kind.FWD, 0, flag=union)

    def enumeration(self, name: str, size: int, values: Iterable[tuple[str, int]]) -> int:
        """Add an enumeration of 32-bit values, or of 64-bit ones where its size is 8."""
        pairs = list(values)
        signed = any(value < 0 for _, value in pairs)
        if size > 4:
            body = b"".join(
                struct.pack("<3I", self._name(text), value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF)
                for text, value in pairs
            )
            return self._add(name, Kind.ENUM64, size, body, len(pairs), flag=signed)
        body = b"".join(struct.pack("<2I", self._name(text), value & 0xFFFFFFFF) for text, value in pairs)
        return self._add(name, Kind.ENUM, size, body, len(pairs), flag=signed)

    def reserve(self) -> int:
        """Return an id for a structure that is to be filled in later: structures point to each other."""
        self._records.append(b"")
        return len(self._records)

    def compound(self, at: int, name: str, size: int, members: Iterable[Placed], *, union: bool = False) -> None:
        """Fill a reserved id with a structure or union. Members that BTF cannot hold are left out."""
        placed = [member for member in members if 0 <= member.bit < _MOST_BITS and 0 <= member.width < 256]
        flag = any(member.width for member in placed)
        body = b"".join(
            struct.pack("<3I", self._name(member.name), member.type_id, member.width << 24 | member.bit)
            for member in placed
        )
        self._records[at - 1] = self._record(
            name, Kind.UNION if union else Kind.STRUCT, size, body, len(placed), flag=flag
        )

    def blob(self) -> bytes:
        """Return all of it."""
        return packed(b"".join(self._records), bytes(self._strings))

    def _add(self, name: str, kind: Kind, value: int, body: bytes = b"", count: int = 0, *, flag: bool = False) -> int:
        record = self._record(name, kind, value, body, count, flag=flag)
        if record not in self._known:
            self._records.append(record)
            self._known[record] = len(self._records)
        return self._known[record]

    def _record(self, name: str, kind: Kind, value: int, body: bytes, count: int, *, flag: bool) -> bytes:
        return struct.pack("<3I", self._name(name), _KIND_FLAG * flag | kind << 24 | count, value) + body

    def _name(self, name: str) -> int:
        if name not in self._names:
            self._names[name] = len(self._strings)
            self._strings += name.encode(errors="replace").replace(b"\0", b"?") + b"\0"
        return self._names[name]


def packed(types: bytes, strings: bytes) -> bytes:
    """Return a blob of BTF with its header (``struct btf_header``)."""
    return MAGIC + struct.pack("<5I", 24, 0, len(types), len(types), len(strings)) + types + strings


def blob_of(table: Table) -> bytes:
    """Return a parsed blob as bytes again."""
    return packed(struct.pack(f"<{len(table.words)}I", *table.words), table.strings)

"""The records of one blob of BTF, as layouts and the graph of types both go through them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from yamori.kernel.btf_format import Kind, Table
from yamori.kernel.types import Member, Provenance

_Answer = TypeVar("_Answer", int | None, Member | None)

_MAX_CHAIN = 32  # typedefs of const of ..., arrays of arrays
_MAX_UNIT = 8  # bytes of the largest integer that a bit-field is read from

TRANSPARENT = frozenset((Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG))
COMPOUND = frozenset((Kind.STRUCT, Kind.UNION))
_SIZED = frozenset((Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.FLOAT, Kind.ENUM64))


class Records:
    """A blob's records: each is known by the word of the type section at which it starts.

    Args:
        table: The parsed blob.
        word_size: Bytes of a pointer; ``None`` to learn it from the blob.
        provenance: What answers are marked with.
    """

    def __init__(self, table: Table, word_size: int | None, provenance: Provenance) -> None:
        self.provenance: Provenance = provenance
        self._take(table)
        self.word_size = word_size or self._size_of_long()

    def _take(self, table: Table) -> None:
        self._table = table
        self._words = table.words
        self._signed_enums_marked = any(self._words[at + 1] >> 31 for at in table.of_kind[Kind.ENUM])

    def _matcher(self, name: str) -> Callable[[int], bool]:
        """Return a test of whether the name at an offset of the string section is ``name``."""
        wanted = name.encode(errors="surrogatepass") + b"\0"
        return partial(self._table.strings.startswith, wanted)

    def _named(self, name: str, *kinds: Kind) -> list[int]:
        is_it, words = self._matcher(name), self._words
        return [at for kind in kinds for at in self._table.of_kind[kind] if is_it(words[at])] if name else []

    def _kind(self, at: int) -> int:
        return self._words[at + 1] >> 24 & 0x7F

    def _elements(self, at: int, step: int) -> Iterator[tuple[int, ...]]:
        """Yield the elements of a record whose kind has nothing between header and elements."""
        end = at + 3 + (self._words[at + 1] & 0xFFFFFF) * step
        columns = (self._words[at + 3 + column : end : step] for column in range(step))
        return zip(*columns, strict=True)

    def _value(self, at: int, element: int) -> int:
        """Return the value of the enumerator that lies ``element`` words into the enumeration at ``at``.

        ``kind_flag`` marks signed values since Linux 6.0 (commit 6089fb325cf7). Before, values were signed and
        nothing was marked, so a blob in which no enumeration at all is marked comes from then.
        """
        marked = self._words[at + 1] >> 31
        bits, value = 32, self._words[at + element + 1]
        if self._kind(at) == Kind.ENUM64:
            bits, value = 64, value | self._words[at + element + 2] << 32
        signed = marked or (bits == 32 and not self._signed_enums_marked)
        return value - (value >> bits - 1 << bits) if signed else value

    def _resolve(self, type_id: int) -> int | None:
        """Return the record behind typedefs and qualifiers; ``None`` for ``void`` and for endless chains."""
        for _ in range(_MAX_CHAIN):
            if not type_id:
                return None
            at = self._table.starts[type_id - 1]
            if self._kind(at) not in TRANSPARENT:
                return at
            type_id = self._words[at + 2]
        return None

    def _strip_arrays(self, at: int | None) -> tuple[int | None, int]:
        """Return the record of an array's elements, through all dimensions, and how many elements there are."""
        count = 1
        for _ in range(_MAX_CHAIN):
            if at is None or self._kind(at) != Kind.ARRAY:
                return at, count
            count *= self._words[at + 5]
            at = self._resolve(self._words[at + 3])
        return None, 0

    def _size(self, at: int | None) -> int | None:
        element, count = self._strip_arrays(at)
        if element is None:
            return None
        kind = self._kind(element)
        size = self._words[element + 2] if kind in _SIZED else self.word_size if kind == Kind.PTR else None
        return None if size is None else size * count

    def _size_of_long(self) -> int | None:
        """Return ``sizeof(long)``: the size of a pointer in every kernel, and BTF itself has no size for pointers."""
        longs = self._named("long unsigned int", Kind.INT) or self._named("unsigned long", Kind.INT)
        size = agreed(self._size(at) for at in longs)
        return size if size in (4, 8) else None

    def _member(self, bit: int, width: int, at: int | None) -> Member | None:
        size = self._size(at)
        if at is None or size is None:
            return None
        kind, info = self._kind(at), self._words[at + 1]
        signed = kind in {Kind.ENUM, Kind.ENUM64} and bool(info >> 31)
        if kind == Kind.INT:
            encoding = self._words[at + 3]  # signed: bit 24, offset: 16-23, bits: 0-7
            signed = bool(encoding >> 24 & 1)
            bit += encoding >> 16 & 0xFF
            if not width and (bit % 8 or encoding & 0xFF != size * 8):
                width = encoding & 0xFF  # how bit-fields were told before kind_flag (Linux 5.0, commit 9d5f9f701b18)
        if width:
            return _bit_field(bit, width, size, signed=signed, provenance=self.provenance)
        if bit % 8:
            return None
        stride = 0
        if kind == Kind.ARRAY:
            stride = self._size(self._resolve(self._words[at + 3])) or 0
        return Member(bit // 8, size, signed=signed, stride=stride, provenance=self.provenance)


def _bit_field(bit: int, width: int, size: int, *, signed: bool, provenance: Provenance) -> Member | None:
    """Place a bit-field in the aligned unit of its type, or, packed across two, in the least bytes that hold it."""
    if not 0 < width <= size * 8:
        return None
    start = bit // (size * 8) * size
    if bit + width > (start + size) * 8:
        start = bit // 8
        size = next((unit for unit in (1, 2, 4, _MAX_UNIT) if bit % 8 + width <= unit * 8), 0)
    if not 0 < size <= _MAX_UNIT:
        return None
    return Member(start, size, signed=signed, shift=bit - start * 8, bits=width, provenance=provenance)


def agreed(answers: Iterable[_Answer]) -> _Answer | None:
    """Return the one answer that all give; ``None`` where there is none, or they differ."""
    distinct = set(answers)
    return distinct.pop() if len(distinct) == 1 else None

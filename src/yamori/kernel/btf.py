"""BTF, the type information that a kernel carries in its own memory: structure layouts, enumerators, per-CPU offsets.

A kernel with ``CONFIG_DEBUG_INFO_BTF`` holds one blob for ``vmlinux``, contiguous in physical memory. Blobs that are
*not* it are common: BTF of modules (split: its type ids and names go on from those of ``vmlinux``, so the bounds
refuse it), of BPF objects and of programs, and whatever an intruder plants. ``locate`` checks that a blob is sound;
whether it is the kernel's own is for the caller to judge, by ``size("task_struct")`` and by what else is known.

Names are compared where they lie, so that nothing grows with the length or number of names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple, TypeVar

from yamori.address import GPA
from yamori.errors import Fault, ProfileError
from yamori.kernel.btf_format import MAGIC, Kind, Table, header_length, read_sections, read_table
from yamori.kernel.types import Member, Provenance
from yamori.memory.physical import PhysicalMemory

__all__ = ["MAGIC", "BtfTypes", "locate", "parse"]

_Answer = TypeVar("_Answer", int | None, Member | None)

_MAX_CHAIN = 32  # typedefs of const of ..., arrays of arrays
_MAX_UNIT = 8  # bytes of the largest integer that a bit-field is read from

_TRANSPARENT = frozenset((Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG))
_SIZED = frozenset((Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.FLOAT, Kind.ENUM64))
_COMPOUND = frozenset((Kind.STRUCT, Kind.UNION))


def locate(memory: PhysicalMemory, gpa: GPA, word_size: int | None = None) -> BtfTypes | None:
    """Return the types of the blob at ``gpa``, or ``None`` where no sound, self-contained blob lies there.

    Args:
        memory: The guest's RAM.
        gpa: Where ``MAGIC`` was found.
        word_size: Bytes of a pointer, where it is known.
    """
    try:
        length = header_length(memory.read(gpa, 8))
        sections = read_sections(memory.read(gpa, length))
        return parse(memory.read(gpa, sections.end), word_size)
    except (Fault, ProfileError):
        return None


def parse(blob: bytes, word_size: int | None = None, provenance: Provenance = "btf") -> BtfTypes:
    """Parse a whole blob: from memory, a ``.BTF`` section, or a copy of ``/sys/kernel/btf/vmlinux``.

    Args:
        blob: The bytes; what follows the last section is ignored.
        word_size: Bytes of a pointer, where it is known; otherwise it is the size of ``unsigned long``, which is the
            same on every Linux architecture.
        provenance: What answers are marked with.

    Raises:
        ProfileError: The blob is not BTF, is malformed, is split BTF (which leans on another blob), or has kinds of
            types whose layout is not known.
    """
    return BtfTypes(read_table(blob), word_size, provenance)


class _Place(NamedTuple):
    """Where a member lies within its structure: in bits, with the width of a bit-field or 0."""

    bit: int
    width: int
    type_id: int


class BtfTypes:
    """The layouts that one blob of BTF gives. Implements ``yamori.kernel.types.Types``.

    Where a name has several definitions (a kernel may hold namesakes from different files) they are all asked, and
    what they do not agree on is not known. A path that leads through an array means the array's first element.

    Args:
        table: The parsed blob; ``parse`` and ``locate`` make it.
        word_size: Bytes of a pointer; ``None`` to learn it from the blob.
        provenance: What answers are marked with.
    """

    def __init__(self, table: Table, word_size: int | None = None, provenance: Provenance = "btf") -> None:
        self.provenance: Provenance = provenance
        self._table = table
        self._words = table.words
        self._members: dict[tuple[str, str], Member | None] = {}
        self._defined: dict[str, list[int]] = {}
        self._signed_enums_marked = any(self._words[at + 1] >> 31 for at in table.of_kind[Kind.ENUM])
        self.word_size = word_size or self._size_of_long()

    def __len__(self) -> int:
        """Return the number of types."""
        return len(self._table.starts)

    def member(self, struct: str, path: str) -> Member | None:
        """Return where ``path`` lies in a struct, union or typedef of one; ``None`` where the blob does not tell."""
        key = struct, path
        if key not in self._members:
            self._members[key] = _agreed(self._follow(at, path.split(".")) for at in self._definitions(struct))
        return self._members[key]

    def size(self, struct: str) -> int | None:
        """Return the size in bytes of a struct, union or typedef; ``None`` where the blob does not tell."""
        return _agreed(self._size(at) for at in self._definitions(struct))

    def enumerator(self, name: str) -> int | None:
        """Return the value of an enumerator, such as ``PIDTYPE_TGID``; ``None`` where there is none, or several."""
        is_it, words = self._matcher(name), self._words
        return _agreed(
            self._value(at, 3 + index * step)
            for kind, step in ((Kind.ENUM, 2), (Kind.ENUM64, 3))
            for at in self._table.of_kind[kind]
            for index, name_off in enumerate(words[at + 3 : at + 3 + (words[at + 1] & 0xFFFFFF) * step : step])
            if is_it(name_off)
        )

    def percpu_offset(self, name: str) -> int | None:
        """Return a static per-CPU variable's offset from ``__per_cpu_start``, from the DATASEC ``.data..percpu``."""
        is_it, starts = self._matcher(name), self._table.starts
        return _agreed(
            offset
            for at in self._named(".data..percpu", Kind.DATASEC)
            for type_id, offset, _size in self._elements(at, 3)
            if type_id and is_it(self._words[starts[type_id - 1]])
        )

    def has_function(self, name: str) -> bool:
        """Say whether the kernel was built with a function of that name."""
        return bool(self._named(name, Kind.FUNC))

    def _matcher(self, name: str) -> Callable[[int], bool]:
        """Return a test of whether the name at an offset of the string section is ``name``."""
        wanted = name.encode(errors="surrogatepass") + b"\0"
        return partial(self._table.strings.startswith, wanted)

    def _named(self, name: str, *kinds: Kind) -> list[int]:
        is_it, words = self._matcher(name), self._words
        return [at for kind in kinds for at in self._table.of_kind[kind] if is_it(words[at])] if name else []

    def _definitions(self, name: str) -> list[int]:
        """Return the records that ``struct NAME``, ``union NAME`` or a typedef ``NAME`` stands for."""
        if name not in self._defined:
            tagged = self._named(name, Kind.STRUCT, Kind.UNION)
            typedefs = [] if tagged else self._named(name, Kind.TYPEDEF)
            resolved = (self._resolve(self._words[at + 2]) for at in typedefs)
            self._defined[name] = tagged or [at for at in resolved if at is not None]
        return self._defined[name]

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
            if self._kind(at) not in _TRANSPARENT:
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
        size = _agreed(self._size(at) for at in longs)
        return size if size in (4, 8) else None

    def _find(self, compound: int, name: str) -> _Place | None:
        """Find a member by name, in anonymous structures and unions too. Each of them is visited once."""
        is_it = self._matcher(name)
        strings, seen, pending = self._table.strings, set[int](), [(compound, 0)]
        while pending:
            at, base = pending.pop()
            if at in seen or self._kind(at) not in _COMPOUND:
                continue
            seen.add(at)
            has_widths = self._words[at + 1] >> 31
            for name_off, type_id, offset in self._elements(at, 3):
                bit, width = (offset & 0xFFFFFF, offset >> 24) if has_widths else (offset, 0)
                if is_it(name_off):
                    return _Place(base + bit, width, type_id)
                if not strings[name_off] and (inner := self._resolve(type_id)) is not None:
                    pending.append((inner, base + bit))
        return None

    def _follow(self, at: int, path: list[str]) -> Member | None:
        base = 0
        for depth, name in enumerate(path, 1):
            place = self._find(at, name) if name else None
            if place is None:
                return None
            if depth == len(path):
                return self._member(base + place.bit, place.width, self._resolve(place.type_id))
            base += place.bit
            inner, _count = self._strip_arrays(self._resolve(place.type_id))
            if inner is None:
                return None
            at = inner
        return None

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


def _agreed(answers: Iterable[_Answer]) -> _Answer | None:
    """Return the one answer that all give; ``None`` where there is none, or they differ."""
    distinct = set(answers)
    return distinct.pop() if len(distinct) == 1 else None

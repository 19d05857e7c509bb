"""BTF, the type information that a kernel carries in its own memory: structure layouts, enumerators, per-CPU offsets.

A kernel with ``CONFIG_DEBUG_INFO_BTF`` holds one blob for ``vmlinux``, contiguous in physical memory. Blobs that are
*not* it are common: BTF of modules (split: its type ids and names go on from those of ``vmlinux``, so the bounds
refuse it), of BPF objects and of programs, and whatever an intruder plants. ``locate`` checks that a blob is sound;
whether it is the kernel's own is for the caller to judge, by ``size("task_struct")`` and by what else is known.

Names are compared where they lie, so that nothing grows with the length or number of names.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from yamori.address import GPA
from yamori.errors import Fault, ProfileError
from yamori.kernel.btf_format import MAGIC, Kind, Table, header_length, read_sections, read_table
from yamori.kernel.btf_graph import BtfGraph, More
from yamori.kernel.btf_records import COMPOUND, Records, agreed
from yamori.kernel.types import Member, Provenance
from yamori.memory.physical import PhysicalMemory

__all__ = ["MAGIC", "BtfTypes", "locate", "parse"]


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


class BtfTypes(Records):
    """The layouts that one blob of BTF gives. Implements ``yamori.kernel.types.Types``.

    Where a name has several definitions (a kernel may hold namesakes from different files) they are all asked, and
    what they do not agree on is not known. A path that leads through an array means the array's first element.

    Args:
        table: The parsed blob; ``parse`` and ``locate`` make it.
        word_size: Bytes of a pointer; ``None`` to learn it from the blob.
        provenance: What answers are marked with.

    Attributes:
        more: Where the graph takes its types from, other than this blob.
    """

    def __init__(self, table: Table, word_size: int | None = None, provenance: Provenance = "btf") -> None:
        super().__init__(table, word_size, provenance)
        self.more: More | None = None
        self._members: dict[tuple[str, str], Member | None] = {}
        self._defined: dict[str, list[int]] = {}

    @cached_property
    def graph(self) -> BtfGraph:
        """What the types are made of."""
        return BtfGraph(self.more.table if self.more else self._table, self.word_size, self.provenance, self.more)

    @property
    def table(self) -> Table:
        """The parsed blob."""
        return self._table

    def __len__(self) -> int:
        """Return the number of types."""
        return len(self._table.starts)

    def member(self, struct: str, path: str) -> Member | None:
        """Return where ``path`` lies in a struct, union or typedef of one; ``None`` where the blob does not tell."""
        key = struct, path
        if key not in self._members:
            self._members[key] = agreed(self._follow(at, path.split(".")) for at in self._definitions(struct))
        return self._members[key]

    def size(self, struct: str) -> int | None:
        """Return the size in bytes of a struct, union or typedef; ``None`` where the blob does not tell."""
        return agreed(self._size(at) for at in self._definitions(struct))

    def enumerator(self, name: str) -> int | None:
        """Return the value of an enumerator, such as ``PIDTYPE_TGID``; ``None`` where there is none, or several."""
        is_it, words = self._matcher(name), self._words
        return agreed(
            self._value(at, 3 + index * step)
            for kind, step in ((Kind.ENUM, 2), (Kind.ENUM64, 3))
            for at in self._table.of_kind[kind]
            for index, name_off in enumerate(words[at + 3 : at + 3 + (words[at + 1] & 0xFFFFFF) * step : step])
            if is_it(name_off)
        )

    def percpu_offset(self, name: str) -> int | None:
        """Return a static per-CPU variable's offset from ``__per_cpu_start``, from the DATASEC ``.data..percpu``."""
        is_it, starts = self._matcher(name), self._table.starts
        return agreed(
            offset
            for at in self._named(".data..percpu", Kind.DATASEC)
            for type_id, offset, _size in self._elements(at, 3)
            if type_id and is_it(self._words[starts[type_id - 1]])
        )

    def has_function(self, name: str) -> bool:
        """Say whether the kernel was built with a function of that name."""
        return bool(self._named(name, Kind.FUNC))

    def _definitions(self, name: str) -> list[int]:
        """Return the records that ``struct NAME``, ``union NAME`` or a typedef ``NAME`` stands for."""
        if name not in self._defined:
            tagged = self._named(name, Kind.STRUCT, Kind.UNION)
            typedefs = [] if tagged else self._named(name, Kind.TYPEDEF)
            resolved = (self._resolve(self._words[at + 2]) for at in typedefs)
            self._defined[name] = tagged or [at for at in resolved if at is not None]
        return self._defined[name]

    def _find(self, compound: int, name: str) -> _Place | None:
        """Find a member by name, in anonymous structures and unions too. Each of them is visited once."""
        is_it = self._matcher(name)
        strings, seen, pending = self._table.strings, set[int](), [(compound, 0)]
        while pending:
            at, base = pending.pop()
            if at in seen or self._kind(at) not in COMPOUND:
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

"""What the types of one blob of BTF are made of: members with their types, targets of pointers, names of values.

Nothing is done before somebody asks. The blob is the guest's own word: chains, nesting, numbers of members and lengths
of names are bounded here, and what is beyond the bounds is ``incomplete``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from yamori.kernel.btf_format import Kind, Table
from yamori.kernel.btf_records import COMPOUND, TRANSPARENT, Records
from yamori.kernel.types import MOST_MEMBERS, CKind, CType, Field, Member, Provenance


class More(Protocol):
    """Where further types are found one by one, such as a file of DWARF: they are added to the end of a table."""

    @property
    def table(self) -> Table:
        """What was found so far."""

    def find(self, name: str, *, variable: bool) -> bool:
        """Look for a type, or a global variable, by its bare name, and say whether the table now has it."""


MOST_NAME = 128
"""Bytes of a name; the kernel's own symbols have less than 512, its members less than 64."""

_VOID = CType("void", "void")
_DEEPEST = 6  # pointers to functions that take pointers to functions
_MOST_PARTS = 40  # of a type's name
_TAGS: dict[str, tuple[Kind, ...]] = {
    "struct": (Kind.STRUCT,),
    "union": (Kind.UNION,),
    "enum": (Kind.ENUM, Kind.ENUM64),
}
_ANY = (Kind.STRUCT, Kind.UNION, Kind.TYPEDEF, Kind.INT, Kind.ENUM, Kind.ENUM64, Kind.FLOAT)
_VARIABLES = (Kind.VAR, Kind.FUNC)
_WORDS: dict[int, str] = {Kind.STRUCT: "struct", Kind.UNION: "union", Kind.ENUM: "enum", Kind.ENUM64: "enum"}
_QUALIFIERS: dict[int | None, str] = {Kind.CONST: "const", Kind.VOLATILE: "volatile"}
_INTEGERS = {
    "long": "long int",
    "short": "short int",
    "unsigned": "unsigned int",
    "unsigned long": "long unsigned int",
    "unsigned long int": "long unsigned int",
    "unsigned short": "short unsigned int",
    "long long": "long long int",
    "unsigned long long": "long long unsigned int",
    "bool": "_Bool",
}
"""How compilers call what people write otherwise."""


class _Place(NamedTuple):
    """Where a member lies: in bits, with the width of a bit-field or 0."""

    bit: int
    width: int
    type_id: int


class BtfGraph(Records):
    """Implements ``yamori.kernel.types.TypeGraph``.

    Of several definitions of a name the first is taken; members lead to the very ones that they have.

    Args:
        table: The parsed blob.
        word_size: Bytes of a pointer; ``None`` to learn it from the blob.
        provenance: What answers are marked with.
        more: Where to look for names that the blob does not define.
    """

    def __init__(self, table: Table, word_size: int | None, provenance: Provenance, more: More | None = None) -> None:
        super().__init__(table, word_size, provenance)
        self._more = more
        self._places: dict[int, dict[str, _Place]] = {}
        self._values: dict[int, dict[int, str]] = {}
        self._found: dict[tuple[str, bool], int | None] = {}
        self._types: dict[int, CType] = {}
        self._percpu: set[str] | None = None

    # --- names

    def find(self, name: str) -> CType | None:
        """Return a type as C writes it; ``None`` where there is none."""
        base = name.rstrip("* \t")
        stars = name.count("*", len(base))
        words = " ".join(base.split())
        type_id = 0 if words == "void" else self._look_up(_INTEGERS.get(words, words))
        if type_id is None and words == "bool":
            type_id = self._look_up("bool")
        if type_id is None or stars > _DEEPEST:
            return None
        return self._pointer(type_id, stars) if stars else self._type(type_id)

    def structures(self) -> Iterator[CType]:
        """Yield every structure and union that has a name, the first of each name."""
        seen = set()
        for at in (*self._table.of_kind[Kind.STRUCT], *self._table.of_kind[Kind.UNION]):
            kind = self._type(self._table.id_of(at))
            if kind.tag and kind.tag not in seen:
                seen.add(kind.tag)
                yield kind

    def variable(self, name: str) -> CType | None:
        """Return the type of a global variable or function; ``None`` where that is not known."""
        type_id = self._look_up(name, variable=True)
        return None if type_id is None else self._type(self._words[self._table.starts[type_id - 1] + 2])

    def is_percpu(self, name: str) -> bool:
        """Say whether a variable is in the section ``.data..percpu``."""
        if self._percpu is None:
            ids = (
                type_id
                for at in self._named(".data..percpu", Kind.DATASEC)
                for type_id, _offset, _size in self._elements(at, 3)
                if type_id
            )
            self._percpu = {self._text(self._words[self._table.starts[type_id - 1]]) for type_id in ids}
        return name in self._percpu

    def _look_up(self, name: str, *, variable: bool = False) -> int | None:
        """Return the id of what has a name; that of a type may begin with ``struct``, ``union`` or ``enum``."""
        key = name, variable
        if key not in self._found:
            tag, _, rest = name.partition(" ")
            bare, kinds = (rest, _TAGS[tag]) if tag in _TAGS else (name, _VARIABLES if variable else _ANY)
            found = self._first(bare, kinds)
            if found is None and self._more and self._more.find(bare, variable=variable):
                self._take(self._more.table)
                found = self._first(bare, kinds)
            self._found[key] = found
        return self._found[key]

    def _first(self, name: str, kinds: tuple[Kind, ...]) -> int | None:
        at = next(iter(self._named(name, *kinds)), None)
        return None if at is None else self._table.id_of(at)

    def _text(self, name_off: int) -> str:
        """Return a name, or nothing where it is longer than any, or none of C."""
        strings = self._table.strings
        end = strings.find(b"\0", name_off, name_off + MOST_NAME)
        text = strings[name_off:end].decode(errors="replace") if end > name_off else ""
        return text if text.isprintable() else ""

    # --- types

    def target(self, kind: CType) -> CType:
        """Return what a pointer points to, or what an array's elements are."""
        if kind.stars > 1:
            return self._pointer(kind.id, kind.stars - 1)
        if kind.stars:
            return self._type(kind.id)
        at = self._resolve(kind.id)
        if at is None or self._kind(at) not in {Kind.PTR, Kind.ARRAY}:
            return _VOID
        return self._type(self._words[at + (2 if self._kind(at) == Kind.PTR else 3)])

    def _pointer(self, type_id: int, stars: int) -> CType:
        name = f"{self._spelled(type_id)} {'*' * stars}"
        return CType("pointer", name, self.word_size or 0, id=type_id, stars=stars)

    def _type(self, type_id: int) -> CType:
        if not type_id:
            return _VOID
        if type_id not in self._types:
            self._types[type_id] = self._described(type_id)
        return self._types[type_id]

    def _described(self, type_id: int) -> CType:
        name, at = self._spelled(type_id), self._resolve(type_id)
        if at is None:
            return CType("incomplete", name, id=type_id)
        if self._kind(at) == Kind.FWD:
            union = self._words[at + 1] >> 31
            full = self._look_up(f"{'union' if union else 'struct'} {self._text(self._words[at])}")
            return self._type(full)._replace(name=name) if full else CType("incomplete", name, id=type_id)
        kind = self._c_kind(at, type_id)
        size = (self.word_size if kind == "pointer" else self._size(at)) or 0
        return CType(kind, name, size, self._is_signed(at), self._count(at), self._tag(at, type_id), type_id)

    def _c_kind(self, at: int, type_id: int) -> CKind:
        """Return what a record is; ``char`` only where it is called so, for ``u8`` is a number."""
        plain: dict[int, CKind] = {
            Kind.PTR: "pointer",
            Kind.ARRAY: "array",
            Kind.STRUCT: "struct",
            Kind.UNION: "union",
            Kind.ENUM: "enum",
            Kind.ENUM64: "enum",
            Kind.FLOAT: "float",
            Kind.FUNC_PROTO: "function",
        }
        if self._kind(at) != Kind.INT:
            return plain.get(self._kind(at), "incomplete")
        if self._words[at + 3] >> 24 & 4 or self._text(self._words[at]) == "_Bool":
            return "bool"
        is_char = self._words[at + 2] == 1 and self._spelled(type_id).endswith("char")
        return "char" if is_char else "integer"

    def _is_signed(self, at: int) -> bool:
        if self._kind(at) == Kind.INT:
            return bool(self._words[at + 3] >> 24 & 1)
        return self._kind(at) in {Kind.ENUM, Kind.ENUM64} and bool(self._words[at + 1] >> 31)

    def _count(self, at: int) -> int:
        return self._words[at + 5] if self._kind(at) == Kind.ARRAY else 0

    def _tag(self, at: int, type_id: int) -> str:
        """Return a structure's own name, or that of the typedef that leads to it."""
        if self._kind(at) not in COMPOUND:
            return ""
        return self._text(self._words[at]) or ("" if self._starts(type_id) == at else self._typedef(type_id))

    def _typedef(self, type_id: int) -> str:
        at = self._starts(type_id)
        while self._kind(at) in TRANSPARENT and self._kind(at) != Kind.TYPEDEF and self._words[at + 2]:
            at = self._starts(self._words[at + 2])
        return self._text(self._words[at]) if self._kind(at) == Kind.TYPEDEF else ""

    def _starts(self, type_id: int) -> int:
        return self._table.starts[type_id - 1]

    # --- how C writes them

    def _spelled(self, type_id: int) -> str:
        return self._spell(type_id, "", _DEEPEST, iter(range(_MOST_PARTS)))

    def _spell(self, type_id: int, inner: str, depth: int, parts: Iterator[int]) -> str:
        """Write a type around what its declarator has so far, which C writes inside out."""
        if depth < 0 or next(parts, None) is None:
            return "..."
        at = self._starts(type_id) if type_id else 0
        kind = self._kind(at) if type_id else None
        then = self._words[at + (3 if kind == Kind.ARRAY else 2)]
        if kind == Kind.PTR:
            return self._spell(then, f"*{inner}", depth - 1, parts)
        if kind == Kind.ARRAY:
            return self._spell(then, f"{_grouped(inner)}[{self._words[at + 5] or ''}]", depth - 1, parts)
        if kind == Kind.FUNC_PROTO:
            given = self._elements(at, 2)
            words = [
                self._spell(kind_id, "", depth - 1, parts) for _, (_name, kind_id) in zip(range(8), given, strict=False)
            ]
            return self._spell(then, f"{_grouped(inner)}({', '.join(words) or 'void'})", depth - 1, parts)
        if kind in _QUALIFIERS:
            return self._qualified(_QUALIFIERS[kind], then, inner, depth, parts)
        if kind in {Kind.RESTRICT, Kind.TYPE_TAG}:
            return self._spell(then, inner, depth - 1, parts)
        name = "void" if kind is None else self._base(at)
        return f"{name} {inner}" if inner else name

    def _qualified(self, word: str, then: int, inner: str, depth: int, parts: Iterator[int]) -> str:
        if then and self._kind(self._starts(then)) == Kind.PTR:
            return self._spell(then, f" {word}{inner and ' '}{inner}", depth - 1, parts)
        return f"{word} {self._spell(then, inner, depth - 1, parts)}"

    def _base(self, at: int) -> str:
        name, kind = self._text(self._words[at]), self._kind(at)
        if kind == Kind.FWD:
            kind = Kind.UNION if self._words[at + 1] >> 31 else Kind.STRUCT
        return f"{_WORDS.get(kind, '')} {name}".strip() or "..."

    # --- members and values

    def members(self, kind: CType) -> list[str]:
        """Return the names of a structure's or union's members, in the order of C."""
        return list(self._placed(kind))

    def field(self, kind: CType, name: str) -> Field | None:
        """Return a member of a structure or union; ``None`` where it has none of that name."""
        place = self._placed(kind).get(name)
        if place is None:
            return None
        at = self._resolve(place.type_id)
        member = self._member(place.bit, place.width, at)
        if member is None and not place.bit % 8 and not place.width:  # of a type whose size is not known
            member = Member(place.bit // 8, 0, provenance=self.provenance)
        return None if member is None else Field(self._type(place.type_id), member)

    def _placed(self, kind: CType) -> dict[str, _Place]:
        at = None if kind.stars or not kind.id else self._resolve(kind.id)
        if at is None or self._kind(at) not in COMPOUND:
            return {}
        if at not in self._places:
            self._places[at] = self._gathered(at)
        return self._places[at]

    def _gathered(self, compound: int) -> dict[str, _Place]:
        """Return the members, those of anonymous structures and unions in their place. Each is visited once."""
        places: dict[str, _Place] = {}
        pending, seen = [self._inside(compound, 0)], {compound}
        for _ in range(4 * MOST_MEMBERS):
            entry = next(pending[-1], None)
            if entry is None:
                pending.pop()
                if not pending:
                    break
                continue
            name_off, place = entry
            name = self._text(name_off)
            inner = None if self._table.strings[name_off] else self._resolve(place.type_id)
            if name.isascii() and name.isidentifier() and len(places) < MOST_MEMBERS:
                places.setdefault(name, place)
            elif inner is not None and inner not in seen and self._kind(inner) in COMPOUND:
                seen.add(inner)
                pending.append(self._inside(inner, place.bit))
        return places

    def _inside(self, compound: int, base: int) -> Iterator[tuple[int, _Place]]:
        has_widths = self._words[compound + 1] >> 31
        for name_off, type_id, offset in self._elements(compound, 3):
            bit, width = (offset & 0xFFFFFF, offset >> 24) if has_widths else (offset, 0)
            yield name_off, _Place(base + bit, width, type_id)

    def enumerator_name(self, kind: CType, value: int) -> str | None:
        """Return the name of an enumeration's value; ``None`` where it has none."""
        at = None if kind.stars or not kind.id else self._resolve(kind.id)
        if at is None or self._kind(at) not in {Kind.ENUM, Kind.ENUM64}:
            return None
        if at not in self._values:
            step = 2 if self._kind(at) == Kind.ENUM else 3
            count = min(self._words[at + 1] & 0xFFFFFF, MOST_MEMBERS)
            elements = range(3, 3 + count * step, step)
            named = [(self._value(at, element), self._text(self._words[at + element])) for element in elements]
            self._values[at] = {number: name for number, name in reversed(named) if name}
        bits = self._words[at + 2] * 8 % 128
        return self._values[at].get(value) or self._values[at].get(value - (1 << bits))  # marked since Linux 6.0 only


def _grouped(inner: str) -> str:
    """Put a pointer to an array or a function into parentheses."""
    return f"({inner.strip()})" if inner.lstrip().startswith("*") else inner

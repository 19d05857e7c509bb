"""Live objects by the kernel's own types, where BTF or DWARF has them."""

from __future__ import annotations

import difflib
import keyword
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from yamori.errors import Fault, ProfileError, YamoriError
from yamori.kernel.types import CType, Field, TypeGraph
from yamori.llview.ir import IntType
from yamori.llview.types import PtrType, StructType, Type
from yamori.probes.live_looks import Looks, UnknownError
from yamori.probes.live_objects import ADVICE, LiveArray, LiveNumber, LiveStruct, structure

MOST_ELEMENTS = 1 << 16
"""Elements of the longest array that is gone through."""

_SHOWN = 8  # members or elements in a brief view
_SHOWN_TEXT = 64
_COMPOUND = frozenset(("struct", "union"))


class RangeError(ProfileError, IndexError):
    """An element that an array does not have."""


class Typed(NamedTuple):
    """A type and where it comes from.

    Attributes:
        session: The guest.
        graph: Knows the type's parts.
        kind: The type.
        name: What has it, for messages.
    """

    session: Looks
    graph: TypeGraph
    kind: CType
    name: str

    def target(self) -> Typed:
        """Return the same of what a pointer or array has."""
        return self._replace(kind=self.graph.target(self.kind))

    def at(self, address: int) -> Any:
        """Return what lies at an address.

        Raises:
            Fault: The guest's memory does not give it.
        """
        kind = self.kind
        address = self.session.word.wrap(address)
        if kind.kind in _COMPOUND:
            return TypedStruct(self, address)
        if kind.kind == "array":
            if kind.length and self.graph.target(kind).kind == "char":
                return self.session.text(address, kind.length)
            return TypedArray(self, address)
        if kind.kind == "function":
            return Function(self, address)
        if kind.kind in {"void", "incomplete"}:
            return self.number(address, Opaque)
        if kind.size == 16:  # __int128
            low, high = (self.session.integer(address + at, 8) for at in (0, 8))
            return self.value(high << 64 | low)
        return self.value(self.session.integer(address, self._size(), signed=kind.signed))

    def _size(self) -> int:
        if self.kind.size not in {1, 2, 4, 8}:
            raise UnknownError(f"{self.name} is {self.kind.name} of {self.kind.size} bytes, which cannot be loaded")
        return self.kind.size

    def value(self, raw: int) -> Any:
        """Return what an integer stands for that was loaded from a variable of the type."""
        if self.kind.kind == "bool":
            return bool(raw)
        if self.kind.kind == "pointer":
            return self._pointer(self.session.word.wrap(raw))
        if self.kind.kind == "enum":
            return self.number(raw, Enumerator)
        return self.number(raw, TypedNumber)

    def _pointer(self, address: int) -> Any:
        target = self.target()
        if target.kind.kind in _COMPOUND:
            return TypedStruct(target, address, pointer=True)
        if target.kind.kind == "function":
            return Function(self, address)
        if target.kind.kind in {"void", "incomplete"}:
            return self.number(address, Opaque)
        return (TypedText if target.kind.kind == "char" else TypedPointer)(self, address)

    def number(self, raw: int, of: type[TypedNumber]) -> Any:
        """Return a number of the type."""
        number = of(raw)
        number.session_, number.name_, number.kind_ = self.session, self.name, f"of type {self.kind.name}"
        number.typed_ = self
        return number

    def language(self) -> Type:
        """Return the type as the probe language has it, for helpers that are called with the object."""
        kind = self.kind
        if kind.kind in _COMPOUND:
            return StructType(structure(kind.tag))
        if kind.kind == "pointer":
            target = self.target()
            return PtrType(target.language() if target.kind.kind in _COMPOUND else IntType(8))
        return IntType(kind.size * 8 if kind.size in {1, 2, 4, 8} else 8, kind.signed)


class TypedStruct(LiveStruct):
    """A structure or union, or a pointer to one; its members are loaded when they are asked for.

    ``p[i]`` of a pointer is the i-th of an array.
    """

    __slots__ = ("pointer_", "typed_")

    def __init__(self, typed: Typed, gva: int, *, pointer: bool = False) -> None:
        super().__init__(typed.session, structure(typed.kind.tag), gva)
        self.typed_ = typed
        self.pointer_ = pointer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        typed = self.typed_
        field = self._field(name)
        if field is not None:
            owner = typed.kind.tag or typed.name
            return _member(typed._replace(kind=field.type, name=f"{owner}.{name}"), field, self.gva_)
        try:
            return super().__getattr__(name)
        except UnknownError:
            near = difflib.get_close_matches(name, typed.graph.members(typed.kind), 3)
            hint = f"it has {', '.join(near)}" if near else ""
            raise UnknownError(f"{typed.kind.name} has no member {name!r} in this kernel", hint=hint) from None

    def _field(self, name: str) -> Field | None:
        typed = self.typed_
        found = typed.graph.field(typed.kind, name)
        if found is None and name.endswith("_") and keyword.iskeyword(name[:-1]):
            found = typed.graph.field(typed.kind, name[:-1])
        return found

    def __getitem__(self, index: int) -> Any:
        if not self.pointer_ or not self.typed_.kind.size:
            raise RangeError(f"{self.typed_.name} is {self.typed_.kind.name}, not an array")
        return TypedStruct(self.typed_, self.session_.word.wrap(self.gva_ + index * self.typed_.kind.size))

    def __dir__(self) -> list[str]:
        return sorted(f"{name}_" if keyword.iskeyword(name) else name for name in self._members())

    def _members(self) -> list[str]:
        return self.typed_.graph.members(self.typed_.kind)

    def __repr__(self) -> str:
        if self.pointer_:
            return f"({self.typed_.kind.name} *){self.gva_:#x}"
        names = self._members()
        parts = [f"{name} = {_brief(self, name)}" for name in names[:_SHOWN]]
        if len(names) > _SHOWN:
            parts.append(f"and {len(names) - _SHOWN} more")
        return f"({self.typed_.kind.name}){self.gva_:#x} {{{', '.join(parts)}}}"


class TypedArray(LiveArray):
    """An array whose elements are loaded when they are asked for."""

    __slots__ = ("typed_",)

    def __init__(self, typed: Typed, gva: int, *, pointer: bool = False) -> None:
        target = typed.target()
        super().__init__(typed.session, target.language(), gva, target.kind.size, pointer=pointer)
        self.typed_ = typed

    def __getitem__(self, index: int | slice) -> Any:
        count = self.typed_.kind.length
        if isinstance(index, slice):
            return [self[number] for number in islice(range(*index.indices(count or MOST_ELEMENTS)), MOST_ELEMENTS)]
        if count and not 0 <= index < count:
            raise RangeError(f"{self.typed_.name} has {count} elements, and none of number {index}")
        if not self.stride_:
            raise UnknownError(f"the size of {self.typed_.target().kind.name} is not known")
        return self.typed_.target().at(self.gva_ + index * self.stride_)

    def __len__(self) -> int:
        return self.typed_.kind.length

    def __iter__(self) -> Iterator[Any]:
        count = self.typed_.kind.length
        if not 0 < count <= MOST_ELEMENTS:
            what = f"it has {count} elements" if count else "how many elements it has is not known"
            raise RangeError(f"{self.typed_.name}: {what}; say which, as in [0] or [0:8]")
        return (self[index] for index in range(count))

    def __bool__(self) -> bool:
        return self.gva_ != 0

    def __repr__(self) -> str:
        count, name = self.typed_.kind.length, self.typed_.kind.name
        shown = [_shown(self, index) for index in range(min(count, _SHOWN))] if self.stride_ else []
        if count > _SHOWN:
            shown.append(f"and {count - _SHOWN} more")
        return f"({name}){self.gva_:#x} {{{', '.join(shown)}}}"


class TypedPointer(TypedArray):
    """A pointer to what is no structure: ``p[0]`` is what it points to."""

    __slots__ = ()

    def __init__(self, typed: Typed, gva: int) -> None:
        super().__init__(typed, gva, pointer=True)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        kind = self.typed_.kind.name
        raise UnknownError(
            f"{self.typed_.name} is {kind}: it has no member {name!r}", hint="say [0] for what it points to"
        )

    def __iter__(self) -> Iterator[Any]:
        raise RangeError(f"{self.typed_.name} is a pointer; say which element, as in [0] or [0:8]")

    def __repr__(self) -> str:
        return f"({self.typed_.kind.name}){self.gva_:#x}"


class TypedText(TypedPointer):
    """A pointer to a text: ``str(p)`` is all of it."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.session_.text(self.gva_, 1 << 16)

    def __repr__(self) -> str:
        try:
            return f"{super().__repr__()} {self.session_.text(self.gva_, _SHOWN_TEXT)!r}"
        except Fault:
            return super().__repr__()


class TypedNumber(LiveNumber):
    """A number of a type."""

    typed_: Typed


class Enumerator(TypedNumber):
    """A value of an enumeration."""

    def __repr__(self) -> str:
        name = self.typed_.graph.enumerator_name(self.typed_.kind, int(self))
        return f"{name} ({int(self)})" if name else f"{int(self)}"


class Opaque(TypedNumber):
    """An address without a type that leads on: ``void *``, or a pointer to what this kernel nowhere defines."""

    def __repr__(self) -> str:
        return f"({self.typed_.kind.name}){int(self):#x}"

    def _advice(self) -> str:
        return ADVICE


class Function(TypedPointer):
    """A pointer to a function."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"({self.typed_.kind.name}){self.gva_:#x}{symbol_of(self.session_, self.gva_)}"


class PerCpu:
    """A variable of which each CPU has its own copy: ``v[cpu]``.

    Args:
        typed: Its type.
        gva: Of its symbol.
    """

    def __init__(self, typed: Typed, gva: int) -> None:
        self.typed_ = typed
        self.gva_ = gva

    def __getitem__(self, cpu: int) -> Any:
        session = self.typed_.session
        table, size = session.profile.address("__per_cpu_offset"), session.machine.word_size
        offset = session.integer(table + cpu * size, size) if table is not None else 0  # a kernel for one CPU
        return self.typed_.at(self.gva_ + offset)

    def __iter__(self) -> Iterator[Any]:
        raise RangeError(f"{self.typed_.name} is a per-CPU variable; say of which CPU, as in [0]")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        what = f"{self.typed_.name} is a per-CPU variable: each CPU has its own {name!r}"
        raise UnknownError(what, hint=f"say of which CPU, as in {self.typed_.name}[0].{name}")

    def __int__(self) -> int:
        return self.gva_

    __index__ = __int__

    def __repr__(self) -> str:
        return f"<{self.typed_.name}: {self.typed_.kind.name} of each CPU; say {self.typed_.name}[0]>"


def symbol_of(session: Looks, address: int) -> str:
    """Return `` <name+0x8>`` for an address of the kernel's text; nothing for others."""
    thumb = session.profile.architecture == "arm"
    found = session.profile.symbol_at(address & ~1 if thumb else address)
    if found is None or session.profile.in_text(address) is False:
        return ""
    name, offset = found
    return f" <{name}+{offset:#x}>" if offset else f" <{name}>"


def _member(typed: Typed, field: Field, base: int) -> Any:
    """Return a member of a structure; a bit-field is cut out of its unit."""
    place = field.member
    address = typed.session.word.wrap(base + place.offset)
    if not place.bits:
        return typed.at(address)
    value = typed.session.integer(address, place.size) >> place.shift & (1 << place.bits) - 1
    if place.signed:
        value = IntType(place.bits, signed=True).wrap(value)
    return typed.value(value)


def _brief(owner: TypedStruct, name: str) -> str:
    """Return a member's value in a few words; what the guest's memory does not give is ``?``."""
    field = owner.typed_.graph.field(owner.typed_.kind, name)
    if field is not None and field.type.kind in _COMPOUND:
        return "{...}"
    try:
        value = getattr(owner, name)
    except YamoriError:
        return "?"
    return "{...}" if isinstance(value, TypedArray) and not value.pointer_ else repr(value)


def _shown(array: TypedArray, index: int) -> str:
    try:
        value = array[index]
    except YamoriError:
        return "?"
    inner = isinstance(value, TypedStruct) and not value.pointer_
    return "{...}" if inner or (isinstance(value, TypedArray) and not value.pointer_) else repr(value)

"""Live objects by what probes declare, and by what the profile knows of members: all that there is without BTF."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from yamori.errors import ProfileError
from yamori.kernel.binding import fixed
from yamori.kernel.inferred import InferredTypes
from yamori.kernel.types import Member
from yamori.llview import ir
from yamori.llview.frontend import Statements
from yamori.llview.ir import IntType
from yamori.llview.language import TEXT_BYTES, Named, Struct
from yamori.llview.types import StructType, Type, member_type, members
from yamori.llview.types import attribute as declared_value
from yamori.llview.values import (
    Reference,
    Value,
)
from yamori.probes.live_looks import Looks, UnknownError, attribute

ADVICE = 'if you know what it points to, say at("struct NAME", address)'
"""For who asks a bare address for a member."""

_T = TypeVar("_T")
_MADE: dict[str, type[Struct]] = {}  # kept, so that there is one of each


class LiveStruct:
    """A structure of the guest: its members are loaded when they are asked for.

    Members that a ``Struct`` class declares have that type. Any other that the profile knows is an integer, a text,
    or a structure inside of this one; what it points to, nobody has said: ``at(type, address)`` helps.

    Attributes, which end in ``_`` because no member of the kernel's does:
        session_: Whose it is.
        declaration_: The class that declares it.
        gva_: Its address, or where there is a ``path_``, that of the structure around it.
        path_: Of an undeclared structure inside of a declared one.
    """

    __slots__ = ("declaration_", "gva_", "path_", "session_")

    def __init__(self, session: Looks, declaration: type[Struct], gva: int, path: str = "") -> None:
        self.session_ = session
        self.declaration_ = declaration
        self.gva_ = gva
        self.path_ = path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        declared = None if self.path_ else declaring(self.declaration_, name, self.session_.machine.word_size)
        if declared is None:
            return _undeclared(self, name)
        if not self._is_known(declared, name):
            _required(self.session_, self.declaration_.c_name, name)
        kind = StructType(declared)

        def build(compiler: Statements, given: list[ir.Local], give: Callable[[Value], None]) -> None:
            compiler.frame.variables["it"] = Reference(kind, given[0])
            give(compiler.value(attribute(name)))

        value = self.session_.one((declared, name), build, self.gva_)
        return value if type(value) is not int else _loaded(value, self, name)

    def __dir__(self) -> list[str]:
        """Return the members that are declared, or inferred, and lie somewhere in this kernel."""
        prefix = f"{self.path_}." if self.path_ else ""
        struct, profile = self.declaration_.c_name, self.session_.profile
        inferred = [types.members for types in profile.types if isinstance(types, InferredTypes)]
        paths = {path for known in inferred for owner, path in known if owner == struct and path.startswith(prefix)}
        names = {path.removeprefix(prefix).partition(".")[0] for path in paths}
        if not self.path_:
            declared = (
                (other, name)
                for other in subclasses(Struct)
                if _names(other, self.declaration_)
                for name in members(other)
            )
            names |= {name for other, name in declared if self._is_known(other, name)}
        return sorted(names)

    def _is_known(self, declaration: type[Struct], name: str) -> bool:
        renamed = declared_value(declaration, name)
        spec = ir.SlotSpec("member", declaration.c_name, renamed.path if isinstance(renamed, Named) else name)
        return fixed(spec) or self.session_.profile.member(spec.owner, spec.path) is not None

    def __repr__(self) -> str:
        inner = f"->{self.path_}" if self.path_ else ""
        return f"(struct {self.declaration_.c_name} *){self.gva_:#x}{inner}"

    def __int__(self) -> int:
        if not self.path_:
            return self.gva_
        member = self.session_.profile.require(self.declaration_.c_name, self.path_)
        return self.session_.word.wrap(self.gva_ + member.offset)

    __index__ = __int__

    def __bool__(self) -> bool:
        return self.gva_ != 0

    def __eq__(self, other: object) -> bool:
        return int(self) == (int(other) if isinstance(other, LiveStruct | LiveArray | int) else None)

    def __hash__(self) -> int:
        return hash(int(self))


class LiveArray:
    """An array of the guest, or a pointer to something that is no structure: ``a[i]`` is loaded when it is asked for.

    Args:
        session: Whose it is.
        element: The type of its elements.
        gva: Its address.
        stride: Bytes from one element to the next.
        pointer: It is a pointer.
    """

    __slots__ = ("element_", "gva_", "pointer_", "session_", "stride_")

    def __init__(self, session: Looks, element: Type, gva: int, stride: int, *, pointer: bool = False) -> None:
        self.session_ = session
        self.element_ = element
        self.gva_ = gva
        self.stride_ = stride
        self.pointer_ = pointer

    def __getitem__(self, index: int) -> Any:
        element = self.element_

        def build(compiler: Statements, given: list[ir.Local], give: Callable[[Value], None]) -> None:
            give(compiler.thing(element, given[0]))

        return self.session_.one((element, "[]"), build, self.session_.word.wrap(self.gva_ + index * self.stride_))

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("how many elements it has is not known; say which one, as in a[0]")

    def __repr__(self) -> str:
        name = getattr(self.element_, "name", "...")
        return f"({name} *){self.gva_:#x}" if self.pointer_ else f"({name} []){self.gva_:#x}"

    def __int__(self) -> int:
        return self.gva_

    __index__ = __int__

    def __bool__(self) -> bool:
        return self.gva_ != 0


class LiveNumber(int):
    """An integer of the guest's; a kernel address is shown as such.

    Attributes:
        session_: Whose it is.
        name_: What it is the value of.
        kind_: Its type in words.
    """

    session_: Looks
    name_: str
    kind_: str

    def __repr__(self) -> str:
        first, last = self.session_.machine.kernel
        return f"{int(self):#x}" if first <= self <= last else f"{int(self)}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "session_" not in vars(self):
            raise AttributeError(name)
        raise UnknownError(f"{self.name_} is {self.kind_}: it has no member {name!r}", hint=self._advice())

    def __dir__(self) -> list[str]:
        return []

    def _advice(self) -> str:
        first, last = self.session_.machine.kernel
        return ADVICE if first <= self <= last else ""


class Loaded(LiveNumber):
    """A member of an integer's size; where it is a structure, such as ``atomic_t``, its members follow."""

    owner_: LiveStruct

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "owner_" not in vars(self):
            raise AttributeError(name)
        owner = self.owner_
        if owner.session_.profile.member(owner.declaration_.c_name, f"{owner.path_}.{name}") is None:
            return super().__getattr__(name)
        return getattr(owner, name)

    def __dir__(self) -> list[str]:
        return dir(self.owner_)


def _loaded(value: int, owner: LiveStruct, path: str) -> Loaded:
    loaded = Loaded(value)
    loaded.session_ = owner.session_
    loaded.owner_ = LiveStruct(owner.session_, owner.declaration_, owner.gva_, path)
    loaded.name_ = f"{owner.declaration_.c_name}.{path}"
    loaded.kind_ = "known by its place and size, not by what it is or points to"
    return loaded


def declaring(declaration: type[Struct], name: str, word_size: int) -> type[Struct] | None:
    """Return the class that declares a member: the given one, or another of the same structure; else ``None``."""
    for other in (declaration, *subclasses(Struct)):
        if _names(other, declaration) and member_type(other, name, word_size) is not None:
            return other
    return None


def structure(name: str) -> type[Struct]:
    """Return a class of a structure by its C name; one without members where none is declared."""
    for known in subclasses(Struct):
        if known.c_name == name:
            return known
    return _MADE.setdefault(name, type(name, (Struct,), {"__module__": __name__}, c_name=name))


def _names(one: type[Struct], other: type[Struct]) -> bool:
    return one.c_name == other.c_name


def subclasses(base: type[_T]) -> Iterator[type[_T]]:
    """Yield every class that is derived from one."""
    for direct in base.__subclasses__():
        yield direct
        yield from subclasses(direct)


def _required(session: Looks, struct: str, path: str) -> Member:
    """Return where a member lies.

    Raises:
        UnknownError: It is not known; the profile knows best what to say of it.
    """
    try:
        return session.profile.require(struct, path)
    except ProfileError as error:
        raise UnknownError(error.message, hint=error.hint) from None


def _undeclared(owner: LiveStruct, name: str) -> Any:
    """Return a member that no class declares, by what the profile knows of it."""
    session, struct = owner.session_, owner.declaration_.c_name
    path = f"{owner.path_}.{name}" if owner.path_ else name
    member = _required(session, struct, path)
    inner = LiveStruct(session, owner.declaration_, owner.gva_, path)
    array = member.stride > 1
    aligned = member.size in {1, 2, 4, 8} and int(inner) % member.size == 0  # a structure of two words may be neither
    if array or (member.stride == 0 and not aligned):
        return inner

    def build(compiler: Statements, given: list[ir.Local], give: Callable[[Value], None]) -> None:
        slot = compiler.slot(ir.SlotSpec("member", struct, path))
        address = compiler.offset(given[0], slot)
        if member.stride:
            give(compiler.copy(address, ir.SlotValue(slot, "size"), TEXT_BYTES))
        else:
            give(compiler.load(address, IntType(64, signed=member.signed), slot=slot))

    value = session.one((struct, path, "undeclared"), build, owner.gva_)
    return value if isinstance(value, str) else _loaded(value, owner, path)

"""Live objects of a guest's kernel, for the prompt.

By the kernel's own types where BTF or DWARF has them; otherwise by what probes declare and what the profile knows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from yamori.kernel.types import Described, TypeGraph
from yamori.llview import ir, language
from yamori.llview.frontend import Statements
from yamori.llview.language import Struct
from yamori.llview.types import StructType, Type, member_type, members
from yamori.llview.values import Number, Symbols, Value
from yamori.probes.live_looks import PROMPT, Look, Looks, UnknownError, attribute
from yamori.probes.live_objects import LiveArray, LiveNumber, LiveStruct, structure, subclasses
from yamori.probes.live_typed import PerCpu, Typed, TypedStruct

__all__ = [
    "PROMPT",
    "LiveArray",
    "LiveKernel",
    "LiveNumber",
    "LiveStruct",
    "Look",
    "Session",
    "UnknownError",
    "structure",
]


class Session(Looks):
    """The guest that live objects belong to."""

    @cached_property
    def graphs(self) -> list[TypeGraph]:
        """What the kernel's types are made of, the most trusted source first."""
        return [types.graph for types in self.profile.types if isinstance(types, Described)]

    def find(self, name: str) -> Typed | None:
        """Return a type as C writes it, such as ``struct mm_struct``; ``None`` where no source knows it."""
        for graph in self.graphs:
            if kind := graph.find(name):
                return Typed(self, graph, kind, name)
        return None

    def structure(self, declaration: type[Struct], gva: int, *, pointer: bool = True) -> LiveStruct:
        """Return the structure of a declared type at an address, with the members that this kernel has."""
        typed = self.find(declaration.c_name)
        if typed is not None and typed.kind.tag:
            return TypedStruct(typed, gva, pointer=pointer)
        return LiveStruct(self, declaration, gva)

    def array(self, element: Type, gva: int, stride: int, *, pointer: bool = False) -> LiveArray:
        """Return the array of a declared type at an address."""
        return LiveArray(self, element, gva, stride, pointer=pointer)

    def at(self, kind: type[Struct] | str, address: int) -> Any:
        """Return what lies at an address, by a class or by a type as C writes it.

        Raises:
            Fault: The guest's memory does not give it.
            UnknownError: There is no such type.
        """
        if not isinstance(kind, str):
            return self.structure(kind, int(address), pointer=False)
        if typed := self._known(kind):
            return typed.at(int(address))
        return LiveStruct(self, structure(_tag(kind)), int(address))

    def cast(self, kind: str, value: int) -> Any:
        """Return what a number stands for as a value of a type, such as ``struct mm_struct *``.

        Raises:
            UnknownError: There is no such type, or its values are no numbers.
        """
        typed = self._known(kind)
        if typed is None and kind.endswith("*"):
            return LiveStruct(self, structure(_tag(kind.rstrip("* "))), int(value))
        if typed is None or typed.kind.kind not in {"pointer", "integer", "char", "bool", "enum"}:
            raise UnknownError(f"a number cannot be cast to {kind}", hint=f'say cast("{kind} *", address)')
        bits = typed.kind.size * 8 or 1
        return typed.value(ir.IntType(bits, typed.kind.signed).wrap(int(value)))

    def sizeof(self, kind: type[Struct] | LiveStruct | LiveArray | LiveNumber | str) -> int:
        """Return the bytes of a type, or of what has one; of a pointer to a structure those of the structure.

        Raises:
            UnknownError: They are not known.
        """
        typed = self._known(kind) if isinstance(kind, str) else getattr(kind, "typed_", None)
        size = typed.kind.size if typed is not None else 0
        if size:
            return size
        declared = getattr(kind, "declaration_", None) or kind
        if isinstance(declared, str):
            declared = structure(_tag(declared))
        if isinstance(declared, type) and issubclass(declared, Struct):
            return self._declared_size(StructType(declared))
        raise UnknownError("the size of this is not known", hint='say a type, as in sizeof("task_struct")')

    def _declared_size(self, kind: StructType) -> int:
        def build(compiler: Statements, given: list[ir.Local], give: Callable[[Value], None]) -> None:
            del given
            give(Number(compiler.size(kind, compiler.frame.node)))

        try:
            return int(self.one(("sizeof", kind.name), build))
        except UnknownError as error:
            raise UnknownError(f"the size of {kind.name} is not known", hint=error.hint) from None

    def _known(self, name: str) -> Typed | None:
        """Return a type; ``None`` where the kernel's types are not known at all.

        Raises:
            UnknownError: They are, and this is none of them.
        """
        typed = self.find(name)
        if typed is None and self.graphs:
            raise UnknownError(
                f"this kernel has no type {name!r}", hint='say it as C does: "struct mm_struct", "pid_t"'
            )
        return typed


class LiveKernel:
    """The kernel's variables, with the types that debug information or a ``Kernel`` class gives them.

    Of any other symbol the address; ``kernel["name.0"]`` is for names that are none of Python's.

    Args:
        session: Whose they are.
    """

    __slots__ = ("known_", "session_")

    def __init__(self, session: Session) -> None:
        self.session_ = session
        self.known_: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Any:
        for declaration in subclasses(language.Kernel):
            if name in members(declaration):
                return self._declared(Symbols(declaration), name)
        address = self.session_.profile.address(name)
        if address is None:
            raise UnknownError(f"the kernel has no symbol {name!r}, or it is not known where it lies")
        for graph in self.session_.graphs:
            if kind := graph.variable(name):
                typed = Typed(self.session_, graph, kind, f"kernel.{name}")
                return PerCpu(typed, address) if graph.is_percpu(name) else typed.at(address)
        found = Address(address)
        found.session_, found.name_, found.kind_ = (
            self.session_,
            f"kernel.{name}",
            "the address of a symbol of no known type",
        )
        return found

    def _declared(self, symbols: Symbols, name: str) -> Any:
        def build(compiler: Statements, given: list[ir.Local], give: Callable[[Value], None]) -> None:
            del given
            compiler.frame.variables["it"] = symbols
            give(compiler.value(attribute(name)))

        found = self.session_.one((symbols, name), build, 0)
        kind = member_type(symbols.declaration, name, self.session_.machine.word_size)
        if isinstance(found, LiveStruct) and isinstance(kind, StructType):
            return self.session_.structure(kind.declaration, found.gva_, pointer=False)
        return found

    def __dir__(self) -> list[str]:
        """Return the variables that probes declare and this kernel has; ``names_`` gives all symbols."""
        declared = (name for declaration in subclasses(language.Kernel) for name in members(declaration))
        known = self.session_.profile.address
        return sorted({name for name in declared if name == "init_task" or known(name) is not None})

    def names_(self, start: str) -> list[str]:
        """Return the symbols that begin so and whose names are Python's, too."""
        if not self.known_:
            symbols = (symbol.name for table in self.session_.profile.symbols for symbol in table)
            self.known_ = sorted({*filter(str.isidentifier, symbols), *dir(self)})
        return [name for name in self.known_ if name.startswith(start)]

    def __repr__(self) -> str:
        return f"<kernel: {self.session_.profile.banner or 'Linux'}>"


class Address(LiveNumber):
    """The address of a symbol whose type nobody has declared."""

    def __repr__(self) -> str:
        return f"{int(self):#x}"


def _tag(name: str) -> str:
    """Return a structure's bare name.

    Raises:
        UnknownError: The name is no structure's.
    """
    tag = name.removeprefix("struct ").removeprefix("union ").strip()
    if not tag.isidentifier():
        raise UnknownError(f"{name!r} is not known: without BTF or debug information there are only structures")
    return tag

"""What an expression of the language stands for while it is compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from yamori.llview.ir import Expression, IntType
from yamori.llview.language import Kernel
from yamori.llview.types import StructType, Type


class Number(NamedTuple):
    """An integer that exists at run time."""

    expression: Expression

    @property
    def type(self) -> IntType:
        """Its C type."""
        return self.expression.type


class Reference(NamedTuple):
    """A structure in guest memory: its type and address."""

    struct: StructType
    address: Expression


class Pointer(NamedTuple):
    """A pointer to something that is no structure."""

    target: Type
    address: Expression


class GuestArray(NamedTuple):
    """An array in guest memory."""

    element: Type
    address: Expression
    stride: Expression


class Text(NamedTuple):
    """A text in a buffer of the program's own."""

    buffer: str


class LocalArray(NamedTuple):
    """An array of the program's own."""

    name: str
    element: IntType
    length: int


@dataclass(frozen=True)
class Record:
    """A ``NamedTuple`` of integers, or a tuple of values."""

    names: tuple[str, ...]
    values: tuple[Value, ...]


class Constant(NamedTuple):
    """Something known while compiling: a number, string, ``None``, a class, a function, a module."""

    value: Any


class Symbols(NamedTuple):
    """The kernel's global variables."""

    declaration: type[Kernel]


Value: TypeAlias = Number | Reference | Pointer | GuestArray | Text | LocalArray | Record | Constant | Symbols


def describe(value: Value) -> str:
    """Name a value's kind as a user would."""
    if isinstance(value, Number):
        return f"a number ({value.type.name})"
    if isinstance(value, Reference):
        return f"struct {value.struct.name}"
    if isinstance(value, Constant):
        return _constant(value.value)
    kinds = {Pointer: "a pointer", GuestArray: "an array of the guest's", Text: "a text", LocalArray: "a local array"}
    return kinds.get(type(value), "a tuple" if isinstance(value, Record) else "the kernel")


def _constant(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"the constant {value if abs(value) < 1 << 64 else hex(value)}"
    if isinstance(value, int | str | bytes | None):
        return f"the constant {value!r:.60}"
    return f"{getattr(value, '__name__', type(value).__name__)!r} of Python"

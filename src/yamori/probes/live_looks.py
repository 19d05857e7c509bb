"""Looks at a guest's kernel from the prompt: each is a tiny program of its own.

``kernel.init_task.comm`` is compiled, bound to the guest's profile and run by the interpreter like any probe, so that
the prompt shows what a probe would see. Nothing is remembered from one look to the next but the compiled program, for
the guest may change everything meanwhile.
"""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from yamori.errors import Fault, ProfileError
from yamori.kernel.binding import bind
from yamori.kernel.kernel import Kernel
from yamori.llview import ir
from yamori.llview.frontend import Statements
from yamori.llview.interpreter import Interpreter
from yamori.llview.ir import BOOL, IntType, Program
from yamori.llview.language import Struct
from yamori.llview.machine import Outcome, SlotFill
from yamori.llview.machine import Value as Emitted
from yamori.llview.translate import translate
from yamori.llview.types import PtrType, Scope, StructType, Type
from yamori.llview.values import (
    Constant,
    GuestArray,
    Number,
    Pointer,
    Record,
    Reference,
    Text,
    Value,
    describe,
)
from yamori.llview.verify import verify
from yamori.probes.run import fault_text
from yamori.records import escape

PROMPT = "<prompt>"
MOST_TEXT = 4096
"""Bytes of the longest text that is read."""

_DEFINITION = ast.FunctionDef("prompt", ast.arguments([], [], None, [], [], None, []), [], [], None, None, lineno=1)

Build = Callable[[Statements, list[ir.Local], Callable[[Value], None]], None]
"""Lowers a program, given its compiler, its parameters, and what gives out a value."""


class UnknownError(ProfileError, AttributeError):
    """A member or symbol that nothing is known of; an ``AttributeError``, for Python's own sake."""


class Look(NamedTuple):
    """A compiled program.

    Attributes:
        program: The program.
        slots: Filled.
        shape: What each of its rows stands for; ``None`` where it gives none.
    """

    program: Program
    slots: list[SlotFill]
    shape: Value | None


class Looks(ABC):
    """The guest that live objects belong to, and how they look at it.

    Args:
        kernel: Its kernel.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.profile = kernel.profile
        self.machine = kernel.machine
        self.word = IntType(self.machine.word_size * 8)
        self._interpreter = Interpreter()
        self._looks: dict[object, Look] = {}

    @abstractmethod
    def structure(self, declaration: type[Struct], gva: int) -> Any:
        """Return the structure of a declared type at an address."""

    @abstractmethod
    def array(self, element: Type, gva: int, stride: int, *, pointer: bool = False) -> Any:
        """Return the array of a declared type at an address."""

    # --- looks

    def compile(self, build: Build, parameters: int) -> Look:
        """Compile a look that is given some addresses.

        Raises:
            CompileError: It is not one of the language.
            ProfileError: Something that it needs is not known of this kernel.
        """
        given = [ir.Local(f"a{number}", self.word) for number in range(parameters)]
        program = Program(
            name="prompt", kind="probe", word_size=self.machine.word_size, file=PROMPT, parameters=list(given)
        )
        compiler = Statements(program, Scope({}, PROMPT, self.machine.word_size), _DEFINITION)
        shapes: list[Value] = []

        def give(value: Value) -> None:
            shapes.append(value)
            fields = list(_flat(compiler, value)) or [ir.Const(0, ir.U64)]
            program.row = [ir.RowField(f"f{n}", _kind(program, field)) for n, field in enumerate(fields)]
            compiler.add(ir.Emit(place=compiler.place, values=list(fields)))

        build(compiler, given, give)
        verify(translate(program))
        return Look(program, bind(program, self.profile), shapes[0] if shapes else None)

    def run(self, look: Look, arguments: list[int]) -> tuple[list[Any], Outcome]:
        """Run a look; return the objects that it gave, and all else."""
        outcome = self._interpreter.run(look.program, self.machine, look.slots, tuple(arguments))
        shape = look.shape
        return [self.thing(shape, iter(row)) for row in outcome.rows if shape is not None], outcome

    def one(self, key: object, build: Build, *arguments: int) -> Any:
        """Return the one object that a look gives; the compiled look is kept under ``key``.

        Raises:
            Fault: The guest's memory does not give it.
            UnknownError: It is not known where it lies.
        """
        if key not in self._looks:
            try:
                self._looks[key] = self.compile(build, len(arguments))
            except ProfileError as error:
                raise UnknownError(error.message, hint=error.hint) from None
        look = self._looks[key]
        values, outcome = self.run(look, list(arguments))
        if outcome.ended:
            raise Fault(fault_text(outcome.ended, look.program, self.machine))
        return values[0]

    def integer(self, address: int, size: int, *, signed: bool = False) -> int:
        """Load an integer of 1, 2, 4 or 8 bytes.

        Raises:
            Fault: The guest's memory does not give it.
        """
        kind = IntType(size * 8, signed)

        def build(compiler: Statements, given: list[ir.Local], give: Callable[[Value], None]) -> None:
            give(compiler.thing(kind, given[0]))

        return int(self.one(("load", kind), build, self.word.wrap(address)))

    def text(self, address: int, most: int) -> str:
        """Copy a text up to its NUL, ``most`` bytes at most and never more than ``MOST_TEXT``; escaped.

        Raises:
            Fault: The guest's memory does not give it.
        """

        def build(compiler: Statements, given: list[ir.Local], give: Callable[[Value], None]) -> None:
            give(compiler.copy(given[0], compiler.cast(given[1], ir.U64), MOST_TEXT))

        return str(self.one("text", build, self.word.wrap(address), min(most, MOST_TEXT)))

    def thing(self, shape: Value, row: Iterator[Emitted]) -> Any:
        """Return what a value stands for at the prompt.

        Args:
            shape: The value, as the front end has it.
            row: The integers and texts that were emitted for it.
        """
        match shape:
            case Constant():
                return shape.value
            case Record():
                return tuple(self.thing(part, row) for part in shape.values)
            case Text():
                return escape(_bytes(next(row)))
            case Reference():
                return self.structure(shape.struct.declaration, _integer(next(row)))
            case Pointer():
                return self.array(shape.target, _integer(next(row)), self.size(shape.target), pointer=True)
            case GuestArray():
                return self.array(shape.element, _integer(next(row)), _integer(next(row)))
            case _:
                value = _integer(next(row))
                return bool(value) if isinstance(shape, Number) and shape.type == BOOL else value

    def size(self, kind: Type) -> int:
        """Return ``sizeof`` of a type, 0 where it is not known."""
        if isinstance(kind, IntType):
            return kind.bits // 8 or 1
        if isinstance(kind, PtrType):
            return self.machine.word_size
        sizes = (types.size(kind.name) for types in self.profile.types if isinstance(kind, StructType))
        return next((size for size in sizes if size), 0)


# --- between the front end's values and the prompt's


def _flat(compiler: Statements, value: Value) -> Iterator[ir.Expression | str]:
    """Yield what is emitted for a value."""
    match value:
        case Constant():
            return
        case Record():
            for part in value.values:
                yield from _flat(compiler, part)
        case Text():
            yield value.buffer
        case GuestArray():
            yield from (_wide(compiler, value.address), _wide(compiler, value.stride))
        case Reference() | Pointer():
            yield _wide(compiler, value.address)
        case Number():
            yield _wide(compiler, value.expression)
        case _:
            compiler.fail(f"{describe(value)} cannot be shown at the prompt")


def _wide(compiler: Statements, value: ir.Expression) -> ir.Expression:
    return value if value.type == BOOL else compiler.cast(value, IntType(64, value.type.signed))


def _kind(program: Program, field: ir.Expression | str) -> IntType | int:
    return program.buffers[field] if isinstance(field, str) else field.type


def _integer(value: Emitted) -> int:
    return value if isinstance(value, int) else 0


def _bytes(value: Emitted) -> bytes:
    return value if isinstance(value, bytes) else b""


def attribute(name: str) -> ast.expr:
    """Return the expression ``it.NAME``."""
    node = ast.Attribute(value=ast.Name(id="it", ctx=ast.Load()), attr=name, ctx=ast.Load())
    return ast.fix_missing_locations(ast.copy_location(node, _DEFINITION))

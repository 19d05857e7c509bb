"""Live objects of a guest's kernel, for the prompt: each look at one is a tiny program of its own.

``kernel.init_task.comm`` is compiled, bound to the guest's profile and run by the interpreter like any probe, so that
the prompt shows what a probe would see. Nothing is remembered from one look to the next but the compiled program, for
the guest may change everything meanwhile.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from yamori.errors import Fault, ProfileError
from yamori.kernel.binding import bind
from yamori.kernel.kernel import Kernel
from yamori.llview import ir, language
from yamori.llview.frontend import Statements
from yamori.llview.interpreter import Interpreter
from yamori.llview.ir import BOOL, IntType, Program
from yamori.llview.language import TEXT_BYTES, Struct
from yamori.llview.machine import Outcome, SlotFill
from yamori.llview.machine import Value as Emitted
from yamori.llview.translate import translate
from yamori.llview.types import PtrType, Scope, StructType, Type, member_type, members
from yamori.llview.values import (
    Constant,
    GuestArray,
    Number,
    Pointer,
    Record,
    Reference,
    Symbols,
    Text,
    Value,
    describe,
)
from yamori.llview.verify import verify
from yamori.probes.run import fault_text
from yamori.records import escape

PROMPT = "<prompt>"
_DEFINITION = ast.FunctionDef("prompt", ast.arguments([], [], None, [], [], None, []), [], [], None, None, lineno=1)
_T = TypeVar("_T")

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


class Session:
    """The guest that live objects belong to.

    Args:
        kernel: Its kernel.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.profile = kernel.profile
        self.machine = kernel.machine
        self.word = IntType(self.machine.word_size * 8)
        self._interpreter = Interpreter()
        self._looks: dict[object, Look] = {}

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

    def one(self, key: object, build: Build, address: int) -> Any:
        """Return the one object that a look at an address gives; the compiled look is kept under ``key``.

        Raises:
            Fault: The guest's memory does not give it.
            UnknownError: It is not known where it lies.
        """
        if key not in self._looks:
            try:
                self._looks[key] = self.compile(build, 1)
            except ProfileError as error:
                raise UnknownError(error.message, hint=error.hint) from None
        look = self._looks[key]
        values, outcome = self.run(look, [address])
        if outcome.ended:
            raise Fault(fault_text(outcome.ended, look.program, self.machine))
        return values[0]

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
                return LiveStruct(self, shape.struct.declaration, _integer(next(row)))
            case Pointer():
                return LiveArray(self, shape.target, _integer(next(row)), self.size(shape.target), pointer=True)
            case GuestArray():
                return LiveArray(self, shape.element, _integer(next(row)), _integer(next(row)))
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


# --- objects


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

    def __init__(self, session: Session, declaration: type[Struct], gva: int, path: str = "") -> None:
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
        kind = StructType(declared)

        def build(compiler: Statements, given: list[ir.Local], give: Callable[[Value], None]) -> None:
            compiler.frame.variables["it"] = Reference(kind, given[0])
            give(compiler.value(_attribute(name)))

        return self.session_.one((declared, name), build, self.gva_)

    def __dir__(self) -> list[str]:
        if self.path_:
            return []
        word = [name for other in _subclasses(Struct) if _names(other, self.declaration_) for name in members(other)]
        return sorted(dict.fromkeys(word))

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

    def __init__(self, session: Session, element: Type, gva: int, stride: int, *, pointer: bool = False) -> None:
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


class LiveKernel:
    """The kernel's variables, with the types that a ``Kernel`` class declares; of any other symbol the address.

    Args:
        session: Whose they are.
    """

    __slots__ = ("session_",)

    def __init__(self, session: Session) -> None:
        self.session_ = session

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        for declaration in _subclasses(language.Kernel):
            if name in members(declaration):
                symbols = Symbols(declaration)
                break
        else:
            address = self.session_.profile.address(name)
            if address is None:
                raise UnknownError(f"the kernel has no symbol {name!r}, or it is not known where it lies")
            return Address(address)

        def build(compiler: Statements, given: list[ir.Local], give: Callable[[Value], None]) -> None:
            del given
            compiler.frame.variables["it"] = symbols
            give(compiler.value(_attribute(name)))

        return self.session_.one((symbols, name), build, 0)

    def __dir__(self) -> list[str]:
        return sorted({name for declaration in _subclasses(language.Kernel) for name in members(declaration)})

    def __repr__(self) -> str:
        return f"<kernel: {self.session_.profile.banner or 'Linux'}>"


class Address(int):
    """The address of a symbol whose type nobody has declared."""

    def __repr__(self) -> str:
        return f"{int(self):#x}"


class Loaded(int):
    """An undeclared member of an integer's size; where it is a structure, such as ``atomic_t``, its members follow."""

    owner_: LiveStruct

    def __repr__(self) -> str:
        first, last = self.owner_.session_.machine.kernel
        return f"{int(self):#x}" if first <= self <= last else f"{int(self)}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.owner_, name)


def declaring(declaration: type[Struct], name: str, word_size: int) -> type[Struct] | None:
    """Return the class that declares a member: the given one, or another of the same structure; else ``None``."""
    for other in (declaration, *_subclasses(Struct)):
        if _names(other, declaration) and member_type(other, name, word_size) is not None:
            return other
    return None


def structure(name: str) -> type[Struct]:
    """Return a class of a structure by its C name; one without members where none is declared."""
    for known in _subclasses(Struct):
        if known.c_name == name:
            return known
    return type(name, (Struct,), {"__module__": __name__}, c_name=name)


def _names(one: type[Struct], other: type[Struct]) -> bool:
    return one.c_name == other.c_name


def _subclasses(base: type[_T]) -> Iterator[type[_T]]:
    for direct in base.__subclasses__():
        yield direct
        yield from _subclasses(direct)


def _undeclared(owner: LiveStruct, name: str) -> Any:
    """Return a member that no class declares, by what the profile knows of it."""
    session, struct = owner.session_, owner.declaration_.c_name
    path = f"{owner.path_}.{name}" if owner.path_ else name
    member = session.profile.member(struct, path)
    if member is None:
        raise UnknownError(f"it is not known where {struct}.{path} lies in this kernel")
    inner = LiveStruct(session, owner.declaration_, owner.gva_, path)
    array = member.stride > 1
    if array or (member.stride == 0 and member.size not in {1, 2, 4, 8}):
        return inner

    def build(compiler: Statements, given: list[ir.Local], give: Callable[[Value], None]) -> None:
        slot = compiler.slot(ir.SlotSpec("member", struct, path))
        address = compiler.offset(given[0], slot)
        if member.stride:
            give(compiler.copy(address, ir.SlotValue(slot, "size"), TEXT_BYTES))
        else:
            give(compiler.load(address, IntType(64, signed=member.signed), slot=slot))

    value = session.one((struct, path, "undeclared"), build, owner.gva_)
    if isinstance(value, str):
        return value
    loaded = Loaded(value)
    loaded.owner_ = inner
    return loaded


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


def _attribute(name: str) -> ast.expr:
    node = ast.Attribute(value=ast.Name(id="it", ctx=ast.Load()), attr=name, ctx=ast.Load())
    return ast.fix_missing_locations(ast.copy_location(node, _DEFINITION))

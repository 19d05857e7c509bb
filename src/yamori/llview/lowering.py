"""What all parts of the front end share: the program in the making, variables, slots, and conversions."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import NoReturn

from yamori.llview import ir
from yamori.llview.diagnostics import CompileError
from yamori.llview.ir import BOOL, END, U32, IntType, Program
from yamori.llview.types import Scope, StructType
from yamori.llview.values import Constant, Number, Pointer, Reference, Value, describe

MOST_INLINED = 40
"""How deep helpers may call each other."""
MOST_NAMES = 20_000
"""Variables and labels of a program: helpers that call helpers twice grow without bound."""
MOST_NESTED = 60
"""How deep statements may stand in each other once helpers are inlined; Python indents 100 deep at most."""
MOST_OPERATORS = 30
"""How deep an expression gets before a part of it is kept in a variable: back ends write it with parentheses."""

_OPERATIONS: dict[ir.BinaryOperator, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "<<": operator.lshift,
    ">>": operator.rshift,
}
_COMPARISONS: dict[ir.Comparison, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass
class Frame:
    """One function that is being inlined, or the program itself.

    Attributes:
        scope: Where its names are looked up.
        node: Its source.
        variables: Its parameters and locals so far.
        leave: Label that ``return`` breaks to; empty in the program itself.
        result: The variables that ``return`` assigns to, once its kind is known.
        consume: What a ``yield`` does with its value, in a generator.
        loops: Labels for ``break`` and ``continue`` of the loops around, innermost last.
        body: The statements of a helper; ``None`` for the program itself.
        stored: All names that it assigns to: as in Python they never mean a global.
    """

    scope: Scope
    node: ast.FunctionDef
    variables: dict[str, Value] = field(default_factory=dict)
    leave: str = ""
    result: Value | None = None
    returned: bool = False
    consume: Callable[[Value, ast.AST], None] | None = None
    loops: list[tuple[str, str, bool]] = field(default_factory=list)
    body: list[ir.Statement] | None = None
    stored: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.stored = _stored(self.node)


@cache
def _stored(node: ast.FunctionDef) -> frozenset[str]:
    names = (inner for inner in ast.walk(node) if isinstance(inner, ast.Name))
    return frozenset(name.id for name in names if isinstance(name.ctx, ast.Store))


class Lowering:
    """Builds one program.

    Args:
        program: To be filled.
    """

    def __init__(self, program: Program, scope: Scope, node: ast.FunctionDef) -> None:
        self.program = program
        self.word = IntType(scope.word_size * 8) if scope.word_size else ir.U64
        self.frames = [Frame(scope, node)]
        self.body = program.body
        self.fault = END
        self._node: ast.AST = node
        self._slots: dict[tuple[str, str, str], list[int]] = {}
        self._messages: dict[str, int] = {}
        self._count = 0
        self._depth = 0

    @property
    def frame(self) -> Frame:
        """The function that is being compiled."""
        return self.frames[-1]

    # --- errors and places

    def fail(self, message: str, node: ast.AST | None = None, *, hint: str = "") -> NoReturn:
        """Refuse the program."""
        raise CompileError(message, self.frame.scope.file, node or self._node, hint=hint)

    @property
    def place(self) -> ir.Place:
        """The present place in the source."""
        return ir.Place(self.frame.scope.file, getattr(self._node, "lineno", 1))

    @contextmanager
    def at(self, node: ast.AST) -> Iterator[None]:
        """Compile what comes from ``node``."""
        before, self._node = self._node, node
        yield
        self._node = before

    def add(self, statement: ir.Statement) -> None:
        """Append a statement."""
        self.body.append(statement)

    @contextmanager
    def into(self, body: list[ir.Statement]) -> Iterator[None]:
        """Append to another body."""
        if self._depth >= MOST_NESTED:
            self.fail("this is nested too deeply", hint="in a helper, say `if ...: return ...` one behind the other")
        before, self.body = self.body, body
        self._depth += 1
        yield
        self._depth -= 1
        self.body = before

    # --- names

    def fresh(self, name: str) -> str:
        """Return a name that nothing else has."""
        self._count += 1
        if self._count > MOST_NAMES:
            self.fail("the program becomes too large with all its helpers inlined", hint="call them in fewer places")
        found = f"{re.sub(r'[^A-Za-z0-9_]', '_', name)}_{self._count}"
        return self.fresh(name) if any(found == one.name for one in self.program.parameters) else found

    def temporary(self, kind: IntType, name: str = "t") -> ir.Local:
        """Return a new variable of the program."""
        local = ir.Local(self.fresh(name), kind)
        self.program.locals[local.name] = kind
        return local

    def keep(self, value: ir.Expression, name: str = "t") -> ir.Local:
        """Put a value into a new variable."""
        local = self.temporary(value.type, name)
        self.add(ir.Assign(place=self.place, target=local, value=value))
        return local

    def slot(self, spec: ir.SlotSpec, *, asked: bool = False) -> int:
        """Return the number of a slot; ``asked`` where ``exists`` asks for it."""
        if self.program.kind == "walker":
            self.fail("a walker knows nothing of the kernel's structures", hint="load by phys_u64(gpa)")
        slots = self.program.slots
        alike = self._slots.setdefault(spec[:3], [])
        # Two classes may declare one member differently; where only its offset is used, any slot of it serves.
        known = {slots[number].declared: number for number in alike}
        number = known.get(spec.declared, known.get(None) if spec.declared else next(iter(alike), None))
        if number is None:
            number = len(slots)
            alike.append(number)
            slots.append(spec)
        slots[number] = slots[number]._replace(
            optional=slots[number].optional or asked, declared=slots[number].declared or spec.declared
        )
        return number

    def check_storage(self) -> None:
        """Refuse more texts and arrays than a stack has room for."""
        if self.program.storage > ir.MOST_STORAGE:
            self.fail(
                f"the probe's texts and arrays need {self.program.storage} bytes; it may have {ir.MOST_STORAGE}",
                hint="make arrays smaller, or use a text or a helper with one in fewer places: each use has its own",
            )

    def member(self, struct: StructType, path: str) -> int:
        """Return the slot of a member."""
        return self.slot(ir.SlotSpec("member", struct.name, path))

    def message(self, text: str) -> int:
        """Return the number of a message."""
        if text not in self._messages:
            self._messages[text] = len(self._messages)
            self.program.messages.append(text)
        return self._messages[text]

    # --- conversions

    def offset(self, address: ir.Expression, slot: int) -> ir.Expression:
        """Return an address plus a slot's offset."""
        offset: ir.Expression = ir.SlotValue(slot, "offset")
        return self.plus(address, self.cast(offset, self.word))

    def plus(self, left: ir.Expression, right: ir.Expression) -> ir.Expression:
        """Return the sum of two words."""
        return self.binary("+", left, right, self.word)

    def binary(
        self, symbol: ir.BinaryOperator, left: ir.Expression, right: ir.Expression, kind: IntType
    ) -> ir.Expression:
        """Return ``left symbol right``; what is known while compiling is reckoned at once."""
        if isinstance(left, ir.Const) and isinstance(right, ir.Const):
            if symbol in {"<<", ">>"}:  # beyond the type nothing, or the sign, is left
                right = ir.Const(min(right.value, kind.bits), right.type)
            return ir.Const(kind.wrap(_OPERATIONS[symbol](left.value, right.value)), kind)
        return ir.Binary(symbol, self.shallow(left), self.shallow(right), kind)

    def comparison(self, symbol: ir.Comparison, left: ir.Expression, right: ir.Expression) -> ir.Expression:
        """Return ``left symbol right``, both of one type."""
        if isinstance(left, ir.Const) and isinstance(right, ir.Const):
            return ir.Const(int(_COMPARISONS[symbol](left.value, right.value)), BOOL)
        return ir.Compare(symbol, self.shallow(left), self.shallow(right))

    def negation(self, value: ir.Expression) -> ir.Expression:
        """Return ``not value``."""
        return ir.Const(1 - value.value, BOOL) if isinstance(value, ir.Const) else ir.Not(self.shallow(value))

    def shallow(self, value: ir.Expression) -> ir.Expression:
        """Return an expression, or a variable that keeps it where it is too deep."""
        return self.keep(value, "part") if _deeper(value, MOST_OPERATORS) else value

    def cast(self, value: ir.Expression, kind: IntType) -> ir.Expression:
        """Return a value as C converts it."""
        if value.type == kind:
            return value
        if isinstance(value, ir.Const):
            return ir.Const(int(value.value != 0) if kind == BOOL else kind.wrap(value.value), kind)
        return ir.Cast(self.shallow(value), kind)

    def fits(self, value: Number, kind: IntType) -> bool:
        """Say whether every value of one type is a value of the other."""
        if isinstance(value.expression, ir.Const):
            return kind.wrap(value.expression.value) == value.expression.value
        own = value.type
        if own.signed and not kind.signed:
            return False
        return own.bits + (kind.signed and not own.signed) <= kind.bits

    def number(self, value: Value, node: ast.AST, kind: IntType | None = None) -> ir.Expression:
        """Return an integer's expression, of a type that can hold it.

        An address becomes a number where one of a certain type is wanted, but nobody reckons with it unawares.
        """
        if isinstance(value, Constant):
            value = self.literal(value.value, node, kind)
            if kind is not None and not self.fits(value, kind):
                self.fail(f"{_shown(value.expression)} does not fit into {kind.one}", node)
        if isinstance(value, Reference | Pointer):
            if kind is None:
                self.fail(f"{describe(value)} is no number", node, hint="say address_of(...)")
            value = Number(value.address)
        if not isinstance(value, Number):
            self.fail(f"a number is needed here, not {describe(value)}", node)
        if kind is None or value.type == kind:
            return value.expression
        if not self.fits(value, kind):
            what = f"{value.type.one} may not fit into {kind.one}"
            self.fail(what, node, hint=f"say {kind.name}(...) to cut it")
        return self.cast(value.expression, kind)

    def literal(self, value: object, node: ast.AST, kind: IntType | None = None) -> Number:
        """Return a number that is written in the source."""
        if isinstance(value, bool):
            return Number(ir.Const(int(value), BOOL))
        if not isinstance(value, int):
            self.fail(f"a number is needed here, not {describe(Constant(value))}", node)
        for candidate in (kind, ir.S64, ir.U64):
            if candidate and candidate.wrap(int(value)) == value:
                return Number(ir.Const(int(value), candidate))
        self.fail(f"{value:#x} does not fit into 64 bits", node)

    def common(self, left: Number, right: Number, node: ast.AST) -> IntType:
        """Return the type that arithmetic on two numbers is done in: the smallest that holds both, 32 bits at least.

        Unlike in C nothing changes its value: what has no common type is refused.
        """
        for one, other in ((left, right), (right, left)):
            if isinstance(one.expression, ir.Const):
                kind = promoted(other.type)
                if self.fits(one, kind):
                    return kind
        kinds = [promoted(left.type), promoted(right.type)]
        bits = max(kind.bits for kind in kinds)
        if kinds[0].signed == kinds[1].signed:
            return IntType(bits, kinds[0].signed)
        wide = IntType(bits if next(k for k in kinds if not k.signed).bits < bits else bits * 2, signed=True)
        if wide.bits > 64:
            self.fail(
                f"{left.type.name} and {right.type.name} have no common type",
                node,
                hint="say s64(...) or u64(...) of one of them",
            )
        return wide


def _shown(value: ir.Expression) -> str:
    return str(value.value) if isinstance(value, ir.Const) else "it"


def _deeper(value: ir.Expression, most: int) -> bool:
    """Say whether more than ``most`` operators stand in each other."""
    match value:
        case ir.Binary() | ir.Compare():
            return not most or _deeper(value.left, most - 1) or _deeper(value.right, most - 1)
        case ir.Not() | ir.Cast():
            return not most or _deeper(value.operand, most - 1)
        case _:
            return False


def promoted(kind: IntType) -> IntType:
    """Return the type that arithmetic on one number is done in: 32 bits at least."""
    return kind if kind.bits >= 32 else IntType(32, kind.signed) if kind != BOOL else U32

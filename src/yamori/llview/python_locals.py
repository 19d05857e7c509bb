"""Fewer assignments in walkers for the interpreter, which pays for each: a C compiler does the same on its own.

The front end gives every helper's parameters and results variables of their own. Here a variable is replaced by what it
is worth wherever that is known: a constant, another variable, or an expression that is needed just once. Loads, ticks,
faults and their order stay as they are, since expressions neither load nor fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any, TypeAlias

from msgspec.structs import replace

from yamori.llview import flow, ir
from yamori.llview.ir import Expression, Statement

ROUNDS = 2
"""What one round leaves unread lets the next put more where it is needed."""

MOST_PARTS = 16
"""Parts of an expression that is put into another: Python limits how deeply parentheses nest."""

_EXPRESSIONS = (ir.Const, ir.Local, ir.Binary, ir.Compare, ir.Not, ir.Cast, ir.SlotValue)
_Known: TypeAlias = dict[str, Expression]
"""Variable → what it is worth here."""


def simplified(body: list[Statement]) -> list[Statement]:
    """Return statements that do the same with fewer variables; those given stay as they are."""
    made = _flat(body)
    for _ in range(ROUNDS):
        made = _Propagation(_reads(made)).body(made, {})
        made = _without_unread(made, _reads(made))
    return made


def unset(body: list[Statement], given: Iterable[str]) -> set[str]:
    """Return the variables that may be read before they are set: these begin with 0.

    Args:
        body: All statements.
        given: Variables that are set from the start.
    """
    found: set[str] = set()
    _gather_unset(body, set(given), found)
    return found


def _gather_unset(body: list[Statement], known: set[str], found: set[str]) -> None:
    for statement in body:
        found.update(name for name in _read(statement) if name not in known)
        for inner in flow.children(statement):
            _gather_unset(inner, {*known, *flow.sets(statement)}, found)
        known.update(flow.sets(statement))


def _reads(body: list[Statement]) -> Counter[str]:
    return Counter(name for statement in flow.walk(body) for name in _read(statement))


def _read(statement: Statement) -> Iterator[str]:
    """Yield the name of a variable as often as a statement itself reads it."""
    for expression in _expressions(statement):
        yield from _names(expression)


def _expressions(statement: Statement) -> Iterator[Expression]:
    for name, value in _operands(statement):
        if name == "values":
            yield from (one for one in value if isinstance(one, _EXPRESSIONS))
        else:
            yield value


def _operands(statement: Statement) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a statement that are, or hold, expressions to be worked out."""
    for name in statement.__struct_fields__:
        value = getattr(statement, name)
        if name == "values" or (isinstance(value, _EXPRESSIONS) and name not in {"target", "failed"}):
            yield name, value


def _names(expression: Expression) -> Iterator[str]:
    if isinstance(expression, ir.Local):
        yield expression.name
    for part in _parts(expression):
        yield from _names(part)


def _parts(expression: Expression) -> tuple[Expression, ...]:
    match expression:
        case ir.Binary() | ir.Compare():
            return expression.left, expression.right
        case ir.Not() | ir.Cast():
            return (expression.operand,)
        case _:
            return ()


def _size(expression: Expression) -> int:
    return 1 + sum(map(_size, _parts(expression)))


def _is_free(expression: Expression) -> bool:
    """Say whether an expression costs no more than a variable: a wider type is none to Python."""
    if isinstance(expression, ir.Cast) and expression.type.bits > expression.operand.type.bits > 1:
        return not expression.operand.type.signed and _is_free(expression.operand)
    return isinstance(expression, ir.Const | ir.Local)


def _flat(body: list[Statement]) -> list[Statement]:
    """Do without blocks that are left at their end alone, or for a ``Return`` right behind them."""
    made: list[Statement] = []
    for statement, after in zip_longest(body, body[1:]):
        inner = _mapped(statement, _flat)
        if isinstance(inner, ir.Block) and isinstance(after, ir.Return):
            inner = _breaking(inner, inner.label, after)
        made += _opened(inner) if isinstance(inner, ir.Block) else [inner]
        if flow.ends(made[-1:]):  # a return behind it would name variables that are never set
            break
    return made


def _opened(block: ir.Block) -> list[Statement]:
    """Return what does the same as a block: what is in it, if nothing leaves it but its last statement."""
    breaks = [one for one in flow.walk(block.body) if isinstance(one, ir.Break) and one.label == block.label]
    if not breaks:
        return block.body
    return block.body[:-1] if len(breaks) == 1 and block.body[-1] is breaks[0] else [block]


def _breaking(statement: Statement, label: str, into: ir.Return) -> Statement:
    """Return a statement whose breaks out of ``label`` are returns."""
    if isinstance(statement, ir.Break) and statement.label == label:
        return into
    return _mapped(statement, lambda body: [_breaking(inner, label, into) for inner in body])


def _mapped(statement: Statement, function: Any) -> Statement:
    """Return a statement whose bodies went through a function."""
    match statement:
        case ir.If():
            return replace(statement, then=function(statement.then), otherwise=function(statement.otherwise))
        case ir.Loop() | ir.Block() | ir.Attempt():
            return replace(statement, body=function(statement.body))
        case _:
            return statement


def _without_unread(body: list[Statement], reads: Counter[str]) -> list[Statement]:
    return [
        _mapped(statement, lambda inner: _without_unread(inner, reads))
        for statement in body
        if not (isinstance(statement, ir.Assign) and not reads[statement.target.name])
    ]


class _Propagation:
    """Puts what variables are worth where they are read.

    Args:
        reads: How often each variable is read.
    """

    def __init__(self, reads: Counter[str]) -> None:
        self._reads = reads

    def body(self, body: list[Statement], known: _Known) -> list[Statement]:
        """Return a body; ``known`` is brought up to date."""
        return [self._statement(statement, known) for statement in body]

    def _statement(self, statement: Statement, known: _Known) -> Statement:
        if isinstance(statement, ir.Loop):  # what its rounds change is not known at its start
            _forget(known, flow.assigned(statement.body))
            kept = {name: value for name, value in known.items() if _is_free(value)}
            return _mapped(statement, lambda inner: self.body(inner, kept))
        done = replace(statement, **{name: self._operand(value, known) for name, value in _operands(statement)})
        made = _mapped(done, lambda inner: self.body(inner, dict(known)))
        _forget(known, flow.assigned([made]))
        if isinstance(made, ir.Assign) and self._may_move(made.target.name, made.value):
            known[made.target.name] = made.value
        return made

    def _may_move(self, name: str, value: Expression) -> bool:
        if _is_free(value):
            return name not in _names(value)
        return self._reads[name] == 1 and _size(value) <= MOST_PARTS and name not in _names(value)

    def _operand(self, value: Any, known: _Known) -> Any:
        if isinstance(value, list):
            return [_with(one, known) if isinstance(one, _EXPRESSIONS) else one for one in value]
        return _with(value, known)


def _forget(known: _Known, names: Iterable[str]) -> None:
    """Drop what is no longer so once variables are set anew."""
    changed = set(names)
    for name in [name for name, value in known.items() if name in changed or not changed.isdisjoint(_names(value))]:
        del known[name]


def _with(expression: Expression, known: _Known) -> Expression:
    """Return an expression with variables replaced."""
    match expression:
        case ir.Local(name):
            return known.get(name, expression)
        case ir.Binary() | ir.Compare():
            return expression._replace(left=_with(expression.left, known), right=_with(expression.right, known))
        case ir.Not() | ir.Cast():
            return expression._replace(operand=_with(expression.operand, known))
        case _:
            return expression

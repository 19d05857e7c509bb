"""Which slots a program really needs on one kernel: those on paths that its ``exists`` tests leave open there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from yamori.llview import flow, ir
from yamori.llview.ir import Expression, Statement
from yamori.llview.machine import SlotFill


def needed(body: list[Statement], fills: Sequence[SlotFill]) -> set[int]:
    """Return the numbers of the slots that statements may use, given which slots exist.

    As with BPF CO-RE, what stands behind ``if exists(...)`` of a member that the kernel lacks is not there at all.
    """
    reach = _Reach(fills)
    reach.body(body)
    return reach.found


_Known: TypeAlias = dict[str, bool]
"""Variables whose value is decided by what exists."""


class _Reach:
    """What can be reached on one kernel.

    Attributes:
        found: Slots that are used there.
    """

    def __init__(self, fills: Sequence[SlotFill]) -> None:
        self.fills = fills
        self.found: set[int] = set()
        self._values: _Known = {}
        self._exits: dict[str, list[_Known]] = {}
        self._sets: dict[int, frozenset[str]] = {}

    def body(self, body: list[Statement]) -> bool:
        """Gather the slots of a body; say whether its end can be reached."""
        return all(self.statement(statement) for statement in body)

    def statement(self, statement: Statement) -> bool:
        """Gather the slots of a statement; say whether what follows it can be reached."""
        match statement:
            case ir.If():
                return self.branches(statement)
            case ir.Loop() | ir.Block() | ir.Attempt():
                return self.around(statement)
            case ir.Break():
                self._exits.setdefault(statement.label, []).append(dict(self._values))
        self.use(statement)
        return not isinstance(statement, ir.Break | ir.Continue | ir.Return | ir.Raise)

    def branches(self, statement: ir.If) -> bool:
        """Gather what the branches use that this kernel leaves open."""
        known = self.decided(statement.condition)
        if known is not None:
            return self.body(statement.then if known else statement.otherwise)
        self.found.update(_slots(statement.condition))
        before = dict(self._values)
        ways = []
        for branch in (statement.then, statement.otherwise):
            self._values = dict(before)
            if self.body(branch):
                ways.append(self._values)
        return self.meet(ways)

    def around(self, statement: ir.Loop | ir.Block | ir.Attempt) -> bool:
        """Gather what a labelled body uses. Behind it only that is known which every way out knows."""
        ways = []
        if not isinstance(statement, ir.Block):  # a loop comes back, and a fault comes at any point
            self.forget(self.assigned(statement.body))
        if isinstance(statement, ir.Attempt):
            self._values.pop(statement.failed.name, None)
            ways.append(dict(self._values))
        if self.body(statement.body) and not isinstance(statement, ir.Loop):
            ways.append(self._values)
        return self.meet([*ways, *self._exits.pop(statement.label, [])])

    def meet(self, ways: list[_Known]) -> bool:
        """Go on where several ways meet; say whether there is any."""
        if ways:
            self._values = dict(set.intersection(*(set(way.items()) for way in ways)))
        return bool(ways)

    def use(self, statement: Statement) -> None:
        """Gather the slots that one statement uses."""
        for expression in _expressions(statement):
            self.found.update(_slots(expression))
        slot = getattr(statement, "slot", None)
        if slot is not None:
            self.found.add(slot)
        known = self.decided(statement.value) if isinstance(statement, ir.Assign) else None
        self.forget(flow.sets(statement))
        if isinstance(statement, ir.Assign) and known is not None:
            self._values[statement.target.name] = known

    def assigned(self, body: list[Statement]) -> frozenset[str]:
        """Return what a body sets, gathered once for each: loops lie in loops."""
        if id(body) not in self._sets:
            names = {name for statement in body for name in flow.sets(statement)}
            inner = (self.assigned(child) for statement in body for child in flow.children(statement))
            self._sets[id(body)] = frozenset(names.union(*inner))
        return self._sets[id(body)]

    def forget(self, names: Iterable[str]) -> None:
        """Know nothing any more of some variables."""
        for name in names:
            self._values.pop(name, None)

    def decided(self, condition: Expression) -> bool | None:
        """Return what a condition is on this kernel, ``None`` where only a run can tell."""
        match condition:
            case ir.Const():
                return condition.value != 0
            case ir.Local(name):
                return self._values.get(name)
            case ir.SlotValue(slot, "exists"):
                return self.fills[slot].exists
            case ir.Not(operand):
                inner = self.decided(operand)
                return None if inner is None else not inner
            case ir.Cast(operand):
                return self.decided(operand)
            case ir.Binary("&" | "|" as operator, left, right):
                sides = (self.decided(left), self.decided(right))
                ruling = operator == "|"
                if ruling in sides:
                    return ruling
                return None if None in sides else not ruling
            case ir.Compare("==" | "!=" as operator, left, right) if _is_truth(left) and _is_truth(right):
                sides = (self.decided(left), self.decided(right))
                return None if None in sides else (sides[0] == sides[1]) == (operator == "==")
            case _:
                return None


def _is_truth(value: Expression) -> bool:
    """Say whether an expression is 0 or 1, so that it is what its truth is."""
    if isinstance(value, ir.Cast):
        return value.type == ir.BOOL or _is_truth(value.operand)
    return value.type == ir.BOOL or (isinstance(value, ir.Const) and value.value in {0, 1})


def _expressions(statement: Statement) -> Iterator[Expression]:
    for field in statement.__struct_fields__:
        value = getattr(statement, field)
        for one in value if isinstance(value, list) else (value,):
            if isinstance(one, _EXPRESSIONS):
                yield one


_EXPRESSIONS = (ir.Const, ir.Local, ir.Binary, ir.Compare, ir.Not, ir.Cast, ir.SlotValue)


def _slots(expression: Expression) -> Iterator[int]:
    """Yield the slots whose numbers an expression uses; asking whether one exists does not use it."""
    match expression:
        case ir.SlotValue():
            if expression.field != "exists":
                yield expression.slot
        case ir.Binary() | ir.Compare():
            yield from _slots(expression.left)
            yield from _slots(expression.right)
        case ir.Not() | ir.Cast():
            yield from _slots(expression.operand)
        case _:
            pass

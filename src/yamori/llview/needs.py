"""Which slots a program really needs on one kernel: those on paths that its ``exists`` tests leave open there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields

from yamori.llview import ir
from yamori.llview.ir import Expression, Statement
from yamori.llview.machine import SlotFill


def needed(body: list[Statement], fills: Sequence[SlotFill]) -> set[int]:
    """Return the numbers of the slots that statements may use, given which slots exist.

    As with BPF CO-RE, what stands behind ``if exists(...)`` of a member that the kernel lacks is not there at all.
    """
    reach = _Reach(body, fills)
    reach.body(body)
    return reach.found


class _Reach:
    """What can be reached on one kernel.

    Attributes:
        found: Slots that are used there.
    """

    def __init__(self, body: list[Statement], fills: Sequence[SlotFill]) -> None:
        self.fills = fills
        self.found: set[int] = set()
        self._assigned = Counter(s.target.name for s in ir.walk(body) if isinstance(s, ir.Assign))
        self._values: dict[str, bool] = {}

    def body(self, body: list[Statement]) -> bool:
        """Gather the slots of a body; say whether its end cannot be reached."""
        for statement in body:
            if isinstance(statement, ir.If):
                known = self.decided(statement.condition)
                if known is None:
                    self.found.update(_slots(statement.condition))
                    self.body(statement.then)
                    self.body(statement.otherwise)
                elif self.body(statement.then if known else statement.otherwise):
                    return True
                continue
            self.use(statement)
            for inner in ir.children(statement):
                self.body(inner)
            if isinstance(statement, ir.Break | ir.Continue | ir.Return | ir.Raise):
                return True
        return False

    def use(self, statement: Statement) -> None:
        """Gather the slots that one statement uses."""
        for expression in _expressions(statement):
            self.found.update(_slots(expression))
        slot = getattr(statement, "slot", None)
        if slot is not None:
            self.found.add(slot)
        if isinstance(statement, ir.Assign) and self._assigned[statement.target.name] == 1:
            known = self.decided(statement.value)
            if known is not None:
                self._values[statement.target.name] = known

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
            case _:
                return None


def _expressions(statement: Statement) -> Iterator[Expression]:
    for field in fields(statement):
        value = getattr(statement, field.name)
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

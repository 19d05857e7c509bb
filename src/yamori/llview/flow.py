"""What can be said of a program's statements without running them: where control goes, what is assigned."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.llview import ir
from yamori.llview.ir import Statement


def assigned(body: list[Statement]) -> Iterator[str]:
    """Yield the name of a variable as often as a statement sets it."""
    for statement in ir.walk(body):
        if isinstance(statement, ir.Assign | ir.LoadHost | ir.LoadPhys | ir.LoadBuffer | ir.LoadArray):
            yield statement.target.name
        elif isinstance(statement, ir.Attempt):
            yield statement.failed.name


def ends(body: list[Statement]) -> bool:
    """Say whether no path leads to the end of a body."""
    return any(_leaves(statement) for statement in body)


def _leaves(statement: Statement) -> bool:
    match statement:
        case ir.Break() | ir.Continue() | ir.Return() | ir.Raise():
            return True
        case ir.If():
            return ends(statement.then) and ends(statement.otherwise)
        case ir.Loop():
            return not _left(statement)
        case ir.Block() | ir.Attempt():
            return ends(statement.body) and not _left(statement)
        case _:
            return False


def _left(around: ir.Loop | ir.Block | ir.Attempt) -> bool:
    """Say whether a break, or a fault that it takes, leads behind a statement."""
    return any(
        (isinstance(statement, ir.Break) and statement.label == around.label)
        or (isinstance(statement, ir.Faulting) and statement.fault == around.label)
        for statement in ir.walk(around.body)
    )

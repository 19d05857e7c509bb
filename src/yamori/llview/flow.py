"""What can be said of a program's statements without running them: where control goes, what is assigned."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.llview import ir
from yamori.llview.ir import Statement


def children(statement: Statement) -> Iterator[list[Statement]]:
    """Yield the bodies that a statement holds."""
    if isinstance(statement, ir.If):
        yield statement.then
        yield statement.otherwise
    elif isinstance(statement, ir.Loop | ir.Block | ir.Attempt):
        yield statement.body


def walk(body: list[Statement]) -> Iterator[Statement]:
    """Yield every statement of a tree, outer ones first."""
    for statement in body:
        yield statement
        for inner in children(statement):
            yield from walk(inner)


def sets(statement: Statement) -> tuple[str, ...]:
    """Return the variable that a statement itself sets, if any; what its bodies set is left out."""
    if isinstance(statement, ir.Assign | ir.Translate | ir.LoadHost | ir.LoadPhys | ir.LoadBuffer | ir.LoadArray):
        return (statement.target.name,)
    return (statement.failed.name,) if isinstance(statement, ir.Attempt) else ()


def assigned(body: list[Statement]) -> Iterator[str]:
    """Yield the name of a variable as often as a statement sets it."""
    for statement in walk(body):
        yield from sets(statement)


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
        for statement in walk(around.body)
    )

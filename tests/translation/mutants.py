"""Mutants of a program: the same, but for one operator or number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from linecache import getline
from typing import Any, Final

from yamori.llview import flow, ir
from yamori.llview.ir import Expression, Program

SWAPS: Final[dict[str, str]] = {
    "+": "-",
    "-": "+",
    "*": "+",
    "&": "|",
    "|": "&",
    "<<": ">>",
    ">>": "<<",
    "==": "!=",
    "!=": "==",
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
}


def mutants(program: Program) -> Iterator[tuple[str, str, Program]]:
    """Yield each mutant with its source line and what is different. It is good until the next one is asked for."""
    for statement in flow.walk(program.body):
        if isinstance(statement, ir.Raise):
            continue  # its only number is the one that the message shows
        for name in statement.__struct_fields__:
            original = getattr(statement, name)
            for what, mutated in changed(original):
                setattr(statement, name, mutated)
                yield getline(statement.place.file, statement.place.line).strip(), what, replace(program)
            setattr(statement, name, original)


def changed(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a field of a statement may be changed to."""
    if isinstance(value, list):
        for number, element in enumerate(value):
            for what, new in changed(element):
                yield what, [*value[:number], new, *value[number + 1 :]]
    elif isinstance(value, Expression):
        yield from expressions(value)


def expressions(value: Expression) -> Iterator[tuple[str, Expression]]:
    """Yield an expression with one thing changed, at its top or anywhere below."""
    match value:
        case ir.Const():
            yield from numbers(value)
        case ir.Not():
            yield "no not", value.operand
            for what, operand in expressions(value.operand):
                yield what, ir.Not(operand)
        case ir.Cast():
            for what, operand in expressions(value.operand):
                yield what, value._replace(operand=operand)
        case ir.Binary() | ir.Compare():
            if value.operator in SWAPS:
                swapped: Any = SWAPS[value.operator]
                yield f"{value.operator} becomes {swapped}", value._replace(operator=swapped)
            if isinstance(value, ir.Binary):
                yield f"only the left of {value.operator}", value.left
            for what, left in expressions(value.left):
                yield what, value._replace(left=left)
            for what, right in expressions(value.right):
                yield what, value._replace(right=right)


def numbers(value: ir.Const) -> Iterator[tuple[str, Expression]]:
    """Yield a number's neighbours, and it without its topmost bit, which is what a mask may lack."""
    top = 1 << value.value.bit_length() >> 1
    for other in sorted({value.value + 1, value.value - 1, value.value ^ top} - {value.value}):
        if value.type.wrap(other) == other:
            yield f"{value.value:#x} becomes {other:#x}", ir.Const(other, value.type)

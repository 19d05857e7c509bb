"""Probes whose rows are random expressions of their arguments, and what these are worth by Python's own integers."""

from __future__ import annotations

import random
from typing import get_args

from tests.llview.native_programs import KINDS, P

from yamori.llview import ir
from yamori.llview.ir import BOOL, U8, U64, Const, Expression, IntType, Local, Program

PARAMETERS = [Local(f"{kind.name}_{n}", kind) for kind in KINDS for n in "ab"]
EDGES = (0, 1, 2, 3, 7, 8, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 1 << 15, 1 << 16, (1 << 31) - 1, 1 << 31)
FIELDS = 40


def any_value(numbers: random.Random, kind: IntType) -> int:
    """A number of a type, often one at an edge."""
    value = numbers.choice([numbers.choice(EDGES), -numbers.choice(EDGES), numbers.getrandbits(64)])
    return kind.wrap(value)


def arguments(numbers: random.Random) -> tuple[int, ...]:
    return tuple(any_value(numbers, local.type) for local in PARAMETERS)


def probe(numbers: random.Random, name: str) -> Program:
    kinds = [numbers.choice(KINDS) for _ in range(FIELDS)]
    return Program(
        name=name,
        kind="probe",
        word_size=8,
        file="random.py",
        parameters=PARAMETERS,
        row=[ir.RowField(f"f{n}", kind) for n, kind in enumerate(kinds)],
        body=[ir.Emit(place=P, values=[expression(numbers, kind, 4) for kind in kinds])],
    )


def expression(numbers: random.Random, kind: IntType, depth: int) -> Expression:
    """A random expression of a type that the verifier lets through."""
    if depth == 0 or numbers.random() < 0.1:
        local = numbers.choice([local for local in PARAMETERS if local.type == kind])
        return Const(any_value(numbers, kind), kind) if numbers.random() < 0.3 else local
    inner = numbers.choice(KINDS)
    if numbers.random() < 0.25:
        return ir.Cast(expression(numbers, inner, depth - 1), kind)
    if kind == BOOL and numbers.random() < 0.7:
        if numbers.random() < 0.2:
            return ir.Not(expression(numbers, BOOL, depth - 1))
        comparison = numbers.choice(get_args(ir.Comparison))
        return ir.Compare(comparison, expression(numbers, inner, depth - 1), expression(numbers, inner, depth - 1))
    left = expression(numbers, kind, depth - 1)
    operators: list[ir.BinaryOperator] = ["&", "|", "^", "<<", ">>"]
    if kind != BOOL:
        operators += ["+", "-", "*"] if kind.signed else ["+", "-", "*", "//", "%"]
    operator = numbers.choice(operators)
    if operator in {"<<", ">>"}:
        return ir.Binary(operator, left, _count(numbers, depth), kind)
    if operator in {"//", "%"}:
        divisor = Const(max(1, any_value(numbers, kind)), kind)
        return ir.Binary(operator, left, divisor, kind)
    return ir.Binary(operator, left, expression(numbers, kind, depth - 1), kind)


def _count(numbers: random.Random, depth: int) -> Expression:
    if numbers.random() < 0.5:
        return Const(numbers.choice([0, 1, 5, 8, 31, 32, 63, 64, 200]), U8)
    return expression(numbers, numbers.choice([U8, U64]), depth - 1)


def value(given: Expression, known: dict[str, int]) -> int:
    """What an expression is worth."""
    match given:
        case ir.Const():
            return given.value
        case ir.Local():
            return known[given.name]
        case ir.Not():
            return int(not value(given.operand, known))
        case ir.Cast():
            inner = value(given.operand, known)
            return int(inner != 0) if given.type == BOOL else given.type.wrap(inner)
        case ir.Compare():
            left, right = value(given.left, known), value(given.right, known)
            return int(
                {
                    "==": left == right,
                    "!=": left != right,
                    "<": left < right,
                    "<=": left <= right,
                    ">": left > right,
                    ">=": left >= right,
                }[given.operator]
            )
        case ir.Binary():
            return given.type.wrap(_binary(given, value(given.left, known), value(given.right, known)))
    raise NotImplementedError(given)


def _binary(given: ir.Binary, left: int, right: int) -> int:
    match given.operator:
        case "<<":
            return left << right if right < given.type.bits else 0
        case ">>":
            return left >> right
        case "//":
            return left // right
        case "%":
            return left % right
        case _:
            wide = {"+": left + right, "-": left - right, "*": left * right}
            return {**wide, "&": left & right, "|": left | right, "^": left ^ right}[given.operator]


def expected(program: Program, given: tuple[int, ...]) -> tuple[int, ...]:
    """The one row of a probe."""
    known = {local.name: number for local, number in zip(PARAMETERS, given, strict=True)}
    emit = program.body[0]
    assert isinstance(emit, ir.Emit)
    return tuple(value(field, known) for field in emit.values if not isinstance(field, str | None))

"""Expressions of the IR as Python text: exact integers, cut to their types only where a result might not fit.

Python's integers do not wrap. Each text is written with the bounds of what it can be worth, and is masked where these
reach beyond the type. Sums, products, ``&``, ``|``, ``^`` and ``<<`` give the same low bits whether or not their
operands were cut before, so that one mask around a whole address is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from yamori.llview import ir
from yamori.llview.ir import BOOL, Binary, Expression, IntType
from yamori.llview.writing import bare


class Text(NamedTuple):
    """An expression in Python, and the least and the greatest number that it can be worth."""

    text: str
    low: int
    high: int


class Expressions:
    """Writes the expressions of one program.

    Args:
        variables: IR name → Python name.
        slot_names: A name for each slot.
        truths: Leave Python's truth values as they are where they are cast to numbers.

    Attributes:
        slot_values: Python name → slot and field, of those that were asked for.
    """

    def __init__(self, variables: Mapping[str, str], slot_names: list[str], *, truths: bool = False) -> None:
        self._truths = truths
        self._variables = variables
        self._slot_names = slot_names
        self.slot_values: dict[str, tuple[int, ir.SlotField]] = {}

    def bare(self, value: Expression, kind: IntType | None = None) -> str:
        """Return an expression, cast to ``kind`` if it is given, without parentheses around it."""
        return bare(self.exact(value if kind is None else ir.Cast(value, kind)).text)

    def exact(self, value: Expression) -> Text:
        """Return an expression as what it is worth, in parentheses where it has parts."""
        return cut(self._loose(value), value.type)

    def _loose(self, value: Expression) -> Text:
        """Return an expression as something with the same low bits."""
        match value:
            case ir.Const():
                return number(value.value, value.type)
            case ir.Local():
                return Text(self._variables[value.name], *bounds(value.type))
            case ir.SlotValue():
                return Text(self._slot(value), *bounds(value.type))
            case ir.Compare():
                left, right = self.exact(value.left), self.exact(value.right)
                return Text(f"({left.text} {value.operator} {right.text})", 0, 1)
            case ir.Not():
                return Text(f"(not {self.exact(value.operand).text})", 0, 1)
            case ir.Cast():
                return self._cast(value)
            case ir.Binary():
                return self._binary(value)

    def _slot(self, value: ir.SlotValue) -> str:
        name = f"{self._slot_names[value.slot]}_{value.field}"
        self.slot_values[name] = value.slot, value.field
        return name

    def _cast(self, value: ir.Cast) -> Text:
        own, kind = value.operand.type, value.type
        if own == kind:
            return self._loose(value.operand)
        if isinstance(value.operand, ir.Const):
            return number(convert(value.operand.value, kind), kind)
        if kind == BOOL:
            return Text(f"({self.exact(value.operand).text} != 0)", 0, 1)
        if own == BOOL:
            truth = self.exact(value.operand)
            return truth if self._truths else Text(f"int({bare(truth.text)})", 0, 1)
        return self._loose(value.operand) if kind.bits <= own.bits else self.exact(value.operand)

    def _binary(self, value: Binary) -> Text:
        if value.operator == "<<":
            return self._shift_left(value)
        if value.operator == ">>":
            return self._shift_right(value)
        if value.operator in {"//", "%"}:
            return self._division(value)
        left, right = self._loose(value.left), self._loose(value.right)
        text = f"({left.text} {value.operator} {right.text})"
        if value.operator == "+":
            return Text(text, left.low + right.low, left.high + right.high)
        if value.operator == "-":
            return Text(text, left.low - right.high, left.high - right.low)
        if value.operator == "*":
            corners = [one * other for one in left[1:] for other in right[1:]]
            return Text(text, min(corners), max(corners))
        return Text(text, *_bitwise(value.operator, left, right))

    def _division(self, value: Binary) -> Text:
        left = self.exact(value.left)
        divisor = (
            value.right.value if isinstance(value.right, ir.Const) else 1
        )  # the verifier lets through nothing else
        text = f"({left.text} {value.operator} {divisor})"
        if value.operator == "%":
            return Text(text, 0, divisor - 1)
        return Text(text, left.low // divisor, left.high // divisor)

    def _shift_left(self, value: Binary) -> Text:
        left, count = self._loose(value.left), self.exact(value.right)
        bits = value.type.bits
        if count.high >= bits and count.text.isidentifier() and left.low >= 0:  # as below, and quicker
            return Text(f"({left.text} << {count.text} if {count.text} < {bits} else 0)", 0, left.high << bits - 1)
        if count.high > bits:  # every bit is gone, and the number would grow without bounds
            count = Text(f"min({bare(count.text)}, {bits})", 0, bits)
        low, high = min(left.low, left.low << count.high), max(left.high, left.high << count.high)
        return Text(f"({left.text} << {count.text})", low, high)

    def _shift_right(self, value: Binary) -> Text:
        left, count = self.exact(value.left), self.exact(value.right)
        low, high = left.low >> count.low, left.high >> count.low
        return Text(
            f"({left.text} >> {count.text})", min(low, left.low >> count.high), max(high, left.high >> count.high)
        )


def bounds(kind: IntType) -> tuple[int, int]:
    """Return the least and the greatest number of a type."""
    half = 1 << (kind.bits - 1)
    return (-half, half - 1) if kind.signed else (0, 2 * half - 1)


def convert(value: int, kind: IntType) -> int:
    """Return a number as C converts it to a type."""
    return int(value != 0) if kind == BOOL else kind.wrap(value)


def number(value: int, kind: IntType) -> Text:
    """Return a constant."""
    if kind == BOOL:
        return Text(str(bool(value)), value, value)
    digits = str(value) if abs(value) <= 4096 else hex(value)
    return Text(f"({digits})" if value < 0 else digits, value, value)


def cut(value: Text, kind: IntType) -> Text:
    """Wrap a number to a type, if it can be none of its numbers."""
    low, high = bounds(kind)
    if low <= value.low and value.high <= high:
        return value
    text = f"({value.text} & {(1 << kind.bits) - 1:#x})"
    if kind.signed:
        sign = f"{1 << (kind.bits - 1):#x}"
        text = f"(({text} ^ {sign}) - {sign})"
    return Text(text, low, high)


def converted(value: Text, kind: IntType) -> str:
    """Return a number as C assigns it to a variable of a type, without parentheses around it."""
    return f"{value.text} != 0" if kind == BOOL else bare(cut(value, kind).text)


def _bitwise(operator: str, left: Text, right: Text) -> tuple[int, int]:
    """Return the bounds of ``&``, ``|`` or ``^``; a mask of one's own bounds what is masked."""
    if operator == "&" and (left.low >= 0 or right.low >= 0):
        return 0, min(side.high for side in (left, right) if side.low >= 0)
    bits = max(max(side.high, ~side.low).bit_length() for side in (left, right))
    return (-(1 << bits) if min(left.low, right.low) < 0 else 0), (1 << bits) - 1

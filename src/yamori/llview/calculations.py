"""Arithmetic, comparisons and conditions of the language."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any, NoReturn

from yamori.llview import ir
from yamori.llview.ir import BOOL, U64, IntType
from yamori.llview.lowering import Lowering, promoted
from yamori.llview.values import Constant, Number, Pointer, Reference, Text, Value, describe

ARITHMETIC: dict[type[ast.operator], ir.BinaryOperator] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
}
COMPARISONS: dict[type[ast.cmpop], ir.Comparison] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
OTHER_COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Is: ("is", "say == NULL"),
    ast.IsNot: ("is not", "say != NULL"),
    ast.In: ("in", "compare with each one: a == x or a == y"),
    ast.NotIn: ("not in", "compare with each one: a != x and a != y"),
}
OTHER_ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Div: ("/", "say // for integers"),
    ast.Pow: ("**", "say 1 << n for a power of two"),
    ast.MatMult: ("@", "multiply number by number"),
}
MOST_CONSTANT = 1 << 64
"""Numbers in the source may get as large as this on the way to a smaller one."""


class Calculations(Lowering):
    """Lowers what is done with numbers."""

    def value(self, node: ast.expr) -> Value:
        """Return what an expression stands for."""
        raise NotImplementedError

    def assign(self, target: Value, value: Value, node: ast.AST) -> None:
        """Assign to a variable."""
        raise NotImplementedError

    def refuse(self, node: ast.AST) -> NoReturn:
        """Refuse something that Python has and the language has not."""
        raise NotImplementedError

    # --- arithmetic

    def _binop(self, node: ast.BinOp) -> Value:
        symbol = ARITHMETIC.get(type(node.op))
        if symbol is None:
            name, instead = OTHER_ARITHMETIC[type(node.op)]
            self.fail(f"{name!r} is not part of the language", node, hint=instead)
        return self.calculated(symbol, self.value(node.left), self.value(node.right), node)

    def calculated(self, symbol: ir.BinaryOperator, left: Value, right: Value, node: ast.AST) -> Value:
        """Return ``left symbol right``."""
        if isinstance(left, Constant) and isinstance(right, Constant):
            return self._folded(node, symbol, left.value, right.value)
        if symbol in {"&", "|", "^"}:
            left, right = _pattern(left, right), _pattern(right, left)
        one, other = self._pair(left, right, node)
        if symbol in {"<<", ">>"}:
            return Number(self._shifted(symbol, left, one, other, node))
        kind = self.common(one, other, node)
        if one.type == other.type == BOOL and symbol in {"&", "|", "^"}:
            kind = BOOL
        if symbol in {"//", "%"}:
            if not isinstance(other.expression, ir.Const) or other.expression.value <= 0:
                self.fail("the divisor has to be a positive constant", node)
            if kind.signed:
                self.fail("only unsigned numbers can be divided", node, hint="say u64(...)")
        return Number(self.binary(symbol, self.cast(one.expression, kind), self.cast(other.expression, kind), kind))

    def _shifted(
        self, symbol: ir.BinaryOperator, left: Value, one: Number, other: Number, node: ast.AST
    ) -> ir.Expression:
        kind = promoted(one.type)
        if isinstance(left, Constant):  # a number in the source has no type of its own
            kind = U64 if self.fits(one, U64) else ir.S64
        amount = other.expression
        if isinstance(amount, ir.Const) and amount.value < 0:
            self.fail("a shift by a negative number", node)
        amount = self.cast(amount, U64 if other.type.bits == 64 else ir.U32)
        return self.binary(symbol, self.cast(one.expression, kind), amount, kind)

    def _pair(self, left: Value, right: Value, node: ast.AST) -> tuple[Number, Number]:
        """Return two numbers; one that is written in the source has the other's type where it fits."""
        numbers = [Number(self.number(value, node)) for value in (left, right)]
        for index, value in enumerate((left, right)):
            kind = promoted(numbers[1 - index].type)
            if isinstance(value, Constant) and not isinstance(value.value, bool) and self.fits(numbers[index], kind):
                numbers[index] = Number(self.cast(numbers[index].expression, kind))
        return numbers[0], numbers[1]

    def _folded(self, node: ast.AST, symbol: ir.BinaryOperator, left: Any, right: Any) -> Value:
        if not isinstance(left, int) or not isinstance(right, int):
            self.fail("only numbers can be reckoned with", node)
        if symbol in {"//", "%"} and right == 0:
            self.fail("a division by 0", node)
        if symbol in {"<<", ">>"} and not 0 <= right <= 64:
            self.fail("a shift by a number that is not from 0 to 64", node)
        operations = {
            "+": int.__add__,
            "-": int.__sub__,
            "*": int.__mul__,
            "//": int.__floordiv__,
            "%": int.__mod__,
            "&": int.__and__,
            "|": int.__or__,
            "^": int.__xor__,
            "<<": int.__lshift__,
            ">>": int.__rshift__,
        }
        result = operations[symbol](int(left), int(right))
        if abs(result) > MOST_CONSTANT:
            self.fail(f"{result:#x} does not fit into 64 bits", node)
        return Constant(result)

    def _unaryop(self, node: ast.UnaryOp) -> Value:
        if isinstance(node.op, ast.Not):
            return Number(self.negation(self.condition(node.operand)))
        operand = self.value(node.operand)
        if isinstance(operand, Constant) and isinstance(operand.value, int):
            number = int(operand.value)
            return Constant(
                -number if isinstance(node.op, ast.USub) else ~number if isinstance(node.op, ast.Invert) else number
            )
        value = self.number(operand, node.operand)
        if isinstance(node.op, ast.Invert) and value.type == BOOL:
            self.fail("a truth value has no bits to turn over", node, hint="say not ...")
        kind = promoted(value.type)
        value = self.cast(value, kind)
        if isinstance(node.op, ast.USub):
            return Number(self.binary("-", ir.Const(0, kind), value, kind))
        if isinstance(node.op, ast.Invert):
            return Number(self.binary("^", value, ir.Const(kind.wrap(-1), kind), kind))
        return Number(value)

    # --- comparisons

    def _compare(self, node: ast.Compare) -> Value:
        """``a < b < c``: what is right of the first is looked at only where it matters."""
        left = self.value(node.left)
        result: ir.Expression | None = None
        for symbol, place in zip(node.ops, node.comparators, strict=True):
            if type(symbol) not in COMPARISONS:
                name, instead = OTHER_COMPARISONS[type(symbol)]
                self.fail(f"{name!r} is not part of the language", node, hint=instead)
            if result is None:
                right = self.value(place)
                result = self._compared(left, right, COMPARISONS[type(symbol)], place)
            else:
                body: list[ir.Statement] = []
                with self.into(body):
                    right = self.value(place)
                    one = self._compared(left, right, COMPARISONS[type(symbol)], place)
                result = self._joined("&", result, body, one)
            left = right
        assert result is not None  # noqa: S101  Python's grammar has one operator at least
        return Number(result)

    def _compared(self, left: Value, right: Value, symbol: ir.Comparison, node: ast.expr) -> ir.Expression:
        if isinstance(left, Text) or isinstance(right, Text):
            return self._same_text(left, right, symbol, node)
        pair = (left, right)
        if any(isinstance(one, Reference | Pointer) for one in pair):
            self._comparable(left, right, symbol, node)
            return self.comparison(symbol, self.number(left, node, self.word), self.number(right, node, self.word))
        if all(isinstance(one, Constant) and isinstance(one.value, str) for one in pair) and symbol in {"==", "!="}:
            return ir.Const(int((left == right) == (symbol == "==")), BOOL)
        one, other = self._pair(left, right, node)
        if one.type == other.type:
            return self.comparison(symbol, one.expression, other.expression)
        kind = self.common(one, other, node)
        return self.comparison(symbol, self.cast(one.expression, kind), self.cast(other.expression, kind))

    def _comparable(self, left: Value, right: Value, symbol: ir.Comparison, node: ast.expr) -> None:
        for value in (left, right):
            if not isinstance(value, Reference | Pointer) and not is_null(value):
                instead = "say NULL" if isinstance(value, Constant) and value.value is None else "say address_of(...)"
                self.fail(f"a pointer and {describe(value)} cannot be compared", node, hint=instead)
        if isinstance(left, Reference) and isinstance(right, Reference) and left.struct != right.struct:
            self.fail(f"struct {left.struct.name} and struct {right.struct.name} cannot be compared", node)
        if symbol not in {"==", "!="}:
            self.fail("pointers are equal or not", node, hint="say address_of(a) < address_of(b)")

    def _same_text(self, left: Value, right: Value, symbol: ir.Comparison, node: ast.expr) -> ir.Expression:
        """Compare a text with one in the source, byte by byte, its end included."""
        own, constant = (left, right) if isinstance(left, Text) else (right, left)
        text = constant.value if isinstance(constant, Constant) else None
        wanted = text.encode(errors="surrogateescape") if isinstance(text, str) and encodable(text) else text
        if not isinstance(own, Text) or not isinstance(wanted, bytes) or symbol not in {"==", "!="}:
            self.fail("a text is compared with one in the source, by == or !=", node)
        size = self.program.buffers[own.buffer]
        if b"\0" in wanted or len(wanted) > size:
            return ir.Const(int(symbol == "!="), BOOL)
        padded = wanted + b"\0" * (len(wanted) < size)
        result: ir.Expression = ir.Const(1, BOOL)
        for at, byte in enumerate(padded):
            target = self.temporary(ir.U8, "byte")
            place = ir.Const(at, U64)
            self.add(ir.LoadBuffer(place=self.place, fault=self.fault, target=target, buffer=own.buffer, at=place))
            one = self.comparison("==", target, ir.Const(byte, ir.U8))
            result = one if at == 0 else self.binary("&", result, one, BOOL)
        return self.negation(result) if symbol == "!=" else result

    # --- conditions

    def condition(self, node: ast.expr) -> ir.Expression:
        """Return a condition: a ``BOOL``. Numbers are true when they are not 0."""
        if isinstance(node, ast.BoolOp):
            with self.at(node):
                return self._logic(node, self.condition)
        value = self.value(node)
        if isinstance(value, Constant):
            value = self.literal(value.value, node)
        if isinstance(value, Reference | Pointer):
            self.fail("a pointer is no condition", node, hint="compare it with NULL")
        if not isinstance(value, Number):
            self.fail(f"{describe(value)} is no condition", node)
        return self.cast(value.expression, BOOL)

    def _truth(self, node: ast.expr) -> ir.Expression:
        """Return an operand of an ``and`` or ``or`` whose value is used: in Python it may be the result itself."""
        value = self.value(node)
        if isinstance(value, Constant) and isinstance(value.value, bool):
            return ir.Const(int(value.value), BOOL)
        if not isinstance(value, Number) or value.type != BOOL:
            what = f"`and` and `or` give a truth value here, and {describe(value)} is none"
            self.fail(what, node, hint="say x if x != 0 else y, or compare it with 0")
        return value.expression

    def _boolop(self, node: ast.BoolOp) -> Value:
        return Number(self._logic(node, self._truth))

    def _logic(self, node: ast.BoolOp, lower: Any) -> ir.Expression:
        """``and`` and ``or``: what is right of them is looked at only where it matters, for it may load."""
        symbol: ir.BinaryOperator = "&" if isinstance(node.op, ast.And) else "|"
        result: ir.Expression = lower(node.values[0])
        for operand in node.values[1:]:
            if isinstance(result, ir.Const):
                if bool(result.value) == (symbol == "|"):
                    return result
                result = lower(operand)
                continue
            body: list[ir.Statement] = []
            with self.into(body):
                right = lower(operand)
            result = self._joined(symbol, result, body, right)
        return result

    def _joined(
        self, symbol: ir.BinaryOperator, left: ir.Expression, body: Sequence[ir.Statement], right: ir.Expression
    ) -> ir.Expression:
        """Return ``left and right`` or ``left or right``, where ``body`` is needed for what is right."""
        if not body:
            return self.binary(symbol, left, right, BOOL)
        kept = self.keep(left, "both" if symbol == "&" else "either")
        then = [*body, ir.Assign(place=self.place, target=kept, value=right)]
        self.add(ir.If(place=self.place, condition=kept if symbol == "&" else ir.Not(kept), then=then))
        return kept

    def _ifexp(self, node: ast.IfExp) -> Value:
        condition = self.condition(node.test)
        if isinstance(condition, ir.Const):
            return self.value(node.body if condition.value else node.orelse)
        bodies: tuple[list[ir.Statement], list[ir.Statement]] = ([], [])
        values = []
        for body, part in zip(bodies, (node.body, node.orelse), strict=True):
            with self.into(body):
                values.append(self.value(part))
        target = self._chosen(values[0], values[1], node)
        for body, value, part in zip(bodies, values, (node.body, node.orelse), strict=True):
            with self.into(body):
                self.assign(target, value, part)
        self.add(ir.If(place=self.place, condition=condition, then=bodies[0], otherwise=bodies[1]))
        return target

    def _chosen(self, one: Value, other: Value, node: ast.AST) -> Value:
        """Return a new variable that can hold either of two values."""
        for value in (one, other):
            if isinstance(value, Reference):
                return Reference(value.struct, self.temporary(self.word, "chosen"))
            if isinstance(value, Pointer):
                return Pointer(value.target, self.temporary(self.word, "chosen"))
            if isinstance(value, Constant) and value.value is None:
                self.fail("None is no value", node, hint="only a field of emit() may be `x if known else None`")
        numbers = (Number(self.number(one, node)), Number(self.number(other, node)))
        written = all(isinstance(value, Constant) for value in (one, other))
        if written and numbers[0].type != BOOL:  # the smallest type fits wherever both do
            kinds = (IntType(bits, signed) for bits in (8, 16, 32, 64) for signed in (False, True))
            kind = next((kind for kind in kinds if all(self.fits(number, kind) for number in numbers)), None)
            if kind is not None:
                return Number(self.temporary(kind, "chosen"))
        kind = numbers[0].type if numbers[0].type == numbers[1].type else self.common(*numbers, node)
        return Number(self.temporary(kind, "chosen"))


def is_null(value: Value) -> bool:
    """Say whether a value is ``NULL``, or 0 in the source."""
    return isinstance(value, Constant) and isinstance(value.value, int) and int(value.value) == 0


def encodable(text: str) -> bool:
    """Say whether a text in the source is one of Unicode."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _pattern(value: Value, other: Value) -> Value:
    """Return a negative constant beside an unsigned number as the bits that it stands for there: ``x & ~255``."""
    if not isinstance(value, Constant) or not isinstance(value.value, int) or not isinstance(other, Number):
        return value
    kind = promoted(other.type)
    if kind.signed or not -(1 << (kind.bits - 1)) <= value.value < 0:
        return value
    return Constant(kind.wrap(value.value))

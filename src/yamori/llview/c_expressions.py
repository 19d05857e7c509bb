"""Expressions of the IR as C text: wrapping arithmetic, total shifts, no call into libgcc."""

from __future__ import annotations

from collections.abc import Collection

from yamori.llview import ir
from yamori.llview.ir import BOOL, S64, U64, Binary, Expression, IntType

C_SIGNED_MINIMUM = {32: "INT32_MIN", 64: "INT64_MIN"}


def c_type(kind: IntType) -> str:
    """Return the C type of an integer."""
    return "_Bool" if kind == BOOL else f"{'' if kind.signed else 'u'}int{kind.bits}_t"


def c_number(value: int, kind: IntType = U64) -> str:
    """Return a number of a type as a C constant."""
    if kind.signed and value < 0:
        if value == -(1 << (kind.bits - 1)) and kind.bits in C_SIGNED_MINIMUM:
            return C_SIGNED_MINIMUM[kind.bits]
        return f"(-{c_number(-value, kind)})"
    digits = str(value) if value <= 4096 else hex(value)
    if kind.bits == 64:
        return f"{'INT64_C' if kind.signed else 'UINT64_C'}({digits})"
    return digits if kind.signed or kind == BOOL else f"{digits}u"


class Expressions:
    """Writes the expressions of one program.

    Args:
        variables: IR name → C name.
        moved: Slots of symbols whose addresses lie ``slide`` bytes behind what the slot says.
    """

    def __init__(self, variables: dict[str, str], moved: Collection[int] = ()) -> None:
        self._variables = variables
        self._moved = moved

    def text(self, value: Expression) -> str:
        """Return an expression, in parentheses where it has parts. A ``BOOL`` is 0 or 1, not always a ``_Bool``."""
        match value:
            case ir.Const():
                return c_number(value.value, value.type)
            case ir.Local():
                return self._variables[value.name]
            case ir.SlotValue(field="exists"):
                return f"(slots[{value.slot}].exists != 0)"
            case ir.SlotValue(field="offset") if value.slot in self._moved:
                return f"(slots[{value.slot}].offset + slide)"
            case ir.SlotValue():
                return f"slots[{value.slot}].{value.field}"
            case ir.Compare():
                return f"({self.text(value.left)} {value.operator} {self.text(value.right)})"
            case ir.Not():
                return f"(!{self.text(value.operand)})"
            case ir.Cast():
                return self.cast(value.operand, value.type)
            case ir.Binary():
                return self._binary(value)

    def cast(self, value: Expression, kind: IntType) -> str:
        """Return an expression as C assigns it to a variable of another type."""
        if value.type == kind:
            return self.text(value)
        if isinstance(value, ir.Const) and kind != BOOL:
            return c_number(kind.wrap(value.value), kind)
        return converted(self.text(value), kind)

    def _binary(self, value: Binary) -> str:
        kind = value.type
        if value.operator in {"<<", ">>"}:
            return self._shift(value)
        if kind == BOOL:
            return f"({self.text(value.left)} {value.operator} {self.text(value.right)})"
        if value.operator in {"//", "%"}:
            return self._division(value)
        # Unsigned, and not smaller than int: so it wraps, and is not promoted to a signed type that must not.
        wide = IntType(max(kind.bits, 32))
        return _narrow(f"({self.cast(value.left, wide)} {value.operator} {self.cast(value.right, wide)})", wide, kind)

    def _division(self, value: Binary) -> str:
        divisor = value.right.value if isinstance(value.right, ir.Const) else 0
        if divisor & (divisor - 1) == 0:  # a shift or a mask to any compiler
            wide = IntType(max(value.type.bits, 32))
            operator = "/" if value.operator == "//" else "%"
            text = f"({self.cast(value.left, wide)} {operator} {c_number(divisor, wide)})"
            return _narrow(text, wide, value.type)
        function = "ll_div64" if value.operator == "//" else "ll_mod64"
        return _narrow(f"{function}({self.cast(value.left, U64)}, {c_number(divisor)})", U64, value.type)

    def _shift(self, value: Binary) -> str:
        kind = value.type
        if value.operator == ">>" and kind.signed:
            return _narrow(f"ll_sar64({self.cast(value.left, S64)}, {self.cast(value.right, U64)})", S64, kind)
        wide = IntType(max(kind.bits, 32))
        left = self.cast(value.left, wide)
        if isinstance(value.right, ir.Const) and value.right.value < wide.bits:
            return _narrow(f"({left} {value.operator} {value.right.value})", wide, kind)
        function = "ll_shl" if value.operator == "<<" else "ll_shr"
        return _narrow(f"{function}{wide.bits}({left}, {self.cast(value.right, U64)})", wide, kind)


def converted(text: str, kind: IntType) -> str:
    """Return C text of another integer type converted to this one."""
    if kind == BOOL:
        return f"({text} != 0)"
    return f"({c_type(kind)}){text}"


def _narrow(text: str, wide: IntType, kind: IntType) -> str:
    """Cut a result to its type."""
    if kind == BOOL:
        return f"({text} & 1u)"
    return text if wide == kind else f"({c_type(kind)}){text}"

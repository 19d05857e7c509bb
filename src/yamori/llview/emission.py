"""Rows: what ``emit`` gives out, and of which types."""

from __future__ import annotations

import ast
import types
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from yamori.llview import ir
from yamori.llview.calls import Calls
from yamori.llview.ir import BOOL, U64, IntType
from yamori.llview.values import Constant, Number, Pointer, Reference, Text, Value, describe

UNSETTLED = IntType(0)
"""A number's type before the first row settles it."""
TEXTUAL = IntType(-1)
"""A field of type ``str`` before it is known whether it is a text or a character."""
CHARACTER = ir.U8
MOST_CONDITIONS = 8
"""Different conditions of one row's fields: it is written out for each way that they can turn out."""


class Emission(Calls):
    """Lowers ``emit``."""

    def emission(self, fields: dict[str, ast.expr], node: ast.Call) -> None:
        """Give out a row; for each condition of ``x if known else None`` one with and one without."""
        row = self.program.row
        known = {field.name: field for field in row}
        for name, expression in fields.items():
            if name not in known:
                self.fail(f"rows have no field {name!r}", expression, hint=f"there are {', '.join(known)}")
        if missing := [field.name for field in row if field.name not in fields and not field.nullable]:
            self.fail(f"the row lacks {', '.join(missing)}", node)
        lowered = {name: self._field(expression, known[name]) for name, expression in fields.items()}
        if len({condition for _, condition in lowered.values() if condition is not None}) > MOST_CONDITIONS:
            self.fail(f"more than {MOST_CONDITIONS} conditions in one row", node, hint="let fields share one")
        self._emit([lowered.get(field.name, (None, None)) for field in row])

    def _field(self, node: ast.expr, field: ir.RowField) -> tuple[Value | None, ir.Expression | None]:
        """Return a field's value and the condition for it; its loads are done only where it holds."""
        if not isinstance(node, ast.IfExp) or not (_is_none(node.body) or _is_none(node.orelse)):
            return self._fitting(self.value(node), field, node), None
        if not field.nullable:
            self.fail(f"the field {field.name!r} cannot be None", node)
        condition = self.condition(node.test)
        chosen = node.body
        if _is_none(node.body):
            condition, chosen = self.negation(condition), node.orelse
        if isinstance(condition, ir.Const):
            return (self._fitting(self.value(chosen), field, chosen) if condition.value else None), None
        body: list[ir.Statement] = []
        with self.into(body):
            value = self._fitting(self.value(chosen), field, chosen)
        if body:
            self.add(ir.If(place=self.place, condition=condition, then=body))
        return value, condition

    def _fitting(self, value: Value, field: ir.RowField, node: ast.expr) -> Value | None:
        field = next(one for one in self.program.row if one.name == field.name)
        if isinstance(value, Constant) and value.value is None and field.nullable:
            return None
        if isinstance(value, Text):
            if isinstance(field.type, IntType):
                if field.type != TEXTUAL:
                    self.fail(f"the field {field.name!r} is a number", node)
                field = field._replace(type=self.program.buffers[value.buffer])
            size = max(cast("int", field.type), self.program.buffers[value.buffer])
            self._settle(field._replace(type=size))
            return value
        if isinstance(value, Reference | Pointer):
            value = Number(value.address)
        if isinstance(value, Constant) and isinstance(value.value, str) and field.type in {TEXTUAL, CHARACTER}:
            value = self._character(value.value, node)
        if not isinstance(field.type, IntType):
            self.fail(f"the field {field.name!r} is a text elsewhere, and {describe(value)} is none", node)
        if isinstance(value, Constant) and value.value is None:
            self.fail(f"the field {field.name!r} is never None", node, hint="declare it `int | None`, as an example")
        number = self.number(value, node)
        if field.type == BOOL:
            return Number(self.cast(number, BOOL))
        return self._number(number, field.type, field, node)

    def _number(self, number: ir.Expression, kind: IntType, field: ir.RowField, node: ast.expr) -> Value:
        """Return a number as a field has it; the first one settles which type that is."""
        if kind == TEXTUAL:
            kind = CHARACTER
        elif kind == UNSETTLED:
            kind = ir.S64 if number.type.signed else U64
        if not self.fits(Number(number), kind):
            if kind == CHARACTER:
                hint = "copy a text, or say u8(...) for one character"
                self.fail(f"the field {field.name!r} is a text, and {number.type.one} is none", node, hint=hint)
            what = f"the field {field.name!r} is {kind.one}, and {number.type.one} may not fit into it"
            self.fail(what, node, hint=f"say {kind.name}(...)")
        self._settle(field._replace(type=kind))
        return Number(self.cast(number, kind))

    def _character(self, text: str, node: ast.expr) -> Constant:
        if len(text) != 1 or not text.isascii():
            self.fail("a text in the source is one character long here", node, hint="or read it from the guest")
        return Constant(ord(text))

    def _settle(self, field: ir.RowField) -> None:
        """Fix a field's type as the first row has it."""
        index = next(n for n, one in enumerate(self.program.row) if one.name == field.name)
        self.program.row[index] = field

    def _emit(self, values: list[tuple[Value | None, ir.Expression | None]]) -> None:
        open_ = next((condition for _, condition in values if condition is not None), None)
        if open_ is None:
            row = [_emitted(value) for value, _ in values]
            self.add(ir.Emit(place=self.place, values=row))
            return
        bodies: tuple[list[ir.Statement], list[ir.Statement]] = ([], [])
        for body, chosen in zip(bodies, (True, False), strict=True):
            decided = [
                (value if chosen else None, None) if condition == open_ else (value, condition)
                for value, condition in values
            ]
            with self.into(body):
                self._emit(decided)
        self.add(ir.If(place=self.place, condition=open_, then=bodies[0], otherwise=bodies[1]))


def _emitted(value: Value | None) -> ir.Expression | str | None:
    if isinstance(value, Text):
        return value.buffer
    return value.expression if isinstance(value, Number) else None


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def row_fields(row: type[Any]) -> list[ir.RowField]:
    """Return the fields of a row's class; the types of numbers are settled by the first ``emit``."""
    return [
        _row_field(name, hint)
        for name, hint in get_type_hints(row).items()
        if get_origin(hint) is None or "ClassVar" not in str(hint)
    ]


def _row_field(name: str, hint: Any) -> ir.RowField:
    options = get_args(hint) if isinstance(hint, types.UnionType) or get_origin(hint) is Union else (hint,)
    plain = next((option for option in options if option is not type(None)), None)
    if plain is None:
        raise TypeError(f"{name} is always None")
    if plain not in {int, bool, str, float}:
        raise TypeError(f"{name} is {getattr(plain, '__name__', plain)}: a field is int, bool, str or float (seconds)")
    return ir.RowField(name, {bool: BOOL, str: TEXTUAL}.get(plain, UNSETTLED), nullable=type(None) in options)

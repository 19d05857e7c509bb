"""Expressions of the language: each becomes a value, and the loads that it needs become statements."""

from __future__ import annotations

import ast
from typing import Any, NoReturn, cast

from yamori.llview import ir
from yamori.llview.ir import BOOL, U64, IntType
from yamori.llview.language import TEXT_BYTES, Kernel, Named, Struct
from yamori.llview.lowering import Lowering, promoted
from yamori.llview.types import ArrayType, PtrType, StructType, TextType, Type, member_type
from yamori.llview.values import (
    Constant,
    GuestArray,
    LocalArray,
    Number,
    Pointer,
    Record,
    Reference,
    Symbols,
    Text,
    Value,
    describe,
)

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
INSTEAD: dict[type[ast.AST], str] = {
    ast.Div: "say // for integers",
    ast.Pow: "say 1 << n for a power of two",
    ast.MatMult: "matrices have no place here",
    ast.Lambda: "write a helper",
    ast.ListComp: "write a for loop, and local_array() for what it keeps",
    ast.SetComp: "write a for loop",
    ast.DictComp: "write a for loop",
    ast.GeneratorExp: "write a for loop, or a helper with one yield",
    ast.List: "say local_array(u64, n)",
    ast.Dict: "say local_array(), there is no heap",
    ast.Set: "say local_array(), there is no heap",
    ast.JoinedStr: "texts are fixed: give the value as second argument, as in trouble('...', value)",
    ast.Await: "programs run to their end at once",
    ast.NamedExpr: "assign in a statement of its own",
    ast.Starred: "name each argument",
    ast.Slice: "say text(address, limit) for a part of a string",
    ast.Is: "say == NULL",
    ast.IsNot: "say != NULL",
    ast.In: "compare with each one: a == x or a == y",
    ast.NotIn: "compare with each one: a != x and a != y",
    ast.Invert: "",
}


class Expressions(Lowering):
    """Lowers expressions."""

    def value(self, node: ast.expr) -> Value:
        """Return what an expression stands for."""
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            self.refuse(node)
        with self.at(node):
            return cast("Value", method(node))

    def refuse(self, node: ast.AST) -> NoReturn:
        """Refuse something that Python has and the language has not."""
        name = type(node).__name__
        words = {"ListComp": "a list comprehension", "JoinedStr": "an f-string", "Lambda": "a lambda"}
        what = words.get(name, f"{name!r} of Python")
        self.fail(f"{what} is not part of the language", node, hint=INSTEAD.get(type(node), ""))

    def int_of(self, node: ast.expr, kind: IntType | None = None) -> ir.Expression:
        """Return an integer expression's value, converted to ``kind`` where that loses nothing."""
        return self.number(self.value(node), node, kind)

    def condition(self, node: ast.expr) -> ir.Expression:
        """Return a condition: a ``BOOL``. Numbers are true when they are not 0."""
        value = self.value(node)
        if isinstance(value, Constant):
            value = self.literal(value.value, node)
        if isinstance(value, Reference | Pointer):
            self.fail("a pointer is no condition", node, hint="compare it with NULL")
        if not isinstance(value, Number):
            self.fail(f"{describe(value)} is no condition", node)
        return self.cast(value.expression, BOOL)

    # --- names and constants

    def _constant(self, node: ast.Constant) -> Value:
        if isinstance(node.value, float | complex):
            self.fail("there are only integers", node, hint="keep nanoseconds, not seconds")
        return Constant(node.value)

    def _name(self, node: ast.Name) -> Value:
        if node.id in self.frame.variables:
            return self.frame.variables[node.id]
        if node.id in self.frame.scope.names:
            return Constant(self.frame.scope.names[node.id])
        builtins: dict[str, object] = {"range": range, "bool": bool, "int": int}
        if node.id in builtins:
            return Constant(builtins[node.id])
        self.fail(f"the name {node.id!r} is not known", node, hint="a variable must be assigned before it is used")

    def _tuple(self, node: ast.Tuple) -> Value:
        return Record(tuple(str(n) for n in range(len(node.elts))), tuple(self.value(e) for e in node.elts))

    # --- members

    def _attribute(self, node: ast.Attribute) -> Value:
        owner = self.value(node.value)
        if isinstance(owner, Reference):
            return self._load_member(owner, node)
        if isinstance(owner, Symbols):
            return self._symbol(owner, node)
        if isinstance(owner, Record):
            if node.attr not in owner.names:
                self.fail(f"it has no field {node.attr!r}", node, hint=f"there are {', '.join(owner.names)}")
            return owner.values[owner.names.index(node.attr)]
        if isinstance(owner, Constant) and hasattr(owner.value, node.attr):
            return Constant(getattr(owner.value, node.attr))
        self.fail(f"{describe(owner)} has no member {node.attr!r}", node)

    def declared(self, owner: Reference | Symbols, node: ast.Attribute) -> tuple[Type, int]:
        """Return a member's or symbol's type and slot."""
        if isinstance(owner, Reference):
            declaration: type[Struct | Kernel] = owner.struct.declaration
            kind = member_type(owner.struct.declaration, node.attr, self.word.bits // 8)
        else:
            declaration = owner.declaration
            kind = member_type(owner.declaration, node.attr, self.word.bits // 8)
        if kind is None:
            self.fail(
                f"{declaration.__name__} declares no member {node.attr!r}",
                node,
                hint=f"add `{node.attr}: ...` to class {declaration.__name__}",
            )
        if isinstance(owner, Reference):
            renamed = getattr(owner.struct.declaration, node.attr, None)
            return kind, self.member(owner.struct, renamed.path if isinstance(renamed, Named) else node.attr)
        return kind, self.slot(ir.SlotSpec("symbol", node.attr))

    def _load_member(self, owner: Reference, node: ast.Attribute) -> Value:
        kind, slot = self.declared(owner, node)
        address = self.offset(owner.address, slot)
        if isinstance(kind, IntType):
            return self.load(address, kind, slot=slot, name=node.attr)
        if isinstance(kind, TextType):
            return self.copy(address, ir.SlotValue(slot, "size"), TEXT_BYTES)
        if isinstance(kind, ArrayType):
            return GuestArray(kind.element, address, self.cast(ir.SlotValue(slot, "stride"), self.word))
        return self.thing(kind, address, name=node.attr)

    def _symbol(self, owner: Symbols, node: ast.Attribute) -> Value:
        kind, slot = self.declared(owner, node)
        address = self.cast(ir.SlotValue(slot, "offset"), self.word)
        if isinstance(kind, ArrayType):
            return GuestArray(kind.element, address, self.size(kind.element, node))
        return self.thing(kind, address, name=node.attr)

    def thing(self, kind: Type, address: ir.Expression, *, name: str = "t") -> Value:
        """Return what lies at an address: a structure is named, anything else is loaded."""
        if isinstance(kind, StructType):
            return Reference(kind, address)
        if isinstance(kind, IntType):
            return self.load(address, kind, name=name)
        if isinstance(kind, PtrType):
            pointer = self.load(address, self.word, name=name).expression
            return self.pointer(kind, pointer)
        if isinstance(kind, TextType):
            return self.copy(address, ir.Const(TEXT_BYTES, U64), TEXT_BYTES)
        self.fail("an array of arrays has to be reached by address", hint="say at(T, address)")

    def pointer(self, kind: PtrType, address: ir.Expression) -> Value:
        """Return what a pointer of a type stands for."""
        if isinstance(kind.target, StructType):
            return Reference(kind.target, address)
        return Pointer(kind.target, address)

    def size(self, kind: Type, node: ast.AST) -> ir.Expression:
        """Return ``sizeof`` of a type, a word."""
        if isinstance(kind, IntType):
            return ir.Const(kind.bits // 8 or 1, self.word)
        if isinstance(kind, PtrType):
            return ir.Const(self.word.bits // 8, self.word)
        if isinstance(kind, StructType):
            return self.cast(ir.SlotValue(self.slot(ir.SlotSpec("sizeof", kind.name)), "size"), self.word)
        self.fail("its size is not known", node)

    # --- loads

    def load(self, address: ir.Expression, kind: IntType, *, slot: int | None = None, name: str = "t") -> Number:
        """Load an integer of the guest's kernel."""
        target = self.temporary(kind, name.strip("_") or "t")
        size = 0 if slot is not None else (kind.bits // 8 or 1)
        self.add(ir.LoadVirt(place=self.place, fault=self.fault, target=target, address=address, size=size, slot=slot))
        return Number(target)

    def copy(
        self, address: ir.Expression, length: ir.Expression, limit: int, root: ir.Expression | None = None
    ) -> Text:
        """Copy a string out of the guest, at most ``limit`` bytes."""
        buffer = self.fresh("text")
        self.program.buffers[buffer] = -(-limit // 8) * 8
        if not isinstance(length, ir.Const):
            kept = self.keep(length, "length")
            limited = ir.If(
                place=self.place,
                condition=ir.Compare(">", kept, ir.Const(limit, kept.type)),
                then=[ir.Assign(place=self.place, target=kept, value=ir.Const(limit, kept.type))],
            )
            self.add(limited)
            length = kept
        self.add(
            ir.CopyVirt(place=self.place, fault=self.fault, buffer=buffer, address=address, length=length, root=root)
        )
        return Text(buffer)

    def _subscript(self, node: ast.Subscript) -> Value:
        owner = self.value(node.value)
        if isinstance(node.slice, ast.Slice):
            self.refuse(node.slice)
        if isinstance(owner, LocalArray):
            target = self.temporary(owner.element, owner.name)
            at = self.int_of(node.slice)
            self.add(ir.LoadArray(place=self.place, fault=self.fault, target=target, array=owner.name, at=at))
            return Number(target)
        if isinstance(owner, Text):
            target = self.temporary(ir.U8, "byte")
            at = self.int_of(node.slice)
            self.add(ir.LoadBuffer(place=self.place, fault=self.fault, target=target, buffer=owner.buffer, at=at))
            return Number(target)
        if isinstance(owner, GuestArray | Pointer):
            kind = owner.element if isinstance(owner, GuestArray) else owner.target
            stride = owner.stride if isinstance(owner, GuestArray) else self.size(kind, node)
            index = self.cast(self.int_of(node.slice), self.word)
            return self.thing(kind, self.plus(owner.address, ir.Binary("*", index, stride, self.word)))
        if isinstance(owner, Constant) and isinstance(owner.value, tuple | list | str | bytes):
            index_value = self.value(node.slice)
            if isinstance(index_value, Constant) and isinstance(index_value.value, int):
                return Constant(owner.value[index_value.value])
            self.fail("a table of constants needs a constant index", node.slice, hint="say if ... elif ...")
        self.fail(f"{describe(owner)} cannot be indexed", node)

    # --- operators

    def _binop(self, node: ast.BinOp) -> Value:
        operator = ARITHMETIC.get(type(node.op))
        if operator is None:
            self.fail(
                f"{type(node.op).__name__} is not part of the language", node, hint=INSTEAD.get(type(node.op), "")
            )
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(left, Constant) and isinstance(right, Constant):
            return self._folded(node, operator, left.value, right.value)
        one, other = self._pair(left, right, node)
        if operator in {"<<", ">>"}:
            kind = one.type if one.type.bits >= 32 else ir.U32 if not one.type.signed else ir.S32
            if isinstance(one.expression, ir.Const):
                kind = ir.U64
            amount = self.cast(other.expression, ir.U64 if other.type.bits == 64 else ir.U32)
            return Number(ir.Binary(operator, self.cast(one.expression, kind), amount, kind))
        kind = self.common(one, other, node)
        if operator in {"//", "%"} and (not isinstance(other.expression, ir.Const) or other.expression.value <= 0):
            self.fail("the divisor has to be a positive constant", node.right)
        if operator in {"//", "%"} and kind.signed:
            self.fail("only unsigned numbers can be divided", node.left, hint="say u64(...)")
        return Number(ir.Binary(operator, self.cast(one.expression, kind), self.cast(other.expression, kind), kind))

    def _pair(self, left: Value, right: Value, node: ast.AST) -> tuple[Number, Number]:
        """Return two numbers; one that is written in the source has the other's type where it fits."""
        numbers = [Number(self.number(value, node)) for value in (left, right)]
        for index, value in enumerate((left, right)):
            kind = promoted(numbers[1 - index].type)
            if isinstance(value, Constant) and not isinstance(value.value, bool) and self.fits(numbers[index], kind):
                numbers[index] = Number(self.cast(numbers[index].expression, kind))
        return numbers[0], numbers[1]

    def _folded(self, node: ast.BinOp, operator: str, left: Any, right: Any) -> Value:
        if not isinstance(left, int) or not isinstance(right, int):
            self.fail("only numbers can be reckoned with", node)
        if (operator in {"//", "%"} and right == 0) or (operator in {"<<", ">>"} and not 0 <= right < 64):
            self.fail("this number does not exist", node)
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
        return Constant(operations[operator](left, right))

    def _unaryop(self, node: ast.UnaryOp) -> Value:
        if isinstance(node.op, ast.Not):
            return Number(ir.Not(self.condition(node.operand)))
        operand = self.value(node.operand)
        if isinstance(operand, Constant) and isinstance(operand.value, int):
            return Constant(-operand.value if isinstance(node.op, ast.USub) else ~operand.value)
        value = self.number(operand, node.operand)
        kind = value.type if value.type.bits >= 32 else IntType(32, value.type.signed)
        value = self.cast(value, kind)
        if isinstance(node.op, ast.USub):
            return Number(ir.Binary("-", ir.Const(0, kind), value, kind))
        if isinstance(node.op, ast.Invert):
            return Number(ir.Binary("^", value, ir.Const(kind.wrap(-1), kind), kind))
        return Number(value)

    def _compare(self, node: ast.Compare) -> Value:
        values = [self.value(node.left)]
        places = [node.left, *node.comparators]
        result: ir.Expression | None = None
        for index, (operator, right) in enumerate(zip(node.ops, node.comparators, strict=True)):
            if type(operator) not in COMPARISONS:
                name = {"Is": "is", "IsNot": "is not", "In": "in", "NotIn": "not in"}[type(operator).__name__]
                self.fail(f"{name!r} is not part of the language", node, hint=INSTEAD[type(operator)])
            values.append(self.value(right))
            one = self._compared(values[index], values[index + 1], COMPARISONS[type(operator)], places[index + 1])
            result = one if result is None else ir.Binary("&", result, one, BOOL)
        assert result is not None  # noqa: S101  Python's grammar has one operator at least
        return Number(result)

    def _compared(self, left: Value, right: Value, operator: ir.Comparison, node: ast.expr) -> ir.Expression:
        if isinstance(left, Text) or isinstance(right, Text):
            return self._same_text(left, right, operator, node)
        pair = (left, right)
        if any(isinstance(one, Reference | Pointer) for one in pair):
            self._comparable(left, right, operator, node)
            return ir.Compare(operator, self.number(left, node, self.word), self.number(right, node, self.word))
        one, other = self._pair(left, right, node)
        if one.type == other.type:
            return ir.Compare(operator, one.expression, other.expression)
        kind = self.common(one, other, node)
        return ir.Compare(operator, self.cast(one.expression, kind), self.cast(other.expression, kind))

    def _comparable(self, left: Value, right: Value, operator: ir.Comparison, node: ast.expr) -> None:
        for value in (left, right):
            if not isinstance(value, Reference | Pointer) and not (isinstance(value, Constant) and value.value == 0):
                self.fail(f"a pointer and {describe(value)} cannot be compared", node, hint="say address_of(...)")
        if isinstance(left, Reference) and isinstance(right, Reference) and left.struct != right.struct:
            self.fail(f"struct {left.struct.name} and struct {right.struct.name} cannot be compared", node)
        if operator not in {"==", "!="}:
            self.fail("pointers are equal or not", node, hint="say address_of(a) < address_of(b)")

    def _same_text(self, left: Value, right: Value, operator: ir.Comparison, node: ast.expr) -> ir.Expression:
        """Compare a text with one in the source, byte by byte, its end included."""
        own, constant = (left, right) if isinstance(left, Text) else (right, left)
        text = constant.value if isinstance(constant, Constant) else None
        wanted = text.encode() if isinstance(text, str) else text
        if not isinstance(own, Text) or not isinstance(wanted, bytes) or operator not in {"==", "!="}:
            self.fail("a text is compared with one in the source, by == or !=", node)
        size = self.program.buffers[own.buffer]
        if b"\0" in wanted or len(wanted) > size:
            return ir.Const(int(operator == "!="), BOOL)
        padded = wanted + b"\0" * (len(wanted) < size)
        result: ir.Expression = ir.Const(1, BOOL)
        for at, byte in enumerate(padded):
            target = self.temporary(ir.U8, "byte")
            place = ir.Const(at, U64)
            self.add(ir.LoadBuffer(place=self.place, fault=self.fault, target=target, buffer=own.buffer, at=place))
            result = ir.Binary("&", result, ir.Compare("==", target, ir.Const(byte, ir.U8)), BOOL)
        return ir.Not(result) if operator == "!=" else result

    def _boolop(self, node: ast.BoolOp) -> Value:
        """``and`` and ``or``: what is right of them is looked at only where it matters, for it may load."""
        operator: ir.BinaryOperator = "&" if isinstance(node.op, ast.And) else "|"
        result = self.condition(node.values[0])
        for operand in node.values[1:]:
            body: list[ir.Statement] = []
            with self.into(body):
                right = self.condition(operand)
            if not body:
                result = ir.Binary(operator, result, right, BOOL)
                continue
            kept = self.keep(result, "both" if operator == "&" else "either")
            body.append(ir.Assign(place=self.place, target=kept, value=right))
            self.add(ir.If(place=self.place, condition=kept if operator == "&" else ir.Not(kept), then=body))
            result = kept
        return Number(result)

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
        numbers = (Number(self.number(one, node)), Number(self.number(other, node)))
        if all(isinstance(number.expression, ir.Const) for number in numbers):  # the smallest fits wherever both do
            kinds = (IntType(bits, signed) for bits in (8, 16, 32, 64) for signed in (False, True))
            kind = next(kind for kind in kinds if all(self.fits(number, kind) for number in numbers))
            return Number(self.temporary(kind, "chosen"))
        kind = numbers[0].type if numbers[0].type == numbers[1].type else self.common(*numbers, node)
        return Number(self.temporary(kind, "chosen"))

    def assign(self, target: Value, value: Value, node: ast.AST) -> None:
        """Assign to a variable, whose kind stays what it was at first."""
        if isinstance(target, Record):
            if not isinstance(value, Record) or len(value.values) != len(target.values):
                self.fail(f"{describe(value)} cannot be assigned to {len(target.values)} names", node)
            for one, part in zip(target.values, value.values, strict=True):
                self.assign(one, part, node)
            return
        if isinstance(target, Text):
            self.fail("a text cannot be assigned anew", node, hint="use another name")
        place = target.expression if isinstance(target, Number) else getattr(target, "address", None)
        if not isinstance(place, ir.Local):
            self.fail(f"{describe(target)} cannot be assigned to", node)
        self._same_kind(target, value, node)
        self.add(ir.Assign(place=self.place, target=place, value=self.number(value, node, place.type)))

    def _same_kind(self, target: Value, value: Value, node: ast.AST) -> None:
        null = isinstance(value, Constant) and value.value == 0
        if isinstance(target, Reference) and not null:
            if not isinstance(value, Reference) or value.struct != target.struct:
                self.fail(f"{describe(value)} cannot be assigned to a variable of struct {target.struct.name}", node)
        elif isinstance(target, Number) and not isinstance(value, Number | Constant):
            self.fail(f"{describe(value)} cannot be assigned to a number", node, hint="say address_of(...)")

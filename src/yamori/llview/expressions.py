"""Expressions of the language: each becomes a value, and the loads that it needs become statements."""

from __future__ import annotations

import ast
import builtins
from enum import Enum
from types import ModuleType
from typing import Any, NoReturn, cast

from yamori.llview import ir
from yamori.llview.calculations import Calculations, is_null
from yamori.llview.ir import U64, IntType
from yamori.llview.language import TEXT_BYTES, Kernel, Named, Struct
from yamori.llview.types import ArrayType, PtrType, StructType, TextType, Type, attribute, member_type
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

INSTEAD: dict[type[ast.AST], tuple[str, str]] = {
    ast.Lambda: ("a lambda", "write a helper"),
    ast.ListComp: ("a list comprehension", "write a for loop, and local_array() for what it keeps"),
    ast.SetComp: ("a set comprehension", "write a for loop"),
    ast.DictComp: ("a dict comprehension", "write a for loop"),
    ast.GeneratorExp: ("a generator expression", "write a for loop, or a helper with one yield"),
    ast.List: ("a list", "say local_array(u64, n)"),
    ast.Dict: ("a dict", "say local_array(), there is no heap"),
    ast.Set: ("a set", "say local_array(), there is no heap"),
    ast.JoinedStr: ("an f-string", "texts are fixed: give the value as second argument, as in trouble('...', value)"),
    ast.Await: ("await", "programs run to their end at once"),
    ast.Yield: ("yield as a value", "write it as a statement of its own"),
    ast.YieldFrom: ("yield from", "say `for x in ...: yield x`"),
    ast.NamedExpr: ("':='", "assign in a statement of its own"),
    ast.Starred: ("'*'", "name each one"),
    ast.Slice: ("a slice", "say text(address, limit) for a part of a string"),
}
BUILTINS = {
    "len": "count in a variable; a text's length is a matter of its reader",
    "print": "rows are given out by emit(), remarks by trouble()",
    "min": "say a if a < b else b",
    "max": "say a if a > b else b",
    "abs": "say x if x >= 0 else -x",
    "enumerate": "count in a variable",
    "zip": "go through one, and count",
    "list": "say local_array(u64, n)",
    "dict": "say local_array(), there is no heap",
    "set": "say local_array(), there is no heap",
    "hasattr": "say exists(task.member)",
    "getattr": "say task.member",
    "str": "say text(address, limit)",
    "ord": "keep the number under a name at the top of the file",
    "any": "write a for loop",
    "all": "write a for loop",
    "sum": "write a for loop",
    "divmod": "say // and %",
    "pow": "say 1 << n for a power of two",
    "super": "write a helper",
    "Exception": "say stop('why', value)",
}


class Expressions(Calculations):
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
        what, instead = INSTEAD.get(type(node), (f"{type(node).__name__!r} of Python", ""))
        self.fail(f"{what} is not part of the language", node, hint=instead)

    def int_of(self, node: ast.expr, kind: IntType | None = None) -> ir.Expression:
        """Return an integer expression's value, converted to ``kind`` where that loses nothing."""
        return self.number(self.value(node), node, kind)

    # --- names and constants

    def _constant(self, node: ast.Constant) -> Value:
        if isinstance(node.value, float | complex):
            self.fail("there are only integers", node, hint="keep nanoseconds, not seconds")
        return Constant(node.value)

    def _name(self, node: ast.Name) -> Value:
        if node.id in self.frame.variables:
            return self.frame.variables[node.id]
        if node.id in self.frame.stored:
            self.fail(f"{node.id!r} is used before anything is assigned to it", node, hint=f"say {node.id} = 0 first")
        if node.id in self.frame.scope.names:
            return Constant(self.frame.scope.names[node.id])
        known: dict[str, object] = {"range": range, "bool": bool, "int": int}
        if node.id in known:
            return Constant(known[node.id])
        if hasattr(builtins, node.id):
            self.fail(f"{node.id!r} of Python is not part of the language", node, hint=BUILTINS.get(node.id, ""))
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
        if isinstance(owner, Constant) and isinstance(owner.value, ModuleType | type | Enum | tuple):
            missing = object()
            found = getattr(owner.value, node.attr, missing)
            if found is not missing:
                return Constant(found)
        self.fail(f"{describe(owner)} has no member {node.attr!r}", node)

    def declared(self, owner: Reference | Symbols, node: ast.Attribute) -> tuple[Type, int]:
        """Return a member's or symbol's type and slot."""
        declaration: type[Struct | Kernel] = (
            owner.declaration if isinstance(owner, Symbols) else owner.struct.declaration
        )
        kind = member_type(declaration, node.attr, self.word.bits // 8)
        if kind is None:
            self.fail(
                f"{declaration.__name__} declares no member {node.attr!r}",
                node,
                hint=f"add `{node.attr}: ...` to class {declaration.__name__}",
            )
        renamed = attribute(declaration, node.attr)
        name = renamed.path if isinstance(renamed, Named) else node.attr
        if isinstance(owner, Symbols):
            return kind, self.slot(ir.SlotSpec("symbol", name))
        return kind, self.slot(ir.SlotSpec("member", owner.struct.name, name, declared=self._kind(kind)))

    def _kind(self, kind: Type) -> ir.Declared:
        if isinstance(kind, IntType):
            return ir.Declared("number", kind.bits // 8)
        if isinstance(kind, PtrType):
            return ir.Declared("pointer", self.constant_size(kind))
        if isinstance(kind, ArrayType):
            return ir.Declared("array", self.constant_size(kind.element))
        return ir.Declared("struct", name=kind.name) if isinstance(kind, StructType) else ir.Declared("text")

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
        if size := self.constant_size(kind):
            return ir.Const(size, self.word)
        if isinstance(kind, StructType):
            return self.cast(ir.SlotValue(self.slot(ir.SlotSpec("sizeof", kind.name)), "size"), self.word)
        self.fail("its size is not known", node)

    def constant_size(self, kind: Type) -> int:
        """Return the bytes of an integer or a pointer, 0 for others."""
        if isinstance(kind, IntType):
            return kind.bits // 8 or 1
        return self.word.bits // 8 if isinstance(kind, PtrType) else 0

    # --- loads

    def virtual(self) -> None:
        """Refuse loads by virtual address in a walker."""
        if self.program.kind == "walker":
            self.fail("a walker loads physical memory", hint="say phys_u64(gpa)")

    def load(self, address: ir.Expression, kind: IntType, *, slot: int | None = None, name: str = "t") -> Number:
        """Load an integer of the guest's kernel."""
        self.virtual()
        target = self.temporary(kind, name.strip("_") or "t")
        size = 0 if slot is not None else (kind.bits // 8 or 1)
        self.add(ir.LoadVirt(place=self.place, fault=self.fault, target=target, address=address, size=size, slot=slot))
        return Number(target)

    def copy(
        self, address: ir.Expression, length: ir.Expression, limit: int, root: ir.Expression | None = None
    ) -> Text:
        """Copy a string out of the guest, at most ``limit`` bytes."""
        self.virtual()
        buffer = self.fresh("text")
        self.program.buffers[buffer] = -(-limit // 8) * 8
        self.check_storage()
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
            index = self.int_of(node.slice)
            if index.type.bits > self.word.bits and not index.type.signed:
                self.fail(f"{index.type.one} is no index of a 32-bit guest", node.slice, hint="say u32(...)")
            scaled = self.binary("*", self.cast(index, self.word), stride, self.word)
            return self.thing(kind, self.plus(owner.address, scaled))
        if isinstance(owner, Constant) and isinstance(owner.value, tuple | list | str | bytes):
            return self._entry(owner.value, node)
        if isinstance(owner, Reference):
            self.fail(f"{describe(owner)} cannot be indexed", node, hint="declare it as Array[...], or use its members")
        self.fail(f"{describe(owner)} cannot be indexed", node)

    def _entry(self, table: Any, node: ast.Subscript) -> Value:
        index = self.value(node.slice)
        number = index.expression if isinstance(index, Number) else None
        at = number.value if isinstance(number, ir.Const) else index.value if isinstance(index, Constant) else None
        if not isinstance(at, int):
            self.fail("a table of constants needs a constant index", node.slice, hint="say if ... elif ...")
        if not -len(table) <= at < len(table):
            self.fail(f"the table has {len(table)} entries, and none of number {at}", node.slice)
        return Constant(table[at])

    # --- variables

    def assign(self, target: Value, value: Value, node: ast.AST) -> None:
        """Assign to a variable, whose kind stays what it was at first."""
        if isinstance(target, Record):
            if not isinstance(value, Record) or len(value.values) != len(target.values):
                self.fail(f"{describe(value)} cannot be assigned to {len(target.values)} names", node)
            for one, part in zip(target.values, value.values, strict=True):
                self.assign(one, part, node)
            return
        if isinstance(target, Constant | Symbols) and target == value:
            return
        if isinstance(target, Text | LocalArray | Constant | Symbols):
            self.fail(f"{describe(target)} keeps its name", node, hint="use another name for another one")
        place = target.expression if isinstance(target, Number) else target.address
        if not isinstance(place, ir.Local):
            self.fail(f"{describe(target)} cannot be assigned to", node)
        self._same_kind(target, value, node)
        number = value.address if isinstance(value, GuestArray) else self.number(value, node, place.type)
        self.add(ir.Assign(place=self.place, target=place, value=number))

    def _same_kind(self, target: Value, value: Value, node: ast.AST) -> None:
        if isinstance(target, Number):
            if not isinstance(value, Number | Constant):
                self.fail(f"{describe(value)} cannot be assigned to a number", node, hint="say address_of(...)")
        elif isinstance(target, Reference):
            alike = isinstance(value, Reference) and value.struct == target.struct
            if not alike and not is_null(value):
                self.fail(f"{describe(value)} cannot be assigned to a variable of struct {target.struct.name}", node)
        elif isinstance(target, Pointer):
            if not (isinstance(value, Pointer) and value.target == target.target) and not is_null(value):
                self.fail(f"{describe(value)} cannot be assigned to a pointer of another type", node)
        elif isinstance(target, GuestArray) and not (isinstance(value, GuestArray) and value[::2] == target[::2]):
            self.fail(f"{describe(value)} cannot be assigned to an array of another type", node)

    def converted(self, value: Value, kind: Type | None, node: ast.AST) -> Value:
        """Return a value as something that is annotated as ``kind``; ``None`` there is for ``mypy`` alone."""
        if isinstance(kind, IntType):
            return Number(self.number(value, node, kind))
        if isinstance(kind, PtrType) and isinstance(kind.target, StructType):
            kind = kind.target
        if is_null(value) and isinstance(kind, StructType):
            return Reference(kind, ir.Const(0, self.word))
        if is_null(value) and isinstance(kind, PtrType):
            return Pointer(kind.target, ir.Const(0, self.word))
        if kind is not None and not _is(value, kind):
            what = f"struct {kind.name}" if isinstance(kind, StructType) else _NAMES[type(kind)]
            self.fail(f"{what} is needed here, not {describe(value)}", node)
        return value

    def copied(self, value: Value, name: str, node: ast.AST) -> Value:
        """Return a variable of its own with a value, so that nothing that changes later changes it."""
        if isinstance(value, Constant) and isinstance(value.value, int):
            value = self.literal(value.value, node)
        if isinstance(value, Number):
            return Number(self.keep(value.expression, name))
        if isinstance(value, Reference):
            return Reference(value.struct, self.keep(value.address, name))
        if isinstance(value, Pointer):
            return Pointer(value.target, self.keep(value.address, name))
        if isinstance(value, GuestArray):
            return value._replace(address=self.keep(value.address, name))
        if isinstance(value, Record):
            return Record(value.names, tuple(self.copied(part, name, node) for part in value.values))
        return value


_NAMES: dict[type, str] = {
    PtrType: "a pointer of another type",
    ArrayType: "an array of the guest's, of another type,",
    TextType: "a text",
}


def _is(value: Value, kind: Type) -> bool:
    match kind:
        case StructType():
            return isinstance(value, Reference) and issubclass(value.struct.declaration, kind.declaration)
        case PtrType():
            return isinstance(value, Pointer) and value.target == kind.target
        case ArrayType():
            return isinstance(value, GuestArray) and value.element == kind.element
        case TextType():
            known = value.value if isinstance(value, Constant) else None
            return isinstance(value, Text) or isinstance(known, str | bytes)
        case _:
            return isinstance(value, Number)

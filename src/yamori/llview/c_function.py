"""One program as a C function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatchmethod
from itertools import pairwise
from pathlib import PurePath
from typing import NamedTuple

from yamori.llview import flow, ir
from yamori.llview.c_expressions import Expressions, c_number, c_type, converted
from yamori.llview.ir import BOOL, END, S64, U64, Expression, IntType, Program, Statement
from yamori.llview.machine import SlotFill
from yamori.llview.writing import bare, names, quoted

_SLOTS = "LL_UNUSED const struct ll_slot *const restrict slots = {};"
_ARGUMENTS = "((const uint64_t *)(uintptr_t)c->arguments)"


class Constants(NamedTuple):
    """What a text for one kernel alone has as constants; see ``c_backend.folded_source``.

    Attributes:
        slots: A program's slots by its name; addresses of symbols are those of the kernel's export.
        geometry: The parameters of the only walker behind ``root`` and ``gva``.
        arguments: A program's arguments by its name; ``None`` is one that the run gives.
    """

    slots: Mapping[str, Sequence[SlotFill]]
    geometry: Sequence[int]
    arguments: Mapping[str, Sequence[int | None]]


class _Scope(NamedTuple):
    """A labelled statement around the present one.

    Attributes:
        label: Its label in the IR.
        number: Its number in the C text.
        loop: Whether it is a loop.
    """

    label: str
    number: int
    loop: bool


class Function:
    """Writes one program.

    Args:
        program: Verified.
        sources: File → its lines, to be quoted.
        constants: What is folded into the text.
    """

    def __init__(
        self, program: Program, sources: Mapping[str, Sequence[str]], constants: Constants | None = None
    ) -> None:
        self._program = program
        self._constants = constants
        self._sources = sources
        parameters = [local.name for local in program.parameters]
        self._variables = names("v_", [*parameters, *(name for name in program.locals if name not in parameters)])
        self._storage = names("b_", [*program.buffers, *program.arrays])
        self._pages = names("p_", dict.fromkeys(s.target for s in flow.walk(program.body) if isinstance(s, ir.Page)))
        self._declared = _declared(program)
        slots = enumerate(program.slots if constants else ())
        self._moved = {number for number, slot in slots if slot.kind == "symbol"}
        self._expressions = Expressions(self._variables, self._moved)
        self._scopes: list[_Scope] = []
        self._jumps: set[str] = set()
        self._count = 0
        self._lines: list[str] = []
        self._depth = 1
        self._place: ir.Place | None = None

    def text(self) -> str:
        """Return the function."""
        self._body(self._program.body)
        body, self._lines = self._lines, []
        program = self._program
        kind = f"{program.kind} {program.name}"
        messages = [quoted(f"{number}: {text}") for number, text in enumerate(program.messages)]
        lines = [f"/* {quoted(kind)}, of {quoted(PurePath(program.file).name)}"]
        lines += [f" * message {message}" for message in messages]
        lines += [f" * slot {number}: {quoted(str(slot))}" for number, slot in enumerate(program.slots)]
        lines.append(" */")
        if self._constants and program.slots:
            lines.append(_table(program.name, self._constants.slots[program.name]))
        self._declarations()
        if program.kind == "walker":
            root, gva = (self._variables[local.name] for local in program.parameters[:2])
            lines.append(
                f"static int ll_walk_{program.name}(LL_UNUSED struct ll_context *c, LL_UNUSED uint64_t {root},"
            )
            lines += [f"    LL_UNUSED uint64_t {gva}, LL_UNUSED uint64_t *result)", "{", *self._lines, *body]
        else:
            lines.append(f"LL_EXPORT uint64_t ll_run_{program.name}(struct ll_context *c);")
            lines.append(f"LL_EXPORT uint64_t ll_run_{program.name}(struct ll_context *c)")
            lines += ["{", *self._lines, "    ll_begin(c);", *body]
        count = [] if program.kind == "walker" else ["    c->loads = loads;"]
        if program.kind != "walker":
            lines += [*count, "    return 0;"]
        lines += ["end:", *count, "    return 1;"] if "end" in self._jumps else []
        return "\n".join([*lines, "}", ""])

    def _declarations(self) -> None:
        """Declare all variables: zeros, but for the parameters."""
        program = self._program
        walker = program.kind == "walker"
        for number, local in enumerate(program.parameters[2:] if walker else program.parameters):
            self._variable(local.name, local.type, converted(self._given(number), local.type))
        given = {local.name for local in program.parameters}
        for name, kind in program.locals.items():
            if name not in given:
                self._variable(name, kind, "0")
        for name in program.buffers:
            self._add(f"uint64_t w{self._storage[name]}[{-(-program.buffers[name] // 8) or 1}];")
            self._add(f"LL_UNUSED uint8_t *const {self._storage[name]} = (uint8_t *)w{self._storage[name]};")
        for name, (kind, count) in program.arrays.items():
            self._add(f"LL_UNUSED {c_type(kind)} {self._storage[name]}[{count or 1}];")
        for page in self._pages.values():
            self._add(f"const struct ll_entry *{page} = c->cache;")
        if program.slots:
            table = f"ll_slots_{program.name}" if self._constants else "(const struct ll_slot *)(uintptr_t)c->slots"
            self._add(_SLOTS.format(table))
        if self._moved:
            self._add(f"const uint64_t slide = {_ARGUMENTS}[{len(program.parameters)}];")
        if walker:
            self._add(f"LL_UNUSED const uint64_t asked = {self._variables[program.parameters[1].name]};")
        self._add("LL_UNUSED uint64_t value = 0, at = 0, loads = 0, *row = NULL;")
        self._add("")
        for name in program.buffers:
            self._clear_buffer(name)
        for name in program.arrays:
            self._clear_array(name)

    def _given(self, number: int) -> str:
        """Return a parameter's value, as the context or the constants have it."""
        walker = self._program.kind == "walker"
        if self._constants:
            constants = self._constants
            known = constants.geometry[number] if walker else constants.arguments[self._program.name][number]
            if known is not None:
                return c_number(known)
        return f"{'c->geometry' if walker else _ARGUMENTS}[{number}]"

    def _variable(self, name: str, kind: IntType, value: str) -> None:
        self._add(f"LL_UNUSED {c_type(kind)} {self._variables[name]} = {value};")

    # --- text

    def _add(self, line: str) -> None:
        self._lines.append("    " * self._depth + line if line else "")

    def _label(self, label: str) -> None:
        if label in self._jumps:
            self._add(f"{label}:;")

    def _goto(self, label: str) -> str:
        self._jumps.add(label)
        return f"goto {label};"

    def _unless(self, failed: str, label: str | None) -> None:
        """Leave by a fault path where a condition is true."""
        self._add(f"if (ll_unlikely({failed}))")
        self._add(f"    {self._fault(label)}")

    def _fault(self, label: str | None) -> str:
        if label == END:
            return self._goto("end")
        return self._goto(f"fault_{self._scope(label or '').number}")

    def _scope(self, label: str) -> _Scope:
        return next(scope for scope in reversed(self._scopes) if scope.label == label)

    def _quote(self, place: ir.Place) -> None:
        """Name the line of the source where it changes."""
        if place == self._place:
            return
        self._place = place
        lines = self._sources.get(place.file, ())
        line = lines[place.line - 1].strip() if 0 < place.line <= len(lines) else ""
        self._add(f"/* {quoted(f'{PurePath(place.file).name}:{place.line}  {line}'.rstrip())} */")

    # --- statements

    def _body(self, statements: list[Statement]) -> None:
        for statement in statements:
            self._quote(statement.place)
            self._write(statement)

    def _inner(self, statements: list[Statement]) -> None:
        self._depth += 1
        self._body(statements)
        self._depth -= 1

    def _enter(self, label: str, *, loop: bool = False) -> int:
        self._count += 1
        self._scopes.append(_Scope(label, self._count, loop))
        return self._count

    @singledispatchmethod
    def _write(self, statement: Statement) -> None:
        raise NotImplementedError(type(statement).__name__)

    @_write.register
    def _(self, statement: ir.Assign) -> None:
        self._add(f"{self._variables[statement.target.name]} = {bare(self._expressions.text(statement.value))};")

    @_write.register
    def _(self, statement: ir.Page) -> None:
        root = "c->root" if statement.root is None else self._expressions.text(statement.root)
        given = f"c, {root}, {self._word(statement.address)}"
        page = self._pages[statement.target]
        if statement.slot is None:
            self._add(f"{page} = ll_page({given}, {statement.size});")
        else:
            self._add(f"{page} = ll_page_slot({given}, &slots[{statement.slot}], {self._declared[id(statement)]});")
        self._unless(f"!{page}", statement.fault)

    @_write.register
    def _(self, statement: ir.LoadHost) -> None:
        given = f"c, {self._pages[statement.page]}, {self._word(statement.address)}"
        if statement.slot is None:
            self._unless(f"ll_load({given}, {statement.size}, &value)", statement.fault)
            self._take(statement.target, _extended(statement.target.type, statement.size))
        else:
            size = self._declared[id(statement)]
            self._unless(f"ll_load_slot({given}, &slots[{statement.slot}], {size}, &value)", statement.fault)
            self._take(statement.target, "value")
        self._add("loads++;")

    @_write.register
    def _(self, statement: ir.Translate) -> None:
        self._unless(f"ll_physical(c, {self._word(statement.address)}, &value)", statement.fault)
        self._take(statement.target, "value")

    @_write.register
    def _(self, statement: ir.LoadPhys) -> None:
        given = f"c, {self._expressions.cast(statement.address, U64)}, {statement.size}, &value"
        self._unless(f"ll_load_phys({given})", statement.fault)
        self._take(statement.target, _extended(statement.target.type, statement.size))

    def _take(self, target: ir.Local, value: str) -> None:
        text = value if target.type == U64 else converted(value, target.type)
        self._add(f"{self._variables[target.name]} = {text};")

    def _word(self, address: Expression) -> str:
        word = IntType((self._program.word_size or 8) * 8)
        return converted(self._expressions.cast(address, word), U64) if word != U64 else self._expressions.text(address)

    def _index(self, at: Expression, room: str, length: int, label: str | None) -> None:
        """Set ``at``, and fault where it is not below ``room``."""
        self._add(f"at = {self._expressions.cast(at, U64)};")
        self._add(f"if (ll_unlikely({room})) {{")
        self._add(f"    (void)ll_fault(c, LL_INDEX, at, {c_number(length)}, 0);")
        self._add(f"    {self._fault(label)}")
        self._add("}")

    @_write.register
    def _(self, statement: ir.StoreBuffer) -> None:
        length, size = self._program.buffers[statement.buffer], statement.size
        room = f"at > {c_number(length - size)}" if length >= size else "1"
        self._index(statement.at, room, length, statement.fault)
        value = self._expressions.cast(statement.value, U64)
        self._add(f"ll_store({self._storage[statement.buffer]} + at, {value}, {size});")

    @_write.register
    def _(self, statement: ir.LoadBuffer) -> None:
        length = self._program.buffers[statement.buffer]
        self._index(statement.at, f"at >= {c_number(length)}", length, statement.fault)
        self._add(f"value = {self._storage[statement.buffer]}[at];")
        self._take(statement.target, "value")

    def _clear_buffer(self, name: str) -> None:
        self._add(f"ll_clear(w{self._storage[name]}, {c_number(-(-self._program.buffers[name] // 8) or 1)});")

    @_write.register
    def _(self, statement: ir.ClearBuffer) -> None:
        self._clear_buffer(statement.buffer)

    @_write.register
    def _(self, statement: ir.LoadArray) -> None:
        length = self._program.arrays[statement.array][1]
        self._index(statement.at, f"at >= {c_number(length)}", length, statement.fault)
        self._add(f"{self._variables[statement.target.name]} = {self._storage[statement.array]}[at];")

    @_write.register
    def _(self, statement: ir.StoreArray) -> None:
        length = self._program.arrays[statement.array][1]
        self._index(statement.at, f"at >= {c_number(length)}", length, statement.fault)
        self._add(f"{self._storage[statement.array]}[at] = {bare(self._expressions.text(statement.value))};")

    def _clear_array(self, name: str) -> None:
        count = self._program.arrays[name][1] or 1
        self._add(f"for (at = 0; at < {c_number(count)}; at++)")
        self._add(f"    {self._storage[name]}[at] = 0;")

    @_write.register
    def _(self, statement: ir.ClearArray) -> None:
        self._clear_array(statement.array)

    @_write.register
    def _(self, _: ir.Tick) -> None:
        self._unless("ll_tick(c)", END)

    @_write.register
    def _(self, statement: ir.If) -> None:
        self._add(f"if ({bare(self._expressions.text(statement.condition))}) {{")
        self._inner(statement.then)
        if statement.otherwise:
            self._add("} else {")
            self._inner(statement.otherwise)
        self._add("}")

    @_write.register
    def _(self, statement: ir.Loop) -> None:
        number = self._enter(statement.label, loop=True)
        self._add("for (;;) {")
        self._inner(statement.body)
        self._depth += 1
        self._label(f"next_{number}")
        self._depth -= 1
        self._add("}")
        self._scopes.pop()
        self._label(f"after_{number}")

    @_write.register
    def _(self, statement: ir.Block) -> None:
        number = self._enter(statement.label)
        self._add("{")
        self._inner(statement.body)
        self._add("}")
        self._scopes.pop()
        self._label(f"after_{number}")

    @_write.register
    def _(self, statement: ir.Attempt) -> None:
        number = self._enter(statement.label)
        failed = self._variables[statement.failed.name]
        self._add(f"{failed} = 0;")
        self._add("{")
        self._inner(statement.body)
        self._add("}")
        self._scopes.pop()
        if f"fault_{number}" in self._jumps:
            self._add(self._goto(f"after_{number}"))
            self._label(f"fault_{number}")
            self._unless("ll_final(c)", END)
            self._add(f"{failed} = 1;")
        self._label(f"after_{number}")

    @_write.register
    def _(self, statement: ir.Break) -> None:
        self._add(self._goto(f"after_{self._scope(statement.label).number}"))

    @_write.register
    def _(self, statement: ir.Continue) -> None:
        scope = next(s for s in reversed(self._scopes) if s.loop and s.label == statement.label)
        self._add(self._goto(f"next_{scope.number}"))

    @_write.register
    def _(self, statement: ir.Raise) -> None:
        code, address = ("UNMAPPED", "asked") if self._program.kind == "walker" else ("PROGRAM", "0")
        value = self._expressions.cast(statement.value, U64)
        self._add(f"(void)ll_fault(c, LL_{code}, {address}, {value}, {statement.message});")
        self._add(self._fault(statement.fault))

    @_write.register
    def _(self, statement: ir.Trouble) -> None:
        value = self._expressions.cast(statement.value, U64)
        flags = f"{int(statement.faulted)}, {int(statement.torn)}"
        self._add(f"ll_trouble(c, {statement.message}, {value}, {flags});")

    @_write.register
    def _(self, statement: ir.Emit) -> None:
        self._add("row = ll_row(c);")
        self._unless("!row", END)
        present = sum(1 << number for number, value in enumerate(statement.values) if value is not None)
        self._add(f"row[0] = {c_number(present)};")
        at = 1
        for value, field in zip(statement.values, self._program.row, strict=True):
            words = 1 if isinstance(field.type, IntType) else -(-field.type // 8)
            if isinstance(value, str):
                length = self._program.buffers[value]
                self._add(f"ll_text(row + {at}, {words}, w{self._storage[value]}, {length});")
            elif value is not None:
                signed = isinstance(value.type, IntType) and value.type.signed
                text = self._expressions.cast(value, S64 if signed else U64)
                self._add(f"row[{at}] = {converted(text, U64) if signed else text};")
            at += words

    @_write.register
    def _(self, statement: ir.Return) -> None:
        self._add(f"*result = {bare(self._expressions.cast(statement.values[0], U64))};")
        self._add("return 0;")


def _table(name: str, slots: Sequence[SlotFill]) -> str:
    """The filled slots of a program, in the order of ``struct ll_slot``."""
    rows = ["    {" + ", ".join(c_number(int(value)) for value in slot) + "}," for slot in slots]
    return "\n".join([f"static const struct ll_slot ll_slots_{name}[] = {{", *rows, "};"])


def _declared(program: Program) -> dict[int, int]:
    """Return, by the ``id`` of each load by slot and of the translation before it, the bytes of the load's variable."""
    sizes: dict[int, int] = {}
    for page, load in pairwise(flow.walk(program.body)):
        if isinstance(page, ir.Page) and isinstance(load, ir.LoadHost):
            sizes[id(page)] = sizes[id(load)] = max(1, load.target.type.bits // 8)
    return sizes


def _extended(kind: IntType, size: int) -> str:
    """The loaded ``value``, extended by the sign of its target where the target is wider."""
    return f"ll_extend(value, {size * 8})" if kind.signed and kind.bits > size * 8 and kind != BOOL else "value"

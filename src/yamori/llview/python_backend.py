"""IR → Python: the interpreter's code, and the reference that the C back end is compared to.

A program becomes one Python function. Its text is readable, quotes the source, and is known to ``linecache``, so that
tracebacks and debuggers show it. Loads are calls of the run's own functions (``runtime``), a fault is an exception, an
``Attempt`` is a ``try``.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable
from functools import singledispatchmethod
from itertools import count
from pathlib import PurePath
from typing import Any

from yamori.errors import Fault
from yamori.llview import flow, ir
from yamori.llview.faults import Code
from yamori.llview.ir import BOOL, U64, Expression, IntType, Program, Statement
from yamori.llview.python_control import SHARED, Control
from yamori.llview.python_expressions import Expressions, Text, converted, cut
from yamori.llview.python_locals import simplified, unset
from yamori.llview.runtime import member, text
from yamori.llview.verify import verify
from yamori.llview.writing import bare, names, quoted

_OF_THE_RUN = {
    "page": "run.page",
    "page_in": "run.page_in",
    "load": "run.load",
    "tick": "run.tick",
    "fault": "run.fault",
    "trouble": "run.trouble",
    "emit": "run.emit",
}
_GLOBALS = {"Fault": Fault, "member": member, "text": text, **{code.name: code for code in Code}}
_numbers = count(1)


def compile_program(program: Program, text: str | None = None) -> Callable[..., Any]:
    """Return a program's function.

    A probe's takes ``(run, *arguments)``; a walker's ``(u32, u64, tick, fault, root, gva, *geometry)``, and returns its
    results. ``forget`` it once it is not needed.

    Args:
        program: A probe or a walker.
        text: What ``python_source`` returned for it, where that is at hand.

    Raises:
        VerifyError: The program may not run.
    """
    source = python_source(program) if text is None else text
    name = f"<llview {program.name} {next(_numbers)}>"
    known: dict[str, Any] = dict(_GLOBALS)
    exec(compile(source, name, "exec"), known)  # noqa: S102  our own text of a verified program
    # Without a time of change the entry survives linecache.checkcache().
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    function: Callable[..., Any] = known[_function_name(program)]
    return function


def forget(function: Callable[..., Any]) -> None:
    """Take a function's text out of ``linecache``."""
    linecache.cache.pop(function.__code__.co_filename, None)


def python_source(program: Program) -> str:
    """Return a program as Python text: one function.

    Raises:
        VerifyError: The program may not run.
    """
    return _Writer(verify(program)).source()


def _function_name(program: Program) -> str:
    return names("run_" if program.kind == "probe" else "walk_", [program.name])[program.name]


class _Writer(Control):
    """Writes one program."""

    def __init__(self, program: Program) -> None:
        # A walk is a few lines, done for page after page. What a probe would gain is a tenth of what it costs.
        self._statements = simplified(program.body) if program.kind == "walker" else program.body
        super().__init__(self._statements)
        self._program = program
        parameters = [local.name for local in program.parameters]
        self._variables = names("v_", dict.fromkeys([*parameters, *program.locals]))
        self._storage = names("b_", [*program.buffers, *program.arrays])
        self._pages = names("p_", dict.fromkeys(s.target for s in flow.walk(program.body) if isinstance(s, ir.Page)))
        slots = [f"{number}_{slot}" for number, slot in enumerate(program.slots)]
        self._slots = list(names("s", slots).values())
        # Rows are of numbers, as native code's are; whoever calls a walker likes a truth value better.
        self._expressions = Expressions(self._variables, self._slots, truths=program.kind == "walker")
        self._bound: dict[str, str] = {}
        self._place: ir.Place | None = None
        self._quotes: dict[ir.Place, str] = {}

    def source(self) -> str:
        """Return the text."""
        self._body(self._statements)
        body, self.lines, self.depth = self.lines, [], 0
        program = self._program
        given = [self._variables[local.name] for local in program.parameters]
        runtime = ["run"] if program.kind == "probe" else ["u32", "u64", "tick", "fault"]
        self.add(f"def {_function_name(program)}({', '.join([*runtime, *given])}):")
        self.depth = 1
        self._prologue("\n".join([*self.parts, *body]))
        return "\n".join([*self.lines, *self.parts, *body, ""])

    # --- what stands before the statements

    def _prologue(self, rest: str) -> None:
        """Bind everything that the rest uses: a local variable is the fastest that Python has."""
        program = self._program
        if program.kind == "probe":
            for name, origin in _OF_THE_RUN.items():
                if name in rest:
                    self.add(f"{name} = {origin}")
        # A walker's are left as they are: no page table maps what is no address, and geometries are sound.
        for local in program.parameters if program.kind == "probe" else ():
            name = self._variables[local.name]
            self.add(f"{name} = {converted(Text(name, -1 << 64, 1 << 64), local.type)}")
        values = {name: f"run.slots[{slot}].{part}" for name, (slot, part) in self._expressions.slot_values.items()}
        for name, value in {**values, **self._bound}.items():
            self.add(f"{name} = {value}")
        given = {local.name for local in program.parameters}
        # Parts share the variables of the function around them, which Python must see there.
        zero = set(program.locals) if self.parts or program.kind == "probe" else unset(self._statements, given)
        variables = [self._variables[name] for name in program.locals if name in zero]
        shared = [name for name in SHARED if name in rest]
        zeros = [*variables, *shared]
        for first in range(0, len(zeros), 8):
            self.add(f"{' = '.join(zeros[first : first + 8])} = 0")
        for name, size in program.buffers.items():
            self.add(f"{self._storage[name]} = bytearray({size})")
        for name, (_, length) in program.arrays.items():
            self.add(f"{self._storage[name]} = [0] * {length}")

    # --- text

    def _quote(self, place: ir.Place) -> None:
        """Name the line of the source where it changes."""
        if place == self._place:
            return
        self._place = place
        if place not in self._quotes:
            line = linecache.getline(place.file, place.line).strip()
            self._quotes[place] = quoted(f"{PurePath(place.file).name}:{place.line}  {line}".rstrip())
        self.add(f"# {self._quotes[place]}")

    def _body(self, statements: list[Statement]) -> None:
        for statement in statements:
            self._quote(statement.place)
            self._write(statement)
        if all(id(statement) in self.falls for statement in statements):
            self.add("pass")

    def _inner(self, statements: list[Statement]) -> None:
        """Write the body of something."""
        with self.nested(self._variables[name] for name in flow.assigned(statements)):
            self._body(statements)

    # --- statements

    @singledispatchmethod
    def _write(self, statement: Statement) -> None:
        raise NotImplementedError(type(statement).__name__)

    def _text(self, value: Expression, kind: IntType | None = None) -> str:
        return self._expressions.bare(value, kind)

    def _take(self, target: ir.Local, value: str, size: int = 8, *, extended: bool = False) -> None:
        """Assign ``size`` bytes; ``extended`` by the sign of the target where that is wider."""
        kind, loaded = target.type, Text(value, 0, (1 << size * 8) - 1)
        if extended and kind.signed and kind.bits > size * 8:
            loaded = cut(loaded, IntType(size * 8, signed=True))
        self.add(f"{self._variables[target.name]} = {converted(loaded, kind)}")

    @_write.register
    def _(self, statement: ir.Assign) -> None:
        self.add(f"{self._variables[statement.target.name]} = {self._text(statement.value)}")

    def _word(self, address: Expression) -> str:
        return self._text(address, IntType((self._program.word_size or 8) * 8))

    def _size(self, size: int, slot: int | None) -> str:
        if slot is None:
            return str(size)
        name = f"{self._slots[slot]}_size"
        self._bound[name] = f"run.slots[{slot}].size"
        return name

    @_write.register
    def _(self, statement: ir.Page) -> None:
        function = "page" if statement.root is None else "page_in"
        given = [self._word(statement.address), self._size(statement.size, statement.slot)]
        if statement.root is not None:
            given.append(self._text(statement.root, U64))
        if statement.slot is not None:
            name = f"{self._slots[statement.slot]}_{function}"
            self._bound[name] = f"run.sized(run.slots[{statement.slot}], run.{function})"
            function = name
        with self.path(statement.fault):
            self.add(f"{self._pages[statement.target]} = {function}({', '.join(given)})")

    @_write.register
    def _(self, statement: ir.Translate) -> None:
        with self.path(statement.fault):
            self.add(f"{self._variables[statement.target.name]} = page({self._word(statement.address)}, 1)")

    @_write.register
    def _(self, statement: ir.LoadHost) -> None:
        size, slot = self._size(statement.size, statement.slot), statement.slot
        value = f"load({self._pages[statement.page]}, {self._word(statement.address)}, {size})"
        with self.path(statement.fault):
            if slot is None:
                self._take(statement.target, value, statement.size, extended=True)
                return
            self.add(f"value = {value}")
        name = self._slots[slot]
        self._bound[f"{name}_fill"] = f"run.slots[{slot}]"
        self._bound[f"{name}_odd"] = f"{name}_fill.signed or {name}_fill.bits"
        with self.under(f"if {name}_odd:"):
            self.add(f"value = member(value, {name}_fill)")
        self._take(statement.target, "value")

    @_write.register
    def _(self, statement: ir.LoadPhys) -> None:
        with self.path(statement.fault):
            self._take(
                statement.target,
                f"u{statement.size * 8}({self._text(statement.address, U64)})",
                statement.size,
                extended=True,
            )

    def _index(self, at: Expression, size: int, length: int, path: str | None) -> None:
        """Set ``at``, and fault where ``size`` elements do not fit behind it."""
        index = self._expressions.exact(ir.Cast(at, U64))
        self.add(f"at = {bare(index.text)}")
        if index.high > length - size:
            with self.under(f"if at > {length - size}:"), self.path(path):
                self.add(f"fault(INDEX, at, {length})")

    @_write.register
    def _(self, statement: ir.StoreBuffer) -> None:
        size = statement.size
        self._index(statement.at, size, self._program.buffers[statement.buffer], statement.fault)
        value = self._text(statement.value, IntType(size * 8))
        self.add(f"{self._storage[statement.buffer]}[at : at + {size}] = ({value}).to_bytes({size}, 'little')")

    @_write.register
    def _(self, statement: ir.LoadBuffer) -> None:
        self._index(statement.at, 1, self._program.buffers[statement.buffer], statement.fault)
        self._take(statement.target, f"{self._storage[statement.buffer]}[at]", 1)

    @_write.register
    def _(self, statement: ir.ClearBuffer) -> None:
        self.add(f"{self._storage[statement.buffer]}[:] = bytes({self._program.buffers[statement.buffer]})")

    @_write.register
    def _(self, statement: ir.LoadArray) -> None:
        self._index(statement.at, 1, self._program.arrays[statement.array][1], statement.fault)
        self.add(f"{self._variables[statement.target.name]} = {self._storage[statement.array]}[at]")

    @_write.register
    def _(self, statement: ir.StoreArray) -> None:
        self._index(statement.at, 1, self._program.arrays[statement.array][1], statement.fault)
        self.add(f"{self._storage[statement.array]}[at] = {self._text(statement.value)}")

    @_write.register
    def _(self, statement: ir.ClearArray) -> None:
        self.add(f"{self._storage[statement.array]}[:] = [0] * {self._program.arrays[statement.array][1]}")

    @_write.register
    def _(self, _: ir.Tick) -> None:
        self.add("tick()")

    @_write.register
    def _(self, statement: ir.If) -> None:
        with self.under(f"if {self._text(statement.condition)}:"):
            self._inner(statement.then)
        if statement.otherwise:
            with self.under("else:"):
                self._inner(statement.otherwise)

    @_write.register
    def _(self, statement: ir.Loop) -> None:
        with self.repeated(statement.label, loop=True):
            self._inner(statement.body)

    @_write.register
    def _(self, statement: ir.Block) -> None:
        with self.left(statement):
            self._inner(statement.body)

    @_write.register
    def _(self, statement: ir.Attempt) -> None:
        failed = self._variables[statement.failed.name]
        with self.left(statement), self.attempt(statement.label, failed):
            self._inner(statement.body)

    @_write.register
    def _(self, statement: ir.Break) -> None:
        if id(statement) not in self.falls:
            self.jump(statement.label)

    @_write.register
    def _(self, statement: ir.Continue) -> None:
        self.jump(statement.label, again=True)

    @_write.register
    def _(self, statement: ir.Raise) -> None:
        walker = self._program.kind == "walker"
        code, address = ("UNMAPPED", "asked") if walker else ("PROGRAM", "0")
        if walker:
            self._bound["asked"] = self._variables[self._program.parameters[1].name]
        with self.path(statement.fault):
            self.add(f"fault({code}, {address}, {self._text(statement.value, U64)}, {statement.message})")

    @_write.register
    def _(self, statement: ir.Trouble) -> None:
        value = self._text(statement.value, U64)
        self.add(f"trouble({statement.message}, {value}, {statement.faulted}, {statement.torn})")

    @_write.register
    def _(self, statement: ir.Emit) -> None:
        values = [f"{self._emitted(value)}," for value in statement.values]
        self.add(f"emit(({' '.join(values)}))")

    def _emitted(self, value: Expression | str | None) -> str:
        if value is None:
            return "None"
        if isinstance(value, str):
            return f"text({self._storage[value]})"
        return f"int({self._text(value)})" if value.type == BOOL else self._text(value)

    @_write.register
    def _(self, statement: ir.Return) -> None:
        self.give(f"({' '.join(f'{self._text(value)},' for value in statement.values)})")

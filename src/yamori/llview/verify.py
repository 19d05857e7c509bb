"""The verifier: what it lets through reads guest memory only through a translation, ends, and cannot fault unnoticed.

Both back ends verify whatever they are given, so unverified programs never run.
"""

from __future__ import annotations

from typing import NoReturn

from yamori.errors import YamoriError
from yamori.llview import ir
from yamori.llview.ir import BOOL, END, U64, Expression, IntType, Program, Statement

SIZES = frozenset({1, 2, 4, 8})


class VerifyError(YamoriError):
    """A program that must not run. It is a defect of the front end, not of the probe."""


def verify(program: Program) -> Program:
    """Return a program that may run.

    Raises:
        VerifyError: A load is not translated or has no fault path, a back edge ticks no budget, a jump leads nowhere,
        or
            types do not agree.
    """
    _Verifier(program).run()
    return program


class _Verifier:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.locals = {**program.locals, **{local.name: local.type for local in program.parameters}}
        self.place = ir.Place(program.file, 0)

    def run(self) -> None:
        if self.program.kind == "walker":
            if [local.type for local in self.program.parameters[:2]] != [U64, U64]:
                self.refuse("a walker's first parameters are root and gva")
            if not _ends(self.program.body):
                self.refuse("a walker ends without a result")
        self.body(self.program.body, (), ())

    def refuse(self, why: str) -> NoReturn:
        raise VerifyError(f"{self.program.name}: {why}", where=f"{self.place.file}:{self.place.line}")

    def body(self, statements: list[Statement], labels: tuple[str, ...], attempts: tuple[str, ...]) -> None:
        """Verify statements inside of blocks and loops with ``labels`` (loops with a ``*``) and of ``attempts``."""
        before: Statement | None = None
        for statement in statements:
            self.place = statement.place
            if isinstance(statement, ir.Faulting) and statement.fault not in {END, *attempts}:
                self.refuse(f"{type(statement).__name__} has no fault path")
            self.statement(statement, before, labels)
            if isinstance(statement, ir.If):
                self.body(statement.then, labels, attempts)
                self.body(statement.otherwise, labels, attempts)
            elif isinstance(statement, ir.Loop):
                if not statement.body or not isinstance(statement.body[0], ir.Tick):
                    self.refuse(f"the loop {statement.label} ticks no budget")
                self.body(statement.body, (*labels, statement.label, f"*{statement.label}"), attempts)
            elif isinstance(statement, ir.Block):
                self.body(statement.body, (*labels, statement.label), attempts)
            elif isinstance(statement, ir.Attempt):
                self.body(statement.body, (*labels, statement.label), (*attempts, statement.label))
            before = statement

    def statement(self, statement: Statement, before: Statement | None, labels: tuple[str, ...]) -> None:
        """Verify one statement, without what it holds."""
        match statement:
            case ir.LoadVirt() | ir.CopyVirt():
                self.refuse("a load of guest memory is not translated")
            case ir.Page() | ir.LoadHost() | ir.LoadPhys():
                self.loads(statement, before)
            case ir.Assign():
                self.target(statement.target)
                self.expression(statement.value, statement.target.type)
            case ir.StoreBuffer() | ir.LoadBuffer() | ir.ClearBuffer():
                self.buffers(statement)
            case ir.LoadArray() | ir.StoreArray() | ir.ClearArray():
                self.arrays(statement)
            case ir.If():
                self.expression(statement.condition, BOOL)
            case ir.Attempt():
                self.target(statement.failed)
            case ir.Break() | ir.Continue():
                self.jump(statement, labels)
            case ir.Raise() | ir.Trouble():
                self.expression(statement.value, U64)
                if not 0 <= statement.message < len(self.program.messages):
                    self.refuse("a message is missing")
            case ir.Emit() | ir.Return():
                self.results(statement)
            case _:
                pass

    def jump(self, statement: ir.Break | ir.Continue, labels: tuple[str, ...]) -> None:
        again = isinstance(statement, ir.Continue)
        if (f"*{statement.label}" if again else statement.label) not in labels:
            self.refuse(f"a jump leads to {statement.label!r}, which is no {'loop' if again else 'block'} around it")

    def loads(self, load: ir.Page | ir.LoadHost | ir.LoadPhys, before: Statement | None) -> None:
        walker = self.program.kind == "walker"
        if isinstance(load, ir.LoadPhys) != walker:
            self.refuse("walkers load physical memory, probes do not")
        self.expression(load.address, U64 if walker else IntType(self.program.word_size * 8))
        if isinstance(load, ir.LoadPhys):
            self.target(load.target)
            if load.size not in {4, 8}:
                self.refuse(f"{load.size} bytes are no entry of a page table")
            return
        if (load.size in SIZES) == (load.slot is not None):
            self.refuse("a load has either a size or a slot")
        if load.slot is not None and self.slot(load.slot).kind != "member":
            self.refuse("only members are loaded by their slot")
        if isinstance(load, ir.Page):
            if load.root is not None:
                self.expression(load.root, U64)
            return
        self.target(load.target)
        page = before if isinstance(before, ir.Page) else None
        if page is None or (page.target, page.address, page.size, page.slot) != (
            load.page,
            load.address,
            load.size,
            load.slot,
        ):
            self.refuse("a load does not follow its translation")

    def buffers(self, statement: ir.StoreBuffer | ir.LoadBuffer | ir.ClearBuffer) -> None:
        if statement.buffer not in self.program.buffers:
            self.refuse(f"there is no buffer {statement.buffer!r}")
        if isinstance(statement, ir.ClearBuffer):
            return
        self.expression(statement.at)
        if isinstance(statement, ir.LoadBuffer):
            self.target(statement.target)
        elif statement.size not in SIZES:
            self.refuse(f"{statement.size} bytes cannot be stored")
        else:
            self.expression(statement.value)

    def arrays(self, statement: ir.LoadArray | ir.StoreArray | ir.ClearArray) -> None:
        if statement.array not in self.program.arrays:
            self.refuse(f"there is no array {statement.array!r}")
        element = self.program.arrays[statement.array][0]
        if isinstance(statement, ir.ClearArray):
            return
        self.expression(statement.at)
        if isinstance(statement, ir.LoadArray):
            self.target(statement.target)
            if statement.target.type != element:
                self.refuse("an element has another type than its variable")
        else:
            self.expression(statement.value, element)

    def results(self, statement: ir.Emit | ir.Return) -> None:
        if isinstance(statement, ir.Return):
            if self.program.kind != "walker":
                self.refuse("a probe returns nothing")
            for value, kind in zip(statement.values, self.program.results, strict=True):
                self.expression(value, kind)
            return
        if len(statement.values) != len(self.program.row):
            self.refuse("a row has not as many values as fields")
        for emitted, field in zip(statement.values, self.program.row, strict=True):
            if emitted is None:
                if not field.nullable:
                    self.refuse(f"the field {field.name!r} is absent")
            elif isinstance(emitted, str):
                if isinstance(field.type, IntType) or self.program.buffers.get(emitted, field.type + 1) > field.type:
                    self.refuse(f"the field {field.name!r} cannot hold {emitted!r}")
            elif not isinstance(field.type, IntType):
                self.refuse(f"the field {field.name!r} is a text")
            else:
                self.expression(emitted, field.type)

    def slot(self, number: int) -> ir.SlotSpec:
        if not 0 <= number < len(self.program.slots):
            self.refuse(f"there is no slot {number}")
        return self.program.slots[number]

    def target(self, local: ir.Local) -> None:
        if self.locals.get(local.name) != local.type:
            self.refuse(f"there is no variable {local.name} of type {local.type.name}")

    def expression(self, value: Expression, kind: IntType | None = None) -> None:
        """Verify an expression, and that it has a type."""
        if kind is not None and value.type != kind:
            self.refuse(f"a {value.type.name} stands where a {kind.name} belongs")
        match value:
            case ir.Const():
                if value.type.wrap(value.value) != value.value:
                    self.refuse(f"{value.value} is no {value.type.name}")
            case ir.Local():
                self.target(value)
            case ir.SlotValue():
                self.slot(value.slot)
            case ir.Compare():
                self.expression(value.left)
                self.expression(value.right, value.left.type)
            case ir.Not():
                self.expression(value.operand, BOOL)
            case ir.Cast():
                self.expression(value.operand)
            case ir.Binary():
                self.binary(value)

    def binary(self, value: ir.Binary) -> None:
        self.expression(value.left, value.type)
        if value.operator in {"<<", ">>"}:
            self.expression(value.right)
            if value.right.type.signed:
                self.refuse("a shift by a signed number")
            return
        self.expression(value.right, value.type)
        if value.operator in {"//", "%"}:
            divisor = value.right
            if value.type.signed or not isinstance(divisor, ir.Const) or divisor.value <= 0:
                self.refuse("a division by what is no positive constant, or of a signed number")
        if value.type == BOOL and value.operator not in {"&", "|", "^"}:
            self.refuse(f"{value.operator} of truth values")


def _ends(body: list[Statement]) -> bool:
    """Say whether no path leads to the end of a body."""
    if not body:
        return False
    last = body[-1]
    if isinstance(last, ir.If):
        return _ends(last.then) and _ends(last.otherwise)
    return isinstance(last, ir.Return | ir.Raise)

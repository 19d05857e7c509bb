"""The verifier: what it lets through reads guest memory only through a translation, ends, and cannot fault unnoticed.

Both back ends verify whatever they are given, so unverified programs never run.
"""

from __future__ import annotations

from typing import NoReturn, get_args

from yamori.errors import YamoriError
from yamori.llview import flow, ir
from yamori.llview.ir import BOOL, END, U64, Expression, IntType, Program, Statement

SIZES = frozenset({1, 2, 4, 8})
INTEGERS = frozenset({BOOL, *(IntType(bits, signed) for bits in (8, 16, 32, 64) for signed in (False, True))})
_PROBES_ONLY = (
    *(ir.Attempt, ir.Emit, ir.Trouble, ir.Translate, ir.StoreBuffer, ir.LoadBuffer, ir.ClearBuffer),
    *(ir.LoadArray, ir.StoreArray, ir.ClearArray),
)
"""What a walker may not hold: it is called in the middle of a probe's load, and has no memory of its own."""


class VerifyError(YamoriError):
    """A program that must not run. It is a defect of the front end, not of the probe."""


def verify(program: Program) -> Program:
    """Return a program that may run.

    Raises:
        VerifyError: A load is not translated or has no fault path, a back edge ticks no budget, a jump leads nowhere,
            or types do not agree.
    """
    _Verifier(program).run()
    return program


class _Verifier:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.locals = {**program.locals, **{local.name: local.type for local in program.parameters}}
        self.place = ir.Place(program.file, 0)

    def run(self) -> None:
        self.declarations()
        if self.program.kind == "walker":
            self.walker()
        elif self.program.word_size not in {4, 8}:
            self.refuse("a probe is for words of 4 or 8 bytes")
        self.body(self.program.body, (), ())

    def declarations(self) -> None:
        """Verify names and types."""
        program = self.program
        names = [*program.locals, *(local.name for local in program.parameters), *program.arrays, *program.buffers]
        if len(set(names)) < len(names):
            self.refuse("two variables have one name")
        fields = [field.type for field in program.row if isinstance(field.type, IntType)]
        kinds = [*self.locals.values(), *program.results, *fields, *(kind for kind, _ in program.arrays.values())]
        if not INTEGERS.issuperset(kinds):
            self.refuse("a type is none of C's")
        texts = [field.type for field in program.row if not isinstance(field.type, IntType)]
        if any(
            size <= 0 for size in (*texts, *program.buffers.values(), *(count for _, count in program.arrays.values()))
        ):
            self.refuse("an array, a buffer or a text has no length")
        if len(program.row) > ir.MOST_FIELDS:
            self.refuse(f"a row has at most {ir.MOST_FIELDS} fields")
        if program.storage > ir.MOST_STORAGE:
            self.refuse("its arrays and buffers are larger than a stack")

    def walker(self) -> None:
        """Verify what holds for walkers alone."""
        program = self.program
        if [local.type for local in program.parameters[:2]] != [U64, U64]:
            self.refuse("a walker's first parameters are root and gva")
        if program.results[:1] != [U64]:
            self.refuse("a walker's first result is a GPA")
        if program.slots or program.row or program.arrays or program.buffers:
            self.refuse("a walker has no slots, rows, arrays or buffers")
        if not flow.ends(program.body):
            self.refuse("a walker ends without a result")

    def refuse(self, why: str) -> NoReturn:
        raise VerifyError(f"{self.program.name}: {why}", where=f"{self.place.file}:{self.place.line}")

    def body(self, statements: list[Statement], labels: tuple[str, ...], attempts: tuple[str, ...]) -> None:
        """Verify statements inside of blocks and loops with ``labels`` (loops with a ``*``) and of ``attempts``."""
        before: Statement | None = None
        for statement in statements:
            self.place = statement.place
            if isinstance(before, ir.Page) and not isinstance(statement, ir.LoadHost):
                self.refuse("a translation without its load")
            if isinstance(statement, ir.Faulting) and statement.fault not in {END, *attempts}:
                self.refuse(f"{type(statement).__name__} has no fault path")
            self.statement(statement, before, labels)
            self.inner(statement, labels, attempts)
            before = statement
        if isinstance(before, ir.Page):
            self.refuse("a translation without its load")

    def inner(self, statement: Statement, labels: tuple[str, ...], attempts: tuple[str, ...]) -> None:
        """Verify what a statement holds."""
        if isinstance(statement, ir.If):
            self.body(statement.then, labels, attempts)
            self.body(statement.otherwise, labels, attempts)
        if not isinstance(statement, ir.Loop | ir.Block | ir.Attempt):
            return
        if statement.label in {END, *labels} or statement.label.startswith("*"):
            self.refuse(f"the label {statement.label!r} does not name one thing")
        around = (*labels, statement.label)
        if isinstance(statement, ir.Loop):
            if not statement.body or not isinstance(statement.body[0], ir.Tick):
                self.refuse(f"the loop {statement.label} ticks no budget")
            around = (*around, f"*{statement.label}")
        self.body(
            statement.body, around, (*attempts, statement.label) if isinstance(statement, ir.Attempt) else attempts
        )

    def statement(self, statement: Statement, before: Statement | None, labels: tuple[str, ...]) -> None:
        """Verify one statement, without what it holds."""
        if self.program.kind == "walker" and isinstance(statement, _PROBES_ONLY):
            self.refuse(f"{type(statement).__name__} in a walker")
        match statement:
            case ir.LoadVirt() | ir.CopyVirt():
                self.refuse("a load of guest memory is not translated")
            case ir.Page() | ir.LoadHost() | ir.LoadPhys():
                self.loads(statement, before)
            case ir.Translate():
                self.expression(statement.target, U64)
                self.expression(statement.address, IntType(self.program.word_size * 8))
            case ir.StoreBuffer() | ir.LoadBuffer() | ir.ClearBuffer():
                self.buffers(statement)
            case ir.LoadArray() | ir.StoreArray() | ir.ClearArray():
                self.arrays(statement)
            case ir.Break() | ir.Continue():
                self.jump(statement, labels)
            case ir.Emit() | ir.Return():
                self.results(statement)
            case ir.Loop() | ir.Block() | ir.Tick():
                pass
            case _:
                self.simple(statement)

    def simple(self, statement: Statement) -> None:
        """Verify a statement of expressions alone."""
        match statement:
            case ir.Assign():
                self.target(statement.target)
                self.expression(statement.value, statement.target.type)
            case ir.If():
                self.expression(statement.condition, BOOL)
            case ir.Attempt():
                self.target(statement.failed)
                if statement.failed.type != BOOL:
                    self.refuse("an attempt's result is no truth value")
            case ir.Raise() | ir.Trouble():
                self.expression(statement.value, U64)
                if not 0 <= statement.message < len(self.program.messages):
                    self.refuse("a message is missing")
            case _:
                self.refuse(f"{type(statement).__name__} is no statement")

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
        own = (load.page, load.address, load.size, load.slot, load.fault)
        if page is None or (page.target, page.address, page.size, page.slot, page.fault) != own:
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
            if len(statement.values) != len(self.program.results):
                self.refuse("a walker has not as many values as results")
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
        if value.type not in INTEGERS:
            self.refuse("a type is none of C's")
        if kind is not None and value.type != kind:
            self.refuse(f"{value.type.one} stands where {kind.one} belongs")
        match value:
            case ir.Const():
                if value.type.wrap(value.value) != value.value:
                    self.refuse(f"{value.value} is no {value.type.name}")
            case ir.Local():
                self.target(value)
            case ir.SlotValue():
                self.slot(value.slot)
                if value.field not in get_args(ir.SlotField):
                    self.refuse(f"a slot has no {value.field!r}")
            case _:
                self.operation(value)

    def operation(self, value: Expression) -> None:
        """Verify an operator and its operands."""
        match value:
            case ir.Compare():
                self.expression(value.left)
                self.expression(value.right, value.left.type)
                if value.operator not in get_args(ir.Comparison):
                    self.refuse(f"{value.operator!r} is no comparison")
            case ir.Not():
                self.expression(value.operand, BOOL)
            case ir.Cast():
                self.expression(value.operand)
            case ir.Binary():
                self.binary(value)
            case _:
                self.refuse(f"{type(value).__name__} is no expression")

    def binary(self, value: ir.Binary) -> None:
        if value.operator not in get_args(ir.BinaryOperator):
            self.refuse(f"{value.operator!r} is no operator")
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

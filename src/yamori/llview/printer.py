"""Programs as text: what ``yamori llview explain --ir`` prints, one statement a line."""

from __future__ import annotations

import keyword
from collections.abc import Iterator

from yamori.llview import flow, ir
from yamori.llview.ir import Expression, Program, Statement

INDENT = "    "


def show(program: Program) -> str:
    """Return a program as text: what it is given and gives, then its statements with the source lines they are from."""
    return "\n".join([*_head(program), *_body(program, program.body, 0)]) + "\n"


def expression(program: Program, value: Expression | str | None) -> str:
    """Return an expression as text; a buffer's name and an absent field as themselves."""
    match value:
        case None | str():
            return value or "none"
        case ir.Const():
            return f"{value.value:#x}" if abs(value.value) > 4096 else str(value.value)
        case ir.Local():
            return value.name
        case ir.Binary() | ir.Compare():
            return f"({expression(program, value.left)} {value.operator} {expression(program, value.right)})"
        case ir.Not():
            return f"not {expression(program, value.operand)}"
        case ir.Cast():
            return f"{value.type.name}({expression(program, value.operand)})"
        case ir.SlotValue():
            return f"[{program.slots[value.slot]}].{value.field}"


def line(program: Program, statement: Statement) -> str:
    """Return one statement as text, without those inside of it."""
    name = type(statement).__name__.lower()
    text: str = getattr(_Line(program), f"{name}_" if keyword.iskeyword(name) else name)(statement)
    return f"{text}  !{statement.fault or 'end'}" if isinstance(statement, ir.Faulting) else text


def _head(program: Program) -> Iterator[str]:
    word = f", {program.word_size * 8}-bit guests" if program.word_size else ""
    parameters = ", ".join(f"{local.name}: {local.type.name}" for local in program.parameters)
    yield f"{program.kind} {program.name}({parameters}){word}"
    for number, spec in enumerate(program.slots):
        yield f"{INDENT}slot {number}: {spec.kind} {spec}{', optional' if spec.optional else ''}"
    for field in program.row:
        kind = field.type.name if isinstance(field.type, ir.IntType) else f"text of {field.type} bytes"
        yield f"{INDENT}row {field.name}: {kind}{' or none' if field.nullable else ''}"
    for name, local in program.locals.items():
        yield f"{INDENT}local {name}: {local.name}"
    for name, (element, length) in program.arrays.items():
        yield f"{INDENT}array {name}: {element.name}[{length}]"
    for name, length in program.buffers.items():
        yield f"{INDENT}buffer {name}: {length} bytes"


def _body(program: Program, body: list[Statement], depth: int) -> Iterator[str]:
    for statement in body:
        yield f"{statement.place.line:>5} | {INDENT * depth}{line(program, statement)}"
        for number, inner in enumerate(flow.children(statement)):
            if number and inner:
                yield f"{'':>5} | {INDENT * depth}else:"
            yield from _body(program, inner, depth + 1)


class _Line:
    """One method for each kind of statement, named as it is."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def of(self, value: Expression | str | None) -> str:
        return expression(self.program, value)

    def size(self, statement: ir.LoadVirt | ir.Page | ir.LoadHost) -> str:
        return str(statement.size) if statement.slot is None else f"[{self.program.slots[statement.slot]}].size"

    def root(self, root: Expression | None) -> str:
        return "kernel" if root is None else self.of(root)

    def assign(self, it: ir.Assign) -> str:
        return f"{it.target.name} = {self.of(it.value)}"

    def loadvirt(self, it: ir.LoadVirt) -> str:
        return f"{it.target.name} = load.virt({self.root(it.root)}, {self.of(it.address)}, {self.size(it)})"

    def copyvirt(self, it: ir.CopyVirt) -> str:
        return f"{it.buffer} = copy.virt({self.root(it.root)}, {self.of(it.address)}, {self.of(it.length)})"

    def page(self, it: ir.Page) -> str:
        return f"{it.target} = page({self.root(it.root)}, {self.of(it.address)}, {self.size(it)})"

    def translate(self, it: ir.Translate) -> str:
        return f"{it.target.name} = translate(kernel, {self.of(it.address)})"

    def loadhost(self, it: ir.LoadHost) -> str:
        return f"{it.target.name} = load.host({it.page}, {self.of(it.address)}, {self.size(it)})"

    def loadphys(self, it: ir.LoadPhys) -> str:
        return f"{it.target.name} = load.phys({self.of(it.address)}, {it.size})"

    def storebuffer(self, it: ir.StoreBuffer) -> str:
        return f"{it.buffer}[{self.of(it.at)}:{it.size}] = {self.of(it.value)}"

    def clearbuffer(self, it: ir.ClearBuffer) -> str:
        return f"clear {it.buffer}"

    def loadbuffer(self, it: ir.LoadBuffer) -> str:
        return f"{it.target.name} = {it.buffer}[{self.of(it.at)}]"

    def loadarray(self, it: ir.LoadArray) -> str:
        return f"{it.target.name} = {it.array}[{self.of(it.at)}]"

    def storearray(self, it: ir.StoreArray) -> str:
        return f"{it.array}[{self.of(it.at)}] = {self.of(it.value)}"

    def cleararray(self, it: ir.ClearArray) -> str:
        return f"clear {it.array}"

    def tick(self, it: ir.Tick) -> str:
        del it
        return "tick"

    def if_(self, it: ir.If) -> str:
        return f"if {self.of(it.condition)}:"

    def loop(self, it: ir.Loop) -> str:
        return f"loop {it.label}:"

    def block(self, it: ir.Block) -> str:
        return f"block {it.label}:"

    def attempt(self, it: ir.Attempt) -> str:
        return f"attempt {it.label}, failed in {it.failed.name}:"

    def break_(self, it: ir.Break) -> str:
        return f"break {it.label}"

    def continue_(self, it: ir.Continue) -> str:
        return f"continue {it.label}"

    def raise_(self, it: ir.Raise) -> str:
        return f"raise {self.program.messages[it.message]!r}, {self.of(it.value)}"

    def trouble(self, it: ir.Trouble) -> str:
        marks = "".join(f", {mark}" for mark, has in (("faulted", it.faulted), ("torn", it.torn)) if has)
        return f"trouble {self.program.messages[it.message]!r}, {self.of(it.value)}{marks}"

    def emit(self, it: ir.Emit) -> str:
        pairs = zip(self.program.row, it.values, strict=True)
        return f"emit {', '.join(f'{field.name}={self.of(value)}' for field, value in pairs)}"

    def return_(self, it: ir.Return) -> str:
        return f"return {', '.join(map(self.of, it.values))}"

"""IR → Python: the interpreter's code. The reference, to which the C back end is compared.

A program becomes one Python function, whose text is readable and known to ``linecache``, so that tracebacks and
debuggers show it. Loads are calls of the run's own primitives (``runtime``), faults are exceptions, an ``Attempt`` is
a ``try``.

Python has no labelled ``break``. A jump out of more than one construct sets ``jump`` to where it goes and leaves the
innermost one; behind each construct that such a jump may leave stands the test that passes it on.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable
from typing import Any

from yamori.llview import ir
from yamori.llview.ir import BOOL, END, Expression, IntType, Program, Statement
from yamori.llview.runtime import Stop
from yamori.llview.verify import verify

MOST_NESTED = 18
"""Loops and ``try`` that Python allows in each other are 20."""


def generate(program: Program) -> tuple[Callable[..., Any], str]:
    """Return a verified program's function and its text.

    A probe's function takes ``(run, slots, arguments)``; a walker's ``(phys4, phys8, stop, tick, *arguments)``.

    Raises:
        VerifyError: The program may not run.
    """
    verify(program)
    writer = _Writer(program)
    text = "\n".join(writer.program_text()) + "\n"
    name = f"<llview {program.name} {program.word_size * 8} {id(program):x}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names: dict[str, Any] = {"Stop": Stop}
    exec(compile(text, name, "exec"), names)  # noqa: S102  our own text, of a verified program
    function: Callable[..., Any] = names[program.name]
    return function, text


class _Construct:
    """A loop, block or attempt that is being written.

    Attributes:
        label: Its own.
        number: ``jump`` for a break out of it; one more for its next round.
        loop: Whether it can be continued.
    """

    def __init__(self, label: str, number: int, *, loop: bool) -> None:
        self.label = label
        self.number = number
        self.loop = loop
        self.crossed = False


class _Writer:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.lines: list[str] = []
        self.depth = 0
        self.around: list[_Construct] = []
        self.attempts: list[str] = []
        self.count = 0
        self.crossing: set[str] = set()

    # --- text

    def line(self, text: str, place: ir.Place | None = None) -> None:
        note = f"  # line {place.line}" if place else ""
        self.lines.append("    " * self.depth + text + note)

    def program_text(self) -> list[str]:
        program = self.program
        if program.kind == "walker":
            self.line(
                f"def {program.name}(phys4, phys8, stop, tick, {', '.join(_name(p.name) for p in program.parameters)}):"
            )
            self.depth = 1
        else:
            self.line(f"def {program.name}(run, slots, arguments):")
            self.depth = 1
            self.prologue()
        for name in program.locals:
            self.line(f"{_name(name)} = 0")
        self.line("jump = 0")
        self.body(_lifted(program.body, ""))
        return self.lines

    def prologue(self) -> None:
        self.line(
            "load, load_slot, load_user, load_user_slot = run.load, run.load_slot, run.load_user, run.load_user_slot"
        )
        self.line("tick, emit, trouble, fail, index = run.tick, run.rows_append, run.trouble, run.fail, run.index")
        for number, spec in enumerate(self.program.slots):
            self.line(f"e{number}, o{number}, z{number}, d{number} = slots[{number}]  # {spec}")
        for number, parameter in enumerate(self.program.parameters):
            self.line(f"{_name(parameter.name)} = {_wrapped(f'arguments[{number}]', parameter.type)}")
        for name, (_, length) in self.program.arrays.items():
            self.line(f"{_name(name)} = [0] * {length}")
        for name, length in self.program.buffers.items():
            self.line(f"{_name(name)} = bytearray({length})")

    def body(self, statements: list[Statement]) -> None:
        if not statements:
            self.line("pass")
        skip = False
        for number, statement in enumerate(statements):
            if skip:
                skip = False
                continue
            if isinstance(statement, ir.Page):
                after = statements[number + 1] if number + 1 < len(statements) else None
                if isinstance(after, ir.LoadHost):
                    self.faulting(after, self.load_text(statement, after))
                    skip = True
                continue  # a translation alone has no effect that anyone could see but its faults; see verify()
            getattr(self, f"_{type(statement).__name__.lower()}")(statement)
            if isinstance(statement, ir.Break | ir.Continue | ir.Return | ir.Raise):
                break  # nothing behind it can be reached

    def faulting(self, statement: ir.Faulting, text: str) -> None:
        """Write a statement that may fault; where not the innermost attempt takes the fault, say which does."""
        innermost = self.attempts[-1] if self.attempts else END
        if statement.fault == innermost:
            self.line(text, statement.place)
            return
        self.line("try:")
        self.depth += 1
        self.line(text, statement.place)
        self.depth -= 1
        self.line("except Stop as fault:")
        self.line(f"    fault.path = {statement.fault!r}")
        self.line("    raise")

    # --- expressions

    def expression(self, value: Expression) -> str:
        match value:
            case ir.Const():
                return str(value.value)
            case ir.Local():
                return _name(value.name)
            case ir.SlotValue():
                return f"{ {'exists': 'e', 'offset': 'o', 'size': 'z', 'stride': 'd'}[value.field] }{value.slot}"
            case ir.Compare():
                return f"({self.expression(value.left)} {value.operator} {self.expression(value.right)})"
            case ir.Not():
                return f"(not {self.expression(value.operand)})"
            case ir.Cast():
                return self.cast(value)
            case ir.Binary():
                return self.binary(value)

    def cast(self, value: ir.Cast) -> str:
        operand, own, kind = self.expression(value.operand), value.operand.type, value.type
        if kind == BOOL:
            return f"({operand} != 0)"
        if not own.signed and (own.bits < kind.bits or (own.bits == kind.bits and not kind.signed)):
            return operand
        if own.signed and kind.signed and own.bits <= kind.bits:
            return operand
        return _wrapped(operand, kind)

    def binary(self, value: ir.Binary) -> str:
        left, right, kind = self.expression(value.left), self.expression(value.right), value.type
        if value.operator in {"&", "|", "^", ">>", "//", "%"}:
            return f"({left} {value.operator} {right})"
        if value.operator == "<<":
            if isinstance(value.right, ir.Const):
                return _wrapped(f"({left} << {right})", kind) if value.right.value < kind.bits else "0"
            return f"({_wrapped(f'({left} << {right})', kind)} if {right} < {kind.bits} else 0)"
        return _wrapped(f"({left} {value.operator} {right})", kind)

    # --- loads

    def load_text(self, page: ir.Page, load: ir.LoadHost) -> str:
        address, target = self.expression(load.address), _name(load.target.name)
        root = "" if page.root is None else f", {self.expression(page.root)}"
        user = "" if page.root is None else "_user"
        if load.slot is None:
            value = f"load{user}({address}, {load.size}{root})"
            value = _wrapped(value, load.target.type) if load.target.type != IntType(load.size * 8) else value
        else:
            value = _wrapped(f"load{user}_slot({address}, {load.slot}{root})", load.target.type)
        if load.target.type == BOOL:
            value = f"({value} != 0)"
        return f"{target} = {value}"

    def _loadphys(self, load: ir.LoadPhys) -> None:
        value = f"phys{load.size}({self.expression(load.address)})"
        kind = load.target.type
        value = value if kind == IntType(load.size * 8) else _wrapped(value, kind)
        self.faulting(load, f"{_name(load.target.name)} = {value}")

    # --- statements

    def _assign(self, statement: ir.Assign) -> None:
        self.line(f"{_name(statement.target.name)} = {self.expression(statement.value)}", statement.place)

    def _storebuffer(self, store: ir.StoreBuffer) -> None:
        buffer, size = _name(store.buffer), store.size
        length = self.program.buffers[store.buffer]
        at = f"index({self.expression(store.at)}, {length}, {size})"
        value = f"({self.expression(store.value)} & {(1 << 8 * size) - 1}).to_bytes({size}, 'little')"
        self.line(f"value = {value}")
        self.faulting(store, f"at = {at}")
        self.line(f"{buffer}[at : at + {size}] = value", store.place)

    def _clearbuffer(self, clear: ir.ClearBuffer) -> None:
        length = self.program.buffers[clear.buffer]
        self.line(f"{_name(clear.buffer)}[:] = bytes({length})", clear.place)

    def _loadbuffer(self, load: ir.LoadBuffer) -> None:
        length = self.program.buffers[load.buffer]
        at = f"index({self.expression(load.at)}, {length}, 1)"
        self.faulting(load, f"{_name(load.target.name)} = {_wrapped(f'{_name(load.buffer)}[{at}]', load.target.type)}")

    def _loadarray(self, load: ir.LoadArray) -> None:
        length = self.program.arrays[load.array][1]
        at = f"index({self.expression(load.at)}, {length}, 1)"
        self.faulting(load, f"{_name(load.target.name)} = {_name(load.array)}[{at}]")

    def _storearray(self, store: ir.StoreArray) -> None:
        length = self.program.arrays[store.array][1]
        self.faulting(store, f"at = index({self.expression(store.at)}, {length}, 1)")
        self.line(f"{_name(store.array)}[at] = {self.expression(store.value)}", store.place)

    def _cleararray(self, clear: ir.ClearArray) -> None:
        length = self.program.arrays[clear.array][1]
        self.line(f"{_name(clear.array)}[:] = [0] * {length}", clear.place)

    def _tick(self, tick: ir.Tick) -> None:
        self.line("tick()", tick.place)

    def _if(self, statement: ir.If) -> None:
        self.line(f"if {self.expression(statement.condition)}:", statement.place)
        self.nested(statement.then)
        if statement.otherwise:
            self.line("else:")
            self.nested(statement.otherwise)

    def nested(self, body: list[Statement]) -> None:
        self.depth += 1
        self.body(body)
        self.depth -= 1

    def _loop(self, loop: ir.Loop) -> None:
        self.construct(loop.label, loop.body, loop=True, place=loop.place)

    def _block(self, block: ir.Block) -> None:
        body = _lifted(block.body, block.label)
        if any(isinstance(s, ir.Break) and s.label == block.label for s in ir.walk(body)):
            self.construct(block.label, body, loop=False, place=block.place)
        else:
            for statement in (body,) if body else ():
                self.body(statement)

    def construct(self, label: str, body: list[Statement], *, loop: bool, place: ir.Place) -> None:
        """Write a loop, or what can be left like one."""
        self.count += 2
        own = _Construct(label, self.count, loop=loop)
        if len(self.around) > MOST_NESTED:
            raise ValueError(f"{self.program.name}: too many loops in each other")
        self.line("while True:", place)
        self.around.append(own)
        self.depth += 1
        self.body(body)
        if not loop and not _jumps(body):
            self.line("break")
        self.depth -= 1
        self.around.pop()
        if own.crossed:
            self.pass_on()

    def pass_on(self) -> None:
        """Behind a construct that was left by a jump to somewhere farther out."""
        outer = self.around[-1]
        self.line("if jump:")
        self.line(f"    if jump == {outer.number}:")
        self.line("        jump = 0")
        self.line("        break")
        if outer.loop:
            self.line(f"    if jump == {outer.number + 1}:")
            self.line("        jump = 0")
            self.line("        continue")
        self.line("    break")
        # It may go farther still: then the one around is left by it, too.
        outer.crossed = outer.crossed or len(self.around) > 1

    def jump(self, label: str, *, again: bool, place: ir.Place) -> None:
        if self.around[-1].label == label:
            self.line("continue" if again else "break", place)
            return
        target = next(one for one in reversed(self.around) if one.label == label)
        for one in self.around[self.around.index(target) + 1 :]:
            one.crossed = True
        self.line(f"jump = {target.number + again}", place)
        self.line("break")

    def _break(self, statement: ir.Break) -> None:
        self.jump(statement.label, again=False, place=statement.place)

    def _continue(self, statement: ir.Continue) -> None:
        self.jump(statement.label, again=True, place=statement.place)

    def _attempt(self, attempt: ir.Attempt) -> None:
        left = any(isinstance(s, ir.Break) and s.label == attempt.label for s in ir.walk(attempt.body))
        failed = _name(attempt.failed.name)
        self.line(f"{failed} = False", attempt.place)
        if left:
            self.count += 2
            own = _Construct(attempt.label, self.count, loop=False)
            self.line("while True:")
            self.around.append(own)
            self.depth += 1
        self.line("try:")
        self.attempts.append(attempt.label)
        self.nested(attempt.body)
        self.attempts.pop()
        self.line("except Stop as fault:")
        self.line(f"    if fault.path is not None and fault.path != {attempt.label!r}:")
        self.line("        raise")
        self.line(f"    {failed} = True")
        if left:
            self.line("break")
            self.depth -= 1
            self.around.pop()
            if own.crossed:
                self.pass_on()

    def _raise(self, statement: ir.Raise) -> None:
        call = "stop" if self.program.kind == "walker" else "fail"
        self.faulting(statement, f"{call}({statement.message}, {self.expression(statement.value)})")

    def _trouble(self, statement: ir.Trouble) -> None:
        value = self.expression(statement.value)
        self.line(f"trouble({statement.message}, {value}, {statement.faulted}, {statement.torn})", statement.place)

    def _emit(self, statement: ir.Emit) -> None:
        values = []
        for value in statement.values:
            if value is None:
                values.append("None")
            elif isinstance(value, str):
                values.append(f"{_name(value)}.partition(b'\\0')[0]")
            else:
                values.append(self.expression(value))
        texts = [f"bytes({v})" if v.endswith("[0]") and ".partition(" in v else v for v in values]
        self.line(f"emit(({', '.join(texts)},))", statement.place)

    def _return(self, statement: ir.Return) -> None:
        self.line(f"return ({', '.join(self.expression(value) for value in statement.values)},)", statement.place)


def _name(name: str) -> str:
    """Return a name that none of the writer's own words and none of Python's is."""
    return f"v_{name}"


def _wrapped(text: str, kind: IntType) -> str:
    mask = (1 << kind.bits) - 1
    if not kind.signed:
        return f"({text} & {mask})"
    half = 1 << (kind.bits - 1)
    return f"((({text} + {half}) & {mask}) - {half})"


def _jumps(body: list[Statement]) -> bool:
    return bool(body) and isinstance(body[-1], ir.Break | ir.Continue | ir.Return | ir.Raise)


def _lifted(body: list[Statement], label: str) -> list[Statement]:
    """Return a block's body without those breaks out of it that an ``else`` can stand for.

    What follows ``if c: ...; break`` moves into the ``else``; a break at the end says nothing.
    """
    result: list[Statement] = []
    for number, statement in enumerate(body):
        if isinstance(statement, ir.Break) and statement.label == label:
            return result
        if isinstance(statement, ir.If):
            rest = body[number + 1 :]
            then, otherwise = statement.then, statement.otherwise
            if _leaves(then, label):
                lifted = ir.If(
                    place=statement.place,
                    condition=statement.condition,
                    then=_lifted(then, label),
                    otherwise=_lifted([*otherwise, *rest], label),
                )
                return [*result, lifted]
            if _leaves(otherwise, label):
                lifted = ir.If(
                    place=statement.place,
                    condition=statement.condition,
                    then=_lifted([*then, *rest], label),
                    otherwise=_lifted(otherwise, label),
                )
                return [*result, lifted]
            if not rest:
                ending = ir.If(
                    place=statement.place,
                    condition=statement.condition,
                    then=_lifted(then, label),
                    otherwise=_lifted(otherwise, label),
                )
                return [*result, ending]
        result.append(statement)
    return result


def _leaves(body: list[Statement], label: str) -> bool:
    return bool(body) and isinstance(body[-1], ir.Break) and body[-1].label == label

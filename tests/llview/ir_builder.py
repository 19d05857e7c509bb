"""Random programs of the intermediate representation, and hostile guests for them: all engines must do alike with them.

``cases()`` is the strategy. What it draws passes the verifier; everything else about it is as bad as it gets: addresses
that are no addresses, slots of any size, shifts beyond the type, page tables that lead out of RAM or to odd places.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeVar

from hypothesis import strategies as st
from tests.llview.native_programs import BASE, KERNEL, KINDS, PAGE, P, flat_walker, load, machine, op, ram

from yamori.llview import ir
from yamori.llview.ir import BOOL, END, S16, S32, S64, U8, U16, U32, U64, Const, Expression, IntType, Local, Statement
from yamori.llview.machine import Engine, Machine, Outcome, SlotFill

LOCALS = {
    **{f"{kind.name}_{copy}": kind for kind in KINDS for copy in "ab"},
    **{f"failed_{number}": BOOL for number in range(3)},
}
ARRAYS = {"seen": (U16, 5), "wide": (S64, 3), "flags": (BOOL, 2)}
BUFFERS = {"text": 16, "tiny": 3}
ROW = [
    ir.RowField("number", U64),
    ir.RowField("small", S16, nullable=True),
    ir.RowField("text", 16, nullable=True),
    ir.RowField("flag", BOOL),
]
SLOTS = [
    *(ir.SlotSpec("member", "item", f"m{number}") for number in range(4)),
    ir.SlotSpec("symbol", "init_task"),
    ir.SlotSpec("sizeof", "item"),
]
MESSAGES = ["first", "second"]
MOST_DEPTH = 5

OPERATORS: Final[list[ir.BinaryOperator]] = ["+", "-", "*", "&", "|", "^"]
BITWISE: Final[list[ir.BinaryOperator]] = ["&", "|", "^"]
SHIFTS: Final[list[ir.BinaryOperator]] = ["<<", ">>"]
COMPARISONS: Final[list[ir.Comparison]] = ["==", "!=", "<", "<=", ">", ">="]
SLOT_FIELDS: Final[list[ir.SlotField]] = ["offset", "size", "stride"]

T = TypeVar("T")


class Case(NamedTuple):
    """A program, and all that it is run with."""

    program: ir.Program
    machine: Machine
    slots: list[SlotFill]
    arguments: tuple[int, ...]
    budget: int


def probe(
    body: list[Statement],
    *,
    word_size: int = 8,
    parameters: tuple[Local, ...] = (),
    name: str = "built",
    row: list[ir.RowField] | None = None,
) -> ir.Program:
    """A probe with the locals, arrays, buffers, slots and messages of this module."""
    return ir.Program(
        name=name,
        kind="probe",
        word_size=word_size,
        file="built.py",
        parameters=list(parameters),
        slots=list(SLOTS),
        messages=list(MESSAGES),
        row=list(ROW if row is None else row),
        locals=dict(LOCALS),
        arrays=dict(ARRAYS),
        buffers=dict(BUFFERS),
        body=body,
    )


def emit_number(value: Expression) -> ir.Emit:
    """A row of ``ROW`` that holds one number."""
    return ir.Emit(place=P, values=[value, None, None, Const(0, BOOL)])


def ticking_walker() -> ir.Program:
    """``flat_walker``, but it spends as many ticks as bits 12 to 14 of the address say: walkers have loops, too."""
    flat = flat_walker()
    left = Local("left", U64)
    loop = ir.Loop(
        place=P,
        label="wait",
        body=[
            ir.Tick(place=P),
            ir.If(
                place=P,
                condition=ir.Compare("==", left, Const(0, U64)),
                then=[ir.Break(place=P, label="wait")],
            ),
            ir.Assign(place=P, target=left, value=op("-", left, Const(1, U64))),
        ],
    )
    bits = op("&", op(">>", Local("gva", U64), Const(12, U64)), Const(7, U64))
    start = ir.Assign(place=P, target=left, value=bits)
    return replace(flat, name="ticking", locals={**flat.locals, "left": U64}, body=[start, loop, *flat.body])


@dataclass(frozen=True)
class _Around:
    """What a statement stands in.

    Attributes:
        labels: Labels of all loops, blocks and attempts around it.
        loops: Those of the loops.
        attempts: Those of the attempts.
    """

    labels: tuple[str, ...] = ()
    loops: tuple[str, ...] = ()
    attempts: tuple[str, ...] = ()

    @property
    def depth(self) -> int:
        return len(self.labels)


class _Writer:
    """Draws one program."""

    def __init__(self, draw: st.DrawFn, word_size: int) -> None:
        self.draw = draw
        self.word = IntType(word_size * 8)
        self.kernel = KERNEL[word_size]
        self.labels = 0
        self.left = 40

    def pick(self, options: Sequence[T]) -> T:
        return self.draw(st.sampled_from(options))

    # --- expressions

    def local(self, kind: IntType) -> Local:
        return Local(f"{kind.name}_{self.pick('ab')}", kind)

    def const(self, kind: IntType) -> Const:
        edges = [0, 1, 2, 7, 8, 31, 63, 64, -1, 1 << (kind.bits - 1), (1 << (kind.bits - 1)) - 1]
        return Const(int(kind.wrap(self.pick(edges))), kind)

    def expression(self, kind: IntType, depth: int = 3) -> Expression:
        if depth == 0:
            leaves: list[Expression] = [self.local(kind), self.const(kind)]
            return self.pick(leaves)
        if kind == BOOL:
            return self.truth(depth)
        way = self.pick(["local", "const", "cast", "binary", "binary", "shift", "slot"])
        if way == "cast":
            return ir.Cast(self.expression(self.pick(KINDS), depth - 1), kind)
        if way == "binary":
            return self.binary(kind, depth)
        if way == "shift":
            count = self.expression(self.pick([U8, U32, U64]), depth - 1)
            return ir.Binary(self.pick(SHIFTS), self.expression(kind, depth - 1), count, kind)
        if way == "slot" and kind == U64:
            return ir.SlotValue(self.number(len(SLOTS)), self.pick(SLOT_FIELDS))
        return self.const(kind) if way == "const" else self.local(kind)

    def binary(self, kind: IntType, depth: int) -> Expression:
        operator = self.pick(OPERATORS if kind.signed else [*OPERATORS, "//", "%"])
        right: Expression
        if operator in {"//", "%"}:
            right = Const(kind.wrap(self.pick([1, 2, 3, 10, 64, 255])), kind)
        else:
            right = self.expression(kind, depth - 1)
        return ir.Binary(operator, self.expression(kind, depth - 1), right, kind)

    def truth(self, depth: int) -> Expression:
        way = self.pick(["compare", "compare", "not", "cast", "binary", "exists", "local"])
        if way == "compare":
            kind = self.pick(KINDS)
            left, right = self.expression(kind, depth - 1), self.expression(kind, depth - 1)
            return ir.Compare(self.pick(COMPARISONS), left, right)
        if way == "not":
            return ir.Not(self.expression(BOOL, depth - 1))
        if way == "cast":
            return ir.Cast(self.expression(self.pick(KINDS), depth - 1), BOOL)
        if way == "binary":
            left, right = self.expression(BOOL, depth - 1), self.expression(BOOL, depth - 1)
            return ir.Binary(self.pick(BITWISE), left, right, BOOL)
        return ir.SlotValue(self.number(len(SLOTS)), "exists") if way == "exists" else self.local(BOOL)

    def number(self, below: int) -> int:
        return self.draw(st.integers(0, below - 1))

    def address(self) -> Expression:
        """An address: mostly one of the kernel's, of which most are mapped and aligned."""
        word = self.word
        if self.number(8) == 0:
            return self.expression(word, 2)
        mask = Const(self.pick([0xFFF8, 0x1FFF8, 0xFFFF, 0x3018]), word)
        offset: Expression = ir.Binary("&", self.expression(word, 2), mask, word)
        if self.number(3) == 0:
            member: Expression = ir.SlotValue(self.number(len(SLOTS)), "offset")
            member = member if word == U64 else ir.Cast(member, word)
            offset = ir.Binary("+", offset, member, word)
        return ir.Binary("+", Const(self.kernel, word), offset, word)

    # --- statements

    def body(self, around: _Around, most: int = 4) -> list[Statement]:
        statements: list[Statement] = []
        for _ in range(self.draw(st.integers(1, most))):
            self.left -= 1
            statements += self.statement(around)
        return statements

    def statement(self, around: _Around) -> list[Statement]:
        simple = [self.assign, self.load, self.load, self.array, self.buffer, self.emit, self.note]
        nested = [self.branch, self.loop, self.block, self.attempt, self.jump]
        allowed = simple + nested if around.depth < MOST_DEPTH and self.left > 0 else simple
        return self.pick(allowed)(around)

    def fault(self, around: _Around) -> str:
        """The innermost attempt, as the front end has it; sometimes another."""
        paths = [END, *around.attempts]
        return self.pick(paths) if self.number(4) == 0 else paths[-1]

    def assign(self, around: _Around) -> list[Statement]:
        kind = self.pick(KINDS)
        return [ir.Assign(place=P, target=self.local(kind), value=self.expression(kind))]

    def load(self, around: _Around) -> list[Statement]:
        slot = self.pick([None, 0, 1, 2, 3])
        size = self.pick([1, 2, 4, 8]) if slot is None else 0
        root = self.pick([None, None, None, Const(BASE, U64), Local("u64_a", U64), Const(BASE + PAGE, U64)])
        target = self.local(self.pick(KINDS))
        return load(target, self.address(), slot=slot, size=size, fault=self.fault(around), root=root)

    def array(self, around: _Around) -> list[Statement]:
        name = self.pick(sorted(ARRAYS))
        kind = ARRAYS[name][0]
        at, fault = self.index(), self.fault(around)
        value = self.expression(kind, 2)
        return [
            self.pick(
                [
                    ir.LoadArray(place=P, fault=fault, target=self.local(kind), array=name, at=at),
                    ir.StoreArray(place=P, fault=fault, array=name, at=at, value=value),
                    ir.ClearArray(place=P, array=name),
                ]
            )
        ]

    def buffer(self, around: _Around) -> list[Statement]:
        name = self.pick(sorted(BUFFERS))
        at, fault = self.index(), self.fault(around)
        target, size = self.local(self.pick(KINDS)), self.pick([1, 2, 4, 8])
        value = self.expression(self.pick(KINDS), 2)
        return [
            self.pick(
                [
                    ir.LoadBuffer(place=P, fault=fault, target=target, buffer=name, at=at),
                    ir.StoreBuffer(place=P, fault=fault, buffer=name, at=at, value=value, size=size),
                    ir.ClearBuffer(place=P, buffer=name),
                ]
            )
        ]

    def index(self) -> Expression:
        kind = self.pick([U8, U32, U64, S32])
        wild = self.expression(kind, 1)
        return wild if self.number(4) == 0 else ir.Binary("&", wild, Const(self.pick([1, 3, 7]), kind), kind)

    def emit(self, around: _Around) -> list[Statement]:
        small, text = self.expression(S16, 1), self.pick([None, "text", "tiny"])
        values = [self.expression(U64, 1), self.pick([small, None]), text, self.expression(BOOL, 1)]
        return [ir.Emit(place=P, values=values)]

    def note(self, around: _Around) -> list[Statement]:
        message, value = self.number(len(MESSAGES)), self.expression(U64, 1)
        if self.number(8) == 0:
            return [ir.Raise(place=P, fault=self.fault(around), message=message, value=value)]
        faulted, torn = self.pick([True, False]), self.pick([True, False])
        return [ir.Trouble(place=P, message=message, value=value, faulted=faulted, torn=torn)]

    def branch(self, around: _Around) -> list[Statement]:
        otherwise = self.body(around, 2) if self.number(2) else []
        condition = self.expression(BOOL, 2)
        return [ir.If(place=P, condition=condition, then=self.body(around, 3), otherwise=otherwise)]

    def inside(self, around: _Around, kind: str) -> tuple[str, _Around]:
        self.labels += 1
        label = f"{kind}_{self.labels}"
        loops = (*around.loops, label) if kind == "loop" else around.loops
        attempts = (*around.attempts, label) if kind == "attempt" else around.attempts
        return label, _Around((*around.labels, label), loops, attempts)

    def loop(self, around: _Around) -> list[Statement]:
        label, inner = self.inside(around, "loop")
        body = [ir.Tick(place=P), *self.body(inner, 6), *self.jump(inner)]
        return [ir.Loop(place=P, label=label, body=body)]

    def block(self, around: _Around) -> list[Statement]:
        label, inner = self.inside(around, "block")
        return [ir.Block(place=P, label=label, body=self.body(inner, 5))]

    def attempt(self, around: _Around) -> list[Statement]:
        label, inner = self.inside(around, "attempt")
        failed = Local(f"failed_{self.number(3)}", BOOL)
        return [ir.Attempt(place=P, label=label, failed=failed, body=self.body(inner, 5))]

    def jump(self, around: _Around) -> list[Statement]:
        """Leave something around, or go on with a loop; mostly under a condition."""
        jumps: list[Statement] = [ir.Break(place=P, label=label) for label in around.labels]
        jumps += [ir.Continue(place=P, label=label) for label in around.loops]
        if not jumps:
            return self.assign(around)
        jump = self.pick(jumps)
        return [jump] if self.number(4) == 0 else [ir.If(place=P, condition=self.expression(BOOL, 2), then=[jump])]


@st.composite
def programs(draw: st.DrawFn, word_size: int = 8, name: str = "random") -> ir.Program:
    """A probe with one parameter, of the word's type; it verifies."""
    writer = _Writer(draw, word_size)
    parameter = Local("given", writer.word)
    body: list[Statement] = [
        ir.Assign(place=P, target=Local(f"u{word_size * 8}_a", writer.word), value=parameter),
        *writer.body(_Around(), 8),
    ]
    return probe(body, word_size=word_size, parameters=(parameter,), name=name)


@st.composite
def fills(draw: st.DrawFn) -> list[SlotFill]:
    """Slots: usual ones, bit-fields, and some that no kernel has."""
    numbers = st.sampled_from([0, 1, 2, 4, 8, 16, 24, 3, 77, 255, 1 << 63, (1 << 64) - 1])
    usual = st.builds(
        SlotFill,
        exists=st.sampled_from([True]),
        offset=st.integers(0, 64).map(lambda number: number * 8),
        size=st.sampled_from([1, 2, 4, 8]),
        signed=st.booleans(),
        stride=st.just(8),
    )
    cut = st.tuples(st.integers(0, 63), st.integers(1, 64))
    bit_field = st.builds(lambda fill, at: fill._replace(shift=at[0], bits=at[1]), usual, cut)
    wild = st.builds(SlotFill, st.booleans(), numbers, numbers, st.booleans(), numbers, numbers, numbers)
    slots = draw(st.lists(st.one_of(usual, usual, bit_field, wild), min_size=len(SLOTS), max_size=len(SLOTS)))
    # The symbol is a table, that a load may name as its root.
    return [slot._replace(offset=BASE) if SLOTS[number].kind == "symbol" else slot for number, slot in enumerate(slots)]


@st.composite
def machines(draw: st.DrawFn, word_size: int = 8, walker: ir.Program | None = None) -> Machine:
    """A guest with pages of random bytes behind a table that is wrong in places."""
    data, _ = ram(word_size)
    random.Random(draw(st.integers(0, 3))).shuffle(table := list(range(1, 17)))
    for page, number in enumerate(table):
        entry = number * PAGE | 1
        bad = draw(
            st.sampled_from([entry] * 6 + [0, entry - 1, entry + 2, 16 * PAGE + 0x801, (1 << 64) - 1, 1 << 40 | 1])
        )
        data[page * 8 : page * 8 + 8] = bad.to_bytes(8, "little")
    given = machine(data, word_size, walker or draw(st.sampled_from(WALKERS)))
    bias = draw(st.sampled_from([BASE, BASE, BASE, BASE + 4, 0, (1 << 64) - 1]))
    return replace(given, geometry=(bias,))


@st.composite
def cases(draw: st.DrawFn, word_size: int = 0, name: str = "random") -> Case:
    """A program, a guest, slots, an argument, and a budget that soon is spent."""
    size = word_size or draw(st.sampled_from([4, 8]))
    argument = draw(st.sampled_from([0, KERNEL[size], KERNEL[size] + 0x1238, (1 << (8 * size)) - 1]))
    return Case(
        draw(programs(size, name)),
        draw(machines(size)),
        draw(fills()),
        (argument,),
        draw(st.sampled_from([0, 1, 5, 60, 200])),
    )


def run(engine: Engine, case: Case, *, trace: bool = True) -> Outcome:
    """Run a case."""
    return engine.run(case.program, case.machine, case.slots, case.arguments, budget=case.budget, trace=trace)


WALKERS = (flat_walker(), ticking_walker())

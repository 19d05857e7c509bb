"""The verifier refuses every program that was spoiled in one place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import pytest
from tests.llview.native_programs import flat_walker
from tests.llview.sources import module, probe

from yamori.llview import flow, ir
from yamori.llview.frontend import compile_probe, compile_walker
from yamori.llview.ir import BOOL, END, S8, U32, U64, Const, IntType, Local, Program, Statement
from yamori.llview.translate import translate
from yamori.llview.verify import VerifyError, verify
from yamori.translation import aarch64, arm_lpae, arm_short, riscv, x86_64

SOURCE = probe(
    """
kept = local_array(u16, 3)
for node in each(kernel.first):
    with attempt() as bad:
        kept[node.small & 1] = node.small
        if node.name == "item 1":
            continue
        if node.flag:
            stop("flagged", node)
    if bad:
        trouble("bad", node, faulted=True)
    emit(a=kept[0], b=node.number if not bad else None, c=node.name)
    for i in range(3):
        if i == node.number:
            continue
        kept[i] = 1
    word = user_word(7, address_of(node)) + word_at(most)
    emit(a=word % 7, c=user_text(9, node.word, 9))
""",
    ", most: ulong",
)
S = TypeVar("S", bound=Statement)


def untranslated(word_size: int = 8) -> Program:
    return compile_probe(module(SOURCE).run, word_size)


SOUND = [
    *(translate(untranslated(word_size)) for word_size in (4, 8)),
]
MOST = 6
"""Of each kind of statement no more places are spoiled in one program."""
WALKERS = [compile_walker(one.walk) for one in (aarch64, arm_lpae, arm_short, riscv, x86_64)]


class Spot(NamedTuple):
    """A statement, and the body in which it stands."""

    statement: Any
    body: list[Statement]
    at: int


def spots(body: list[Statement], kind: type[Statement]) -> Iterator[Spot]:
    for at, statement in enumerate(body):
        if isinstance(statement, kind):
            yield Spot(statement, body, at)
        for inner in flow.children(statement):
            yield from spots(inner, kind)


def some(count: int) -> range:
    """The numbers of some of so many places."""
    return range(0, count, max(1, count // MOST))


def replaced(**fields: Any) -> Callable[[Spot, Program], None]:
    def spoil(spot: Spot, program: Program) -> None:
        for name, value in fields.items():
            setattr(spot.statement, name, value)

    return spoil


def removed(spot: Spot, program: Program) -> None:
    del spot.body[spot.at]


def parted(spot: Spot, program: Program) -> None:
    spot.body.insert(spot.at, ir.Block(place=spot.statement.place, label="between", body=[]))


def doubled(spot: Spot, program: Program) -> None:
    spot.body.insert(spot.at, spot.statement)


def untranslate(spot: Spot, program: Program) -> None:
    load = spot.statement
    spot.body[spot.at - 1 : spot.at + 1] = [
        ir.LoadVirt(
            place=load.place, fault=load.fault, target=load.target, address=load.address, size=load.size, slot=load.slot
        )
    ]


def virtual_text(spot: Spot, program: Program) -> None:
    word = IntType(program.word_size * 8)
    text = ir.CopyVirt(
        place=spot.statement.place,
        fault=END,
        buffer=spot.statement.buffer,
        address=Const(0, word),
        length=Const(1, U64),
    )
    spot.body[spot.at] = text


def other_type(spot: Spot, program: Program) -> None:
    target = spot.statement.target
    other = IntType(target.type.bits if target.type.bits > 1 else 8, signed=not target.type.signed)
    spot.statement.target = Local(target.name, other)


def other_value(spot: Spot, program: Program) -> None:
    value = spot.statement.value
    spot.statement.value = Const(0, U32 if value.type != U32 else U64)


def other_slot(spot: Spot, program: Program) -> None:
    if spot.statement.slot is None:
        spot.statement.size += 1
    else:
        spot.statement.slot += 1


def shifted(spot: Spot, program: Program) -> None:
    address = spot.statement.address
    spot.statement.address = ir.Binary("+", address, Const(8, address.type), address.type)


def fewer(spot: Spot, program: Program) -> None:
    spot.statement.values = spot.statement.values[1:]


SPOILED: list[tuple[type[Statement], Callable[[Spot, Program], None], str]] = [
    (ir.LoadHost, untranslate, "not translated"),
    (ir.ClearBuffer, virtual_text, "not translated"),
    (ir.Tick, removed, "ticks no budget"),
    (ir.Faulting, replaced(fault=None), "no fault path"),
    (ir.Faulting, replaced(fault="elsewhere"), "no fault path"),
    (ir.Page, removed, "does not follow its translation"),
    (ir.LoadHost, removed, "without its load"),
    (ir.LoadHost, parted, "without its load"),
    (ir.LoadHost, doubled, "does not follow its translation"),
    (ir.Page, doubled, "without its load"),
    (ir.LoadHost, shifted, "does not follow its translation"),
    (ir.Page, shifted, "does not follow its translation"),
    (ir.LoadHost, replaced(page="other"), "does not follow its translation"),
    (ir.LoadHost, other_slot, "does not follow|no slot|only members|a size or a slot"),
    (ir.Page, other_slot, "does not follow|no slot|only members|a size or a slot"),
    (ir.Page, replaced(size=3, slot=None), "either a size or a slot"),
    (ir.Page, replaced(size=8, slot=0), "either a size or a slot"),
    (ir.Page, replaced(size=0, slot=1 << 20), "no slot"),
    (ir.Page, replaced(size=0, slot=-1), "no slot"),
    (ir.Page, replaced(root=Const(0, S8)), "where a u64 belongs"),
    (ir.Page, replaced(address=Const(0, S8)), "where a u"),
    (ir.LoadHost, other_type, "no variable"),
    (ir.Assign, other_type, "no variable"),
    (ir.Assign, other_value, "stands where"),
    (ir.Assign, replaced(target=Local("nobody", U64)), "no variable"),
    (ir.Assign, replaced(value=Local("nobody", U64)), "stands where|no variable"),
    (ir.If, replaced(condition=Const(1, U32)), "where a bool belongs"),
    (ir.Break, replaced(label="elsewhere"), "no block around it"),
    (ir.Continue, replaced(label="elsewhere"), "no loop around it"),
    (ir.Loop, replaced(label="program"), "does not name one thing"),
    (ir.Loop, replaced(label=END), "does not name one thing"),
    (ir.Block, replaced(label=END), "does not name one thing"),
    (ir.Attempt, replaced(label=END), "does not name one thing"),
    (ir.Attempt, replaced(failed=Local("nobody", BOOL)), "no variable"),
    (ir.Raise, replaced(message=99), "a message is missing"),
    (ir.Raise, replaced(message=-1), "a message is missing"),
    (ir.Trouble, replaced(message=99), "a message is missing"),
    (ir.Trouble, replaced(value=Const(0, U32)), "where a u64 belongs"),
    (ir.StoreBuffer, replaced(buffer="nobody"), "no buffer"),
    (ir.StoreBuffer, replaced(size=3), "cannot be stored"),
    (ir.LoadBuffer, replaced(buffer="nobody"), "no buffer"),
    (ir.LoadBuffer, other_type, "no variable"),
    (ir.ClearBuffer, replaced(buffer="nobody"), "no buffer"),
    (ir.LoadArray, replaced(array="nobody"), "no array"),
    (ir.LoadArray, other_type, "no variable"),
    (ir.StoreArray, replaced(array="nobody"), "no array"),
    (ir.StoreArray, replaced(value=Const(0, U64)), "where a u16 belongs"),
    (ir.ClearArray, replaced(array="nobody"), "no array"),
    (ir.Emit, fewer, "not as many values"),
    (ir.Emit, replaced(values=[None] * 40), "not as many values"),
]


def refuses(
    programs: Sequence[Program], kind: type[Statement], spoil: Callable[[Spot, Program], None], message: str
) -> None:
    """Spoil the places where such a statement stands, one at a time."""
    count = 0
    for sound in programs:
        for number in some(len(list(spots(sound.body, kind)))):
            program = copy.deepcopy(sound)
            spoil(list(spots(program.body, kind))[number], program)
            with pytest.raises(VerifyError, match=message):
                verify(program)
            count += 1
    assert count


@pytest.mark.parametrize(("kind", "spoil", "message"), SPOILED)
def test_spoiled_program_is_refused(
    kind: type[Statement], spoil: Callable[[Spot, Program], None], message: str
) -> None:
    refuses(SOUND, kind, spoil, message)


def test_absent_field_that_must_be_there_is_refused() -> None:
    for sound in SOUND[:2]:
        program = copy.deepcopy(sound)
        emit = next(spots(program.body, ir.Emit)).statement
        for at, value in enumerate(emit.values):
            spoiled = [None, "nobody", Const(0, S8)] if not program.row[at].nullable else ["nobody", Const(0, S8)]
            for odd in spoiled:
                emit.values[at] = odd
                with pytest.raises(VerifyError):
                    verify(program)
            emit.values[at] = value
        verify(program)


EXPRESSIONS = [
    Const(256, ir.U8),
    Const(-1, U64),
    Const(0, IntType(7)),
    ir.Binary("//", Const(1, U64), Const(0, U64), U64),
    ir.Binary("%", Const(1, U64), Local("most", U64), U64),
    ir.Binary("//", Const(1, ir.S64), Const(1, ir.S64), ir.S64),
    ir.Binary("<<", Const(1, U64), Const(1, S8), U64),
    ir.Binary("+", Const(1, BOOL), Const(1, BOOL), BOOL),
    ir.Binary("+", Const(1, U64), Const(1, U32), U64),
    ir.Binary("**", Const(1, U64), Const(1, U64), U64),  # type: ignore[arg-type]
    ir.Compare("is", Const(1, U64), Const(1, U64)),  # type: ignore[arg-type]
    ir.Compare("<", Const(1, U64), Const(1, ir.S64)),
    ir.Not(Const(1, U64)),
    ir.SlotValue(1 << 20, "offset"),
    ir.SlotValue(0, "shift"),  # type: ignore[arg-type]
    ir.Cast(Local("nobody", U64), U32),
]


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=str)
def test_unsound_expression_is_refused(expression: ir.Expression) -> None:
    program = copy.deepcopy(SOUND[1])
    program.locals["tried"] = expression.type
    place = ir.Place("x.py", 1)
    program.body.append(ir.Assign(place=place, target=Local("tried", expression.type), value=expression))
    with pytest.raises(VerifyError):
        verify(program)


DECLARATIONS: list[tuple[dict[str, Any], str]] = [
    ({"word_size": 16}, "4 or 8 bytes"),
    ({"locals": {"x": IntType(12)}}, "none of C's"),
    ({"row": [ir.RowField("x", IntType(0))]}, "none of C's"),
    ({"row": [ir.RowField("x", 0)]}, "no length"),
    ({"buffers": {"x": 0}}, "no length"),
    ({"buffers": {"x": ir.MOST_STORAGE, "y": 1}}, "larger than a stack"),
    ({"arrays": {"x": (U64, ir.MOST_STORAGE // 8 + 1)}}, "larger than a stack"),
    ({"arrays": {"x": (U64, -1)}}, "no length"),
    ({"arrays": {"x": (IntType(3), 1)}}, "none of C's"),
    ({"arrays": {"x": (U64, 1)}, "buffers": {"x": 1}}, "one name"),
    ({"body": [ir.Return(place=ir.Place("x", 1), values=[])]}, "returns nothing"),
    ({"body": [ir.LoadPhys(place=ir.Place("x", 1), fault=END, target=Local("x", U64), address=Const(0, U64), size=8)]},
     "walkers load physical"),
    ({"body": [Statement(place=ir.Place("x", 1))]}, "is no statement"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), DECLARATIONS, ids=[message for _, message in DECLARATIONS])
def test_unsound_declaration_is_refused(fields: dict[str, Any], message: str) -> None:
    program = Program(name="x", kind="probe", word_size=8, file="x.py", parameters=[], locals={"other": U64})
    verify(program)
    for name, value in fields.items():
        setattr(program, name, value)
    with pytest.raises(VerifyError, match=message):
        verify(program)


def endless(spot: Spot, program: Program) -> None:
    del program.body[-1]


def virtual(spot: Spot, program: Program) -> None:
    load = spot.statement
    common = {"place": load.place, "fault": END, "address": load.address, "size": 8}
    spot.body[spot.at : spot.at + 1] = [
        ir.Page(target="page", **common),
        ir.LoadHost(target=load.target, page="page", **common),
    ]


def inside(statement: Callable[[ir.Place], Statement]) -> Callable[[Spot, Program], None]:
    def spoil(spot: Spot, program: Program) -> None:
        spot.body.insert(spot.at, statement(spot.statement.place))

    return spoil


SPOILED_WALKERS: list[tuple[type[Statement], Callable[[Spot, Program], None], str]] = [
    (ir.LoadPhys, virtual, "walkers load physical"),
    (ir.LoadPhys, replaced(fault=None), "no fault path"),
    (ir.LoadPhys, replaced(fault="x"), "no fault path"),
    (ir.LoadPhys, replaced(size=2), "no entry of a page table"),
    (ir.LoadPhys, replaced(address=Const(0, U32)), "where a u64 belongs"),
    (ir.LoadPhys, other_type, "no variable"),
    (ir.Return, endless, "ends without a result"),
    (ir.Return, fewer, "not as many values"),
    (ir.Return, inside(lambda at: ir.Attempt(place=at, label="x", failed=Local("x", BOOL), body=[])), "in a walker"),
    (ir.Return, inside(lambda place: ir.Emit(place=place, values=[])), "in a walker"),
    (ir.Return, inside(lambda place: ir.Trouble(place=place, message=0, value=Const(0, U64))), "in a walker"),
    (ir.Return, inside(lambda place: ir.ClearArray(place=place, array="x")), "in a walker"),
    (ir.Tick, removed, "ticks no budget"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spoil", "message"), SPOILED_WALKERS)
def test_spoiled_walker_is_refused(kind: type[Statement], spoil: Callable[[Spot, Program], None], message: str) -> None:
    refuses(WALKERS, kind, spoil, message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parameters": [Local("root", U64), Local("gva", U32)]}, "root and gva"),
        ({"results": [U32]}, "first result is a GPA"),
        ({"results": []}, "first result is a GPA"),
        ({"slots": [ir.SlotSpec("symbol", "x")]}, "no slots"),
        ({"buffers": {"x": 8}}, "no slots"),
        ({"body": []}, "ends without a result"),
    ],
)
def test_unsound_walker_is_refused(fields: dict[str, Any], message: str) -> None:
    program = verify(flat_walker())
    for name, value in fields.items():
        setattr(program, name, value)
    with pytest.raises(VerifyError, match=message):
        verify(program)


def test_sound_programs_are_let_through() -> None:
    for program in [*SOUND, *WALKERS]:
        assert verify(program) is program

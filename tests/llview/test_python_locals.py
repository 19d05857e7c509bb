"""Programs do the same with fewer variables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from tests.llview.ir_builder import Case, cases, emit_number, run
from tests.llview.native_programs import P, op

from yamori.llview import ir
from yamori.llview.interpreter import Interpreter
from yamori.llview.ir import BOOL, END, U8, U32, U64, Const, Expression, Local, Statement
from yamori.llview.python_locals import simplified, unset

A, B, C = Local("u64_a", U64), Local("u64_b", U64), Local("u64_c", U64)
FAILED = Local("failed_0", BOOL)


def assign(target: Local, value: Expression) -> Statement:
    return ir.Assign(place=P, target=target, value=value)


def when(*then: Statement, otherwise: tuple[Statement, ...] = ()) -> Statement:
    return ir.If(place=P, condition=ir.Compare("==", C, Const(0, U64)), then=list(then), otherwise=list(otherwise))


def loop(*body: Statement) -> Statement:
    return ir.Loop(place=P, label="loop", body=[ir.Tick(place=P), *body])


def block(*body: Statement) -> Statement:
    return ir.Block(place=P, label="block", body=list(body))


def leave(label: str) -> Statement:
    return ir.Break(place=P, label=label)


def attempt(*body: Statement) -> Statement:
    return ir.Attempt(place=P, label="try", failed=FAILED, body=list(body))


def give(value: Expression) -> Statement:
    return ir.Return(place=P, values=[value])


SUM = op("+", B, Const(1, U64))


def test_copies_and_constants_go_where_they_are_read() -> None:
    body = [assign(A, B), assign(C, Const(5, U64)), emit_number(op("+", A, C)), emit_number(op("-", A, C))]
    two, three = op("+", B, Const(5, U64)), op("-", B, Const(5, U64))
    assert simplified(body) == [emit_number(two), emit_number(three)]


def test_what_is_read_once_goes_there() -> None:
    assert simplified([assign(A, SUM), emit_number(A)]) == [emit_number(SUM)]
    twice = [assign(A, SUM), emit_number(A), emit_number(A)]
    assert simplified(twice) == twice


def test_a_wider_type_is_a_copy_but_a_narrower_one_is_none() -> None:
    small = Local("small", U32)
    wider = ir.Cast(small, U64)
    assert simplified([assign(A, wider), emit_number(A), emit_number(A)]) == [emit_number(wider)] * 2
    byte = Local("byte", U8)
    narrower = [assign(byte, ir.Cast(B, U8)), *[emit_number(ir.Cast(byte, U64))] * 2]
    assert simplified(narrower) == narrower


@pytest.mark.parametrize(
    "between",
    [
        assign(B, Const(7, U64)),
        when(assign(B, Const(7, U64))),
        when(otherwise=(assign(B, Const(7, U64)),)),
        loop(assign(B, op("+", B, Const(1, U64))), when(leave("loop"))),
        block(when(leave("block")), assign(B, Const(7, U64))),
        attempt(assign(B, Const(7, U64))),
        ir.LoadArray(place=P, fault=END, target=B, array="wide", at=Const(0, U64)),
    ],
    ids=lambda statement: type(statement).__name__,
)
@pytest.mark.parametrize("value", [B, SUM], ids=["copy", "sum"])
def test_not_past_a_change_of_what_it_is_made_of(between: Statement, value: Expression) -> None:
    body = [assign(A, value), between, emit_number(A), emit_number(B)]
    assert [one for one in simplified(body) if one in (body[0], body[2])] == [body[0], body[2]]


@pytest.mark.parametrize("around", [when, block, attempt])
def test_not_out_of_what_may_not_have_been_done(around: Callable[..., Statement]) -> None:
    body = [assign(A, SUM), around(when(*([leave("block")] if around is block else [])), assign(A, Const(9, U64)))]
    body += [emit_number(A)]
    assert simplified(body)[-1] == emit_number(A)
    assert simplified(body)[0] == assign(A, SUM)


def test_a_loop_reads_what_its_last_round_left() -> None:
    body = [assign(A, B), loop(emit_number(A), assign(A, SUM), when(leave("loop")))]
    assert simplified(body) == body


def test_nothing_is_worked_out_anew_in_each_round() -> None:
    body = [assign(A, SUM), loop(emit_number(A), when(leave("loop")))]
    assert simplified(body) == body


def test_what_is_never_read_is_not_worked_out() -> None:
    assert simplified([assign(B, C), assign(A, SUM)]) == []


def test_a_return_behind_a_block_comes_at_once() -> None:
    body = [block(when(assign(A, B), leave("block")), assign(A, SUM)), give(A)]
    assert simplified(body) == [when(give(B)), give(SUM)]
    body = [block(when(assign(A, B), leave("block")), assign(A, SUM), leave("block")), give(A)]
    assert simplified(body) == [when(give(B)), give(SUM)]


def test_a_block_that_is_left_at_its_end_is_none() -> None:
    assert simplified([block(assign(A, B), leave("block")), emit_number(A)]) == [emit_number(B)]


def test_expressions_stay_small() -> None:
    chain = [Local(f"link_{number}", U64) for number in range(300)]
    body = [assign(after, op("+", before, B)) for before, after in pairwise(chain)]
    made = simplified([*body, emit_number(chain[-1])])
    assert len(made) < len(body)
    assert max(str(statement).count("Binary") for statement in made) < 16


def test_unset() -> None:
    names = {"u64_c"}
    assert unset([assign(A, B), emit_number(A)], names) == {"u64_b"}
    assert unset([when(assign(A, C)), emit_number(A)], names) == {"u64_a"}
    assert unset([when(assign(A, C), emit_number(A))], names) == set()
    assert unset([assign(A, op("+", A, C))], names) == {"u64_a"}
    assert unset([attempt(assign(A, C)), when(emit_number(ir.Cast(FAILED, U64)))], names) == set()
    assert unset([attempt(assign(A, C)), emit_number(A)], names) == {"u64_a"}
    assert unset([loop(emit_number(A), assign(A, C))], names) == {"u64_a"}


@settings(max_examples=60, deadline=None)
@given(cases())
def test_random_programs_do_the_same(case: Case) -> None:
    """Rows, faults, loads and their order; probes, which have all that a walker has but its one kind of load."""
    fewer = replace(case.program, body=simplified(case.program.body))
    assert run(Interpreter(), case._replace(program=fewer)) == run(Interpreter(), case)

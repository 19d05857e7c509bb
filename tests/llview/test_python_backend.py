from __future__ import annotations

import linecache
import random
import traceback
from pathlib import Path

import pytest
from hypothesis import given, settings
from tests.llview import random_expressions
from tests.llview.ir_builder import Case, cases, emit_number, probe, run
from tests.llview.native_programs import KERNEL, P, flat_walker, list_probe, machine, op, ram

from yamori.llview import ir
from yamori.llview.interpreter import Interpreter, walker
from yamori.llview.ir import BOOL, END, S8, S32, U8, U32, U64, Const, Expression, IntType, Local, Statement
from yamori.llview.machine import Outcome, SlotFill
from yamori.llview.python_backend import compile_program, forget, python_source
from yamori.llview.python_expressions import Expressions
from yamori.llview.verify import VerifyError
from yamori.translation.loads import PhysicalLoads

A, B, FAILED = Local("u64_a", U64), Local("u64_b", U64), Local("failed_0", BOOL)
NO_SLOTS = [SlotFill(exists=False)] * 6


def assign(target: Local, value: Expression) -> Statement:
    return ir.Assign(place=P, target=target, value=value)


def add(target: Local, amount: int) -> Statement:
    return assign(target, op("+", target, Const(amount, U64)))


def when(condition: Expression, *then: Statement) -> Statement:
    return ir.If(place=P, condition=condition, then=list(then))


def is_equal(local: Local, value: int) -> Expression:
    return ir.Compare("==", local, Const(value, local.type))


def loop(label: str, *body: Statement) -> Statement:
    return ir.Loop(place=P, label=label, body=[ir.Tick(place=P), *body])


def leave(label: str) -> Statement:
    return ir.Break(place=P, label=label)


def give_up(path: str, value: int = 7) -> Statement:
    return ir.Raise(place=P, fault=path, message=0, value=Const(value, U64))


def attempt(label: str, *body: Statement, failed: Local = FAILED) -> Statement:
    return ir.Attempt(place=P, label=label, failed=failed, body=list(body))


def outcome(*body: Statement, budget: int = 1000) -> Outcome:
    data, _ = ram(8)
    return Interpreter().run(probe(list(body)), machine(data, 8, flat_walker()), NO_SLOTS, budget=budget)


def numbers(*body: Statement) -> list[object]:
    found = outcome(*body)
    assert found.ended is None
    return [row[0] for row in found.rows]


# --- expressions


@pytest.mark.parametrize("seed", range(12))
def test_expressions_are_worth_what_they_are_in_c(seed: int) -> None:
    rng = random.Random(seed)
    program = random_expressions.probe(rng, f"random_{seed}")
    data, _ = ram(8)
    for _ in range(20):
        given = random_expressions.arguments(rng)
        found = Interpreter().run(program, machine(data, 8, flat_walker()), [], given)
        assert found.rows == [random_expressions.expected(program, given)]


BYTE, SMALL, WORD = Local("byte", U8), Local("small", S32), Local("word", U64)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (op("&", WORD, Const(0xFF, U64)), "word & 255"),
        (op(">>", WORD, Const(12, U64)), "word >> 12"),
        (op("*", op("&", WORD, Const(511, U64)), Const(8, U64)), "(word & 511) * 8"),
        (op("+", op("+", WORD, WORD), Const(1, U64)), "((word + word) + 1) & 0xffffffffffffffff"),
        (op("&", op("+", WORD, Const(1, U64)), Const(7, U64)), "(word + 1) & 7"),
        (op("+", BYTE, Const(1, U8), U8), "(byte + 1) & 0xff"),
        (ir.Cast(BYTE, U64), "byte"),
        (ir.Cast(op("+", WORD, WORD), U8), "(word + word) & 0xff"),
        (ir.Cast(SMALL, U64), "small & 0xffffffffffffffff"),
        (ir.Cast(BYTE, S8), "((byte & 0xff) ^ 0x80) - 0x80"),
        (op("<<", WORD, BYTE), "(word << byte if byte < 64 else 0) & 0xffffffffffffffff"),
        (op("<<", BYTE, op("&", BYTE, Const(7, U8), U8), U32), "byte << (byte & 7)"),
        (ir.Compare("<", op("-", BYTE, BYTE, U8), BYTE), "((byte - byte) & 0xff) < byte"),
        (ir.Compare("<", SMALL, Const(-1, S32)), "small < (-1)"),
    ],
)
def test_masks_stand_only_where_they_are_needed(value: Expression, text: str) -> None:
    assert Expressions({"byte": "byte", "small": "small", "word": "word"}, []).bare(value) == text


# --- jumps


def test_jumps_out_of_several_loops() -> None:
    inner = loop(
        "inner",
        add(B, 1),
        ir.Block(
            place=P,
            label="block",
            body=[
                when(is_equal(B, 3), leave("block")),
                when(is_equal(B, 5), ir.Continue(place=P, label="outer")),
                when(is_equal(B, 8), leave("outer")),
                emit_number(B),
            ],
        ),
    )
    outer = loop("outer", add(A, 100), emit_number(A), inner, emit_number(Const(1, U64)))
    assert numbers(outer, emit_number(B)) == [100, 1, 2, 4, 200, 6, 7, 8]


def test_a_break_at_the_end_of_a_block_needs_no_loop() -> None:
    body = [when(is_equal(A, 1), leave("block"))]
    assert "while" not in python_source(probe([ir.Block(place=P, label="block", body=body)]))
    body = [when(is_equal(A, 0), leave("block")), emit_number(A)]
    assert "while" in python_source(probe([ir.Block(place=P, label="block", body=body)]))
    assert numbers(ir.Block(place=P, label="block", body=body), emit_number(Const(9, U64))) == [9]


def test_a_break_out_of_an_attempt() -> None:
    tried = attempt("try", when(is_equal(A, 0), leave("try")), give_up("try"))
    assert numbers(assign(FAILED, Const(1, BOOL)), tried, emit_number(ir.Cast(FAILED, U64))) == [0]


# --- faults


@pytest.mark.parametrize(("path", "expected"), [("inner", [1, 3, 0]), ("middle", [3, 0]), ("outer", [1])])
def test_a_fault_goes_to_the_attempt_that_its_path_names(path: str, expected: list[int]) -> None:
    one, two = Local("failed_1", BOOL), Local("failed_2", BOOL)
    inner = attempt("inner", give_up(path), failed=one)
    middle = attempt("middle", inner, emit_number(Const(1, U64)), failed=two)
    outer = attempt("outer", middle, emit_number(Const(3, U64)))
    assert numbers(outer, emit_number(ir.Cast(FAILED, U64))) == expected


def test_after_a_fault_to_an_outer_attempt_the_next_goes_to_the_innermost_again() -> None:
    first = attempt("outer", attempt("inner", give_up("outer")))
    second = attempt("first", attempt("second", give_up("second")), emit_number(Const(5, U64)))
    assert numbers(first, second) == [5]


def test_a_fault_whose_path_is_the_end_passes_all_attempts() -> None:
    found = outcome(attempt("outer", attempt("inner", give_up(END, 9))), emit_number(A))
    assert found.rows == []
    assert found.ended is not None
    assert found.ended.value == 9


# --- nesting


def deep(levels: int, innermost: list[Statement]) -> list[Statement]:
    """Loops, attempts, blocks and ``if`` in each other."""
    body = innermost
    for level in range(levels):
        body = [when(is_equal(B, 0), *body), add(A, 1)]
        body = [attempt(f"try_{level}", *body), when(FAILED, emit_number(A))]
        body = [loop(f"loop_{level}", *body, leave(f"loop_{level}"))]
        body = [
            ir.Block(
                place=P, label=f"block_{level}", body=[*body, when(is_equal(A, 77), leave(f"block_{level}")), add(A, 0)]
            )
        ]
    return body


@pytest.mark.parametrize("levels", [1, 6, 40])
def test_python_limits_no_nesting(levels: int) -> None:
    assert ("part_" in python_source(probe(deep(levels, [])))) == (levels > 4)
    assert numbers(*deep(levels, [add(A, 1)]), emit_number(A)) == [levels + 1]
    out = [leave(f"loop_{levels - 1}")]
    assert numbers(*deep(levels, out), emit_number(A)) == [0]
    again = [add(A, 1), when(is_equal(A, 1), ir.Continue(place=P, label=f"loop_{levels - 1}"))]
    assert numbers(*deep(levels, again), emit_number(A)) == [levels + 2]
    found = outcome(*deep(levels, [give_up(f"try_{levels - 1}")]))
    assert [row[0] for row in found.rows] == [0]
    assert found.faults == 1


def test_a_walker_returns_out_of_any_depth() -> None:
    flat = flat_walker()
    body = flat.body
    for level in range(50):
        body = [loop(f"loop_{level}", *body)]
    flat.body = [*body, give_up(END, 0)]
    data, _ = ram(8)
    guest = machine(data, 8, flat)
    walk = walker(flat)
    assert walk(PhysicalLoads(guest.memory), guest.root, KERNEL[8], 5) == (0x1005,)


# --- the text


def test_statements_quote_their_line(tmp_path: Path) -> None:
    source = tmp_path / "demo.py"
    source.write_text("\n    for it in items:  # \x1b[31m\n")
    statement = ir.Trouble(place=ir.Place(str(source), 2), message=0, value=Const(1, U64))
    text = python_source(probe([statement]))
    assert "    # demo.py:2  for it in items:  #  [31m\n    trouble(0, 1, False, False)\n" in text
    assert str(tmp_path) not in text


def test_tracebacks_show_the_text_until_it_is_forgotten() -> None:
    function = compile_program(flat_walker())

    def broken(_: int) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        function(broken, broken, print, print, 0, 0, 0)
    linecache.checkcache()
    assert "v_entry = u64(" in "".join(traceback.format_tb(caught.tb))
    forget(function)
    assert not linecache.getlines(function.__code__.co_filename)


def test_names_that_python_would_take_for_one_or_for_its_own() -> None:
    wanted = ["for", "a.b", "a_b", "a b", "load", "run", "int", "leave", "é"]
    program = probe([assign(Local(name, U64), Const(number, U64)) for number, name in enumerate(wanted)])
    program.locals = dict.fromkeys(wanted, U64)
    program.name = "a b"
    program.body += [emit_number(Local(name, U64)) for name in wanted]
    data, _ = ram(8)
    found = Interpreter().run(program, machine(data, 8, flat_walker()), NO_SLOTS)
    assert [row[0] for row in found.rows] == list(range(len(wanted)))


def test_unverified_programs_are_refused() -> None:
    program = list_probe(8)
    program.body.insert(0, ir.LoadVirt(place=P, fault=END, target=Local("number", S32), address=Const(0, U64), size=4))
    with pytest.raises(VerifyError, match="not translated"):
        python_source(program)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_a_value_never_leaves_its_type(case: Case) -> None:
    """What rows hold are numbers of their fields' types, truth values too, as native code gives them."""
    for row in run(Interpreter(), case).rows:
        for value, field in zip(row, case.program.row, strict=True):
            if isinstance(field.type, IntType) and value is not None:
                assert type(value) is int
                assert field.type.wrap(value) == value

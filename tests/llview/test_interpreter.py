from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given, settings
from tests.llview.ir_builder import SLOTS, Case, cases, probe, run, ticking_walker
from tests.llview.native_programs import (
    BASE,
    KERNEL,
    PAGE,
    P,
    every_statement,
    fills,
    flat_walker,
    list_probe,
    load,
    machine,
    op,
    ram,
    rows,
    slot,
)

from yamori.address import GPA
from yamori.errors import MemoryFault, TargetError, TranslationFault
from yamori.llview import interpreter, ir
from yamori.llview.faults import MOST_TROUBLES, TLB_ENTRIES, Code, FaultRecord
from yamori.llview.interpreter import Interpreter, walker
from yamori.llview.ir import BOOL, END, S16, U16, U32, U64, Const, Local, Statement
from yamori.llview.machine import Machine, Outcome, SlotFill
from yamori.llview.verify import VerifyError
from yamori.memory.physical import BytesMemory
from yamori.translation.loads import PhysicalLoads

A, B = Local("u64_a", U64), Local("u64_b", U64)
FIRST = KERNEL[8]
WALKER = flat_walker()
ENTRIES = BASE, BASE + 8, BASE + 16
"""Where the entries of the first pages lie."""


def guest(data: bytes | bytearray | None = None) -> Machine:
    return machine(ram(8)[0] if data is None else data, 8, WALKER)


def outcome(*body: Statement, on: Machine | None = None, fill: SlotFill | None = None, budget: int = 1000) -> Outcome:
    slots = [fill or slot(0, 8)] * len(SLOTS)
    return Interpreter().run(probe(list(body)), on or guest(), slots, budget=budget, trace=True)


def at(gva: int, *, size: int = 8, root: int | None = None) -> list[Statement]:
    return load(A, Const(gva, U64), size=size, root=None if root is None else Const(root, U64))


def assert_ends(found: Outcome, code: Code, address: int, value: int, message: int = 0) -> None:
    assert found.ended == FaultRecord(code, address, value, message)
    assert found.faults == 1


@pytest.mark.parametrize("word_size", [4, 8])
def test_a_list_is_walked(word_size: int) -> None:
    data, items = ram(word_size)
    found = Interpreter().run(list_probe(word_size), machine(data, word_size, WALKER), fills(word_size), (items[0],))
    assert found.rows == rows(items)
    assert found.loads == 5 * len(items)
    assert (found.faults, found.ended, found.troubles, found.events) == (0, None, [], [])


@settings(max_examples=60, deadline=None)
@given(cases())
def test_no_program_and_no_guest_makes_it_fail(case: Case) -> None:
    found = run(Interpreter(), case)
    assert found == run(Interpreter(), case)
    assert replace(found, events=[]) == run(Interpreter(), case, trace=False)
    assert found.loads == sum(kind == "V" for kind, _, _ in found.events)
    assert len(found.troubles) <= MOST_TROUBLES


@settings(max_examples=20, deadline=None)
@given(cases())
def test_page_shifts_and_ranges_that_no_format_has(case: Case) -> None:
    for shift in (0, 2, 63, 64, 255):
        run(Interpreter(), case._replace(machine=replace(case.machine, page_shift=shift, kernel=(0, 1 << 70))))


# --- the cache of translations


def test_a_page_is_walked_once() -> None:
    found = outcome(*at(FIRST), *at(FIRST + 8), *at(FIRST + PAGE), *at(FIRST + 16))
    assert found.events == [
        ("P", ENTRIES[0], 8),
        ("V", FIRST, 8),
        ("V", FIRST + 8, 8),
        ("P", ENTRIES[1], 8),
        ("V", FIRST + PAGE, 8),
        ("V", FIRST + 16, 8),
    ]


def test_pages_that_share_an_entry_drive_each_other_out() -> None:
    data, _ = ram(8)
    data[TLB_ENTRIES * 8 : TLB_ENTRIES * 8 + 8] = data[:8]
    other = FIRST + TLB_ENTRIES * PAGE
    found = outcome(*at(FIRST), *at(other), *at(FIRST), on=guest(data))
    assert [kind for kind, _, _ in found.events] == ["P", "V"] * 3


def test_roots_do_not_share_translations() -> None:
    data, _ = ram(8)
    data[2 * PAGE : 2 * PAGE + 8] = (5 * PAGE | 1).to_bytes(8, "little")  # another table, in the second page
    other = BASE + 2 * PAGE
    found = outcome(*at(FIRST), *at(FIRST, root=other), *at(FIRST, root=BASE), *at(FIRST, root=other), on=guest(data))
    assert [event for event in found.events if event[0] == "P"] == [("P", BASE, 8), ("P", other, 8)]


def test_nothing_is_remembered_of_a_walk_that_faulted() -> None:
    gone = FIRST + 20 * PAGE
    tries: list[Statement] = [
        ir.Attempt(
            place=P,
            label="try",
            failed=Local("failed_0", BOOL),
            body=load(A, Const(gone, U64), size=8, fault="try"),
        )
        for _ in range(3)
    ]
    found = outcome(*tries)
    assert found.events == [("P", BASE + 20 * 8, 8)] * 3
    assert (found.faults, found.loads, found.ended) == (3, 0, None)


def test_a_run_begins_with_an_empty_cache() -> None:
    assert outcome(*at(FIRST)).events == outcome(*at(FIRST)).events == [("P", BASE, 8), ("V", FIRST, 8)]


# --- faults


def test_misaligned() -> None:
    assert_ends(outcome(*at(FIRST + 2, size=4)), Code.MISALIGNED, FIRST + 2, 4)


def test_only_the_kernels_root_asks_for_the_kernels_addresses() -> None:
    assert_ends(outcome(*at(0x1000)), Code.NOT_KERNEL, 0x1000, 0)
    assert_ends(outcome(*at(0x1000, root=BASE)), Code.NOT_KERNEL, 0x1000, 0)
    assert outcome(*at(0x1000, root=BASE + PAGE)).events == [("P", BASE + PAGE + 8, 8)]


def test_unmapped_has_the_walkers_message() -> None:
    found = outcome(*at(FIRST + 17 * PAGE + 8))
    assert_ends(found, Code.UNMAPPED, FIRST + 17 * PAGE, 0)


def test_tables_that_lead_out_of_ram() -> None:
    data, _ = ram(8)
    data[:8] = (1 << 40 | 1).to_bytes(8, "little")
    found = outcome(*at(FIRST + 8), on=guest(data))
    assert_ends(found, Code.OUTSIDE, BASE + (1 << 40) + 8, 8)
    assert found.events == [("P", BASE, 8)]


def test_a_page_at_the_very_end_goes_on_at_the_start() -> None:
    data, _ = ram(8)
    data[:8] = ((1 << 64) - 8 | 1).to_bytes(8, "little")
    whole = replace(guest(data), memory=BytesMemory({0: bytes(64), BASE: data}), geometry=(0,))
    assert outcome(*at(FIRST + 8), on=whole).loads == 1
    assert_ends(outcome(*at(FIRST), on=whole), Code.OUTSIDE, (1 << 64) - 8, 8)


def test_misaligned_tables() -> None:
    assert_ends(outcome(*at(FIRST, root=BASE + 4)), Code.MISALIGNED, BASE + 4, 8)


@pytest.mark.parametrize("size", [0, 3, 5, 16, 77, 1 << 63, -1])
def test_a_member_that_is_no_integer(size: int) -> None:
    for root in (None, Const(BASE, U64)):
        found = outcome(*load(A, Const(FIRST, U64), slot=0, root=root), fill=slot(0, size))
        assert_ends(found, Code.SIZE, FIRST, size & (1 << 64) - 1)
        assert not found.events


@pytest.mark.parametrize(
    ("statement", "address", "length"),
    [
        (ir.LoadArray(place=P, fault=END, target=Local("u16_a", U16), array="seen", at=Const(5, U64)), 5, 5),
        (ir.StoreArray(place=P, fault=END, array="seen", at=Const(-1, S16), value=Const(1, U16)), (1 << 64) - 1, 5),
        (ir.LoadBuffer(place=P, fault=END, target=A, buffer="text", at=Const(16, U32)), 16, 16),
        (ir.StoreBuffer(place=P, fault=END, buffer="text", at=Const(9, U32), value=A, size=8), 9, 16),
        (ir.StoreBuffer(place=P, fault=END, buffer="tiny", at=Const(0, U32), value=A, size=8), 0, 3),
    ],
)
def test_an_index_outside(statement: Statement, address: int, length: int) -> None:
    assert_ends(outcome(statement), Code.INDEX, address, length)


class Failing(BytesMemory):
    """RAM that its host no longer gives."""

    def __init__(self, data: bytes, error: Exception) -> None:
        super().__init__({BASE: data})
        self.error = error

    def read(self, gpa: GPA, size: int) -> bytes:
        if BASE + PAGE <= gpa < BASE + 2 * PAGE:
            raise self.error
        return super().read(gpa, size)


def test_a_host_that_fails_ends_the_run_whatever_attempt_is_around() -> None:
    on = replace(guest(), memory=Failing(bytes(ram(8)[0]), TargetError("the VM has ended")))
    body = load(A, Const(FIRST + 8, U64), size=8, fault="try")
    found = outcome(ir.Attempt(place=P, label="try", failed=Local("failed_0", BOOL), body=body), on=on)
    assert_ends(found, Code.GONE, BASE + PAGE + 8, 8)
    assert found.events == [("P", BASE, 8)]


def test_a_hole_in_ram_is_a_fault_like_any_other() -> None:
    on = replace(guest(), memory=Failing(bytes(ram(8)[0]), MemoryFault(BASE, 8, "no longer given by the host")))
    found = outcome(*load(A, Const(FIRST + 8, U64), size=8), on=on)
    assert_ends(found, Code.OUTSIDE, BASE + PAGE + 8, 8)
    body = load(A, Const(FIRST + 8, U64), size=8, fault="try")
    assert not outcome(ir.Attempt(place=P, label="try", failed=Local("failed_0", BOOL), body=body), on=on).ended


# --- budget, troubles


@pytest.mark.parametrize(("budget", "rounds"), [(0, 0), (1, 1), (9, 9), (1 << 70, 50)])
def test_the_budget_ends_it_whatever_attempt_is_around(budget: int, rounds: int) -> None:
    done = ir.If(place=P, condition=ir.Compare("==", A, Const(50, U64)), then=[ir.Break(place=P, label="loop")])
    step = ir.Assign(place=P, target=A, value=op("+", A, Const(1, U64)))
    note = ir.Trouble(place=P, message=0, value=A)
    body: list[Statement] = [ir.Tick(place=P), step, note, done]
    attempt = ir.Attempt(
        place=P, label="try", failed=Local("failed_0", BOOL), body=[ir.Loop(place=P, label="loop", body=body)]
    )
    found = outcome(attempt, budget=budget)
    assert len(found.troubles) == rounds
    if rounds == 50:
        assert found.ended is None
    else:
        assert_ends(found, Code.BUDGET, 0, 0)


def test_walkers_spend_the_runs_budget() -> None:
    on = replace(guest(), walker=ticking_walker())
    assert outcome(*at(FIRST + 3 * PAGE), on=on, budget=4).ended is None
    assert_ends(outcome(*at(FIRST + 3 * PAGE), on=on, budget=3), Code.BUDGET, 0, 0)


def test_only_the_first_troubles_are_kept() -> None:
    note = ir.Trouble(place=P, message=1, value=Const((1 << 64) - 1, U64), faulted=True, torn=True)
    found = outcome(*[note] * (MOST_TROUBLES + 20))
    assert len(found.troubles) == MOST_TROUBLES
    assert found.torn


# --- whatever else


def test_threads_do_not_disturb_each_other() -> None:
    data, items = ram(8)
    probes = [(list_probe(8), fills(8), items[0]), (every_statement(8), [slot(16, 4), slot(BASE)], FIRST)]

    def once(number: int) -> Outcome:
        program, slots, argument = probes[number % 2]
        return Interpreter().run(program, guest(data), slots, (argument,), trace=True)

    expected = [once(0), once(1)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(once, range(24))) == expected * 12


def test_old_programs_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "MOST_PROGRAMS", 3)
    monkeypatch.setattr(interpreter, "_functions", {})
    on, programs = guest(), [probe(at(FIRST + 8 * number)) for number in range(6)]
    slots = [slot(0, 8)] * len(SLOTS)
    for program in [*programs, programs[0]]:
        assert Interpreter().run(program, on, slots).loads == 1
        assert len(interpreter._functions) <= 3


def test_what_does_not_fit_is_refused() -> None:
    data, items = ram(8)
    program, on = list_probe(8), guest(data)
    with pytest.raises(ValueError, match="3 slots are needed, not 0"):
        Interpreter().run(program, on, [], (items[0],))
    with pytest.raises(ValueError, match="1 arguments are needed, not 0"):
        Interpreter().run(program, on, fills(8))
    with pytest.raises(ValueError, match="1 geometry are needed, not 2"):
        Interpreter().run(program, replace(on, geometry=(1, 2)), fills(8), (items[0],))
    with pytest.raises(ValueError, match="a probe runs, by a walker"):
        Interpreter().run(WALKER, on, [])


# --- walkers as functions


def test_a_walker_gives_its_results() -> None:
    loads = PhysicalLoads(guest().memory)
    assert walker(WALKER)(loads, BASE, FIRST + PAGE, 3) == (2 * PAGE + 3,)


def test_a_walker_says_what_is_not_mapped() -> None:
    loads = PhysicalLoads(guest().memory)
    with pytest.raises(TranslationFault, match=rf"^GVA {FIRST + 17 * PAGE:#x} is not mapped: not valid \(0x0\)$"):
        walker(WALKER)(loads, BASE, FIRST + 17 * PAGE, 0)


def test_what_a_walkers_loads_raise_goes_through() -> None:
    loads = PhysicalLoads(guest().memory)
    with pytest.raises(MemoryFault, match="outside"):
        walker(WALKER)(loads, BASE - PAGE, FIRST, 0)
    with pytest.raises(MemoryFault, match="misaligned"):
        walker(WALKER)(loads, BASE + 4, FIRST, 0)


def test_a_walker_that_does_not_end_is_stopped() -> None:
    endless = flat_walker()
    endless.body.insert(0, ir.Loop(place=P, label="endless", body=[ir.Tick(place=P)]))
    with pytest.raises(TranslationFault, match="does not end"):
        walker(endless)(PhysicalLoads(guest().memory), BASE, FIRST, 0)


def test_a_walker_has_neither_arrays_nor_attempts() -> None:
    """Nothing but the table and the tables' format decides what a walk does, and any fault ends it."""
    wild = flat_walker()
    wild.arrays = {"few": (U64, 2)}
    wild.body.insert(0, ir.StoreArray(place=P, fault=END, array="few", at=Local("bias", U64), value=Const(1, U64)))
    careful = flat_walker()
    careful.locals["failed"] = BOOL
    entry = careful.body[0]
    assert isinstance(entry, ir.LoadPhys)
    entry.fault = "try"
    careful.body[0] = ir.Attempt(place=P, label="try", failed=Local("failed", BOOL), body=[entry])
    for refused in (wild, careful):
        with pytest.raises(VerifyError, match=r"a walker has no|in a walker"):
            walker(refused)

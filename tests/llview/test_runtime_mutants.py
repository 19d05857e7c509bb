"""Nothing in the runtimes of the interpreter and of native code can be left out or swapped: the two would disagree."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.llview.mutation import changed
from tests.llview.native_programs import (
    BASE,
    KERNEL,
    PAGE,
    PAGES,
    P,
    every_statement,
    fills,
    flat_walker,
    list_probe,
    machine,
    ram,
    slot,
    u64,
    with_geometry,
)
from tests.llview.test_native import ONE_LOAD

from yamori.llview import c_backend, ir, objects, runtime
from yamori.llview.c_backend import c_source
from yamori.llview.faults import Code
from yamori.llview.interpreter import Interpreter
from yamori.llview.ir import BOOL, U64, Local, Program
from yamori.llview.machine import Engine, Machine, Outcome, SlotFill
from yamori.llview.native import Native
from yamori.llview.unit import Unit

PATIENCE = 20  # seconds that spoiled code may take


def ticking_walker() -> Program:
    """A walker in which each walk spends a tick, as those of most formats do at each level."""
    walker = flat_walker()
    return replace(walker, body=[ir.Loop(place=P, label="level", body=[ir.Tick(place=P), *walker.body])])


WALKER = ticking_walker()
LISTS = {size: list_probe(size, f"items{size}") for size in (4, 8)}
EVERYTHING = {size: every_statement(size, f"everything{size}") for size in (4, 8)}
LOW = 0x5000
"""A GVA below the kernel's."""


def spinning() -> Program:
    """A loop without an end, inside of an attempt."""
    failed = Local("failed", BOOL)
    loop = ir.Loop(place=P, label="loop", body=[ir.Tick(place=P)])
    return Program(
        name="spinning",
        kind="probe",
        word_size=8,
        file="demo.py",
        parameters=[],
        messages=["given up"],
        row=[ir.RowField("failed", BOOL)],
        locals={"failed": BOOL},
        body=[
            ir.Attempt(
                place=P,
                label="first",
                failed=failed,
                body=[ir.Raise(place=P, fault="first", message=0, value=u64(1))],
            ),
            ir.Trouble(place=P, message=0, value=u64(2)),
            ir.Attempt(place=P, label="try", failed=failed, body=[loop]),
            ir.Emit(place=P, values=[failed]),
        ],
    )


SPINNING = spinning()
WHERE = Program(
    name="where",
    kind="probe",
    word_size=8,
    file="demo.py",
    parameters=[Local("address", U64)],
    row=[ir.RowField("gpa", U64)],
    locals={"gpa": U64},
    body=[
        ir.Translate(place=P, fault=ir.END, target=Local("gpa", U64), address=Local("address", U64)),
        ir.Emit(place=P, values=[Local("gpa", U64)]),
    ],
)
UNIT = Unit("demo", (*LISTS.values(), *EVERYTHING.values(), ONE_LOAD, SPINNING, WHERE), (WALKER,))


class Run(NamedTuple):
    """A program on a guest."""

    program: Program
    machine: Machine
    slots: list[SlotFill]
    arguments: tuple[int, ...]
    budget: int = 4000


@cache
def runs() -> tuple[Run, ...]:
    """Runs that between them meet every kind of load and fault."""
    found = []
    for size in (4, 8):
        data, items = ram(size)
        for item, name in zip(items, (b"\x81\x80bc", b"ab\0\1\0\1cd"), strict=False):
            at = PAGE + item - KERNEL[size] + 28
            data[at : at + 12] = name.ljust(12, b"\xff")
        guest = machine(data, size, WALKER)
        odd = [slot(16, 2, signed=True, shift=3, bits=9), slot(BASE + 0x20)]
        found += [
            *(
                Run(LISTS[size], guest, [first, *fills(size)[1:]], (items[0],))
                for first in (slot(16, size), slot(17, size), slot(16, 3), slot(16, 16))
            ),
            Run(LISTS[size], with_geometry(guest, 1 << 62), fills(size), (items[0],)),
            Run(LISTS[size], replace(guest, root=BASE + 4), fills(size), (items[0],)),
            Run(EVERYTHING[size], guest, odd, (KERNEL[size] - 0x600,)),
            Run(EVERYTHING[size], guest, [slot(8, 4), slot(BASE)], (KERNEL[size] - 0x301 * 3,)),
            *(Run(EVERYTHING[size], guest, odd, (KERNEL[size] - 0x600,), budget) for budget in (0, 1, 50, 51)),
        ]
    cut = machine(data[:-4], 8, WALKER)
    last = KERNEL[8] + PAGES * PAGE - 8
    signed = slot(0, 4, signed=True)
    for address, root in ((last, BASE), (last, BASE + 8), (LOW, BASE), (LOW, BASE + 8), (LOW, 0), (LOW, 1 << 63)):
        found += [Run(ONE_LOAD, cut, [slot(0, 8)], (address, root)), Run(ONE_LOAD, cut, [signed], (address, root))]
    found += [Run(WHERE, cut, [], (address,)) for address in (KERNEL[8] + PAGE + 77, LOW)]
    return (*found, Run(SPINNING, cut, [], ()))


def outcomes(engine: Engine) -> Iterator[Outcome]:
    for program, guest, slots, arguments, budget in runs():
        yield engine.run(program, guest, slots, arguments, budget=budget, trace=True)


@cache
def sound() -> tuple[Outcome, ...]:
    """What the interpreter gives."""
    return tuple(outcomes(Interpreter()))


def differs(engine: Engine) -> bool:
    """Say whether anything is not as it was."""
    try:
        return any(one != other for one, other in zip(outcomes(engine), sound(), strict=True))
    except Exception:  # noqa: BLE001  whatever a spoiled runtime leads to is another outcome
        return True


def test_every_kind_of_fault_is_met() -> None:
    taken = {trouble.fault.code for outcome in sound() for trouble in outcome.troubles if trouble.fault}
    ended = {outcome.ended.code for outcome in sound() if outcome.ended}
    assert taken | ended == set(Code) - {Code.NONE, Code.ROWS, Code.GONE}


INTERPRETERS = [
    ("max(0, min(budget, sys.maxsize))", "max(1, min(budget, sys.maxsize))"),
    ("bits = min(fill.bits, 64)", "bits = 64"),
    ("value = value >> fill.shift &", "value = value &"),
    ("if fill.signed and value >> (bits - 1):", "if False:"),
    ("return page if fill.size in _SIZES else self._odd_size", "return page"),
    ("        self.faults += 1\n", ""),
    ("self.last if faulted else None, torn)", "self.last, torn)"),
    ("self.last if faulted else None, torn)", "self.last if faulted else None, False)"),
    ("            self.loads += 1\n", ""),
    ("            if gpa & (size - 1):\n                self.fault(Code.MISALIGNED, gpa, size)\n", ""),
    ("if root == own and not first <= gva <= last:", "if root == own and gva > last:"),
    ("if root == own and not first <= gva <= last:", "if not first <= gva <= last:"),
    (
        "        bases[entry] = translate(root, gva & ~inside)\n",
        "        bases[entry] = translate(root, gva)\n",
    ),
    ("        tags[entry] = tag\n", ""),
    ("        if tags[entry] != number:\n", "        if tags[entry] is None:\n"),
    ("        if tags[entry] != tag:\n", "        if tags[entry] is None:\n"),
    ("tag = number | (root ^ own) << 64", "tag = number"),
    ('                record(("V", gva, size))\n', '                record(("V", gpa, size))\n'),
]
"""Of ``runtime.py``: the same in Python."""


def test_the_interpreters_runtime_can_omit_nothing() -> None:
    assert not differs(Interpreter())
    survivors = []
    for old, new in INTERPRETERS:
        with changed(runtime, old, new):
            if not differs(Interpreter()):
                survivors.append(f"{old} -> {new}")
    assert not survivors, "\n".join(survivors)


OMITTED = [
    ("if (ll_unlikely(gpa & (size - 1)))", "if (0)"),
    ("if (gva & (size - 1)) {", "if (0) {"),
    ("gva < c->kernel_first || ", ""),
    ("root == c->root && (", "("),
    (" && entry->root == root", ""),
    ("entry->first == (gva & (c->page_number | (size - 1))) && ", ""),
    ("(gva & (c->page_number | (size - 1)))", "(gva & c->page_number)"),
    ("    entry->root = root;\n", ""),
    ("    entry->first = first;\n", ""),
    ("    entry->gpa = gpa;\n", ""),
    ("at < c->window.size && size <= c->window.size - at", "at < c->window.size"),
    ("(c, entry->gpa + (gva - entry->first),", "(c, entry->gpa,"),
    ("*gpa = entry->gpa + (gva - entry->first);", "*gpa = entry->gpa;"),
    ("uint64_t first = gva & c->page_number,", "uint64_t first = gva,"),
    ("    c->budget--;\n", ""),
    ("    c->faults++;\n", ""),
    ("        bits = slot->bits;\n", ""),
    ("        value = ll_shr64(value, slot->shift);\n", ""),
    ("slot->is_signed ? ll_extend(value, bits) : value", "value"),
    ("slot->size - 1 > 7 || ", ""),
    (" || (slot->size & (slot->size - 1))", ""),
    ("    c->trouble_count++;\n", ""),
    ("        trouble->torn = torn != 0;\n", ""),
    ("        trouble->faulted = faulted != 0;\n", ""),
    ("c->fault.code == LL_BUDGET || ", ""),
    ("    c->fault.value = value;\n", ""),
    ("    c->fault.message = message;\n", ""),
    ("    c->event_count++;\n", ""),
    ("event->size = size;", "event->size = 8;"),
    ("& ~word & (ones << 7)", "& (ones << 7)"),
    ("(((nul & (~nul + 1)) >> 7) - 1)", "((nul >> 7) - 1)"),
    ("c->cache[i].first = (i ^ 1) << c->page_shift;", "c->cache[i].first = i << c->page_shift;"),
]
"""Of ``runtime.h``: a check, a mask, a step, a count or a part of an entry or of a fault."""


def test_native_codes_runtime_can_omit_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = c_backend.runtime_text("runtime.h")
    original = c_backend.runtime_text
    monkeypatch.setattr(objects, "FLAGS", tuple("-O0" if flag == "-O2" else flag for flag in objects.FLAGS))
    sound()  # once, before there are children
    survivors = []
    for number, (old, new) in enumerate([("", ""), *OMITTED]):
        assert text.count(old) == 1 or not old, old
        spoiled = text.replace(old, new) if old else text
        monkeypatch.setattr(
            c_backend, "runtime_text", lambda name, spoiled=spoiled: spoiled if name == "runtime.h" else original(name)
        )
        noticed = in_a_child(Native(UNIT, objects.build(c_source(UNIT), tmp_path / f"{number}.so")))
        if not old:
            assert not noticed
        elif not noticed:
            survivors.append(old)
    assert not survivors, "\n".join(survivors)


def in_a_child(engine: Engine) -> bool:
    """Say whether code does something else, in a process of its own: it may crash, or go on for ever."""
    child = os.fork()
    if not child:
        signal.alarm(PATIENCE)
        os._exit(1 if differs(engine) else 0)
    _, status = os.waitpid(child, 0)
    return status != 0

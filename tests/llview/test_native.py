from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.llview import random_expressions, sources
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
    load,
    machine,
    ram,
    rows,
    slot,
    u64,
    with_geometry,
)

from yamori.address import GPA
from yamori.hypervisors.vm import RamSegment
from yamori.llview import ir, native, objects
from yamori.llview import unit as unit_module
from yamori.llview.c_backend import c_source
from yamori.llview.faults import MOST_TROUBLES, Code, FaultRecord, TroubleRecord
from yamori.llview.interpreter import Interpreter
from yamori.llview.ir import BOOL, U64, Local, Program
from yamori.llview.machine import SlotFill
from yamori.llview.native import Native, NativeError
from yamori.llview.unit import Unit
from yamori.memory.host import HostMemory
from yamori.memory.physical import BytesMemory, Region

WALKER = flat_walker()
LIST, EVERYTHING = list_probe(8), every_statement(8)
LIST4 = list_probe(4, "items4")
EDGE = (1 << 64) - 1


def one_load() -> Program:
    """Load a member at ``address`` under the table ``table``; a fault is taken, and told as a trouble."""
    address, table, value, failed = (Local(n, t) for n, t in _KINDS.items())
    body = load(value, address, slot=0, fault="try", root=table)
    return Program(
        name="one_load",
        kind="probe",
        word_size=8,
        file="demo.py",
        parameters=[address, table],
        slots=[ir.SlotSpec("member", "item", "it")],
        messages=["it"],
        row=[ir.RowField("value", U64)],
        locals={"value": U64, "failed": BOOL},
        body=[
            ir.Attempt(place=P, label="try", failed=failed, body=body),
            ir.If(
                place=P,
                condition=failed,
                then=[ir.Trouble(place=P, message=0, value=u64(0), faulted=True)],
                otherwise=[ir.Emit(place=P, values=[value])],
            ),
        ],
    )


_KINDS = {"address": U64, "table": U64, "value": U64, "failed": BOOL}


def troubled() -> Program:
    """More troubles than are kept, no fault, and the number of rounds as a row."""
    i = Local("i", U64)
    body: list[ir.Statement] = [
        ir.Tick(place=P),
        ir.Trouble(place=P, message=0, value=i, faulted=True),
        ir.Assign(place=P, target=i, value=ir.Binary("+", i, u64(1), U64)),
        ir.Emit(place=P, values=[i]),
    ]
    return Program(
        name="troubled",
        kind="probe",
        word_size=8,
        file="demo.py",
        parameters=[],
        messages=["again"],
        row=[ir.RowField("i", U64)],
        locals={"i": U64},
        body=[ir.Loop(place=P, label="loop", body=body)],
    )


ONE_LOAD, TROUBLED = one_load(), troubled()
RANDOM = [random_expressions.probe(random.Random(seed), f"random_{seed}") for seed in range(8)]
UNIT = Unit("demo", (LIST, EVERYTHING, ONE_LOAD, TROUBLED, *RANDOM), (WALKER,))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Native:
    return Native(UNIT, objects.build(c_source(UNIT), tmp_path_factory.mktemp("objects") / "unit.so"))


def one(
    engine: Native, address: int, fill: SlotFill, table: int = BASE, data: bytes | None = None
) -> tuple[object, ...]:
    """The value, or the fault."""
    guest = machine(data or ram(8)[0], 8, WALKER)
    found = engine.run(ONE_LOAD, guest, [fill], (address, table))
    assert found.ended is None
    assert found.faults == len(found.troubles)
    return found.rows[0] if found.rows else tuple(found.troubles[0].fault or ())


def test_a_list_is_walked(engine: Native) -> None:
    data, items = ram(8)
    found = engine.run(LIST, machine(data, 8, WALKER), fills(8), (items[0],))
    assert found.rows == rows(items)
    assert (found.loads, found.faults, found.ended, found.events) == (len(items) * 5, 0, None, [])


def test_every_load_is_recorded_and_each_page_is_walked_once(engine: Native) -> None:
    data, items = ram(8)
    found = engine.run(LIST, machine(data, 8, WALKER), fills(8), (items[0],), trace=True)
    virtual = [event for event in found.events if event[0] == "V"]
    assert virtual[:2] == [("V", items[0] + 24, 4), ("V", items[0] + 28, 4)]
    assert len(virtual) == found.loads
    assert found.events[0] == ("P", BASE + (items[0] - KERNEL[8]) // PAGE * 8, 8)
    pages = {(item - KERNEL[8]) // PAGE for item in items}
    assert len(found.events) - len(virtual) == len(pages)


@pytest.mark.parametrize("seed", range(8))
def test_arithmetic_is_that_of_the_intermediate_representation(engine: Native, seed: int) -> None:
    numbers = random.Random(seed)
    guest = machine(bytes(PAGE), 8, WALKER)
    for _ in range(50):
        arguments = random_expressions.arguments(numbers)
        found = engine.run(RANDOM[seed], guest, [], arguments)
        assert found.rows == [random_expressions.expected(RANDOM[seed], arguments)]


# --- Faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "fill", "fault"),
    [
        (KERNEL[8] + 1, slot(0, 2), (Code.MISALIGNED, KERNEL[8] + 1, 2, 0)),
        (KERNEL[8] + 1, slot(0, 77), (Code.SIZE, KERNEL[8] + 1, 77, 0)),
        (KERNEL[8], slot(0, 0), (Code.SIZE, KERNEL[8], 0, 0)),
        (KERNEL[8], slot(0, 3), (Code.SIZE, KERNEL[8], 3, 0)),
        (KERNEL[8], slot(0, 16), (Code.SIZE, KERNEL[8], 16, 0)),
        (KERNEL[8], slot(0, 1 << 63), (Code.SIZE, KERNEL[8], 1 << 63, 0)),
        (0x1008, slot(0, 8), (Code.NOT_KERNEL, 0x1008, 0, 0)),
        (KERNEL[8] + PAGES * PAGE + 8, slot(0, 8), (Code.UNMAPPED, KERNEL[8] + PAGES * PAGE, 0, 0)),
    ],
)
def test_faults(engine: Native, address: int, fill: SlotFill, fault: tuple[int, ...]) -> None:
    assert one(engine, address, fill) == fault


def test_another_root_may_have_any_address(engine: Native) -> None:
    data = bytearray(2 * PAGE)
    data[PAGE // 2 : PAGE // 2 + 8] = (PAGE | 1).to_bytes(8, "little")
    data[PAGE + 8 : PAGE + 16] = (77).to_bytes(8, "little")
    assert one(engine, 8, slot(0, 8), BASE + PAGE // 2, bytes(data)) == (77,)


def test_tables_outside_of_ram_and_misaligned_ones(engine: Native) -> None:
    assert one(engine, 8, slot(0, 8), 1 << 40) == (Code.OUTSIDE, 1 << 40, 8, 0)
    assert one(engine, 8, slot(0, 8), BASE + 4) == (Code.MISALIGNED, BASE + 4, 8, 0)
    assert one(engine, 8, slot(0, 8), EDGE - 7) == (Code.OUTSIDE, EDGE - 7, 8, 0)


def test_a_page_that_only_begins_in_ram_can_be_read_up_to_its_end(engine: Native) -> None:
    data = bytearray(PAGE + 16)
    data[:8] = (PAGE | 1).to_bytes(8, "little")
    assert one(engine, KERNEL[8] + 8, slot(0, 8), BASE, bytes(data)) == (0,)
    assert one(engine, KERNEL[8] + 16, slot(0, 4), BASE, bytes(data)) == (Code.OUTSIDE, BASE + PAGE + 16, 4, 0)


def test_ram_that_lies_nowhere_well_aligned_is_read_all_the_same(engine: Native) -> None:
    memory = BytesMemory({BASE + 1: ram(8)[0][1:]})
    guest = replace(machine(b"", 8, WALKER), memory=memory)
    whole = machine(ram(8)[0], 8, WALKER)
    address = KERNEL[8] + PAGE
    found = [engine.run(ONE_LOAD, m, [slot(0, 8)], (address, BASE), trace=True) for m in (guest, whole)]
    assert found[0] == found[1]
    assert found[0].rows


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        (slot(0, 1), 0xF0),
        (slot(0, 1, signed=True), EDGE - 0xF),
        (slot(0, 4, signed=True), EDGE - 0x4B5A690F),
        (slot(0, 2, shift=4, bits=8), 0x6F),
        (slot(0, 2, signed=True, shift=4, bits=4), EDGE),
        (slot(0, 4, shift=64, bits=3), 0),
        (slot(0, 4, signed=True, shift=255, bits=255), 0),
        (slot(0, 8, shift=0, bits=64), 0x01234567_B4A596F0),
        (slot(1 << 63, 2), 0x96F0),
    ],
)
def test_members_are_cut_and_extended(engine: Native, fill: SlotFill, expected: int) -> None:
    data = bytearray(ram(8)[0])
    data[PAGE : PAGE + 8] = (0x01234567_B4A596F0).to_bytes(8, "little")
    assert one(engine, KERNEL[8], fill, BASE, bytes(data)) == (expected,)


def test_attempts_jumps_arrays_and_the_programs_own_fault(engine: Native) -> None:
    data, _ = ram(8)
    slots = [slot(16, 4), slot(BASE)]
    guest = machine(data, 8, WALKER)
    found = engine.run(EVERYTHING, guest, slots, (KERNEL[8] - 0x301 * 3,), trace=True)
    assert found == Interpreter().run(EVERYTHING, guest, slots, (KERNEL[8] - 0x301 * 3,), trace=True)
    codes = {trouble.fault.code for trouble in found.troubles if trouble.fault}
    assert codes == {Code.NOT_KERNEL, Code.MISALIGNED, Code.UNMAPPED, Code.INDEX}
    assert found.torn
    assert found.ended is not None
    assert (found.ended.code, found.ended.message) == (Code.PROGRAM, 1)
    assert all(len(text) <= 70 and b"\0" not in text for _, _, text, _ in found.rows if isinstance(text, bytes))


def test_troubles_beyond_the_most_are_only_counted_and_rows_find_room(engine: Native) -> None:
    guest = machine(bytes(PAGE), 8, WALKER)
    found = engine.run(TROUBLED, guest, [], budget=5000)
    assert found.rows == [(i + 1,) for i in range(5000)]
    assert found.troubles == [TroubleRecord(0, i, FaultRecord(Code.NONE, 0, 0)) for i in range(MOST_TROUBLES)]
    assert (found.ended, found.faults) == (FaultRecord(Code.BUDGET, 0, 0), 1)
    assert engine.run(TROUBLED, guest, [], budget=0).rows == []


def test_events_find_room(engine: Native) -> None:
    data, items = ram(8, count=1000)
    guest = machine(data, 8, WALKER)
    again = replace(guest, page_shift=3)  # a page of 8 bytes: nearly every load walks
    found = engine.run(LIST, again, fills(8), (items[0],), trace=True)
    assert found.ended is not None
    looped = bytearray(data)
    at = PAGE + items[5] - KERNEL[8] + 16
    looped[at : at + 8] = items[1].to_bytes(8, "little")
    found = engine.run(LIST, machine(looped, 8, WALKER), fills(8), (items[0],), trace=True, budget=10_000)
    assert len([event for event in found.events if event[0] == "V"]) == found.loads == 50_000


@given(
    geometry=st.integers(0, EDGE),
    root=st.integers(0, EDGE),
    shift=st.integers(0, 255),
    address=st.integers(0, EDGE),
    fields=st.tuples(*[st.sampled_from([0, 1, 4, 8, 63, 64, 255, 1 << 63, EDGE])] * 5),
)
@settings(max_examples=150, deadline=None)
def test_hostile_numbers_end_in_faults_or_values(
    engine: Native, geometry: int, root: int, shift: int, address: int, fields: tuple[int, ...]
) -> None:
    guest = replace(with_geometry(machine(ram(8)[0], 8, WALKER), geometry), page_shift=shift, kernel=(0, EDGE))
    offset, size, first, bits, stride = fields
    fill = SlotFill(exists=True, offset=offset, size=size, signed=bool(bits & 1), shift=first, bits=bits, stride=stride)
    for table in (root, BASE):
        found = engine.run(ONE_LOAD, guest, [fill], (address, table), trace=True)
        assert len(found.rows) + len(found.troubles) == 1
        if shift < 64:
            assert found == Interpreter().run(ONE_LOAD, guest, [fill], (address, table), trace=True)


# --- Memory, threads ----------------------------------------------------------------------------------------------


def host_memory(path: Path, size: int) -> HostMemory:
    return HostMemory((RamSegment(gpa=BASE, size=size, path=str(path), offset=0, kind="image"),))


def test_an_image_is_read_by_pread_and_may_become_shorter(engine: Native, tmp_path: Path) -> None:
    data, items = ram(8)
    path = tmp_path / "image"
    path.write_bytes(data)
    with host_memory(path, len(data)) as memory:
        guest = replace(machine(b"", 8, WALKER), memory=memory)
        mapped = engine.run(LIST, machine(data, 8, WALKER), fills(8), (items[0],), trace=True)
        assert engine.run(LIST, guest, fills(8), (items[0],), trace=True) == mapped
        assert Interpreter().run(LIST, guest, fills(8), (items[0],), trace=True) == mapped
        os.truncate(path, PAGE)
        found = engine.run(ONE_LOAD, guest, [slot(0, 8)], (KERNEL[8] + 8, BASE))
        assert found.ended == FaultRecord(Code.GONE, BASE + PAGE + 8, 8)
        assert found == Interpreter().run(ONE_LOAD, guest, [slot(0, 8)], (KERNEL[8] + 8, BASE))


def test_a_process_s_memory_with_a_hole(engine: Native) -> None:
    """What the host has not mapped in the VMM is no RAM, by native code and by the interpreter."""
    data, items = ram(8)
    pages = mmap.mmap(-1, len(data))
    pages[:] = bytes(data)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    segment = RamSegment(gpa=BASE, size=len(data), path="/proc/self/mem", offset=address, kind="process")
    with HostMemory((segment,)) as memory:
        guest = replace(machine(b"", 8, WALKER), memory=memory)
        whole = engine.run(LIST, guest, fills(8), (items[0],), trace=True)
        assert whole.rows == rows(items)
        assert whole == Interpreter().run(LIST, guest, fills(8), (items[0],), trace=True)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        hole = address + 3 * PAGE
        assert libc.munmap(hole, PAGE) == 0
        try:
            found = engine.run(LIST, guest, fills(8), (items[0],), trace=True)
            assert found == Interpreter().run(LIST, guest, fills(8), (items[0],), trace=True)
            assert found.ended
            assert found.ended.code == Code.OUTSIDE
        finally:  # before the mapping is let go of as a whole, somebody else may take the place
            libc.mmap.restype = ctypes.c_void_p
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10  # MAP_FIXED
            libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
            assert libc.mmap(hole, PAGE, mmap.PROT_READ, flags, -1, 0) == hole


def test_sealed_memory_is_read_where_it_is_mapped_and_cannot_be_closed_meanwhile(engine: Native) -> None:
    fcntl = pytest.importorskip("fcntl")
    data, items = ram(8)
    fd = os.memfd_create("ram", os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    segment = RamSegment(gpa=BASE, size=len(data), path=f"/proc/self/fd/{fd}", offset=0, kind="shared")
    try:
        with HostMemory((segment,)) as memory:
            extents = native.readable(memory)
            assert extents is not None
            assert extents[0].buffer is not None
            guest = replace(machine(b"", 8, WALKER), memory=memory)
            assert engine.run(LIST, guest, fills(8), (items[0],)).rows == rows(items)
            with native._regions(extents), pytest.raises(BufferError):
                extents[0].buffer.close()  # type: ignore[union-attr]
        closed = engine.run(LIST, guest, fills(8), (items[0],))
        assert closed.ended is not None
        assert closed.ended.code == Code.OUTSIDE
    finally:
        os.close(fd)


@pytest.mark.parametrize("kind", ["shared", "image"])
def test_memory_that_is_closed_while_code_runs_stays_what_it_was(engine: Native, kind: str) -> None:
    """Not even another file, which is given the number of the closed descriptor, is read."""
    data, items = ram(8, 5)
    fd = os.memfd_create("ram", os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, data)
        fcntl.fcntl(fd, 1033, 0x2)  # F_ADD_SEALS, F_SEAL_SHRINK
        memory = HostMemory((RamSegment(BASE, len(data), f"/proc/self/fd/{fd}", 0, kind),))  # type: ignore[arg-type]
        extents = memory.extents()
        assert extents is not None
        with native._regions(extents) as regions:
            memory.close()
            other = os.memfd_create("other")
            assert other in {extent.fd for extent in extents}
            os.write(other, b"\xff" * len(data))
            guest = machine(b"", 8, WALKER)
            run = native._Run(
                guest, UNIT.walkers.index(WALKER), regions, native.slot_words(fills(8)), native.words([items[0]])
            )
            run.prepare(engine._layouts["items"], 100, 0, 1000)
            assert engine._entries["items"](ctypes.addressof(run.context)) == 0
            assert run.outcome(LIST, ended=False).rows == rows(items)
            os.close(other)
    finally:
        os.close(fd)


def test_a_list_without_an_end_gives_no_rows_without_an_end(engine: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    data, items = ram(8, 5)
    at = items[3] - KERNEL[8] + PAGE + 16
    data[at : at + 8] = items[1].to_bytes(8, "little")  # past the head
    guest = machine(data, 8, WALKER)
    monkeypatch.setattr(unit_module, "MOST_ROWS", 5000)
    found = engine.run(LIST, guest, fills(8), (items[0],))
    assert found == Interpreter().run(LIST, guest, fills(8), (items[0],))
    assert (found.count, found.ended and found.ended.code) == (5000, Code.ROWS)
    monkeypatch.setattr(unit_module, "MOST_ROW_BYTES", 64 * 100)
    assert engine.run(LIST, guest, fills(8), (items[0],)).count < 300


@pytest.mark.parametrize("word", [4, 8])
def test_where_the_kernels_tables_have_an_address(word: int, tmp_path: Path) -> None:
    body = (
        "for i in range(6):\n    with attempt():\n        emit(a=physical(address_of(kernel.first) + i * 3001))\n"
        "emit(a=user_word(physical(kernel.first) - 4096, kernel.first.next))\nemit(a=physical(ulong(8)))"
    )
    program = sources.program(sources.probe(body), word)
    unit = Unit("physical", (program,), (WALKER,))
    where = sources.guest(word)
    slots = [where.fills[str(slot)] for slot in program.slots]
    guest = machine(where.data, word, WALKER)
    found = Native(unit, objects.build(c_source(unit), tmp_path / "unit.so")).run(program, guest, slots, trace=True)
    assert found == Interpreter().run(program, guest, slots, trace=True)
    assert [row[0] for row in found.rows[:3]] == [BASE + PAGE, BASE + PAGE + 3001, BASE + PAGE + 6002]
    assert found.ended is not None
    assert found.ended.code == Code.NOT_KERNEL


def test_a_long_run_can_be_interrupted(tmp_path: Path) -> None:
    program = sources.program(sources.probe("x = u64(0)\nwhile True:\n    x += u64(kernel.first.small)"))
    unit = Unit("long", (program,), (WALKER,))
    engine = Native(unit, objects.build(c_source(unit), tmp_path / "long.so"))
    where = sources.guest()
    slots = [where.fills[str(slot)] for slot in program.slots]
    guest = machine(where.data, 8, WALKER)
    started = time.perf_counter()
    assert engine.run(program, guest, slots, budget=1 << 14).loads == 1 << 14  # in a thread of its own
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.run(program, guest, slots, budget=1 << 60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.perf_counter() - started < 20
    assert engine.run(program, guest, slots, budget=100).loads == 100


def test_threads_do_not_disturb_each_other(engine: Native) -> None:
    jobs = []
    for count in range(2, 60):
        data, items = ram(8, count)
        jobs.append((machine(data, 8, WALKER), items))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda job: engine.run(LIST, job[0], fills(8), (job[1][0],)).rows, jobs * 5))
    assert found == [rows(items) for _, items in jobs * 5]


class Bare:
    """A memory that cannot say where it lies."""

    regions = (Region(0, 1),)

    def read(self, gpa: GPA, size: int) -> bytes:
        return bytes(size)

    def populated(self) -> Iterator[Region]:
        yield from self.regions


def test_what_is_not_served_is_refused(engine: Native) -> None:
    data, items = ram(8)
    guest = machine(data, 8, WALKER)
    assert engine.serves(LIST, guest)
    assert not engine.serves(LIST4, guest)
    assert not engine.serves(LIST, replace(guest, memory=Bare()))
    assert not engine.serves(LIST, replace(guest, walker=replace(WALKER, name="other")))
    with pytest.raises(NativeError, match="not compiled"):
        engine.run(LIST4, guest, fills(4), (items[0],))
    with pytest.raises(NativeError, match="missing"):
        engine.run(LIST, guest, [], (items[0],))

"""One moment of real guests: every engine does the same there, also where it was spoiled, and it is what /proc says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest
from tests.guests.devices import DEVICES
from tests.guests.frozen import MODULE, Frozen, frozen, numbers, spoiled, touched
from tests.guests.kernel_programs import PROBES
from tests.llview.emulation import Emulated, needed

import yamori
from yamori.address import GVA
from yamori.errors import ProfileError
from yamori.lab.compare import Difference, differences
from yamori.llview import objects
from yamori.llview.c_backend import c_source
from yamori.llview.interpreter import Interpreter
from yamori.llview.ir import Program
from yamori.llview.machine import Engine, Outcome, SlotFill
from yamori.llview.native import Native
from yamori.llview.unit import Unit
from yamori.probes import ahead
from yamori.probes.plist import plist, tasks
from yamori.probes.syscall import entries, find_table
from yamori.records import Process, escape

pytestmark = pytest.mark.guest

CPUS = {4: ("armv7l",), 8: ("aarch64", "riscv64")}
"""What code runs under ``unicorn``, by the guest's word size."""
BUDGET = 30_000
NO_ARGUMENTS: list[tuple[int, ...]] = [()]
SEEDS = range(24)

NO_TYPES = {"open_files", "mapped", "cached_pages", "numbered", "devices", "modules", "cpus"}
UNKNOWN = {"armv7": NO_TYPES, "armv7-lpae": NO_TYPES, "arm64": {"modules", "cpus"}, "x86-64": set[str]()}
"""What may be unknown: Debian's kernels for 32-bit Arm have no BTF, and those for Arm no symbols of variables before
6.12.
"""

Made = tuple[Unit, dict[str, Engine]]
Make = Callable[[int], Made]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Make:
    @cache
    def make(word_size: int) -> Made:
        work = tmp_path_factory.mktemp("unit")
        unit = ahead.unit((tasks, entries, *PROBES), word_size)
        made: dict[str, Engine] = {"host": Native(unit, objects.build(c_source(unit), work / "host.so"))}
        for cpu in CPUS[word_size]:
            needed(cpu)
            made[cpu] = Emulated(unit, cpu, work)
        return unit, made

    return make


@pytest.fixture(scope="module", params=DEVICES)
def guest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frozen]:
    with frozen(request.param, tmp_path_factory.mktemp("guest")) as taken:
        yield taken


class Bound(NamedTuple):
    """A program, ready to run."""

    program: Program
    slots: list[SlotFill]
    arguments: tuple[int, ...]


class Runs:
    """The programs on one guest."""

    def __init__(self, guest: Frozen, made: Made) -> None:
        self.guest, (self.unit, self.engines) = guest, made
        self.machine = guest.kernel.machine
        table = find_table(guest.kernel, "native")
        init, (first, last) = guest.kernel.profile.init.gva, self.machine.kernel
        self.arguments: dict[str, list[tuple[int, ...]]] = {
            "tasks": [(0,), (1,)],
            "entries": [(table.gva, table.size)],
            "cached_pages": [(1,)],
            "program_start": [next(program_starts(guest))[:2]],
            "scattered": [
                (1, init - (1 << 25), 0x3FFFFF8, 300),
                (2, init, 0xFFFFC, 300),  # misaligned ones, too
                (3, first, (last - first) & ~7, 300),
            ],
        }

    def bound(self) -> Iterator[Bound]:
        """Every program that this kernel can be asked."""
        for program in self.unit.probes:
            try:
                slots = self.guest.kernel.bind(program)
            except ProfileError:
                assert program.name in UNKNOWN[self.guest.device]
                continue
            for arguments in self.arguments.get(program.name, NO_ARGUMENTS):
                yield Bound(program, slots, arguments)

    def once(self, engine: Engine, bound: Bound) -> Outcome:
        program, slots, arguments = bound
        return engine.run(program, self.machine, slots, arguments, budget=BUDGET, trace=True)

    def rows(self, name: str, *arguments: int) -> list[Any]:
        """What the host's own code gives, which other tests compare with the rest."""
        program = next(program for program in self.unit.probes if program.name == name)
        outcome = self.once(self.engines["host"], Bound(program, self.guest.kernel.bind(program), arguments))
        assert outcome.ended is None
        assert outcome.troubles == []
        probe = next(probe for probe in PROBES if probe.name == name)
        return [probe.row(*[escape(v) if isinstance(v, bytes) else v for v in row]) for row in outcome.rows]


@pytest.fixture
def runs(guest: Frozen, engines: Make) -> Runs:
    return Runs(guest, engines(guest.kernel.machine.word_size))


def known(runs: Runs, name: str) -> None:
    if name not in {bound.program.name for bound in runs.bound()}:
        pytest.skip(f"this kernel does not say enough for {name}")


def program_starts(guest: Frozen) -> Iterator[tuple[int, int, int]]:
    """Address of the table, the first address and the process of each program, where its file's ELF header lies."""
    kernel = guest.kernel
    mm, pgd = kernel.profile.require("task_struct", "mm"), kernel.profile.require("mm_struct", "pgd")
    starts = {pid: start for pid, start, _, offset in map(numbers, sorted(guest.lasting("maps"))) if not offset}
    for row in plist(kernel).rows:
        if row.pid in starts:
            memory = kernel.space.pointer(GVA(row.task + mm.offset))
            table = kernel.space.pointer(GVA(memory + pgd.offset))
            yield table, starts[row.pid], row.pid


def test_every_engine_does_the_same(runs: Runs) -> None:
    for bound in runs.bound():
        reference = runs.once(Interpreter(), bound)
        assert reference.rows
        assert reference.events
        for name, engine in runs.engines.items():
            assert runs.once(engine, bound) == reference, (name, bound.program.name)


def test_every_engine_does_the_same_where_it_was_spoiled(runs: Runs) -> None:
    ended = troubled = 0
    for bound in runs.bound():
        sound = runs.once(runs.engines["host"], bound)
        places = touched(runs.guest.kernel, sound.events)
        addresses = [runs.guest.kernel.profile.init.gva, *(gva for kind, gva, _ in sound.events if kind == "V")]
        for seed in SEEDS:
            with spoiled(runs.guest, places, addresses, seed):
                reference = runs.once(Interpreter(), bound)
                for name, engine in runs.engines.items():
                    assert runs.once(engine, bound) == reference, (name, bound.program.name, seed)
            ended += reference.ended is not None
            troubled += bool(reference.troubles)
        assert runs.once(runs.engines["host"], bound) == sound
    assert ended > len(SEEDS)
    assert troubled > len(SEEDS)


def test_threads(runs: Runs) -> None:
    """All threads, by the lists of tasks and by the IDR of their numbers."""
    rows = plist(runs.guest.kernel, threads=True).rows
    assert unexplained(runs.guest, rows) == []
    known(runs, "numbered")
    numbered = runs.rows("numbered")
    assert all(row.index == row.nr == row.tid for row in numbered)
    assert {(row.tid, row.comm) for row in numbered} == {(row.pid, row.comm) for row in rows}


def test_processes(runs: Runs) -> None:
    rows = plist(runs.guest.kernel).rows
    comms = {row.pid: row.comm for row in rows} | {0: "swapper/0"}
    roots = [(row.pid, row.comm, comms[row.ppid]) for row in rows if row.uid == 0]
    assert [(row.pid, row.comm, row.parent) for row in runs.rows("who")] == roots
    assert [(row.pid, row.linked) for row in runs.rows("linked")] == [(row.pid, True) for row in rows]
    assert any(row.uid for row in rows)


def unexplained(guest: Frozen, rows: list[Process]) -> list[Difference]:
    """What differs from what the guest said before and after. Its shell answered between, so its own state did."""
    found = differences(guest.before.tasks, rows, guest.after.tasks)
    return [difference for difference in found if difference.field != "state"]


def test_programs_begin_with_their_files(runs: Runs) -> None:
    starts = list(program_starts(runs.guest))
    assert len(starts) > 20
    for table, address, _ in starts:
        (row,) = runs.rows("program_start", table, address)
        assert row.text == escape(b"\x7fELF")
        assert row.word & 0xFFFFFFFF == int.from_bytes(b"\x7fELF", "little")


def test_files(runs: Runs) -> None:
    known(runs, "open_files")
    rows = {(row.pid, row.fd): row.name for row in runs.rows("open_files")}
    told = [line.split(" ", 1) for line in runs.guest.lasting("files") if not line.startswith(shell(runs.guest))]
    assert len(told) > 60
    for path, target in told:
        pid, _, number = path.split("/")
        name = rows[int(pid), int(number)]
        assert name == (target.rpartition("/")[2] if target.startswith("/") else ""), (path, target)
    ever = {line.split(" ", 1)[0] for line in runs.guest.ever("files")}
    seen = {f"{pid}/fd/{number}" for pid, number in rows if pid in runs.guest.pids()}
    assert {path for path in seen - ever if not path.startswith(shell(runs.guest))} == set()


def shell(guest: Frozen) -> str:
    """How the paths of the shell's files begin that answered: it had other files open then."""
    (own,) = guest.lasting("shell")
    return f"{own}/"


def test_mappings_of_programs(runs: Runs) -> None:
    known(runs, "mapped")
    page = runs.guest.kernel.profile.root.geometry.page_size
    rows = {(row.pid, row.start, row.end, row.offset * page) for row in runs.rows("mapped")}
    told = set(map(numbers, runs.guest.lasting("maps")))
    assert len(told) > 20
    assert told <= rows
    assert {row for row in rows - told if row[0] in {pid for pid, *_ in told}} == set()


def test_cached_pages(runs: Runs) -> None:
    """The program's file lies whole in the page cache: that is where a root file system of RAM has it."""
    known(runs, "cached_pages")
    rows = runs.rows("cached_pages", 1)
    (size,) = map(int, runs.guest.lasting("program"))
    assert [row.index for row in rows] == list(range(-(-size // runs.guest.kernel.profile.root.geometry.page_size)))
    assert all(row.agrees for row in rows)


def test_devices(runs: Runs) -> None:
    known(runs, "devices")
    rows = {f"{row.ifindex} {row.name}" for row in runs.rows("devices")}
    assert rows == runs.guest.lasting("devices")
    assert len(rows) == 2


def test_modules(runs: Runs) -> None:
    known(runs, "modules")
    told = {line.split()[0] for line in runs.guest.lasting("modules")}
    assert {row.name for row in runs.rows("modules")} == told == {MODULE}


def test_cpus(runs: Runs) -> None:
    known(runs, "cpus")
    rows = runs.rows("cpus")
    assert [(row.number, row.cpu, row.idle) for row in rows] == [(n, n, f"swapper/{n}") for n in range(2)]
    running = {task.tid for task in runs.guest.before.tasks} | {0}
    assert {row.current for row in rows} <= running


def test_a_file_of_the_same_memory_gives_the_same(runs: Runs) -> None:
    """QEMU's own dump, an ELF core that Yamori attaches to and that native code reads piece by piece."""
    with yamori.open(f"file:{runs.guest.core}") as opened:
        for bound in runs.bound():
            expected = runs.once(Interpreter(), bound)
            kernel = opened.kernel
            given = (bound.program, kernel.machine, kernel.bind(bound.program), bound.arguments)
            for engine in (Interpreter(), runs.engines["host"]):
                assert engine.run(*given, budget=BUDGET, trace=True) == expected

"""The built-in probes and walkers give the same rows, faults and loads by every way to run them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.kernel.synthetic import ARM, MACHINES, Guest, Machine, build
from tests.llview.emulation import CPUS, Emulated, needed

from yamori.kernel.binding import bind
from yamori.kernel.discovery import discover
from yamori.kernel.kernel import Kernel
from yamori.llview import objects
from yamori.llview.c_backend import c_source
from yamori.llview.interpreter import Interpreter
from yamori.llview.machine import Engine, Outcome
from yamori.llview.native import Native
from yamori.llview.unit import Unit
from yamori.probes import ahead
from yamori.probes.plist import tasks
from yamori.probes.syscall import entries, find_table
from yamori.translation.machine import walkers

HOSTILE = 40


@pytest.fixture(scope="module")
def units() -> dict[int, Unit]:
    return {size: ahead.unit((tasks, entries), size) for size in (4, 8)}


@pytest.fixture(scope="module")
def natives(units: dict[int, Unit], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Engine]:
    folder = tmp_path_factory.mktemp("objects")
    return {size: Native(unit, objects.build(c_source(unit), folder / f"{size}.so")) for size, unit in units.items()}


def run(engine: Engine, unit: Unit, kernel: Kernel, name: str, *arguments: int) -> Outcome:
    program = next(program for program in unit.probes if program.name == name)
    assert kernel.machine.walker in unit.walkers
    return engine.run(program, kernel.machine, bind(program, kernel.profile), arguments, budget=4000, trace=True)


def spoiled(machine: Machine, seed: int) -> tuple[Guest, Kernel]:
    """Return a guest whose tasks and tables are spoiled at some places once its kernel is known."""
    guest = build(machine)
    kernel = discover(guest.memory())
    chance = random.Random(seed)
    for _ in range(seed and chance.randrange(1, 6)):
        task = chance.choice([*guest.tasks, *guest.threads]).gva
        member = chance.choice(sorted(guest.task))
        wild = [0, 1, guest.init, task, chance.getrandbits(8 * machine.word), chance.choice(guest.tasks).gva]
        guest.words(task + guest.task[member] & -machine.word, chance.choice(wild))
    if seed % 4 == 3:  # and a page of page tables
        at = machine.root_at + 8 * chance.randrange(1024)
        guest.ram[at : at + 8] = chance.randbytes(8)
    return guest, kernel


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_native_code_does_as_the_interpreter(
    machine: Machine, units: dict[int, Unit], natives: dict[int, Engine]
) -> None:
    ended = 0
    for seed in range(HOSTILE):
        _, kernel = spoiled(machine, seed)
        unit, native = units[machine.word], natives[machine.word]
        found = [run(engine, unit, kernel, "tasks", 1) for engine in (Interpreter(), native)]
        assert found[0] == found[1], seed
        assert found[0].events
        ended += found[0].ended is not None
        if seed == 0:
            table = find_table(kernel, "native")
            calls = [run(engine, unit, kernel, "entries", table.gva, table.size) for engine in (Interpreter(), native)]
            assert calls[0] == calls[1]
            assert len(calls[0].rows) == table.size
    assert 0 < ended < HOSTILE


@pytest.mark.parametrize("name", CPUS)
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_other_machines_do_as_the_interpreter(
    name: str, machine: Machine, units: dict[int, Unit], tmp_path: Path
) -> None:
    """The emulated code walks the guest's tables itself."""
    needed(name)
    unit = units[machine.word]
    emulated = Emulated(unit, name, tmp_path)
    for seed in (0, 1, 3, 7):
        _, kernel = spoiled(machine, seed)
        assert run(Interpreter(), unit, kernel, "tasks", 1) == run(emulated, unit, kernel, "tasks", 1), seed


def test_every_walker_is_in_every_unit_of_its_word_size(units: dict[int, Unit]) -> None:
    assert units[ARM.word].walkers == walkers(4)
    assert {walker.name for walker in walkers(8)} == {"aarch64_walk", "riscv_walk", "x86_64_walk"}

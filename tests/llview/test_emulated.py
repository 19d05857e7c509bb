from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.llview import random_expressions
from tests.llview.emulation import CPUS, Emulated, needed
from tests.llview.native_programs import (
    BASE,
    KERNEL,
    every_statement,
    fills,
    flat_walker,
    list_probe,
    machine,
    ram,
    rows,
    slot,
    with_geometry,
)

from yamori.llview.c_backend import c_source
from yamori.llview.interpreter import Interpreter
from yamori.llview.ir import Program
from yamori.llview.machine import Machine, SlotFill
from yamori.llview.native import Native
from yamori.llview.objects import build
from yamori.llview.unit import Unit

WALKER = flat_walker()


def probes(word_size: int) -> tuple[Program, Program]:
    return list_probe(word_size), every_statement(word_size)


@pytest.mark.parametrize("word_size", [4, 8])
@pytest.mark.parametrize("name", CPUS)
def test_other_machines_do_the_same_load_for_load(name: str, word_size: int, tmp_path: Path) -> None:
    needed(name)
    listing, everything = probes(word_size)
    data, items = ram(word_size)
    guest = machine(data, word_size, WALKER)
    members = [slot(16, 2, signed=True, shift=3, bits=9), slot(BASE + 0x20)]
    runs: list[tuple[Program, Machine, list[SlotFill], tuple[int, ...]]] = [
        (listing, guest, fills(word_size), (items[0],)),
        (listing, with_geometry(guest, 1 << 62), fills(word_size), (items[0],)),
        (everything, guest, members, (KERNEL[word_size] - 0x600,)),
        (everything, guest, [slot(8, 4), slot(BASE)], (KERNEL[word_size] - 0x301 * 3,)),
    ]
    unit = Unit("demo", (listing, everything), (WALKER,))
    emulated, native = Emulated(unit, name, tmp_path), Native(unit, build(c_source(unit), tmp_path / "unit.so"))
    found = [emulated.run(*given, trace=True) for given in runs]
    assert found == [native.run(*given, trace=True) for given in runs]
    assert found == [Interpreter().run(*given, trace=True) for given in runs]
    assert found[0].rows == rows(items)
    assert all(run.events for run in found)
    assert [run.ended is not None for run in found] == [False, True, True, True]


@pytest.mark.parametrize("name", CPUS)
def test_other_machines_calculate_the_same(name: str, tmp_path: Path) -> None:
    needed(name)
    seeds = range(100, 106)
    programs = [random_expressions.probe(random.Random(seed), f"random_{seed}") for seed in seeds]
    emulated = Emulated(Unit("random", tuple(programs), (WALKER,)), name, tmp_path, folded=True)
    guest = machine(bytes(16), 8, WALKER)
    for seed, program in zip(seeds, programs, strict=True):
        for at in range(3):
            arguments = random_expressions.arguments(random.Random(seed + at))
            assert emulated.run(program, guest, [], arguments).rows == [random_expressions.expected(program, arguments)]

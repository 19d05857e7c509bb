"""Random programs on hostile guests: the interpreter, this machine's code and other machines' do the same loads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from tests.llview.emulation import CPUS, Emulated, needed
from tests.llview.ir_builder import WALKERS, Case, cases, run

from yamori.llview.c_backend import c_source
from yamori.llview.interpreter import Interpreter
from yamori.llview.machine import Engine, SlotFill
from yamori.llview.native import Native
from yamori.llview.objects import build
from yamori.llview.unit import Unit

PROGRAMS, ROUNDS = 60, 6


@cache
def batch(word_size: int) -> tuple[Case, ...]:
    """Many cases at once, so that the compiler is called once for all of them; the same ones in every run."""
    found: list[Case] = []

    @settings(
        max_examples=PROGRAMS,
        database=None,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(word_size))
    def gather(case: Case) -> None:
        # Native code has words of 64 bits, so a slot's numbers are cut to them for both.
        slots = [SlotFill(*(value & (1 << 64) - 1 for value in fill)) for fill in case.slots]  # type: ignore[arg-type]
        found.append(case._replace(program=replace(case.program, name=f"random_{len(found)}"), slots=slots))

    gather()
    return tuple(found)


def shuffled(programs: tuple[Case, ...]) -> Iterator[Case]:
    """Every program, with its own guest and those of some others."""
    for number, case in enumerate(programs):
        for step in range(ROUNDS):
            yield programs[(number + step) % len(programs)]._replace(program=case.program)


def unit(programs: tuple[Case, ...]) -> Unit:
    return Unit("random", tuple(case.program for case in programs), WALKERS)


def assert_same(engine: Engine, programs: tuple[Case, ...]) -> None:
    """Compare with the interpreter, and make sure that there was something to compare."""
    outcomes = []
    for case in shuffled(programs):
        outcomes.append(run(Interpreter(), case))
        assert run(engine, case) == outcomes[-1], c_source(Unit("one", (case.program,), ()))
    assert sum(bool(outcome.loads) for outcome in outcomes) > len(programs) // 4
    assert len({outcome.ended.code for outcome in outcomes if outcome.ended}) >= 3


@pytest.mark.parametrize("word_size", [4, 8])
def test_native_code_does_as_the_interpreter_does(word_size: int, tmp_path: Path) -> None:
    programs = batch(word_size)
    assert_same(Native(unit(programs), build(c_source(unit(programs)), tmp_path / "unit.so")), programs)


@pytest.mark.parametrize("word_size", [4, 8])
@pytest.mark.parametrize("name", CPUS)
def test_code_of_other_machines_does_as_the_interpreter_does(name: str, word_size: int, tmp_path: Path) -> None:
    needed(name)
    programs = batch(word_size)
    assert_same(Emulated(unit(programs), name, tmp_path, folded=True), programs)

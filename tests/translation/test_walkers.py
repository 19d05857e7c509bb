"""The walkers as programs of LLView: they may run, they serve a machine, and no mutant of one passes these tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.translation import test_aarch64, test_arm_lpae, test_arm_short, test_riscv, test_x86_64
from tests.translation.cases import Case, found, found_by
from tests.translation.mutants import mutants

from yamori.address import GPA, GVA
from yamori.llview import flow, interpreter, ir
from yamori.llview.frontend import compile_walker
from yamori.llview.ir import U64
from yamori.llview.verify import VerifyError, verify
from yamori.memory.physical import BytesMemory
from yamori.translation.format import Geometry, Mapping, compiled, program
from yamori.translation.formats import geometries
from yamori.translation.machine import machine

ALL = [*geometries(4), *geometries(8)]
MOST_PARAMETERS = 8
"""What a walker may be told of a geometry; native code has room for no more."""


class Suite(NamedTuple):
    """A format's own tests: what they draw, what they know of it, and what is known beforehand."""

    drawn: Callable[[], st.SearchStrategy[Any]]
    cases: Callable[[Any, set[int]], Iterator[Case]]
    forms: Callable[[], Iterator[Case]]


SUITES = {
    "aarch64": Suite(test_aarch64.halves, test_aarch64.cases, test_aarch64.forms),
    "arm-lpae": Suite(test_arm_lpae.tables, test_arm_lpae.cases, test_arm_lpae.forms),
    "arm-short": Suite(test_arm_short.tables, test_arm_short.cases, test_arm_short.forms),
    "riscv64": Suite(test_riscv.tables, test_riscv.cases, test_riscv.forms),
    "x86-64": Suite(test_x86_64.tables, test_x86_64.cases, test_x86_64.forms),
}

# Mutants that do the same, by the beginning of the source line, and why they do.
LEVELS = "no level's shift lies between"
LOW_BIT = "bit 0 is shifted out, masked off, or never set"
NOT_ADDRESS = "the bit is none of the address's, or of those below the size"
MISALIGNED = "any other code of Svnapot leaves a base that the next check refuses as misaligned"
EQUIVALENT: Final[dict[str, dict[tuple[str, str], str]]] = {
    "aarch64": {
        ("offset = gva", "0x1 becomes 0x2"): LOW_BIT,
        ("inherited: u64", "0x0 becomes 0x1"): "the lowest bit of tables is not looked at",
    },
    "arm-lpae": {
        ("bits: u64 = 32", "0x20 becomes 0x21"): "addresses of more than 32 bits are refused before",
        ("offset = gva", "0x1 becomes 0x2"): LOW_BIT,
        ("inherited: u64", "0x0 becomes 0x1"): "the lowest bit of tables is not looked at",
        ("while shift > 12", "0xc becomes 0xd"): LEVELS,
        ("return Mapping(", "0xfffffff000 becomes 0xfffffff001"): NOT_ADDRESS,
        ("return Mapping(", "0x1 becomes 0x2"): LOW_BIT,
        ("return Mapping(", "0xffffffffffffffff becomes 0x7fffffffffffffff"): NOT_ADDRESS,
        ("return Mapping(", "0xffffffffffffffff becomes 0xfffffffffffffffe"): NOT_ADDRESS,
    },
    "arm-short": {},
    "riscv64": {
        ("while shift > 12", "0xc becomes 0xd"): LEVELS,
        ("if shift != 12 or base", "only the left of |"): MISALIGNED,
        ("if shift != 12 or base", "0xf becomes 0xe"): MISALIGNED,
        ("if base & (size - 1)", "0x1 becomes 0x2"): LOW_BIT,
    },
    "x86-64": {
        ("while shift > 12", "0xc becomes 0xd"): LEVELS,
        ("if shift > 30", "0x1e becomes 0x1f"): LEVELS,
        ("if shift > 30", "0x1 becomes 0x2"): LOW_BIT,
        ("if shift > 30", "0xffffffffff000 becomes 0x7fffffffff000"): NOT_ADDRESS,
        ("if shift > 30", "0xffffffffffffefff becomes 0x7fffffffffffefff"): NOT_ADDRESS,
        ("if shift > 30", "0xffffffffffffefff becomes 0xffffffffffffeffe"): NOT_ADDRESS,
        ("return Mapping(", "0xffffffffff000 becomes 0xffffffffff001"): NOT_ADDRESS,
        ("return Mapping(", "0x1 becomes 0x2"): LOW_BIT,
        ("return Mapping(", "0xffffffffffffffff becomes 0x7fffffffffffffff"): NOT_ADDRESS,
        ("return Mapping(", "0xffffffffffffffff becomes 0xfffffffffffffffe"): NOT_ADDRESS,
    },
}


def corpus(suite: Suite) -> list[Case]:
    """Return what a format's tests compare the walker with, the same each time."""
    collected = list(suite.forms())

    @settings(max_examples=100, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
    @given(suite.drawn())
    def collect(made: Any) -> None:
        collected.extend(suite.cases(made, set()))

    collect()
    return collected


def survivors(name: str, cases: list[Case]) -> Iterator[tuple[str, str]]:
    """Yield the source line and the change of every mutant that no case tells from the walker."""
    walk = next(shape.walker for shape in ALL if shape.format == name)
    for line, what, mutant in mutants(compile_walker(walk)):
        try:
            run = interpreter.walker(mutant)
        except VerifyError:
            continue
        if all(found_by(case, run) == case.expected for case in cases):
            yield line, what


def is_argued(name: str, line: str, what: str) -> bool:
    return any(line.startswith(start) and what == change for start, change in EQUIVALENT[name])


@pytest.mark.parametrize("name", SUITES)
def test_no_mutant_survives(name: str) -> None:
    cases = corpus(SUITES[name])
    for case in cases:
        assert found(case) == case.expected
    alive = list(survivors(name, cases))
    assert [mutant for mutant in alive if not is_argued(name, *mutant)] == []
    # What is excused has to be there: an excuse for nothing would hide a mutant to come.
    excused = {key for key in EQUIVALENT[name] for line, what in alive if line.startswith(key[0]) and what == key[1]}
    assert excused == EQUIVALENT[name].keys()


def test_every_format_has_its_suite() -> None:
    assert {shape.format for shape in ALL} == SUITES.keys()


@pytest.mark.parametrize("shape", ALL, ids=str)
def test_walker_may_run_on_its_geometry(shape: Geometry) -> None:
    made = verify(compile_walker(shape.walker))
    assert made.kind == "walker"
    assert [parameter.type for parameter in made.parameters] == [U64] * (2 + len(shape.parameters))
    assert made.results == [U64] * len(Mapping._fields)
    assert len(shape.parameters) <= MOST_PARAMETERS
    assert all(0 <= number < 1 << 64 for number in shape.parameters)
    assert not any(isinstance(statement, ir.LoadVirt | ir.Page | ir.LoadHost) for statement in flow.walk(made.body))


@pytest.mark.parametrize("shape", ALL, ids=str)
def test_kernel_is_what_is_canonical(shape: Geometry) -> None:
    first, last = shape.kernel
    assert 0 <= first < last == (1 << 8 * shape.word_size) - 1
    assert [shape.canonical(GVA(gva)) for gva in (first - 1, first, last, last + 1)] == [False, True, True, False]


@pytest.mark.parametrize("shape", ALL, ids=str)
def test_machine(shape: Geometry) -> None:
    made = machine(BytesMemory({}), shape, GPA(0x4000))
    assert made.walker is program(shape.walker, shape.word_size)
    assert (made.geometry, made.kernel, made.word_size) == (shape.parameters, shape.kernel, shape.word_size)
    assert 1 << made.page_shift == shape.page_size
    assert made.root == 0x4000


def test_one_program_serves_all_geometries_of_a_format() -> None:
    walkers = {shape.format: set[int]() for shape in ALL}
    for shape in ALL:
        walkers[shape.format].add(id(compiled(shape.walker, shape.word_size)))
    assert {len(found) for found in walkers.values()} == {1}


def test_rights_are_truth_values() -> None:
    """In a program they are numbers; the interpreter leaves a comparison's result what it is in Python."""
    for suite in SUITES.values():
        case = next(case for case in suite.forms() if case.expected is not None)
        result = found(case)
        assert isinstance(result, tuple)
        assert [type(right) for right in result] == [int, int, bool, bool, bool]


def test_import_compiles_nothing() -> None:
    code = (
        "import yamori.guest; from yamori.translation import format, formats; formats.formats();"
        "print(format.program.cache_info().misses + format.compiled.cache_info().misses)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"0"

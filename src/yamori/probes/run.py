"""Running a probe: rows out, and whether they are all there is."""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from yamori.address import GPA
from yamori.kernel.kernel import Kernel
from yamori.llview.engine import choose
from yamori.llview.faults import Code, FaultRecord, TroubleRecord
from yamori.llview.interpreter import Interpreter
from yamori.llview.ir import Program
from yamori.llview.language import Probe
from yamori.llview.machine import DEFAULT_BUDGET, Machine, Outcome
from yamori.llview.unit import Unit
from yamori.memory.physical import forget
from yamori.probes import ahead
from yamori.records import Result, Row, escape

R = TypeVar("R", bound=Row)

ATTEMPTS = 4
"""How often a run is repeated whose rows the guest changed while they were read. A hundred tasks take microseconds."""

LONGEST = 1.0
"""Seconds after which no further attempt is made."""

LONGEST_SLOW = 20.0
"""The same where memory comes over a slow line."""

BUDGET = DEFAULT_BUDGET

NANOSECONDS = 1_000_000_000


@cache
def unit_of(probe: Probe, word_size: int) -> Unit:
    """Return what a probe is compiled with: all built-in ones where it is one of them, else it alone.

    Raises:
        CompileError: It is not one of the language.
    """
    if is_built_in(probe) and (unit := ahead.built(word_size)):
        return unit
    return ahead.unit((probe,), word_size)


def compiled(probe: Probe, word_size: int) -> Program:
    """Return a probe's program, translated and verified.

    Raises:
        CompileError: It is not one of the language.
    """
    return next(program for program in unit_of(probe, word_size).probes if program.name == probe.name)


def is_built_in(probe: Probe) -> bool:
    """Say whether a probe belongs to Yamori itself."""
    return probe.function.__module__.startswith("yamori.probes.")


def run_probe(kernel: Kernel, probe: Probe, arguments: tuple[int, ...] = ()) -> Result[Any]:
    """Run a probe on a guest's kernel.

    A fault ends it; the rows so far are kept, and the result says that it was cut short and why.

    Args:
        kernel: The guest's kernel.
        probe: What to run.
        arguments: One number for each of its parameters behind the kernel.

    Raises:
        CompileError: The probe is not one of the language.
        ProfileError: It needs something that is not known of this kernel.
    """
    machine = kernel.machine
    program = compiled(probe, machine.word_size)
    slots = kernel.bind(program)
    chosen, machine, _ = choose(unit_of(probe, machine.word_size), program, machine, compiling=not is_built_in(probe))
    started = time.perf_counter()
    longest = LONGEST_SLOW if forget(kernel.memory) else LONGEST
    best = chosen.run(program, machine, slots, arguments, budget=BUDGET)
    for _ in range(ATTEMPTS - 1):
        if not best.torn or time.perf_counter() - started > longest:
            break
        forget(kernel.memory)
        again = chosen.run(program, machine, slots, arguments, budget=BUDGET)
        best = min(best, again, key=lambda outcome: (outcome.ended is not None, len(outcome.troubles)))
    if best.ended and best.ended.code == Code.GONE:
        kernel.memory.read(GPA(best.ended.address), best.ended.value)  # says in its own words what has gone
    rows = to_rows(probe.row, best)
    reasons = list(_reasons(program, machine, best))
    return Result(
        rows=rows,
        complete=not reasons,
        reasons=reasons,
        faults=best.faults,
        loads=best.loads,
        elapsed_s=time.perf_counter() - started,
        notes=[*kernel.profile.doubts],
    )


def engine_of(kernel: Kernel, probe: Probe) -> tuple[bool, str]:
    """Say whether native code runs a probe on a guest, and where it came from or why there is none."""
    machine = kernel.machine
    unit, program = unit_of(probe, machine.word_size), compiled(probe, machine.word_size)
    chosen = choose(unit, program, machine, compiling=not is_built_in(probe))
    return not isinstance(chosen.engine, Interpreter), chosen.why


def _reasons(program: Program, machine: Machine, outcome: Outcome) -> Iterator[str]:
    for trouble in outcome.troubles:
        yield _trouble(program, machine, trouble)
    if outcome.ended:
        yield fault_text(outcome.ended, program, machine)


def _trouble(program: Program, machine: Machine, trouble: TroubleRecord) -> str:
    text = program.messages[trouble.message]
    if trouble.value:
        text = f"{text}: {trouble.value:#x}"
    return f"{text}: {fault_text(trouble.fault, program, machine)}" if trouble.fault else text


def fault_text(fault: FaultRecord, program: Program, machine: Machine) -> str:
    """Say in words why a load, or a run, ended."""
    where, value = fault.address, fault.value
    match fault.code:
        case Code.MISALIGNED:
            return f"GVA {where:#x}: a load of {value} bytes is misaligned"
        case Code.SIZE:
            return f"GVA {where:#x}: a member of {value} bytes is not an integer"
        case Code.NOT_KERNEL:
            return f"GVA {where:#x} is not mapped: it is not an address of the kernel"
        case Code.UNMAPPED:
            return f"GVA {where:#x} is not mapped: {machine.walker.messages[fault.message]} ({value:#x})"
        case Code.OUTSIDE:
            return f"{value} bytes at GPA {where:#x} are outside the guest's RAM"
        case Code.INDEX:
            return f"the probe used element {where} of an array of {value}"
        case Code.PROGRAM:
            return f"{program.messages[fault.message]}: {value:#x}"
        case Code.BUDGET:
            return f"given up after {BUDGET:,} rounds of loops: there is too much to read, or no end of it"
        case Code.ROWS:
            return "given up: there are more rows than a run may give"
        case _:
            return f"the host no longer gives {value} bytes at GPA {where:#x}"


# --- rows


def to_rows(row: type[R], outcome: Outcome) -> list[R]:
    """Return what a program emitted as records: texts escaped, nanoseconds as seconds, characters as strings."""
    made = [convert(column) for convert, column in zip(_converters(row), outcome.columns, strict=True)]
    return list(map(row, *made)) if made else [row() for _ in range(outcome.count)]


@cache
def _converters(row: type[Row]) -> tuple[Callable[[Sequence[Any]], Iterable[Any]], ...]:
    hints = get_type_hints(row)
    return tuple(_converter(hints[name]) for name in row.__struct_fields__)


def _converter(hint: Any) -> Callable[[Sequence[Any]], Iterable[Any]]:
    options = get_args(hint) if isinstance(hint, types.UnionType) or get_origin(hint) is Union else (hint,)
    if str in options:
        return _texts
    if float in options:
        return lambda column: [None if value is None else value / NANOSECONDS for value in column]
    if bool in options:
        return lambda column: [None if value is None else value != 0 for value in column]
    return lambda column: column


def _texts(column: Sequence[Any]) -> list[str | None]:
    return list(map(_Escaped({None: None}).__getitem__, column))


class _Escaped(dict[Any, "str | None"]):
    """Text or character → text: guests have many processes of the same name."""

    def __missing__(self, value: bytes | int) -> str:
        text = self[value] = escape(value if isinstance(value, bytes) else bytes((value & 0xFF,)))
        return text

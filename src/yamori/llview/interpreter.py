"""The interpreter: programs as Python. It runs everywhere, and is what native code is compared to."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from threading import Lock
from typing import Any, Protocol

from yamori.address import GPA, GVA
from yamori.errors import TranslationFault
from yamori.llview.faults import Code, FaultRecord
from yamori.llview.ir import Program
from yamori.llview.machine import DEFAULT_BUDGET, Machine, Outcome, SlotFill
from yamori.llview.python_backend import compile_program, forget
from yamori.llview.runtime import Full, Gone, Run, Taken, refuse
from yamori.llview.unit import most_rows

WALK_BUDGET = 1 << 10
"""Ticks of a single walk outside of any run; page tables have five levels at most."""

MOST_PROGRAMS = 256
"""Programs that are kept compiled, the newest ones: a user at the prompt may make any number."""

_functions: dict[int, tuple[Program, Callable[..., Any]]] = {}
_texts: dict[int, tuple[Program, str]] = {}
_compiling = Lock()


class Loads(Protocol):
    """Aligned loads of guest physical memory; ``MemoryFault`` where there is none."""

    def u32(self, gpa: GPA) -> int:
        """Load an aligned ``u32``."""

    def u64(self, gpa: GPA) -> int:
        """Load an aligned ``u64``."""


class Interpreter:
    """Runs programs as Python; see ``Engine``. Any number of threads may use it at once."""

    def run(
        self,
        program: Program,
        machine: Machine,
        slots: list[SlotFill],
        arguments: tuple[int, ...] = (),
        *,
        budget: int = DEFAULT_BUDGET,
        trace: bool = False,
    ) -> Outcome:
        """Run a probe once, with an empty cache of translations.

        Args:
            program: Verified here, when it is first run; not to be changed afterwards.
            machine: The guest.
            slots: One for each of the program's slots.
            arguments: One for each of its parameters, cut to their types.
            budget: Ticks.
            trace: Record every load.

        Raises:
            VerifyError: The program, or the walker, may not run.
            ValueError: Slots, arguments or geometry are not as many as the programs ask for.
        """
        _check(program, slots, arguments, machine)
        function = _function(program)
        run = Run(machine, _function(machine.walker), slots, budget, most_rows(program), trace=trace)
        ended: FaultRecord | None = None
        try:
            function(run, *arguments)
        except (Taken, Gone):
            ended = run.last
        except StopIteration:  # of the counter of ticks
            ended = run.record(Code.BUDGET)
        except Full:
            ended = run.record(Code.ROWS)
        columns = [list(column) for column in zip(*run.rows, strict=True)] or [[] for _ in program.row]
        return Outcome(columns, len(run.rows), run.loads, run.faults, run.troubles, ended, run.events)


def walker(program: Program) -> Callable[..., tuple[int, ...]]:
    """Return a walker as a function ``(loads, root, gva, *parameters)``, which gives its results.

    ``loads`` is a ``Loads``; the parameters are numbers of 64 bits. The function raises ``TranslationFault`` where the
    address is not mapped, and whatever the loads raise.

    Raises:
        VerifyError: The program may not run.
    """
    function = _function(program)
    messages = tuple(program.messages)

    def walk(loads: Loads, root: int, gva: int, *parameters: int) -> tuple[int, ...]:
        try:
            result: tuple[int, ...] = function(
                loads.u32, loads.u64, repeat(None, WALK_BUDGET).__next__, refuse, root, gva, *parameters
            )
        except Taken as taken:
            why = taken.record
            raise TranslationFault(GVA(gva), f"{messages[why.message]} ({why.value:#x})") from None
        except StopIteration:
            raise TranslationFault(GVA(gva), "the walk does not end") from None
        return result

    return walk


def supply(program: Program, text: str) -> None:
    """Give the Python text of a program, which was verified and written ahead: it will only be compiled.

    Args:
        program: It is kept for good.
        text: As ``python_source`` wrote it.
    """
    _texts[id(program)] = program, text


def _function(program: Program) -> Callable[..., Any]:
    """Return a program's function, compiled once; a program is known by its identity, so it is kept with it."""
    known = _functions.get(id(program))
    if known is not None:
        return known[1]
    with _compiling:
        if id(program) not in _functions:
            _, text = _texts.get(id(program), (program, None))
            function = compile_program(program, text)
            while len(_functions) >= MOST_PROGRAMS:
                forget(_functions.pop(next(iter(_functions)))[1])
            _functions[id(program)] = program, function
        return _functions[id(program)][1]


def _check(program: Program, slots: list[SlotFill], arguments: tuple[int, ...], machine: Machine) -> None:
    if program.kind != "probe" or machine.walker.kind != "walker":
        raise ValueError(f"{program.name} on {machine.walker.name}: a probe runs, by a walker")
    for what, given, wanted in (
        ("slots", slots, program.slots),
        ("arguments", arguments, program.parameters),
        ("geometry", machine.geometry, machine.walker.parameters[2:]),
    ):
        if len(given) != len(wanted):
            raise ValueError(f"{program.name}: {len(wanted)} {what} are needed, not {len(given)}")

"""The interpreter: programs as Python. It runs everywhere, and says what native code has to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from yamori.address import GPA, GVA
from yamori.errors import TranslationFault
from yamori.llview.ir import Program
from yamori.llview.machine import DEFAULT_BUDGET, Machine, Outcome, SlotFill
from yamori.llview.python_backend import generate
from yamori.llview.runtime import End, Run, Stop

_WORD = (1 << 64) - 1


class Loads(Protocol):
    """Aligned loads of guest physical memory; ``MemoryFault`` where there is none."""

    def u32(self, gpa: GPA) -> int:
        """Load an aligned ``u32``."""

    def u64(self, gpa: GPA) -> int:
        """Load an aligned ``u64``."""


_functions: dict[int, tuple[Program, Callable[..., Any]]] = {}


def function_of(program: Program) -> Callable[..., Any]:
    """Return a program's function, compiled once.

    Raises:
        VerifyError: The program may not run.
    """
    known = _functions.get(id(program))
    if known is None:
        known = _functions[id(program)] = program, generate(program)[0]
    return known[1]


class Interpreter:
    """Runs programs as Python; see ``Engine``."""

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
        """Run a probe once, with an empty cache of translations."""
        run = Run(machine, function_of(machine.walker), slots, budget, trace=trace)
        plain = [(fill.exists, fill.offset & _WORD, fill.size & _WORD, fill.stride & _WORD) for fill in slots]
        try:
            function_of(program)(run, plain, arguments)
        except Stop:
            run.ended = run.last
        except End:
            pass
        return Outcome(run.rows, run.loads, run.faults, run.troubles, run.ended, run.events or [])


_no_tick = int
"""What costs the least to call: a single walk needs no budget, the levels bound it."""


def walker(program: Program) -> Callable[..., tuple[int, ...]]:
    """Return a walker as a function of ``(loads, root, gva, *parameters)``, which gives its results.

    It raises ``TranslationFault`` where the address is not mapped, and whatever the loads raise.
    """
    function = function_of(program)
    messages = program.messages

    def walk(loads: Loads, root: int, gva: int, *parameters: int) -> tuple[int, ...]:
        def stop(message: int, value: int) -> NoReturn:
            raise TranslationFault(GVA(gva), f"{messages[message]} ({value:#x})")

        result: tuple[int, ...] = function(loads.u32, loads.u64, stop, _no_tick, root, gva, *parameters)
        return result

    return walk

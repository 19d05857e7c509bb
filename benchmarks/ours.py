"""Our ways to read the rows of ``who.py``: interpreted, and compiled to a buffer, to tuples and to records."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.timing import Way
from benchmarks.who import who
from yamori.kernel.kernel import Kernel
from yamori.llview import native
from yamori.llview.engine import choose
from yamori.llview.interpreter import Interpreter
from yamori.llview.machine import DEFAULT_BUDGET, Outcome
from yamori.probes.run import run_probe, unit_of

BUFFER, TUPLES, RECORDS = "native, to a buffer", "native, to tuples", "native, to objects"
INTERPRETER = "interpreter"
ROOM = 100
"""Rows that a buffer can hold beyond those that are there."""


class Ours:
    """The probe of ``who.py`` on a guest's kernel.

    Args:
        kernel: The kernel.

    Attributes:
        unit: What the probe is compiled with.
        program: The probe.
        engine: Native code.
        machine: The guest as that knows it.
        outcome: Of a first run.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.unit = unit_of(who, kernel.machine.word_size)
        self.program = self.unit.probes[0]
        engine, self.machine, why = choose(self.unit, self.program, kernel.machine, compiling=True)
        assert isinstance(engine, native.Native), why
        self.engine = engine
        self.slots = kernel.bind(self.program)
        self.outcome = self.run()
        assert not self.outcome.ended
        assert not self.outcome.troubles

    def run(self) -> Outcome:
        """Run it natively, to tuples."""
        return self.engine.run(self.program, self.machine, self.slots)

    def interpret(self) -> Outcome:
        """Run it in the interpreter."""
        return Interpreter().run(self.program, self.kernel.machine, self.slots)

    def tuples(self) -> Way:
        """Return the way to tuples."""
        return Way(TUPLES, lambda: self.run().rows, lambda: list(self.run().rows))

    def interpreter(self) -> Way:
        """Return the slow way."""
        return Way(INTERPRETER, self.interpret, lambda: list(self.interpret().rows))

    def records(self) -> Way:
        """Return the way to Python objects, as every caller of the API has it."""
        return Way(RECORDS, lambda: run_probe(self.kernel, who), lambda: _fields(run_probe(self.kernel, who).rows))

    @contextmanager
    def buffer(self) -> Iterator[Way]:
        """Give the way to a buffer of rows: the call of the native function alone."""
        # What Native.run does before and behind the call is not to be timed, so its parts are used one by one.
        extents = native.readable(self.machine.memory) or ()
        entry = self.engine._entries[self.program.name]  # noqa: SLF001
        row = self.engine._layouts[self.program.name]  # noqa: SLF001
        with native._regions(extents) as regions:  # noqa: SLF001
            run = native._Run(  # noqa: SLF001
                self.machine,
                self.unit.walkers.index(self.machine.walker),
                regions,
                native.slot_words(self.slots),
                native.words([]),
            )
            context = ctypes.addressof(run.context)

            def prepare() -> None:
                run.prepare(row, len(self.outcome.rows) + ROOM, 0, DEFAULT_BUDGET)

            def rows() -> list[tuple[Any, ...]]:
                prepare()
                assert not entry(context)
                return list(run.outcome(self.program, ended=False).rows)

            yield Way(BUFFER, lambda: entry(context), rows, prepare)


def _fields(rows: list[Any]) -> list[tuple[Any, ...]]:
    return [(row.pid, row.tgid, row.comm, row.uid) for row in rows]

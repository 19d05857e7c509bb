"""Running a probe: rows out, and whether they are all there is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeVar

from yamori.errors import Fault
from yamori.kernel.kernel import Kernel
from yamori.records import Result, Row

R = TypeVar("R", bound=Row)

MOST_ROWS = 1 << 22  # PID_MAX_LIMIT: no probe of today can rightly give more


def run(kernel: Kernel, rows: Iterator[R]) -> Result[R]:
    """Collect the rows of a probe.

    A fault ends the probe; the rows so far are kept and the result says that it was cut short and why.
    """
    kernel.begin()
    started = time.perf_counter()
    collected: list[R] = []
    try:
        for row in rows:
            collected.append(row)
            if len(collected) >= MOST_ROWS:
                kernel.trouble(f"more than {MOST_ROWS} rows")
                break
    except Fault as fault:
        kernel.trouble(fault)
    elapsed = time.perf_counter() - started
    return Result(
        rows=collected,
        complete=not kernel.troubles,
        reasons=list(kernel.troubles),
        faults=kernel.space.faults,
        loads=kernel.space.loads,
        elapsed_s=elapsed,
        notes=[*kernel.profile.doubts, *kernel.notes],
    )

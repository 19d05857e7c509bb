"""What a program runs on, and what a run gives: the same for the interpreter and for native code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypeAlias

from yamori.llview.faults import FaultRecord, TroubleRecord
from yamori.llview.ir import Program
from yamori.memory.physical import PhysicalMemory

DEFAULT_BUDGET = 1 << 20
"""Ticks of one run, unless it is given others: a round of a loop each. Some hundred thousand tasks; what a hostile
guest can make of it takes the interpreter half a minute, native code a second."""

Event: TypeAlias = tuple[Literal["V", "P"], int, int]
"""A load: virtual or physical, address, size in bytes."""

Value: TypeAlias = int | bytes | None
"""A field of a row as programs emit it: an integer, a text with its NULs cut off, or nothing."""


class SlotFill(NamedTuple):
    """A slot, bound to a kernel; see ``yamori.kernel.types.Member``. ``offset`` of a symbol is its address."""

    exists: bool
    offset: int = 0
    size: int = 0
    signed: bool = False
    shift: int = 0
    bits: int = 0
    stride: int = 0


@dataclass(frozen=True)
class Machine:
    """A guest as programs see it.

    Attributes:
        memory: Its RAM.
        walker: The verified walker of its page-table format.
        geometry: The walker's parameters behind ``root`` and ``gva``.
        root: GPA of the kernel's own table.
        page_shift: log2 of the smallest page.
        kernel: First and last GVA of the kernel's part of the address space.
        word_size: 4 or 8.
    """

    memory: PhysicalMemory
    walker: Program
    geometry: tuple[int, ...]
    root: int
    page_shift: int
    kernel: tuple[int, int]
    word_size: int


@dataclass
class Outcome:
    """What one run gave.

    Attributes:
        columns: The values of each of the program's fields, as many as there are rows.
        count: Rows.
        loads: Loads of guest memory by virtual address.
        faults: Faults met, those taken by an ``Attempt`` too.
        troubles: What the program said is not complete.
        ended: The fault that ended it, ``None`` where it ran to its end.
        events: All loads, where the run was traced.
    """

    columns: list[list[Value]]
    count: int
    loads: int = 0
    faults: int = 0
    troubles: list[TroubleRecord] = field(default_factory=list)
    ended: FaultRecord | None = None
    events: list[Event] = field(default_factory=list)

    @property
    def rows(self) -> list[tuple[Value, ...]]:
        """The rows, one tuple each, in the order of the program's fields."""
        return list(zip(*self.columns, strict=True)) if self.columns else [()] * self.count

    @property
    def torn(self) -> bool:
        """Whether the guest changed what was read meanwhile."""
        return any(trouble.torn for trouble in self.troubles)


class Engine(Protocol):
    """A way to run programs: the interpreter, or native code."""

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
            program: Verified.
            machine: The guest.
            slots: One for each of the program's slots.
            arguments: One for each of its parameters.
            budget: Ticks.
            trace: Record every load.
        """

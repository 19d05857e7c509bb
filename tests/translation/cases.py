"""A walk and what it must give, as the tests' own builders of tables know it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from yamori.address import GPA, GVA
from yamori.errors import Fault, TranslationFault
from yamori.memory.physical import BytesMemory
from yamori.translation.format import Geometry, Loads
from yamori.translation.loads import PhysicalLoads

MOST_LOADS = 16
"""More than any walk needs: a mutant may go round in circles."""

Walk = Callable[..., tuple[int, ...]]
"""A compiled walker: ``(loads, root, gva, *parameters)`` to its results."""


class Case(NamedTuple):
    """One address of one guest.

    Attributes:
        shape: How its tables are set up.
        memory: Its RAM.
        root: GPA of the table.
        gva: The address.
        expected: GPA, page size, writable, executable, user; ``None`` where the address is not mapped.
    """

    shape: Geometry
    memory: BytesMemory
    root: int
    gva: int
    expected: tuple[int, int, bool, bool, bool] | None


class Endless(Exception):
    """A walk that does not end."""


class BoundedLoads(PhysicalLoads):
    """Physical loads, a few of them."""

    def __init__(self, memory: BytesMemory) -> None:
        super().__init__(memory)
        self.left = MOST_LOADS

    def u32(self, gpa: GPA) -> int:
        self.spend()
        return super().u32(gpa)

    def u64(self, gpa: GPA) -> int:
        self.spend()
        return super().u64(gpa)

    def spend(self) -> None:
        if not self.left:
            raise Endless
        self.left -= 1


def edges(bits: int) -> set[int]:
    """Return the first and last addresses of the halves of ``bits - 1`` bits, and their neighbours outside."""
    half = 1 << bits - 1
    return {0, half - 1, half, (1 << 64) - half - 1, (1 << 64) - half, (1 << 64) - 1}


def outcome(case: Case, walk: Callable[[Loads], tuple[int, ...]]) -> object:
    """Return what a walk gives, in the form of ``Case.expected``; any other end is told by its exception's class."""
    try:
        return tuple(walk(BoundedLoads(case.memory)))
    except TranslationFault:
        return None
    except (Fault, Endless) as error:
        return type(error)


def found(case: Case) -> object:
    """Return what the case's geometry gives."""
    return outcome(case, lambda loads: case.shape.walk(loads, GPA(case.root), GVA(case.gva)))


def found_by(case: Case, walk: Walk) -> object:
    """Return what another walker gives in place of the geometry's."""
    return outcome(case, lambda loads: walk(loads, case.root, case.gva, *case.shape.parameters))

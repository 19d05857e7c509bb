"""A guest as the programs of LLView see it."""

from __future__ import annotations

from functools import cache

from yamori.address import GPA
from yamori.llview.ir import Program
from yamori.llview.machine import Machine
from yamori.memory.physical import PhysicalMemory
from yamori.translation.format import Geometry, program
from yamori.translation.formats import geometries


def machine(memory: PhysicalMemory, geometry: Geometry, root: GPA) -> Machine:
    """Return what a run needs to know of a guest.

    Args:
        memory: Its RAM.
        geometry: How its page tables are set up.
        root: GPA of the kernel's own table.
    """
    return Machine(
        memory=memory,
        walker=program(geometry.walker, geometry.word_size),
        geometry=geometry.parameters,
        root=root,
        page_shift=geometry.page_size.bit_length() - 1,
        kernel=geometry.kernel,
        word_size=geometry.word_size,
    )


@cache
def walkers(word_size: int) -> tuple[Program, ...]:
    """Return the walkers that guests of a word size may need."""
    found = dict.fromkeys(geometry.walker for geometry in geometries(word_size))
    return tuple(program(walker, word_size) for walker in found)

"""What a probe of the user's is compiled with: every walker of its guests' word size, so that one object serves all."""

from __future__ import annotations

from yamori.llview.c_backend import Unit
from yamori.llview.ir import Program
from yamori.translation.format import program as program_of
from yamori.translation.formats import geometries


def unit_of(program: Program) -> Unit:
    """Return the unit of a probe's translated program; its text, and so its object's name, is the same everywhere."""
    walkers = dict.fromkeys(geometry.walker for geometry in geometries(program.word_size))
    return Unit(program.name, (program,), tuple(map(program_of, walkers)))

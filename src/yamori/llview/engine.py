"""Which engine runs a program: native code where there is some, else the interpreter."""

from __future__ import annotations

from typing import NamedTuple

from yamori.llview.interpreter import Interpreter
from yamori.llview.ir import Program
from yamori.llview.machine import Engine, Machine

_INTERPRETER = Interpreter()
_found: dict[tuple[int, ...], tuple[Choice, tuple[Program, ...]]] = {}


class Choice(NamedTuple):
    """An engine.

    Attributes:
        engine: What runs the program.
        why: Where native code came from, or why there is none, in words for users.
    """

    engine: Engine
    why: str


def choose(program: Program, machine: Machine, walkers: tuple[Program, ...]) -> Choice:
    """Return the fastest engine that can run a program on a guest.

    Args:
        program: The probe.
        machine: The guest.
        walkers: Those that the probe's object has; the guest's is one of them.
    """
    from yamori.llview.native import host_extents  # noqa: PLC0415  the interpreter needs no ctypes

    if host_extents(machine.memory) is None:
        return Choice(_INTERPRETER, "this memory can only be read by Python")
    names = (id(program), *map(id, walkers))
    if names not in _found:
        _found[names] = _native(program, walkers), (program, *walkers)  # kept, so that their ids stay theirs
    return _found[names][0]


def _native(program: Program, walkers: tuple[Program, ...]) -> Choice:
    from yamori.llview import objects  # noqa: PLC0415  as above
    from yamori.llview.c_backend import Unit, c_source  # noqa: PLC0415
    from yamori.llview.native import Native, NativeError  # noqa: PLC0415

    unit = Unit(program.name, (program,), walkers)
    with objects.find(c_source(unit)) as found:
        if found.path is None:
            return Choice(_INTERPRETER, found.why)
        try:
            return Choice(Native(unit, found.path), found.why)
        except NativeError as error:
            return Choice(_INTERPRETER, str(error))

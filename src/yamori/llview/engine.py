"""Which engine runs a program: native code where there is some, else the interpreter."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from yamori.llview.interpreter import Interpreter
from yamori.llview.ir import Program
from yamori.llview.machine import Engine, Machine
from yamori.llview.unit import Unit

_INTERPRETER = Interpreter()


class Choice(NamedTuple):
    """An engine.

    Attributes:
        engine: What runs the program.
        machine: The guest, as that engine knows it.
        why: Where native code came from, or why there is none, in words for users.
    """

    engine: Engine
    machine: Machine
    why: str


_found: dict[int, tuple[Unit, Engine | None, str]] = {}


def choose(unit: Unit, program: Program, machine: Machine, *, compiling: bool) -> Choice:
    """Return the fastest engine that can run a program on a guest.

    Args:
        unit: What the program is compiled with.
        program: The probe.
        machine: The guest.
        compiling: Whether to wait for a compiler where no object is at hand.
    """
    from yamori.llview.native import readable  # noqa: PLC0415  the interpreter needs no ctypes

    if readable(machine.memory) is None:
        return Choice(_INTERPRETER, machine, "this memory can only be read by Python")
    if id(unit) not in _found:
        engine, why = _native(unit, compiling=compiling)
        _found[id(unit)] = unit, engine, why  # the unit is kept, so that its id stays its own
    _, engine, why = _found[id(unit)]
    if engine is None or program not in unit.probes:
        return Choice(_INTERPRETER, machine, why)
    walker = next((walker for walker in unit.walkers if walker.name == machine.walker.name), machine.walker)
    return Choice(engine, replace(machine, walker=walker), why)


def _text(unit: Unit) -> str:
    from yamori.llview.c_backend import c_source  # noqa: PLC0415  what was built ahead needs no C

    return c_source(unit)


def _native(unit: Unit, *, compiling: bool) -> tuple[Engine | None, str]:
    from yamori.llview import objects  # noqa: PLC0415  as above
    from yamori.llview.native import Native, NativeError  # noqa: PLC0415

    text = "" if unit.object else _text(unit)
    why = ""
    for _ in range(2):
        with objects.find(text, name=unit.object, compiling=compiling) as found:
            if found.path is None:
                return None, why or found.why
            try:
                return Native(unit, found.path), found.why
            except NativeError as error:
                why = str(error)
                if found.why != "cache":
                    break
                found.path.unlink(missing_ok=True)  # cut short, perhaps: it is made anew
    return None, why

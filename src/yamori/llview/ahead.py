"""What was compiled ahead: the built-in probes and the walkers, beside the modules that they were made of.

They serve as long as they are of the very sources that are at hand: the file's name has their hash.
``yamori.probes.ahead`` builds them.
"""

from __future__ import annotations

import hashlib
import pickle
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import cast

from yamori.llview import interpreter
from yamori.llview.unit import Unit

ROOMS = ("", "llview", "llview.structures", "translation", "probes")
"""The rooms whose sources decide what is built; the first is the package's own folder, with the rows."""


@cache
def built(word_size: int) -> Unit | None:
    """Return the unit that was built for guests of a word size, ``None`` where there is none of these sources.

    The interpreter is given the text of its programs.
    """
    stored = folder() / file_name(word_size)
    if not stored.is_file():
        return None
    unit = loaded(stored.read_bytes())
    for program in (*unit.probes, *unit.walkers):
        interpreter.supply(program, unit.texts[program.name])
    return unit


class _Pickler(pickle.Pickler):
    """Writes the files of the package by where they lie in it: it is not installed where it was built."""

    def persistent_id(self, value: object) -> str | None:
        inside = isinstance(value, str) and value.startswith(_package())
        return str(value)[len(_package()) :] if inside else None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, inside: str) -> str:
        return _package() + inside


@cache
def _package() -> str:
    return str(Path(__file__).parents[1])


def dumped(unit: Unit) -> bytes:
    """Return a unit as ``loaded`` reads it."""
    stream = BytesIO()
    _Pickler(stream).dump(unit)
    return stream.getvalue()


def loaded(data: bytes) -> Unit:
    """Return a unit. Its bytes must be as trustworthy as the package's own modules: they lie beside them."""
    return cast("Unit", _Unpickler(BytesIO(data)).load())


def folder() -> Path:
    """Return where it lies."""
    return Path(_package(), "llview", "built")


def file_name(word_size: int) -> str:
    """Return the name of the file of a word size."""
    return f"{sources()}-{word_size * 8}.pickle"


@cache
def sources() -> str:
    """Return a hash of all that decides what is built."""
    digest = hashlib.sha256()
    for room in ROOMS:
        place = Path(_package(), *filter(None, room.split(".")))
        for entry in sorted(place.iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith((".py", ".h", ".c")):
                digest.update(entry.name.encode() + b"\0" + entry.read_bytes())
    return digest.hexdigest()[:32]

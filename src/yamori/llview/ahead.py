"""What was compiled ahead: the built-in probes and the walkers, beside the modules that they were made of.

They serve as long as they are of the very sources that are at hand: the file's name has their hash.
``yamori.probes.ahead`` builds them.
"""

from __future__ import annotations

import hashlib
import pickle
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import cast

from yamori.llview import interpreter
from yamori.llview.unit import Unit

ROOMS = ("llview", "llview.structures", "translation", "probes")
"""The rooms whose sources decide what is built."""


@cache
def built(word_size: int) -> Unit | None:
    """Return the unit that was built for guests of a word size, ``None`` where there is none of these sources.

    The interpreter is given the text of its programs.
    """
    stored = folder() / file_name(word_size)
    if not stored.is_file():
        return None
    # As trustworthy as the package's own modules, beside which it lies.
    unit = cast("Unit", pickle.loads(stored.read_bytes()))  # noqa: S301
    for program in (*unit.probes, *unit.walkers):
        interpreter.supply(program, unit.texts[program.name])
    return unit


def folder() -> Path:
    """Return where it lies."""
    return Path(str(files("yamori.llview").joinpath("built")))


def file_name(word_size: int) -> str:
    """Return the name of the file of a word size."""
    return f"{sources()}-{word_size * 8}.pickle"


@cache
def sources() -> str:
    """Return a hash of all that decides what is built."""
    digest = hashlib.sha256()
    for room in ROOMS:
        place = files("yamori").joinpath(*room.split("."))
        for entry in sorted(place.iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith((".py", ".h", ".c")):
                digest.update(entry.name.encode() + b"\0" + entry.read_bytes())
    return digest.hexdigest()[:32]

"""The built-in probes, compiled ahead: objects for the machines that Yamori runs on, and their programs.

``python -m yamori.probes.ahead`` builds them into the package, for this machine or, with ``--all``, for every machine
whose cross compiler is there; the wheel is built so. A gateway then needs no compiler, and attaching never waits for
one. What was built from other sources than those at hand is not used.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import sys
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import cast

from yamori.errors import YamoriError
from yamori.llview import objects
from yamori.llview.language import Probe
from yamori.llview.unit import Unit
from yamori.translation.machine import walkers

MODULES = ("plist", "syscall")
"""The modules of this room that hold probes."""
ROOMS = ("llview", "llview.structures", "translation", "probes")
"""The rooms whose sources decide what is built."""
WORD_SIZES = (4, 8)


def probes() -> tuple[Probe, ...]:
    """Return the built-in probes."""
    modules = [import_module(f"yamori.probes.{name}") for name in MODULES]
    return tuple(value for module in modules for value in vars(module).values() if isinstance(value, Probe))


@cache
def built(word_size: int) -> Unit | None:
    """Return the unit that was built for guests of a word size, ``None`` where there is none of these sources."""
    stored = _folder() / _name(word_size)
    if not stored.is_file():
        return None
    # As trustworthy as the package's own modules, beside which it lies.
    return cast("Unit", pickle.loads(stored.read_bytes()))  # noqa: S301


def unit(chosen: tuple[Probe, ...], word_size: int) -> Unit:
    """Compile probes for guests of a word size, with the walkers that such guests need.

    Raises:
        CompileError: One is not of the language.
    """
    from yamori.llview.frontend import compile_probe  # noqa: PLC0415  what was built ahead is not compiled
    from yamori.llview.translate import translate  # noqa: PLC0415
    from yamori.llview.verify import verify  # noqa: PLC0415

    programs = tuple(verify(translate(compile_probe(probe, word_size))) for probe in chosen)
    return Unit(f"{'_'.join(program.name for program in programs)}_{word_size * 8}", programs, walkers(word_size))


def _name(word_size: int) -> str:
    return f"{_sources()}-{word_size * 8}.pickle"


@cache
def _sources() -> str:
    """Return a hash of all that decides what is built."""
    digest = hashlib.sha256()
    for room in ROOMS:
        folder = files("yamori").joinpath(*room.split("."))
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith((".py", ".h", ".c")):
                digest.update(entry.name.encode() + b"\0" + entry.read_bytes())
    return digest.hexdigest()[:32]


def build(folder: Path, targets: list[objects.Target | None]) -> None:
    """Build the objects and the programs into a folder, and remove what is there of older sources."""
    from yamori.llview.c_backend import c_source  # noqa: PLC0415  as above

    machines = [target.name if target else objects.this_machine() for target in targets]
    if all(_is_built(folder, word_size, machines) for word_size in WORD_SIZES):
        return
    folder.mkdir(parents=True, exist_ok=True)
    wanted: set[str] = set()
    for word_size in WORD_SIZES:
        made = unit(probes(), word_size)
        text = c_source(made)
        for target in targets:
            machine = target.name if target else objects.this_machine()
            path = folder / machine / f"{objects.key(text)}.so"
            path.parent.mkdir(exist_ok=True)
            if not path.is_file():
                objects.build(text, path, target)
            wanted.add(path.name)
        whole = folder / f".{_name(word_size)}"
        whole.write_bytes(pickle.dumps(replace(made, object=objects.key(text))))
        whole.replace(folder / _name(word_size))  # nobody reads half of it, whenever this is interrupted
        wanted.add(_name(word_size))
    for old in folder.rglob("*"):
        if old.is_file() and old.name not in wanted:
            old.unlink()


def _is_built(folder: Path, word_size: int, machines: list[str]) -> bool:
    made = built(word_size) if folder == _folder() else None
    return made is not None and all((folder / machine / f"{made.object}.so").is_file() for machine in machines)


def _folder() -> Path:
    return Path(str(files("yamori.llview").joinpath("built")))


def main() -> None:
    """Build for this machine, or for all."""
    parser = argparse.ArgumentParser(prog="python -m yamori.probes.ahead", description=__doc__)
    parser.add_argument("--all", action="store_true", help="for every machine whose compiler is installed")
    parser.add_argument("--into", type=Path, default=_folder())
    options = parser.parse_args()
    targets: list[objects.Target | None] = [None]
    if options.all:
        targets = [target for target in objects.TARGETS.values() if objects.has_compiler(target)]
    try:
        build(options.into, targets)
    except YamoriError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

"""The built-in probes, compiled ahead: objects for the machines that Yamori runs on, and their programs.

``python -m yamori.probes.ahead`` builds them into the package, for this machine or, with ``--all``, for every machine
whose cross compiler is there; the wheel is built so. A gateway then needs no compiler, and attaching never waits for
one. What was built from other sources than those at hand is not used.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from yamori.errors import YamoriError
from yamori.llview import ahead, objects
from yamori.llview.ahead import built
from yamori.llview.language import Probe
from yamori.llview.unit import Unit
from yamori.translation.machine import walkers

__all__ = ["MODULES", "WORD_SIZES", "build", "built", "probes", "unit"]

MODULES = (
    "bpf", "carving", "files", "maps", "modules", "mounts", "paths", "pids", "plist", "pointers", "programs",
    "sockets", "syscall",
)  # fmt: skip
"""The modules of this room that hold probes."""
WORD_SIZES = (4, 8)
_OURS = re.compile(r"[0-9a-f]{32}(-32|-64)?\.(pickle|so)")


def probes() -> tuple[Probe, ...]:
    """Return the built-in probes."""
    modules = [import_module(f"yamori.probes.{name}") for name in MODULES]
    return tuple(value for module in modules for value in vars(module).values() if isinstance(value, Probe))


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


def build(folder: Path, targets: list[objects.Target | None]) -> None:
    """Build the objects and the programs into a folder, and remove what is there of older sources."""
    from yamori.llview.c_backend import c_source  # noqa: PLC0415  as above
    from yamori.llview.python_backend import python_source  # noqa: PLC0415

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
        texts = {program.name: python_source(program) for program in (*made.probes, *made.walkers)}
        name = ahead.file_name(word_size)
        whole = folder / f".{name}"
        whole.write_bytes(ahead.dumped(replace(made, object=objects.key(text), texts=texts)))
        whole.replace(folder / name)  # nobody reads half of it, whenever this is interrupted
        wanted.add(name)
    for old in (*folder.glob("*.pickle"), *(path for name in objects.TARGETS for path in folder.glob(f"{name}/*.so"))):
        if old.name not in wanted and _OURS.fullmatch(old.name):
            old.unlink()


def _is_built(folder: Path, word_size: int, machines: list[str]) -> bool:
    made = built(word_size) if folder == ahead.folder() else None
    return made is not None and all((folder / machine / f"{made.object}.so").is_file() for machine in machines)


def main() -> None:
    """Build for this machine, or for all."""
    import argparse  # noqa: PLC0415  whoever runs a probe builds none

    parser = argparse.ArgumentParser(prog="python -m yamori.probes.ahead", description=__doc__)
    parser.add_argument("--all", action="store_true", help="for every machine whose compiler is installed")
    parser.add_argument("--into", type=Path, default=ahead.folder())
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

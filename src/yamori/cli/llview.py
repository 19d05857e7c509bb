"""``yamori llview``: check a probe, explain what the compiler makes of it, build it for another machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yamori.cli import output
from yamori.cli.explained import Explained
from yamori.cli.output import AsJson, NoCache, RamBase, SystemMap, Vmlinux, safe
from yamori.records import SCHEMA

if TYPE_CHECKING:
    from yamori.llview.diagnostics import CompileError
    from yamori.llview.ir import Program
    from yamori.llview.language import Probe

app = typer.Typer(
    name="llview",
    help="Probes of your own: check them, see what they become, build them for another machine.",
    epilog="Examples: yamori llview check my.py, yamori llview explain plist lab:armv7",
    no_args_is_help=True,
)

WORD_SIZES = (4, 8)
MACHINES = ("x86_64", "aarch64", "armv7l", "riscv64")


def complete_probe(incomplete: str) -> list[str]:
    """Return the probes, and the files of Python, that a word may become."""
    from yamori import probes  # noqa: PLC0415  only the shell's completion needs them
    from yamori.llview import registry  # noqa: PLC0415

    names = [*registry.in_package(probes), *registry.names_of_others()]
    directory, slash, _ = incomplete.rpartition("/")
    paths = Path(directory or slash).glob("*")
    files = [f"{path}/" if path.is_dir() else str(path) for path in sorted(paths) if _is_python(path)]
    return [name for name in [*names, *files] if name.startswith(incomplete)]


def _is_python(path: Path) -> bool:
    return path.suffix == ".py" or (path.is_dir() and not path.name.startswith("."))


def find_probe(name: str) -> Probe:
    """Return the probe of a name, of ``FILE`` or ``FILE:NAME``."""
    from yamori import probes  # noqa: PLC0415  `yamori --help` need not wait for them
    from yamori.llview import registry  # noqa: PLC0415

    return registry.find(name, probes)


def given_for(probe: Probe, given: Sequence[tuple[str, int]]) -> tuple[int, ...]:
    """Return a probe's arguments in its order.

    Raises:
        typer.BadParameter: One is missing, not known, given twice, or does not fit.
        CompileError: It is not one of the language.
    """
    parameters = compiled(probe, 8)[0].parameters
    names = [local.name for local in parameters]
    values = dict(given)
    if unknown := [name for name in values if name not in names]:
        raise typer.BadParameter(f"{probe.name} has no parameter {unknown[0]!r}; it has {', '.join(names) or 'none'}")
    if len(values) < len(given):
        raise typer.BadParameter("an argument is given twice")
    arguments = []
    for local in parameters:
        value = values.get(local.name, probe.default(local.name))
        if value is None:
            raise typer.BadParameter(f"{probe.name} needs {local.name}, {local.type.one}: -a {local.name}=NUMBER")
        if local.type.wrap(value) != value:
            raise typer.BadParameter(f"{local.name}={value} does not fit into {local.type.one}")
        arguments.append(value)
    return tuple(arguments)


ProbeName = Annotated[
    str,
    typer.Argument(
        metavar="PROBE",
        help="FILE, FILE:NAME, or the name of a probe.",
        autocompletion=complete_probe,
        show_default=False,
    ),
]
ProbeFile = Annotated[
    str, typer.Argument(metavar="FILE", help="FILE, FILE:NAME, or a probe's name. A file is imported, which runs it.")
]
OptionalTarget = Annotated[
    str | None,
    typer.Argument(metavar="[TARGET]", help="A guest to run it on, see `yamori targets`.", show_default=False),
]


@contextmanager
def compiling() -> Iterator[None]:
    """Show a probe that is refused with its line and a caret, and end with an error."""
    from yamori.llview.diagnostics import CompileError  # noqa: PLC0415  `yamori --help` need not wait for it

    try:
        yield
    except CompileError as error:
        sys.stdout.flush()
        sys.stderr.write(f"{safe(str(error))}\n{_picture(error)}\n")
        raise typer.Exit(output.ERROR) from None


def _picture(error: CompileError) -> str:
    return "\n".join(safe(line.expandtabs(4)) for line in error.picture().split("\n"))


@app.command(epilog="Examples: yamori llview check my.py, yamori llview check my.py:sockets --json")
def check(file: ProbeFile, *, as_json: AsJson = False) -> None:
    """Check the probes of a file without a guest, and list what each needs to be known of a kernel.

    A mistake is one message with its line, and exit code 2; with --json it is in "errors".
    """
    from yamori import probes  # noqa: PLC0415
    from yamori.errors import YamoriError  # noqa: PLC0415  `yamori --help` need not wait for them
    from yamori.llview import registry  # noqa: PLC0415
    from yamori.llview.diagnostics import CompileError  # noqa: PLC0415

    rows: list[dict[str, Any]] = []
    try:
        for probe in registry.load(file, probes):
            rows.append(_needs(probe))
            if not as_json:
                _print_needs(rows[-1])
    except YamoriError as error:
        if as_json:
            output.print_json({**_checked(rows), "errors": [_plain(error)]})
        elif isinstance(error, CompileError):
            with compiling():
                raise
        else:
            raise
        raise typer.Exit(output.ERROR) from None
    if as_json:
        output.print_json({**_checked(rows), "errors": []})


def _checked(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"schema": SCHEMA, "command": "llview check", "rows": rows}


def _plain(error: Exception) -> dict[str, Any]:
    """Return an error as ``--json`` shows it; line and column are 0 where there are none."""
    return {
        "file": getattr(error, "file", "") or getattr(error, "where", ""),
        "line": getattr(error, "line", 0),
        "column": getattr(error, "column", 0),
        "message": getattr(error, "message", str(error)),
        "hint": getattr(error, "hint", ""),
    }


def _needs(probe: Probe) -> dict[str, Any]:
    """Compile a probe for guests of both word sizes, and return what it is and needs."""
    programs = [compiled(probe, word_size)[1] for word_size in WORD_SIZES]
    slots = {str(spec): spec for program in programs for spec in program.slots}
    return {
        "probe": probe.name,
        "fields": [field.name for field in programs[0].row],
        "needs": [{"kind": spec.kind, "name": name, "optional": spec.optional} for name, spec in slots.items()],
    }


def _print_needs(row: dict[str, Any]) -> None:
    needs = [f"{_KINDS[need['kind']]}{need['name']}{'?' if need['optional'] else ''}" for need in row["needs"]]
    mark = " (?: optional)" if any(need["optional"] for need in row["needs"]) else ""
    sys.stdout.write(f"{safe(row['probe'])}: fine; needs {', '.join(needs) or 'nothing'}{mark}\n")


_KINDS = {"member": "", "symbol": "symbol ", "sizeof": "size of "}


def compiled(probe: Probe, word_size: int) -> tuple[Program, Program]:
    """Return a probe's program as the front end gives it, and translated and verified.

    Raises:
        CompileError: It is not one of the language.
    """
    import copy  # noqa: PLC0415  `yamori --help` need not wait for them

    from yamori.llview.frontend import compile_probe  # noqa: PLC0415
    from yamori.llview.translate import translate  # noqa: PLC0415
    from yamori.llview.verify import verify  # noqa: PLC0415

    program = compile_probe(probe, word_size)
    return program, verify(translate(copy.deepcopy(program)))


@app.command(epilog="Examples: yamori llview explain plist lab:armv7, yamori llview explain my.py --ir")
def explain(
    probe: ProbeName,
    target: OptionalTarget = None,
    *,
    ir: Annotated[bool, typer.Option("--ir", help="Print the intermediate representation after the pass.")] = False,
    c: Annotated[bool, typer.Option("--c", help="Print the C that it becomes.")] = False,
    bits: Annotated[int, typer.Option(help="32 or 64: the guest's word, where there is no TARGET.")] = 64,
    vmlinux: Vmlinux = None,
    symbols: SystemMap = None,
    ram_base: RamBase = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Show a probe's source, below each line its loads of guest memory and the translation put before each.

    With a TARGET also where its members lie there, and what a run loads.
    """
    if bits // 8 not in WORD_SIZES or bits % 8:
        raise typer.BadParameter(f"--bits {bits}: guests have 32 or 64")
    found = find_probe(probe)
    with compiling():
        if target is None:
            explained = Explained(found.name, *compiled(found, bits // 8))
        else:
            with output.opened(target, vmlinux, symbols, ram_base, cache=not no_cache) as guest:
                both = compiled(found, guest.kernel.machine.word_size)
                explained = Explained(found.name, *both, guest)
        if as_json:
            output.print_json(explained.json(ir=ir, c=c))
        elif ir or c:
            sys.stdout.write((explained.ir() if ir else "") + (explained.c() if c else ""))
        else:
            explained.print()


def _machine(name: str) -> str:
    if name not in MACHINES:
        raise typer.BadParameter(f"{name!r} is no machine; there are {', '.join(MACHINES)}")
    return name


@app.command(epilog="Example: yamori llview build --arch armv7l my.py -o objects/")
def build(
    file: ProbeFile,
    *,
    arch: Annotated[
        str, typer.Option(parser=_machine, metavar="|".join(MACHINES), help="The machine that will run it.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where the objects go.")] = Path(),
) -> None:
    """Compile the probes of a file for another machine, with its cross compiler.

    One object each for guests of 32 and of 64 bits, in a folder named as the machine. There that folder belongs into
    ~/.cache/yamori/llview, where `yamori ids run` finds its files by their names.
    """
    from yamori import probes  # noqa: PLC0415  `yamori --help` need not wait for them
    from yamori.llview import objects, registry  # noqa: PLC0415
    from yamori.llview.c_backend import c_source  # noqa: PLC0415
    from yamori.llview.unit import Unit  # noqa: PLC0415
    from yamori.translation.machine import walkers  # noqa: PLC0415

    out.mkdir(parents=True, exist_ok=True)
    with compiling():
        for probe in registry.load(file, probes):
            for word_size in WORD_SIZES:
                program = compiled(probe, word_size)[1]
                text = c_source(Unit(program.name, (program,), walkers(word_size)))
                path = out / arch / f"{objects.key(text)}.so"
                path.parent.mkdir(exist_ok=True)
                objects.build(text, path, objects.TARGETS[arch])
                sys.stdout.write(f"{safe(str(path))}: {probe.name}, guests of {word_size * 8} bits, for {arch}\n")

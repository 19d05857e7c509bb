"""``yamori ids``: what runs in the guest, read from outside. Each command also works without ``ids``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yamori.cli import listings, output
from yamori.cli.llview import ProbeName, compiling, find_probe, given_for
from yamori.cli.output import AsJson, NoCache, RamBase, SystemMap, Target, Vmlinux, safe
from yamori.cli.tables import rows_table
from yamori.cli.tree import draw
from yamori.records import Process, Program, Result, SystemCall

if TYPE_CHECKING:
    from yamori.detectors.known_trouble import KnownTrouble, Trouble
    from yamori.records import Banner

app = typer.Typer(
    name="ids",
    help="Look into a guest: what it runs, its system calls, its processes.",
    epilog="Examples: yamori ids plist lab:armv7, yamori ids banner qemu:gateway",
    no_args_is_help=True,
)

TABLES = ("native", "compat", "x32")


def _table(name: str) -> str:
    if name not in TABLES:
        raise typer.BadParameter(f"{name!r} is no table; there are {', '.join(TABLES)}")
    return name


@app.command(epilog="Examples: yamori banner lab:armv7, yamori banner qemu:gateway --advisories osv/ --json")
def banner(
    target: Target = None,
    *,
    advisories: Annotated[
        Path | None, typer.Option(metavar="DIR", help="OSV and OpenVEX files to compare with.")
    ] = None,
    vmlinux: Vmlinux = None,
    symbols: SystemMap = None,
    ram_base: RamBase = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Say which kernel runs, and what is known to be wrong with its version."""
    with output.opened(target, vmlinux, symbols, ram_base, cache=not no_cache) as guest:
        result, trouble = guest.banner(), guest.known_trouble(advisories)
        if as_json:
            output.print_json(output.envelope("banner", guest, result, known_trouble=trouble))
        else:
            for row in result:
                _print_banner(row)
            _print_trouble(trouble)
    raise typer.Exit(output.conclude(result))


@app.command(epilog="Examples: yamori syscall lab:arm64, yamori syscall lab:arm64 --table compat --json")
def syscall(
    target: Target = None,
    *,
    table: Annotated[str, typer.Option(parser=_table, metavar="|".join(TABLES), help="Which table.")] = "native",
    vmlinux: Vmlinux = None,
    symbols: SystemMap = None,
    ram_base: RamBase = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """List the system-call table: number, address, symbol, and whether it lies in the kernel's text."""
    with output.opened(target, vmlinux, symbols, ram_base, cache=not no_cache) as guest:
        result = guest.syscall(table)
        if as_json:
            output.print_json(output.envelope("syscall", guest, result))
        else:
            headings = {"nr": "right", "address": "right", "symbol": "left", "text": "left"}
            output.print_table(headings, map(_syscall_cells, result))
    raise typer.Exit(output.conclude(result))


@app.command(
    epilog="Examples: yamori plist lab:armv7 --tree, yamori plist lab:arm64 --wide, yamori plist --threads --json"
)
def plist(
    target: Target = None,
    *,
    threads: Annotated[bool, typer.Option("--threads", help="Show every thread.")] = False,
    tree: Annotated[bool, typer.Option("--tree", help="Draw who started whom.")] = False,
    wide: Annotated[bool, typer.Option("--wide", help="Show executables and arguments, too.")] = False,
    vmlinux: Vmlinux = None,
    symbols: SystemMap = None,
    ram_base: RamBase = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """List every process that the kernel's own list of tasks holds."""
    if wide and threads:
        raise typer.BadParameter("--wide is of processes, not of --threads")
    with output.opened(target, vmlinux, symbols, ram_base, cache=not no_cache) as guest:
        result: Result[Any] = guest.programs() if wide else guest.plist(threads=threads)
        if as_json:
            output.print_json(output.envelope("plist", guest, result))
        else:
            _print_processes(result.rows, tree=tree)
    raise typer.Exit(output.conclude(result))


listings.add(app)


def _argument(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    try:
        return name, int(value, 0)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no argument; write it as in most=10") from error


@app.command(epilog="Examples: yamori run my.py lab:armv7, yamori ids run my.py:sockets qemu:gateway --json")
def run(
    probe: ProbeName,
    target: Target = None,
    *,
    argument: Annotated[
        list[Any] | None,
        typer.Option("--argument", "-a", parser=_argument, metavar="NAME=NUMBER", help="A parameter of the probe."),
    ] = None,
    vmlinux: Vmlinux = None,
    symbols: SystemMap = None,
    ram_base: RamBase = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Run a probe of your own, or one that another package adds, and print its rows."""
    from yamori.probes.run import engine_of  # noqa: PLC0415  `yamori --help` need not wait for it

    found = find_probe(probe)
    with compiling():
        arguments = given_for(found, argument or [])
        with output.opened(target, vmlinux, symbols, ram_base, cache=not no_cache) as guest:
            result = guest.run(found, arguments)
            native, why = engine_of(guest.kernel, found)
            if not native:
                result = replace(result, notes=[*result.notes, f"the interpreter ran it, which is slower: {why}"])
            if as_json:
                output.print_json(output.envelope(f"run {found.name}", guest, result))
            else:
                output.print_table(*rows_table(found.row, result.rows))
    raise typer.Exit(output.conclude(result))


def _print_banner(row: Banner) -> None:
    slide = "not known" if row.slide is None else f"{row.slide:#x}"
    lines = {
        "banner": row.banner or "not found",
        "release": row.release,
        "upstream": row.upstream or "not known",
        "compiler": row.compiler or "not known",
        "build": row.build,
        "build id": row.build_id or "not known",
        "machine": f"{row.machine} ({row.translation})" if row.machine else "not known",
        "granule": f"{row.granule >> 10} KiB" if row.granule else "not known",
        "KASLR slide": slide,
        "host name": row.nodename or "not known",
    }
    for name, value in lines.items():
        sys.stdout.write(f"{name:<12} {safe(value)}\n")


def _print_trouble(trouble: Trouble) -> None:
    sys.stdout.write("\n")
    if not trouble.known:
        sys.stdout.write(f"No known trouble with {safe(trouble.version) or 'this version'}.\n")
    for one in trouble.known:
        _print_known(one)
    if trouble.silenced:
        names = ", ".join(safe(f"{one.id} ({one.silenced_by})") for one in trouble.silenced)
        sys.stdout.write(f"Silenced by the maker: {names}\n")
    for skipped in trouble.skipped:
        sys.stderr.write(f"note: left out {safe(skipped)}\n")
    sys.stdout.write(f"{trouble.caveat}\n")


def _print_known(one: KnownTrouble) -> None:
    name = f" ({one.name})" if one.name else ""
    sys.stdout.write(safe(f"{one.severity.upper():<9} {one.id}{name}: {one.title}") + "\n")
    for label, text in (("gain", one.gain), ("needs", one.needs), ("why", one.why), ("do", one.remedy)):
        if text:
            sys.stdout.write(f"          {label + ':':<6} {safe(text)}\n")


def _syscall_cells(row: SystemCall) -> tuple[str, ...]:
    symbol = f"{row.symbol}+{row.offset:#x}" if row.offset else row.symbol
    text = {True: "kernel", False: "OUTSIDE", None: "?"}[row.in_kernel_text]
    return str(row.nr), f"{row.address:#x}", symbol, text


PROCESS_HEADINGS = {
    "pid": "right",
    "ppid": "right",
    "uid": "right",
    "gid": "right",
    "state": "left",
    "start": "right",
    "comm": "left",
}


def _print_processes(rows: Sequence[Process], *, tree: bool) -> None:
    with_threads = any(row.pid != row.tgid for row in rows)
    headings = {"tgid": "right", **PROCESS_HEADINGS} if with_threads else PROCESS_HEADINGS
    if any(isinstance(row, Program) for row in rows):
        headings = {**PROCESS_HEADINGS, "executable": "left", "arguments": "left"}
    ordered: Iterator[tuple[str, Process]] = draw(rows) if tree else (("", row) for row in rows)
    output.print_table(headings, (_process_cells(row, branch, with_threads=with_threads) for branch, row in ordered))


def _process_cells(row: Process, branch: str, *, with_threads: bool) -> tuple[str, ...]:
    comm = f"[{row.comm}]" if row.kthread else row.comm
    start = "?" if row.start_time is None else f"{row.start_time:.2f}"
    ids = ("?" if value is None else str(value) for value in (row.uid, row.gid))
    cells = (str(row.pid), str(row.ppid), *ids, row.state or "?", start, branch + comm)
    if isinstance(row, Program):
        deleted = " (deleted)" if row.deleted else ""
        unknown = "" if row.kthread or row.state == "Z" else "?"
        return (*cells, (row.executable or unknown) + deleted, unknown if row.arguments is None else row.arguments)
    return (str(row.tgid), *cells) if with_threads else cells

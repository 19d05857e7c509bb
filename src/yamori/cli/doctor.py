"""``yamori doctor``: what was found in a target, where, how surely, and how long it took."""

from __future__ import annotations

import sys
import time
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import typer

from yamori.cli import output
from yamori.cli.output import AsJson, NoCache, RamBase, SystemMap, Target, Vmlinux, safe
from yamori.errors import Fault, ProfileError
from yamori.records import SCHEMA

if TYPE_CHECKING:
    from yamori.guest import Guest
    from yamori.kernel.profile import Step


def doctor(
    target: Target = None,
    *,
    vmlinux: Vmlinux = None,
    symbols: SystemMap = None,
    ram_base: RamBase = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Say what is known of the target's kernel: found where, how surely, in what time."""
    with output.opened(target, vmlinux, symbols, ram_base, cache=not no_cache) as guest:
        if as_json:
            output.print_json(_report(guest))
        else:
            _print(guest)
        unknown = [row for row in _members(guest) if row.offset is None]
        raise typer.Exit(output.NOT_EVERYTHING if guest.profile.doubts or unknown else output.OK)


def _report(guest: Guest) -> dict[str, object]:
    profile = guest.profile
    return {
        "schema": SCHEMA,
        "command": "doctor",
        "target": guest.vm.target,
        "machine": guest.vm.machine,
        "how": guest.vm.notes,
        "lacks": guest.vm.lacks,
        "regions": [{"gpa": f"{region.gpa:#x}", "size": region.size} for region in guest.kernel.memory.regions],
        "rows": [{**step._asdict(), "seconds": round(step.seconds, 6)} for step in _steps(guest)],
        "members": [row._asdict() for row in _members(guest)],
        "doubts": profile.doubts,
    }


def _print(guest: Guest) -> None:
    profile = guest.profile
    write = sys.stdout.write
    process = f", pid {guest.vm.pid}" if guest.vm.pid else ""
    write(f"{safe(guest.vm.target)}: {safe(guest.vm.machine)}{process}\n")
    for note in guest.vm.notes:
        write(f"  {safe(note)}\n")
    for region in guest.kernel.memory.regions:
        write(f"  RAM {region.gpa:#x}-{region.end:#x} ({region.size >> 20} MiB)\n")
    write("\n")
    headings = {"step": "left", "sure": "left", "ms": "right", "where": "left", "found": "left"}
    steps = _steps(guest)
    rows = ((step.name, step.confidence, f"{step.seconds * 1000:.1f}", step.where, step.found) for step in steps)
    output.print_table(headings, rows)
    write(f"total {sum(step.seconds for step in steps):.2f} s\n\n")
    members = (
        (row.member, "not known" if row.offset is None else str(row.offset), row.sure, _origin(row))
        for row in _members(guest)
    )
    output.print_table({"member": "left", "offset": "right", "sure": "left", "from": "left"}, members)
    for lack in guest.vm.lacks:
        write(f"lacks: {safe(lack)}\n")
    for doubt in profile.doubts:
        write(f"doubt: {safe(doubt)}\n")


def _steps(guest: Guest) -> list[Step]:
    """Return the steps of discovery, and where the system-call table lies, which only some commands look for."""
    from yamori.kernel.profile import Step  # noqa: PLC0415  `yamori --help` need not wait for them
    from yamori.probes.syscall import find_table  # noqa: PLC0415

    started = time.perf_counter()
    try:
        table = find_table(guest.kernel, "native")
        found, where, sure = f"{table.size} entries, by {table.source}", f"GVA {table.gva:#x}", "stated"
    except (ProfileError, Fault) as error:
        found, where, sure = str(error), "", "missing"
    step = Step("system-call table", found, where, sure, time.perf_counter() - started)
    return [*guest.profile.steps, step, _code(guest), _engine(guest)]


def _code(guest: Guest) -> Step:
    """Return what the kernel's own code says of where members lie."""
    from yamori.kernel.profile import Step  # noqa: PLC0415  as above

    started = time.perf_counter()
    confirmed, lacking = _testimony(guest)
    found = lacking or f"uses {len(confirmed)} members where they are thought to lie"
    return Step("kernel's code", found, "", "stated" if confirmed else "missing", time.perf_counter() - started)


@cache
def _testimony(guest: Guest) -> tuple[dict[tuple[str, str], str], str]:
    """Return the members that the kernel's code confirms, with the function; or why it was not asked."""
    from yamori.kernel.witnesses import testimony  # noqa: PLC0415  as above

    profile = guest.profile
    if not profile.symbols:
        return {}, "there are no symbols, so that no function is known"
    try:
        return testimony(guest.kernel.space, profile.architecture, profile.symbols, profile.member), ""
    except ProfileError as error:
        return {}, str(error)


def _engine(guest: Guest) -> Step:
    """Return what runs the probes, those of Yamori and those of a user: native code, or the interpreter and why."""
    from yamori.kernel.profile import Step  # noqa: PLC0415  as above
    from yamori.llview import objects  # noqa: PLC0415
    from yamori.probes.plist import tasks  # noqa: PLC0415
    from yamori.probes.run import engine_of  # noqa: PLC0415

    started = time.perf_counter()
    native, why = engine_of(guest.kernel, tasks)
    found = f"native code ({why})" if native else f"the interpreter, which is slower: {why}"
    if native and not objects.has_compiler(None):
        found = f"{found}; your own: the interpreter, which is slower: there is no C compiler"
    return Step("probes run by", found, "", "stated", time.perf_counter() - started)


class _Row(NamedTuple):
    """What is known of a member.

    Attributes:
        member: ``task_struct.mm``.
        offset: Bytes; ``None`` where it is not known.
        sure: ``given``, ``proved`` where two independent ways lead to it, otherwise ``stated`` or ``inferred``.
        provenance: The sources that have it there.
        confirmed_by: The function whose code uses it there; empty where none is known to.
    """

    member: str
    offset: int | None
    sure: str
    provenance: str
    confirmed_by: str


def _origin(row: _Row) -> str:
    return f"{row.provenance}; code of {row.confirmed_by}" if row.confirmed_by else row.provenance


def _members(guest: Guest) -> list[_Row]:
    """Return what is known of all that ``plist`` reads, as its program says, and of what the kernel's code confirms."""
    from yamori.kernel.binding import fixed  # noqa: PLC0415  as above
    from yamori.probes.plist import tasks  # noqa: PLC0415  as above
    from yamori.probes.run import compiled  # noqa: PLC0415

    specs = [spec for spec in compiled(tasks, guest.profile.init.word_size).slots if spec.kind == "member"]
    rows = {(spec.owner, spec.path): _row(guest, spec.owner, spec.path) for spec in specs}
    for spec in specs:
        if rows[spec.owner, spec.path].offset is None and (spec.optional or fixed(spec)):
            del rows[spec.owner, spec.path]
    confirmed, _ = _testimony(guest)
    return [*rows.values(), *(_row(guest, *place) for place in confirmed if place not in rows)]


def _row(guest: Guest, struct: str, path: str) -> _Row:
    profile = guest.profile
    member = profile.member(struct, path)
    if member is None:
        return _Row(f"{struct}.{path}", None, "", "", "")
    found = ((types.provenance, types.member(struct, path)) for types in profile.types)
    same = list(dict.fromkeys(source for source, other in found if other and other.offset == member.offset))
    code = _testimony(guest)[0].get((struct, path), "")
    if same[0] in {"dwarf", "isf"}:
        sure = "given"
    else:
        sure = "proved" if len(same) + bool(code) > 1 else {"btf": "stated"}.get(same[0], same[0])
    return _Row(f"{struct}.{path}", member.offset, sure, " and ".join(same), code)

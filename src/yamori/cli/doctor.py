"""``yamori doctor``: what was found in a target, where, how surely, and how long it took."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

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
        unknown = [row for row in _members(guest) if row[1] == "not known"]
        raise typer.Exit(output.NOT_EVERYTHING if guest.profile.doubts or unknown else output.OK)


def _report(guest: Guest) -> dict[str, object]:
    profile = guest.profile
    members = [
        {"member": name, "offset": int(offset) if offset.isdigit() else None, "provenance": provenance}
        for name, offset, provenance in _members(guest)
    ]
    return {
        "schema": SCHEMA,
        "command": "doctor",
        "target": guest.vm.target,
        "machine": guest.vm.machine,
        "how": guest.vm.notes,
        "lacks": guest.vm.lacks,
        "regions": [{"gpa": f"{region.gpa:#x}", "size": region.size} for region in guest.kernel.memory.regions],
        "rows": [{**step._asdict(), "seconds": round(step.seconds, 6)} for step in _steps(guest)],
        "members": members,
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
    output.print_table({"member": "left", "offset": "right", "from": "left"}, iter(_members(guest)))
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
    return [*guest.profile.steps, step, _engine(guest)]


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


def _members(guest: Guest) -> list[tuple[str, str, str]]:
    """Return (member, offset, provenance) of all that ``plist`` reads, as its program says."""
    from yamori.kernel.binding import fixed  # noqa: PLC0415  as above
    from yamori.probes.plist import tasks  # noqa: PLC0415  as above
    from yamori.probes.run import compiled  # noqa: PLC0415

    rows = []
    for spec in compiled(tasks, guest.profile.init.word_size).slots:
        if spec.kind != "member":
            continue
        member = guest.profile.member(spec.owner, spec.path)
        if member is None:
            if not spec.optional and not fixed(spec):
                rows.append((str(spec), "not known", ""))
            continue
        agree = [types for types in guest.profile.types if types.member(spec.owner, spec.path) is not None]
        same = (t for t in agree if getattr(t.member(spec.owner, spec.path), "offset", None) == member.offset)
        rows.append((str(spec), str(member.offset), " and ".join(dict.fromkeys(types.provenance for types in same))))
    return rows

"""``yamori demo``: boot a real device, look into it from outside, and hold that against its own word."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from yamori import lab
from yamori.cli import output
from yamori.cli.lab import progress
from yamori.records import Process, escape

if TYPE_CHECKING:
    from yamori.guest import Guest

CROWD = 12
SHOWN = 12  # rows of the system-call table; all of them are compared


def demo(
    device: Annotated[str, typer.Argument(help=f"One of {', '.join(lab.DEVICES)}.")] = "armv7",
) -> None:
    """Boot a device, and show what Yamori reads from outside beside what the guest itself says.

    Exits with 1 where the two differ.
    """
    from yamori.guest import open_guest  # noqa: PLC0415  `yamori --help` need not wait for it

    started = time.monotonic()
    write = sys.stdout.write
    with progress(device) as report:
        vm = lab.up(device, f"demo-{device}", progress=report)
    try:
        vm.run(["spawn", str(CROWD)])
        write(f"{device} runs an unmodified {vm.run('uname -sr').output.strip()} with {vm.record.memory} MiB\n")
        attached = time.monotonic()
        with open_guest(vm.target) as guest:
            write(f"Yamori knows its kernel after {time.monotonic() - attached:.1f} s, from nothing but its memory\n")
            wrong = _banner(vm, guest) + _system_calls(vm, guest) + _processes(vm, guest)
    finally:
        vm.down()
    verdict = f"{wrong} differences" if wrong else "no difference"
    write(f"\n{verdict} between the guest's word and what was read from outside; {time.monotonic() - started:.1f} s\n")
    raise typer.Exit(output.FINDINGS if wrong else output.OK)


def _title(text: str) -> None:
    sys.stdout.write(f"\n── {text} ".ljust(80, "─") + "\n")


def _banner(vm: lab.Machine, guest: Guest) -> int:
    _title("yamori banner")
    own = vm.run("cat /proc/version").output.strip()
    row = guest.banner().rows[0]
    mark = " " if own == row.banner else "≠"
    sys.stdout.write(f"  guest   {own}\n{mark} outside {row.banner}\n")
    sys.stdout.write(f"          {row.translation}; KASLR slide {'?' if row.slide is None else hex(row.slide)}\n")
    return int(own != row.banner)


def _system_calls(vm: lab.Machine, guest: Guest) -> int:
    from yamori.lab.compare import wrong_symbols  # noqa: PLC0415  `yamori --help` need not wait for it

    _title("yamori syscall")
    result = guest.syscall()
    wrong = wrong_symbols(result, vm.run("grep sys_ /proc/kallsyms", timeout=120).output)
    for row in [*result.rows[:SHOWN], *(row for row in wrong if row.nr >= SHOWN)]:
        mark = "≠" if row in wrong else " "
        sys.stdout.write(f"{mark} {row.nr:4d}  {row.address:#x}  {row.symbol}\n")
    agree = len(result) - len(wrong)
    sys.stdout.write(f"  ... {agree} of {len(result)} entries agree with the guest's own /proc/kallsyms\n")
    return len(wrong)


def _processes(vm: lab.Machine, guest: Guest) -> int:
    from yamori.lab.compare import lasting_differences  # noqa: PLC0415  as above

    _title("the guest's own ps".ljust(38) + "│ yamori plist")
    seen: list[Process] = []

    def look() -> list[Process]:
        seen[:] = guest.plist().rows
        return seen

    lasting = lasting_differences(vm, look)
    wrong = {difference.task for difference in lasting}
    own = _own_list(vm)
    rows = {row.pid: row for row in seen}
    for pid in sorted({*rows, *(pid for pid in own if pid in wrong)}):
        mark = "≠" if pid in wrong else " "
        sys.stdout.write(f"{mark} {own.get(pid, '')[:40]:<40}│ {_line(rows.get(pid))}\n")
    for difference in lasting:
        sys.stdout.write(f"≠ pid {difference.task}: {difference.field} {difference.guest} ≠ {difference.seen}\n")
    return len(lasting)


def _own_list(vm: lab.Machine) -> dict[int, str]:
    """Return the guest's ``ps`` by pid; a name with a line feed in it spoils the layout of ``ps``, not ours."""
    own: dict[int, str] = {}
    pid = 0
    for line in vm.run(["ps", "-o", "pid,ppid,user,stat,comm"]).output.splitlines()[1:]:
        first = line.split(maxsplit=1)[:1]
        starts_row = bool(first) and first[0].isdigit()
        pid = int(first[0]) if starts_row else pid
        shown = escape(line.rstrip().encode("utf-8", "surrogateescape"))
        own[pid] = shown if starts_row else f"{own.get(pid, '')}\\x0a{shown}"
    return own


def _line(row: Process | None) -> str:
    if row is None:
        return ""
    comm = f"[{row.comm}]" if row.kthread else row.comm
    return f"{row.pid:5d} {row.ppid:5d} {row.uid!s:>5} {row.state}  {row.start_time or 0:8.2f}  {comm}"

"""What Yamori saw from outside, held against the guest's own word.

A guest goes on while it is looked at, so it is asked before and after, and whatever changed in between is not compared.
What then still differs is looked at again: a real difference stays, a task that only happened to run does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from yamori.lab.machines import Machine
from yamori.lab.truth import Task
from yamori.records import Process, Program, SystemCall, escape

PAUSE = 0.3  # seconds after which the guest's shell, which has just answered, sleeps again
TICK = 10_000_000  # nanoseconds; USER_HZ is 100 on every architecture that the lab boots


class Difference(NamedTuple):
    """One disagreement.

    Attributes:
        task: Thread id.
        field: What differs, or ``""`` where one side does not have the task at all.
        guest: What the guest says.
        seen: What was seen from outside.
    """

    task: int
    field: str
    guest: str
    seen: str


def differences(before: Iterable[Task], rows: Iterable[Process], after: Iterable[Task]) -> list[Difference]:
    """Return what differs between rows and the guest's own list, taken before and after them."""
    first = {task.tid: task for task in before}
    last = {task.tid: task for task in after}
    seen = {row.pid: row for row in rows}
    found = [Difference(pid, "", "no such task", row.comm) for pid, row in seen.items() if pid not in {**first, **last}]
    for tid, task in first.items():
        then = last.get(tid)
        if then is None or then.start_time != task.start_time:
            continue  # it ended while we looked
        row = seen.get(tid)
        if row is None:
            found.append(Difference(tid, "", task.comm, "no such task"))
            continue
        for field, (one, other, ours) in _fields(task, then, row).items():
            if one == other != ours:
                found.append(Difference(tid, field, str(one), str(ours)))
    return found


def _fields(task: Task, then: Task, row: Process) -> dict[str, tuple[object, object, object]]:
    start = None if row.start_time is None else round(row.start_time * 1_000_000_000) // TICK
    ours = {
        "tgid": row.tgid,
        "ppid": row.ppid,
        "uid": row.uid,
        "euid": row.euid,
        "gid": row.gid,
        "state": row.state,
        "start_time": start,
        "kthread": row.kthread,
        "comm": row.comm,
    }
    return {field: (_shown(task, field), _shown(then, field), value) for field, value in ours.items()}


def _shown(task: Task, field: str) -> object:
    value = getattr(task, field)
    return escape(value.encode("utf-8", "surrogateescape")) if field == "comm" else value


def lasting_differences(vm: Machine, look: Callable[[], Sequence[Process]], times: int = 4) -> list[Difference]:
    """Return the differences that every one of several looks finds; one look without any is enough.

    Args:
        vm: The guest, which is asked for its own list before and after each look.
        look: Returns the rows; threads are compared if any row is one.
        times: How many looks at most.
    """
    lasting: dict[tuple[int, str], Difference] | None = None
    for _ in range(times):
        before = vm.truth()
        time.sleep(PAUSE)
        rows = look()
        after = vm.truth()
        if all(row.pid == row.tgid for row in rows):
            before, after = _leaders(before), _leaders(after)
        found = {(difference.task, difference.field): difference for difference in differences(before, rows, after)}
        lasting = found if lasting is None else {key: found[key] for key in lasting if key in found}
        if not lasting:
            break
    return list((lasting or {}).values())


def _leaders(tasks: Iterable[Task]) -> list[Task]:
    return [task for task in tasks if task.tid == task.tgid]


def wrong_symbols(rows: Iterable[SystemCall], kallsyms: str) -> list[SystemCall]:
    """Return the system calls whose symbol does not lie at their address by the guest's own ``/proc/kallsyms``."""
    guest = set()
    for line in kallsyms.splitlines():
        address, _, name = line.split()[:3]
        guest.add((int(address, 16), name))
    return [row for row in rows if row.offset or (row.address, row.symbol) not in guest]


def executables(machine: Machine) -> dict[int, tuple[str, list[str]]]:
    """Return what the guest says each program runs: pid → (link of ``/proc/PID/exe``, words of its command line)."""
    script = """
    for at in /proc/[0-9]*; do
        exe=$(readlink $at/exe) && echo "${at#/proc/}|$exe|$(tr '\\0\\n' '  ' < $at/cmdline)"
    done 2>/dev/null"""
    lines = (line.split("|", 2) for line in machine.run(script, timeout=300).output.splitlines())
    return {int(pid): (exe, [_escaped(word) for word in arguments.split()]) for pid, exe, arguments in lines}


def wrong_executables(machine: Machine, look: Callable[[], Iterable[Program]]) -> list[str]:
    """Return where executables and command lines differ from what the guest says before and after a look, in words."""
    before, rows, after = executables(machine), {row.pid: row for row in look()}, executables(machine)
    wrong = [] if before else ["the guest says that nothing runs"]
    for pid, said in before.items():
        if after.get(pid) != said:
            continue
        row = rows.get(pid)
        link = f"{row.executable}{' (deleted)' if row.deleted else ''}" if row else ""
        seen = link, (row.arguments or "").replace(r"\x0a", " ").split() if row else []
        if seen != said:
            wrong.append(f"process {pid}: the guest says {said}, seen is {seen}")
    return wrong


def _escaped(word: str) -> str:
    return escape(word.encode("utf-8", "surrogateescape"))

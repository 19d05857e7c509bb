"""What Yamori saw from outside, held against the guest's own word.

A guest goes on while it is looked at, so it is asked before and after, and whatever changed in between is not compared.
What then still differs is looked at again: a real difference stays, a task that only happened to run does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from yamori.lab.truth import Task
from yamori.records import Process, SystemCall, escape

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


def settled(look: Callable[[], Sequence[Difference]], times: int = 4) -> list[Difference]:
    """Return the differences that every look of several finds; one look without any is enough."""
    lasting: dict[tuple[int, str], Difference] | None = None
    for _ in range(times):
        found = {(difference.task, difference.field): difference for difference in look()}
        lasting = found if lasting is None else {key: found[key] for key in lasting if key in found}
        if not lasting:
            break
    return list((lasting or {}).values())


def wrong_symbols(rows: Iterable[SystemCall], kallsyms: str) -> list[SystemCall]:
    """Return the system calls whose symbol does not lie at their address by the guest's own ``/proc/kallsyms``."""
    guest = set()
    for line in kallsyms.splitlines():
        address, _, name = line.split()[:3]
        guest.add((int(address, 16), name))
    return [row for row in rows if row.offset or (row.address, row.symbol) not in guest]

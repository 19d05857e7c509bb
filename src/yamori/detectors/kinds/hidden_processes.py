"""Processes that one of the kernel's structures holds and its list of tasks does not."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.detectors.detector import detector
from yamori.detectors.tasks import Tasks
from yamori.detectors.view import View
from yamori.probes.pids import pids
from yamori.records import Finding


@detector(
    title="Hidden processes",
    needs="the list of tasks and the family tree; the numbers of processes (IDR) where BTF or debug info tells",
    misses="a process that was taken out of all of these, which carved-processes looks for",
    attack=["T1014", "T1564"],
)
def hidden_processes(view: View) -> Iterator[Finding]:
    """Compare the list of tasks with the family tree and the IDR of process ids."""
    listed = {row.task: row for row in view.processes()}
    tasks = Tasks(view)
    elsewhere: dict[int, list[str]] = {}
    for task in tasks.family():
        elsewhere.setdefault(task, []).append("the family tree")
    numbered = pids(view.kernel)
    for one in numbered.rows if numbered else ():
        elsewhere.setdefault(one.task, []).append("the table of process ids")
    for task in tasks.unlisted(task for task in elsewhere if task not in listed):
        yield _hidden(tasks, task, elsewhere[task])
    view.lacks += numbered.reasons if numbered else ["where this kernel keeps its process ids is not known"]
    if numbered and numbered.complete:
        known = {one.task for one in numbered.rows}
        for task, row in listed.items():
            if task not in known and row.state not in {"Z", "X"} and tasks.lives(task):
                yield _unnumbered(row.pid, row.comm, task)


def _hidden(tasks: Tasks, task: int, places: list[str]) -> Finding:
    pid, comm = tasks.pid(task), tasks.comm(task)
    return Finding(
        subject=f"process {pid}",
        severity="critical",
        confidence="certain",
        title=f"Process {pid} ({comm}) is hidden",
        why=[
            "Expected: every process that lives is on the kernel's list of tasks.",
            f"Found: the task_struct at {task:#x} is in {' and '.join(places)} and not on that list.",
        ],
        remedy="Look at what it runs (`yamori shell`), preserve the memory, isolate the device.",
    )


def _unnumbered(pid: int, comm: str, task: int) -> Finding:
    return Finding(
        subject=f"process {pid}",
        severity="critical",
        confidence="likely",
        title=f"Process {pid} ({comm}) is hidden from its own system",
        why=[
            "Expected: the table of process ids, which /proc is made of, holds every process.",
            f"Found: the task_struct at {task:#x} is on the list of tasks and not in that table.",
        ],
        remedy="Look at what it runs (`yamori plist --wide`), preserve the memory, isolate the device.",
    )

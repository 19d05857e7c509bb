"""Processes that lie in memory and in none of the kernel's structures."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.address import GVA
from yamori.detectors.detector import NotChecked, detector
from yamori.detectors.tasks import Tasks
from yamori.detectors.view import View
from yamori.errors import Fault
from yamori.probes.carving import carve
from yamori.records import Finding


@detector(
    title="Processes that are in memory only",
    needs="the list of tasks, and where a task keeps its leader, its parent and its credentials",
    misses="a process whose task_struct was spoiled to look like one that has ended",
    attack=["T1014", "T1564"],
)
def carved_processes(view: View) -> Iterator[Finding]:
    """Search RAM for processes that neither the list of tasks nor the family tree has."""
    rows = view.processes()
    listed = {row.task for row in rows}
    if len(listed) < 2:
        raise NotChecked("there are too few processes to tell where others can be")
    tasks = Tasks(view)
    known = listed.union(tasks.family(), [view.profile.init.gva])
    found = carve(view.kernel, _linear(view, min(listed)), listed)
    for task in tasks.unlisted({task for task in found if task not in known and tasks.is_whole(task)}):
        yield Finding(
            subject=f"process {tasks.pid(task)}",
            severity="critical",
            confidence="likely",
            title=f"Process {tasks.pid(task)} ({tasks.comm(task)}) is hidden",
            why=[
                "Expected: every process that lives is on the kernel's list of tasks, and a child of another.",
                f"Found: the task_struct at {task:#x} is neither; it was found by searching memory.",
            ],
            remedy="Look at what it runs (`yamori shell`), preserve the memory, isolate the device.",
        )


def _linear(view: View, task: int) -> int:
    """Return GVA minus GPA of the linear map, which a task lies in."""
    try:
        return task - view.kernel.space.translate(GVA(task)).gpa
    except Fault as error:
        raise NotChecked(f"a task cannot be read: {error}") from error

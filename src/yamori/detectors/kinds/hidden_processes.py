"""Processes that one of the kernel's structures holds and its list of tasks does not."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.detectors.detector import detector
from yamori.detectors.view import View
from yamori.kernel.sample import Family
from yamori.probes.pids import pids
from yamori.records import Finding

MOST_TASKS = 1 << 17
"""Tasks that are looked at: more than PID_MAX_LIMIT of most devices; a circle of links ends anyway."""


@detector(
    title="Hidden processes",
    needs="the list of tasks and the family tree; the numbers of processes (IDR) where BTF or debug info tells",
    misses="a process that was taken out of all of these; nothing searches memory for it yet",
    attack=["T1014", "T1564"],
)
def hidden_processes(view: View) -> Iterator[Finding]:
    """Compare the list of tasks with the family tree and the IDR of process ids."""
    listed = {row.task: row for row in view.processes()}
    tasks = _Tasks(view)
    elsewhere: dict[int, list[str]] = {}
    for task in tasks.family():
        elsewhere.setdefault(task, []).append("the family tree")
    numbered = pids(view.kernel)
    for one in numbered.rows if numbered else ():
        elsewhere.setdefault(one.task, []).append("the table of process ids")
    for task, places in elsewhere.items():
        if task not in listed and tasks.lives(task):
            yield _hidden(tasks, task, places)
    view.lacks += numbered.reasons if numbered else ["where this kernel keeps its process ids is not known"]
    if numbered and numbered.complete:
        known = {one.task for one in numbered.rows}
        for task, row in listed.items():
            if task not in known and row.state not in {"Z", "X"} and tasks.lives(task):
                yield _unnumbered(row.pid, row.comm, task)


class _Tasks:
    """Tasks, reached without their list."""

    def __init__(self, view: View) -> None:
        self.space = view.kernel.space
        self.profile = view.profile
        self.family_at = Family(self.profile.require("task_struct", "real_parent").offset, self.profile.init.word_size)
        self.reader = view.reader()

    def family(self) -> Iterator[int]:
        """Yield every group leader below ``init_task``."""
        seen = {self.profile.init.gva}
        queue = [self.profile.init.gva]
        while queue and len(seen) < MOST_TASKS:
            for child in self._children(queue.pop()):
                if child not in seen:
                    seen.add(child)
                    queue.append(child)
                    yield child

    def _children(self, parent: int) -> Iterator[int]:
        head = parent + self.family_at.children
        node, seen = self.reader.pointer(head), {head}
        while node is not None and node not in seen and self.reader.is_address(node) and len(seen) < MOST_TASKS:
            seen.add(node)
            task = node - self.family_at.sibling
            if self.reader.pointer(task + self.family_at.group_leader) == task:
                yield task
            node = self.reader.pointer(node)

    def lives(self, task: int) -> bool:
        """Say whether something is a process that has not ended: its leader, and ``exit_state`` 0."""
        state = self.profile.member("task_struct", "exit_state")
        raw = self.reader.read(task + state.offset, 4) if state else b"\0\0\0\0"
        pid = self.pid(task)
        leads = self.reader.pointer(task + self.family_at.group_leader) == task
        return leads and raw is not None and not any(raw) and pid is not None and pid > 0

    def pid(self, task: int) -> int | None:
        """Return a task's id."""
        raw = self.reader.read(task + self.profile.require("task_struct", "pid").offset, 4)
        return None if raw is None else int.from_bytes(raw, "little", signed=True)

    def comm(self, task: int) -> str:
        """Return a task's name."""
        return self.reader.text(task + self.profile.require("task_struct", "comm").offset, 16)


def _hidden(tasks: _Tasks, task: int, places: list[str]) -> Finding:
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

"""Tasks that are reached by other ways than their list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from yamori.detectors.view import View
from yamori.kernel.sample import Family
from yamori.probes.plist import plist

LISTS = 3
MOST_TASKS = 1 << 17
"""Tasks that are looked at: more than PID_MAX_LIMIT of most devices; a circle of links ends anyway."""


class Tasks:
    """Tasks, reached without their list.

    Args:
        view: The look at the guest.

    Raises:
        ProfileError: It is not known where tasks keep their kin.
    """

    def __init__(self, view: View) -> None:
        self.view = view
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

    def unlisted(self, candidates: Iterable[int]) -> list[int]:
        """Return the tasks that live and that the list does not have, read anew after they were seen.

        A process that started since the list was read is on the next one. It is read more than once: a walk through
        links that change may lose its way, and then says so or not.
        """
        missing = [task for task in candidates if self.lives(task)]
        for _ in range(LISTS if missing else 0):
            listed = {row.task for row in plist(self.view.kernel).rows}
            missing = [task for task in missing if task not in listed and self.lives(task)]
        return missing

    def is_whole(self, task: int) -> bool:
        """Say whether something that looks like a task is one that lives, not what is left of one.

        ``free_task`` takes the stack away, of one that has ended or never began.
        """
        if not self.lives(task) or not self.comm(task):
            return False
        members = [self.profile.member("task_struct", name) for name in ("stack", "real_cred", "cred", "real_parent")]
        words = [self.reader.pointer(task + member.offset) for member in members if member]
        if not all(word and self.reader.is_address(word) for word in words):
            return False
        parent = self.reader.pointer(task + self.family_at.real_parent)
        leader = self.reader.pointer((parent or 0) + self.family_at.group_leader)
        return leader is not None and self.reader.pointer(leader + self.family_at.group_leader) == leader

"""The tasks that inference looks at: those that the family tree leads to, the kernel's own threads apart.

All kernel threads are children of ``kthreadd`` (``kernel/kthread.c``), the second child of ``init_task``; all programs
descend from the first. Both lists hold their entries in order of birth (``copy_process`` of ``kernel/fork.c``). The
tree is another structure than the list of tasks, which is what somebody who hides a process cuts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from yamori.address import GPA, GVA
from yamori.errors import Fault
from yamori.kernel.init_task import COMM_LENGTH, InitTask
from yamori.records import escape
from yamori.translation.space import AddressSpace

MOST_TASKS = 64
"""Kernel threads looked at, and programs: the oldest ones."""

MOST_LINKS = 4 * MOST_TASKS
"""Entries of one list of children that are followed, sound ones or not."""

BEHIND_COMM = 2048  # fs, files, nsproxy, signal follow comm closely
KTHREADD = b"kthreadd".ljust(COMM_LENGTH, b"\0")


class Object(NamedTuple):
    """The first bytes of one of the kernel's objects.

    Attributes:
        gva: Where it lies.
        data: Its bytes; of a ``task_struct`` those up to ``BEHIND_COMM`` behind ``comm``.
        word_size: Bytes of a pointer.
    """

    gva: int
    data: bytes
    word_size: int

    def word(self, offset: int) -> int:
        """Return the pointer at ``offset``."""
        return int.from_bytes(self.data[offset : offset + self.word_size], "little")

    def u32(self, offset: int) -> int:
        """Return the ``u32`` at ``offset``."""
        return int.from_bytes(self.data[offset : offset + 4], "little")

    def u64(self, offset: int) -> int:
        """Return the ``u64`` at ``offset``."""
        return int.from_bytes(self.data[offset : offset + 8], "little")


Task = Object
"""The beginning of a ``task_struct``."""


class Family(NamedTuple):
    """Where ``task_struct`` keeps its kin; the order has been the same since Linux 2.6.

    Attributes:
        real_parent: Offset of the first of these members, in bytes.
        word_size: Bytes of a pointer.
    """

    real_parent: int
    word_size: int

    @property
    def parent(self) -> int:
        """``struct task_struct *parent``."""
        return self.real_parent + self.word_size

    @property
    def children(self) -> int:
        """``struct list_head children``."""
        return self.real_parent + 2 * self.word_size

    @property
    def sibling(self) -> int:
        """``struct list_head sibling``."""
        return self.real_parent + 4 * self.word_size

    @property
    def group_leader(self) -> int:
        """``struct task_struct *group_leader``."""
        return self.real_parent + 6 * self.word_size


@dataclass
class Sample:
    """What was gathered.

    Attributes:
        kernel_threads: ``kthreadd`` and its children, in order of birth. No user of the guest has a say in them.
        users: Processes of programs, the first of them process 1.
    """

    kernel_threads: list[Task] = field(default_factory=list)
    users: list[Task] = field(default_factory=list)


def translated(space: AddressSpace, gva: int) -> GPA | None:
    """Return where ``gva`` lies in RAM, or ``None`` where it is not mapped."""
    try:
        return GPA(space.translate(GVA(gva)).gpa)
    except Fault:
        return None


class Reader:
    """Reads tasks and pointers; what cannot be read is ``None``.

    Args:
        space: The kernel's addresses.
        init: The first task of all.
    """

    def __init__(self, space: AddressSpace, init: InitTask) -> None:
        self.space = space
        self.word_size = init.word_size
        self.comm = init.comm - init.gpa
        self.init = init.gva

    def task(self, gva: int) -> Task | None:
        """Return the task at ``gva``."""
        return self.object(gva, self.comm + BEHIND_COMM)

    def object(self, gva: int, size: int) -> Object | None:
        """Return the first ``size`` bytes of the object at ``gva``."""
        data = self.read(gva, size)
        return None if data is None else Object(gva, data, self.word_size)

    def read(self, gva: int, size: int) -> bytes | None:
        """Return ``size`` bytes at ``gva``."""
        try:
            return self.space.read(GVA(gva), size)
        except Fault:
            return None

    def text(self, gva: int, limit: int) -> str:
        """Return the string at ``gva`` as far as it can be read, escaped."""
        try:
            return escape(self.space.string(GVA(gva), limit))
        except Fault:
            return ""

    def pointer(self, gva: int) -> int | None:
        """Return the pointer at ``gva``."""
        try:
            return self.space.pointer(GVA(gva))
        except Fault:
            return None

    def is_address(self, value: int | None) -> bool:
        """Say whether ``value`` can be an aligned kernel address."""
        return value is not None and value % self.word_size == 0 and self.space.geometry.canonical(GVA(value))

    def gather(self, family: Family) -> Sample:
        """Return the oldest tasks below ``init_task``."""
        first = self.children(self.init, family)
        if len(first) < 2:
            first = self.children(self.init, family, proofs=1)
        named = [task for task in first if task.data[self.comm : self.comm + COMM_LENGTH] == KTHREADD]
        kthreadd = named[0] if len(named) == 1 else first[1] if len(first) == 2 else None
        if kthreadd is None:
            return Sample()
        sample = Sample([kthreadd, *self.children(kthreadd.gva, family)][:MOST_TASKS])
        known = {self.init, *(task.gva for task in sample.kernel_threads)}
        queue = deque(first)
        while queue and len(sample.users) < MOST_TASKS:
            task = queue.popleft()
            if task.gva not in known:
                known.add(task.gva)
                sample.users.append(task)
                queue += self.children(task.gva, family)
        return sample

    def children(self, parent: int, family: Family, *, proofs: int = 2) -> list[Task]:
        """Return the children of the task at ``parent``, the oldest first.

        The list is followed from both ends where it does not close: one bad pointer loses nobody.

        Args:
            parent: Address of the task.
            family: Where tasks keep their kin.
            proofs: A child is its own ``group_leader``, and ``parent`` is its ``real_parent``: how many must be true.
        """
        found, closed = self._follow(parent, family, 0, proofs)
        if closed:
            return found
        known = {task.gva for task in found}
        others, _ = self._follow(parent, family, self.word_size, proofs)
        return (found + [task for task in reversed(others) if task.gva not in known])[:MOST_TASKS]

    def _follow(self, parent: int, family: Family, link: int, proofs: int) -> tuple[list[Task], bool]:
        """Return the sound entries in the direction of ``link``, and whether the end was reached, or enough of them."""
        head = parent + family.children
        seen: set[int] = set()
        found: list[Task] = []
        previous, node = head, self.pointer(head + link)
        while node is not None and self.is_address(node) and node not in seen and len(seen) < MOST_LINKS:
            if node == head or len(found) >= MOST_TASKS:
                return found, node != head or self.pointer(head + self.word_size - link) == previous
            seen.add(node)
            gva = node - family.sibling
            leads = self.pointer(gva + family.group_leader) == gva
            proved = leads + (self.pointer(gva + family.real_parent) == parent)
            if proved >= proofs and (task := self.task(gva)):
                found.append(task)
            previous, node = node, self.pointer(node + link)
        return found, False

"""Layouts of ``task_struct``, ``cred`` and ``signal_struct`` without debug info: from what must hold over all tasks.

Each member is found by an invariant that the kernel itself relies on, tried at every offset over a sample of all
processes; it is taken only if exactly one offset passes, and otherwise is *not known*. The order of neighbours in
``include/linux/sched.h`` narrows the search where it has been the same since Linux 3.10; a kernel with RANDSTRUCT fails
those checks and is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from yamori.address import GPA, GVA
from yamori.errors import Fault
from yamori.kernel.init_task import COMM_LENGTH, InitTask
from yamori.kernel.types import Member, Provenance, Types
from yamori.translation.space import AddressSpace

SAMPLE = 96
"""Processes looked at: the oldest (kernel threads and init are among them) and the youngest (users' programs)."""

MOST_TASKS = 1 << 16
MOST_LINKS = 4 * MOST_TASKS
"""List nodes that are looked at in all: any word of a hostile ``init_task`` may start a ring."""
RING_ATTEMPTS = 4  # tasks come and go while their ring is walked
MM_REACH = 256  # pgd is among the first members of mm_struct
BEHIND_COMM = 2048  # fs, files, nsproxy, signal follow comm closely
PF_KTHREAD = 0x0020_0000  # include/linux/sched.h, since 2.6.27 (246bb0b1deb2)
SIGCHLD = 17
PID_MAX_LIMIT = 1 << 22  # include/linux/threads.h
CAPABILITY_BITS = range(30, 65)  # CAP_LAST_CAP + 1, 41 in 6.x; all 64 before 3.17 (7d8b6c63751c)
SLEEPING = frozenset({1, 2, 0x402, 0x2001, 0x2002, 0x100, 0x101, 0x102})
"""Usual values of a sleeping task's state: (UN)INTERRUPTIBLE, IDLE (4.2), with FREEZABLE (6.1) or WAKEKILL."""
STATE_BITS = 0xFFFF
FEW = 8  # kernel threads; a kernel has 30 and more


class Task(NamedTuple):
    """One process of the sample.

    Attributes:
        gva: Address of its ``task_struct``.
        data: The bytes of ``task_struct`` up to ``BEHIND_COMM`` behind ``comm``.
    """

    gva: int
    data: bytes


class InferredTypes:
    """Layouts found by inference.

    Attributes:
        members: (structure, member) → where it lies.
        unknown: What was looked for and not found, with the reason.
        processes: How many processes the invariants were tried on.
    """

    provenance: Provenance = "inferred"

    def __init__(self) -> None:
        self.members: dict[tuple[str, str], Member] = {}
        self.unknown: dict[str, str] = {}
        self.processes = 0

    def member(self, struct: str, path: str) -> Member | None:
        """Return where ``path`` lies in ``struct``, or ``None``."""
        return self.members.get((struct, path))

    def size(self, struct: str) -> int | None:  # noqa: ARG002  # the protocol's parameter
        """Sizes are not inferred."""
        return None

    def disagreements(self, types: Types) -> str:
        """Return the members that ``types`` has elsewhere, as words; empty if there are none."""
        wrong = (
            f"{struct}.{path}"
            for (struct, path), member in self.members.items()
            if (other := types.member(struct, path)) and other.offset != member.offset
        )
        return ", ".join(wrong)


def infer(space: AddressSpace, init: InitTask) -> InferredTypes:
    """Infer what ``banner``, ``syscall`` and ``plist`` need.

    Returns:
        What is known; empty where ``init_task`` does not have the shape that all kernels without RANDSTRUCT share.
    """
    inference = _Inference(space, init)
    inference.run()
    return inference.types


class _Inference:
    def __init__(self, space: AddressSpace, init: InitTask) -> None:
        self.space = space
        self.init = init
        self.word = init.word_size
        self.comm = init.comm - init.gpa
        self.types = InferredTypes()
        self.tasks: list[Task] = []
        self.kernel_threads: list[Task] = []
        self.users: list[Task] = []
        self.links = 0

    # --- reading -----------------------------------------------------------------------------------------------

    def read_task(self, gva: int) -> Task | None:
        try:
            return Task(gva, self.space.read(GVA(gva), self.comm + BEHIND_COMM))
        except Fault:
            return None

    def at(self, task: Task, offset: int) -> int:
        return int.from_bytes(task.data[offset : offset + self.word], "little")

    def pointer(self, gva: int) -> int | None:
        try:
            return self.space.pointer(GVA(gva))
        except Fault:
            return None

    def is_address(self, value: int) -> bool:
        return value % self.word == 0 and self.space.geometry.canonical(GVA(value))

    # --- stating -----------------------------------------------------------------------------------------------

    def state(self, struct: str, name: str, offset: int, size: int, *, signed: bool = False) -> None:
        self.types.members[struct, name] = Member(offset, size, signed, provenance="inferred")

    def only(self, what: str, offsets: Iterable[int]) -> int | None:
        """Return the one offset that passed; none or several make the member unknown."""
        found = list(offsets)
        if len(found) == 1:
            return found[0]
        self.types.unknown[what] = "no offset passes" if not found else f"{len(found)} offsets pass"
        return None

    def where(self, first: int, last: int, step: int, test: Callable[[int], bool]) -> Iterator[int]:
        return (offset for offset in range(-(-first // step) * step, last, step) if test(offset))

    # --- the steps ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        init = self.read_task(self.init.gva)
        if init is None:
            self.types.unknown["task_struct"] = "init_task cannot be read"
        elif self.parents(init) and self.find_tasks(init):
            self.members()

    def members(self) -> None:
        self.state("task_struct", "comm", self.comm, COMM_LENGTH)
        self.identity()
        self.memory_and_flags()
        self.page_tables()
        self.credentials()
        self.start_times()
        self.exit_fields()
        self.threads()

    def parents(self, init: Task) -> bool:
        """``real_parent``, ``parent``, ``children``, ``sibling``, ``group_leader`` follow each other."""
        gva, word = init.gva, self.word

        def fits(offset: int) -> bool:
            sibling = gva + offset + 4 * word
            return (
                self.at(init, offset) == self.at(init, offset + word) == gva
                and self.at(init, offset + 4 * word) == self.at(init, offset + 5 * word) == sibling
                and self.at(init, offset + 6 * word) == gva
            )

        offset = self.only("task_struct.real_parent", self.where(0, self.comm - 7 * word, word, fits))
        if offset is None:
            return False
        for index, name in enumerate(("real_parent", "parent")):
            self.state("task_struct", name, offset + index * word, word)
        self.state("task_struct", "children", offset + 2 * word, 2 * word)
        self.state("task_struct", "sibling", offset + 4 * word, 2 * word)
        self.state("task_struct", "group_leader", offset + 6 * word, word)
        return True

    def offset(self, name: str) -> int:
        return self.types.members["task_struct", name].offset

    def find_tasks(self, init: Task) -> bool:
        """``tasks`` is the ring from ``init_task`` whose members are all group leaders."""
        leader = self.offset("group_leader")
        rings: dict[int, list[int]] = {}
        for _ in range(RING_ATTEMPTS):
            if not rings:
                offsets = range(0, self.offset("real_parent"), self.word)
                found = ((offset, self.ring(init.gva, offset, leader)) for offset in offsets)
                rings = {offset: ring for offset, ring in found if len(ring) >= 2}
        tasks = self.only("task_struct.tasks", rings)
        if tasks is None:
            return False
        self.state("task_struct", "tasks", tasks, 2 * self.word)
        ring = rings[tasks]
        self.types.processes = len(ring)
        chosen = ring if len(ring) <= SAMPLE else ring[: SAMPLE // 2] + ring[-SAMPLE // 2 :]
        self.tasks = [task for gva in chosen if (task := self.read_task(gva))]
        if len(self.tasks) * 2 < len(chosen):
            self.types.unknown["task_struct.pid"] = "most tasks cannot be read"
            return False
        return True

    def ring(self, init: int, offset: int, leader: int) -> list[int]:
        """Return the tasks linked at ``offset``, without ``init_task``; empty unless the ring closes."""
        head = init + offset
        previous = head
        node = self.pointer(head)
        found: list[int] = []
        while node is not None and node != head and len(found) < MOST_TASKS and self.links < MOST_LINKS:
            self.links += 1
            task = node - offset
            if (
                not self.is_address(node)
                or self.pointer(node + self.word) != previous
                or self.pointer(task + leader) != task
            ):
                return []
            found.append(task)
            previous, node = node, self.pointer(node)
        return found if node == head else []

    def identity(self) -> None:
        """``pid`` and ``tgid``: equal for leaders, all different, 1 and 2 among them, before ``real_parent``."""

        def fits(offset: int) -> bool:
            pids = [int.from_bytes(task.data[offset : offset + 4], "little") for task in self.tasks]
            tgids = [int.from_bytes(task.data[offset + 4 : offset + 8], "little") for task in self.tasks]
            return pids == tgids and len(set(pids)) == len(pids) and {1, 2} <= set(pids) and max(pids) < PID_MAX_LIMIT

        offset = self.only("task_struct.pid", self.where(self.offset("tasks"), self.offset("real_parent"), 4, fits))
        if offset is None:
            return
        self.state("task_struct", "pid", offset, 4, signed=True)
        self.state("task_struct", "tgid", offset + 4, 4, signed=True)
        kthreadd = next(
            (task.gva for task in self.tasks if int.from_bytes(task.data[offset : offset + 4], "little") == 2), 0
        )
        parent = self.offset("real_parent")
        for task in self.tasks:
            is_kernel = kthreadd in (task.gva, self.at(task, parent))
            (self.kernel_threads if is_kernel else self.users).append(task)

    def memory_and_flags(self) -> None:
        """``mm`` is NULL for kernel threads, ``active_mm`` equals it for others; ``flags`` has PF_KTHREAD."""
        if not self.kernel_threads or not self.users:
            self.types.unknown["task_struct.mm"] = "no user process to tell kernel threads from"
            return
        word = self.word

        def flag(task: Task, offset: int) -> bool:
            return bool(int.from_bytes(task.data[offset : offset + 4], "little") & PF_KTHREAD)

        def is_flags(offset: int) -> bool:
            flagged = sum(flag(task, offset) for task in self.kernel_threads)
            # void *stack; refcount_t usage; unsigned int flags;
            return (
                flagged * 4 >= len(self.kernel_threads) * 3
                and not any(flag(task, offset) for task in self.users)
                and self.are_stacks(offset - 4 - word)
            )

        flags = self.only("task_struct.flags", self.where(word + 4, self.offset("tasks"), 4, is_flags))
        if flags is not None:
            # A helper of the kernel in user mode (core_pattern's, say) is a child of kthreadd, too.
            helpers = [task for task in self.kernel_threads if not flag(task, flags)]
            self.kernel_threads = [task for task in self.kernel_threads if flag(task, flags)]
            self.users += helpers
            self.state("task_struct", "flags", flags, 4)
            stack = flags - 4 - word
            self.state("task_struct", "stack", stack, word)
            self.find_state(stack)

        def is_mm(offset: int) -> bool:
            return all(self.at(task, offset) == 0 for task in self.kernel_threads) and all(
                self.is_address(mm := self.at(task, offset)) and mm == self.at(task, offset + word)
                for task in self.running_users(offset)
            )

        mm = self.only("task_struct.mm", self.where(self.offset("tasks"), self.offset("real_parent"), word, is_mm))
        if mm is not None:
            self.state("task_struct", "mm", mm, word)
            self.state("task_struct", "active_mm", mm + word, word)

    @property
    def steady(self) -> list[Task]:
        """The kernel's own threads, of which a user of the guest can change nothing; all tasks where they are few."""
        return self.kernel_threads if len(self.kernel_threads) >= FEW else self.tasks

    def page_tables(self) -> None:
        """``mm->pgd``: each program's table maps the kernel, too; not so where the halves have roots of their own."""
        mm = self.types.member("task_struct", "mm")
        if mm is None:
            return
        objects = {self.at(task, mm.offset) for task in self.users} - {0}

        def leads_to_kernel(table: int) -> bool:
            if not table or table % self.space.geometry.root_alignment or not self.is_address(table):
                return False
            try:
                root = self.space.translate(GVA(table)).gpa
                own = AddressSpace(self.space.memory, self.space.geometry, GPA(root))
                return own.translate(GVA(self.init.gva)).gpa == self.init.gpa
            except Fault:
                return False

        def fits(offset: int) -> bool:
            tables = [self.pointer(address + offset) for address in objects]
            return all(table is not None and leads_to_kernel(table) for table in tables)

        offset = self.only("mm_struct.pgd", self.where(0, MM_REACH, self.word, fits)) if objects else None
        if offset is not None:
            self.state("mm_struct", "pgd", offset, self.word)

    def running_users(self, mm: int) -> list[Task]:
        """Return the user processes of the sample that have not ended: those have no ``mm`` any more."""
        alive = [task for task in self.users if self.at(task, mm)]
        return alive if len(alive) * 2 >= len(self.users) else self.users

    def are_stacks(self, offset: int) -> bool:
        """Say whether the words at ``offset`` are page-aligned kernel addresses, each task's own (``stack``)."""
        if offset < 0 or offset % self.word:
            return False
        stacks = [self.at(task, offset) for task in self.tasks]
        alive = [stack for stack in stacks if stack]  # a zombie's stack is freed
        return (
            len(alive) * 2 > len(stacks)
            and len(set(alive)) == len(alive)
            and all(stack & 0xFFF == 0 and self.is_address(stack) for stack in alive)
        )

    def find_state(self, stack: int) -> None:
        """``__state`` (``state`` before 5.14) lies just before ``stack``; ``saved_state`` may lie between."""

        def fits(offset: int) -> bool:
            values = [int.from_bytes(task.data[offset : offset + 4], "little") for task in self.steady]
            asleep = sum(value in SLEEPING for value in values)
            return all(value <= STATE_BITS for value in values) and asleep * 4 >= len(values) * 3

        offset = self.only("task_struct.__state", self.where(max(0, stack - 8), stack, 4, fits))
        if offset is not None:
            self.state("task_struct", "__state", offset, 4)

    def credentials(self) -> None:
        """``real_cred`` and ``cred`` are the pair before ``comm`` (one ``CONFIG_KEYS`` pointer may lie between)."""
        word = self.word
        candidates = []
        for offset in (self.comm // word * word - 2 * word, self.comm // word * word - 3 * word):
            pairs = [(self.at(task, offset), self.at(task, offset + word)) for task in self.steady]
            same = sum(real == effective for real, effective in pairs)
            if same * 10 >= len(pairs) * 9 and all(real and self.is_address(real) for real, _ in pairs):
                capable = Counter(found for real, _ in pairs if (found := self.capabilities(real)) is not None)
                if capable:
                    candidates.append((offset, capable.most_common(1)[0][0]))
        place = self.only("task_struct.real_cred", [offset for offset, _ in candidates])
        if place is None:
            return
        self.state("task_struct", "real_cred", place, word)
        self.state("task_struct", "cred", place + word, word)
        permitted = candidates[0][1]
        uid = permitted - 44 if permitted - 44 != 12 else 8
        for index, name in enumerate(("uid", "gid", "suid", "sgid", "euid", "egid", "fsuid", "fsgid")):
            self.state("cred", name, uid + 4 * index, 4)

    def capabilities(self, cred: int) -> int | None:
        """Return the offset of ``cap_permitted`` in the ``cred`` of a fully capable root process, or ``None``.

        ``cap_permitted``, ``cap_effective`` and ``cap_bset`` of a root process are all ones up to the last capability;
        before them lie ``cap_inheritable`` (8 bytes), ``securebits`` and the eight ids, all zero
        (``include/linux/cred.h``). ``usage`` before the ids is 4 bytes, or 8 since 6.7 and in stable releases
        (``atomic_long_t``, f8fa5d769205): then the ids begin at 8.
        """
        try:
            data = self.space.read(GVA(cred), 128)
        except Fault:
            return None
        masks = {((1 << bits) - 1).to_bytes(8, "little") * 3 for bits in CAPABILITY_BITS}
        places = (at for at in range(48, 104, 4) if data[at : at + 24] in masks and not any(data[at - 44 : at]))
        return next(places, None)

    def start_times(self) -> None:
        """``start_time`` and ``start_boottime`` (``real_start_time`` before 5.5): u64 ns that grow along the list."""

        def grows(offset: int) -> bool:
            times = [int.from_bytes(task.data[offset : offset + 8], "little") for task in self.tasks]
            falls = sum(after < before for before, after in pairwise(times))
            return (
                times[0] > 0 and times[-1] < 1 << 60 and len(set(times)) * 2 > len(times) and falls * 20 <= len(times)
            )

        def fits(offset: int) -> bool:
            return (
                grows(offset)
                and grows(offset + 8)
                and all(at(task, offset) <= at(task, offset + 8) for task in self.tasks)
            )

        def at(task: Task, offset: int) -> int:
            return int.from_bytes(task.data[offset : offset + 8], "little")

        offset = self.only(
            "task_struct.start_boottime", self.where(self.offset("group_leader"), self.comm - 15, 8, fits)
        )
        if offset is not None:
            self.state("task_struct", "start_time", offset, 8)
            self.state("task_struct", "start_boottime", offset + 8, 8)

    def exit_fields(self) -> None:
        """``exit_state``, ``exit_code``, ``exit_signal``: the last is SIGCHLD for nearly every process."""

        def fits(offset: int) -> bool:
            signals = Counter(int.from_bytes(task.data[offset + 8 : offset + 12], "little") for task in self.steady)
            states = {int.from_bytes(task.data[offset : offset + 4], "little") for task in self.tasks}
            return signals[SIGCHLD] * 4 >= len(self.steady) * 3 and states <= {0, 16, 32, 48}

        offset = self.only(
            "task_struct.exit_state", self.where(self.offset("tasks"), self.offset("real_parent"), 4, fits)
        )
        if offset is not None:
            self.state("task_struct", "exit_state", offset, 4, signed=True)
            self.state("task_struct", "exit_code", offset + 4, 4, signed=True)
            self.state("task_struct", "exit_signal", offset + 8, 4, signed=True)

    def threads(self) -> None:
        """``signal->thread_head`` and ``thread_node``: a ring of two for each process with one thread."""
        word = self.word
        heads: dict[int, dict[int, int]] = {}
        for offset in range(self.offset("group_leader") + word, self.comm, word):
            found = {task.gva: head for task in self.steady if (head := self.ring_of_two(task, offset))}
            if len(found) * 4 >= len(self.steady) * 3:
                heads[offset] = found
        pairs = []
        for node, found in heads.items():
            for offset in range(self.comm, self.comm + BEHIND_COMM - word, word):
                distances = Counter(
                    found[task.gva] - self.at(task, offset) for task in self.steady if task.gva in found
                )
                distance, votes = distances.most_common(1)[0]
                if votes == len(found) and 0 <= distance < 128:
                    pairs.append((node, offset, distance))
        place = self.only("task_struct.thread_node", (node for node, _, _ in pairs))
        if place is not None:
            _, signal, head = pairs[0]
            self.state("task_struct", "thread_node", place, 2 * word)
            self.state("task_struct", "signal", signal, word)
            self.state("signal_struct", "thread_head", head, 2 * word)

    def ring_of_two(self, task: Task, offset: int) -> int | None:
        """Return the head whose only member is the node at ``offset`` in ``task``."""
        node, head = task.gva + offset, self.at(task, offset)
        if head != self.at(task, offset + self.word) or head == node or not self.is_address(head):
            return None
        return head if self.pointer(head) == self.pointer(head + self.word) == node else None

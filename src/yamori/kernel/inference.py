"""Layouts of ``task_struct``, ``cred`` and ``signal_struct`` without debug info: from what must hold over all tasks.

Each member is found by an invariant that the kernel itself relies on, tried at every offset over a sample of tasks; it
is taken only if exactly one offset passes, and otherwise is *not known*. Three quarters have to agree, so a task that
somebody altered costs nothing; and they are kernel threads, in which no user of the guest has a say. Programs are
asked, too, where no user can make them disagree. The order of neighbours in ``include/linux/sched.h`` narrows the
search where it has been the same since Linux 3.10; a kernel with RANDSTRUCT fails those checks and is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from yamori.address import GPA, GVA
from yamori.errors import Fault
from yamori.kernel.inferred import IDS, InferredTypes
from yamori.kernel.init_task import COMM_LENGTH, InitTask
from yamori.kernel.invariants import CRED_REACH, Quorum, are_births, enough, ids_of_root, nanoseconds, timespec
from yamori.kernel.sample import BEHIND_COMM, Family, Reader, Sample, Task
from yamori.kernel.types import Member
from yamori.translation.loads import PhysicalLoads
from yamori.translation.space import AddressSpace

FEW = 4
"""Kernel threads without which nothing is told; a kernel that has booted has 30 and more."""

MM_REACH = 256  # pgd is among the first members of mm_struct
VMACACHE_WORDS = 7  # active_mm, vmacache_seqnum and its padding, vmacache[VMACACHE_SIZE]
PF_KTHREAD = 0x0020_0000  # include/linux/sched.h, since 2.6.27 (246bb0b1deb2)
SIGCHLD = 17
PID_MAX_LIMIT = 1 << 22  # include/linux/threads.h
SLEEPING = frozenset({1, 2, 0x402, 0x2001, 0x2002, 0x100, 0x101, 0x102})
"""Usual values of a sleeping task's state: (UN)INTERRUPTIBLE, IDLE (4.2), with FREEZABLE (6.1) or WAKEKILL."""
STATE_BITS = 0xFFFF
EXIT_STATES = frozenset({0, 16, 32, 48})  # ZOMBIE and DEAD have changed places in 3.15 (ad86622b478e)


def infer(space: AddressSpace, init: InitTask, likely: Collection[int] = ()) -> InferredTypes:
    """Infer what ``banner``, ``syscall`` and ``plist`` need.

    Args:
        space: The kernel's address space.
        init: ``init_task``.
        likely: Offsets at which alone members are tried, to confirm what is thought to be known; none tries all.

    Returns:
        What is known; empty where ``init_task`` does not have the shape that all kernels without RANDSTRUCT share.
    """
    inference = _Inference(Reader(space, init), sorted(likely))
    inference.run()
    return inference.types


class _Inference:
    def __init__(self, reader: Reader, likely: Sequence[int]) -> None:
        self.reader = reader
        self.likely = likely
        self.word = reader.word_size
        self.comm = reader.comm
        self.types = InferredTypes()
        self.sample = Sample()
        self.quorum = Quorum()

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

    def clearly(
        self, what: str, first: int, last: int, step: int, test: Callable[[int], bool], *, echoes: int = 0
    ) -> int | None:
        """Return the one offset that passes, unless another one comes near it.

        Somebody who alters tasks until the true offset fails, and writes something like it elsewhere, has to leave less
        than a quarter of them as they were.

        Args:
            what: The member.
            first: The lowest offset that is tried.
            last: The first that is not.
            step: Between them.
            test: Says whether an offset passes.
            echoes: Bytes behind the true offset in which others may pass by nature.
        """
        passing = list(self.where(first, last, step, test))
        found = self.only(what, (offset for offset in passing if not 0 < offset - passing[0] <= echoes))
        if found is not None:
            with self.quorum.lowered():
                near = [offset for offset in self.where(first, last, step, test) if not 0 <= offset - found <= echoes]
            if near:
                self.types.unknown[what] = f"another offset comes near: {near[0]}, not only {found}"
                return None
        return found

    def where(self, first: int, last: int, step: int, test: Callable[[int], bool]) -> Iterator[int]:
        return (offset for offset in self.offsets(first, last, step) if test(offset))

    def offsets(self, first: int, last: int, step: int) -> Sequence[int]:
        every = range(-(-first // step) * step, last, step)
        return [offset for offset in self.likely if offset in every] if self.likely else every

    def offset(self, name: str) -> int:
        return self.types.members["task_struct", name].offset

    # --- the steps ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        init = self.reader.task(self.reader.init)
        if init is None:
            self.types.unknown["task_struct"] = "init_task cannot be read"
            return
        family = self.family(init)
        if family is None:
            return
        self.sample = self.reader.gather(family)
        self.types.processes = len(self.sample.kernel_threads) + len(self.sample.users)
        if len(self.sample.kernel_threads) < FEW:
            self.types.booting = True
            self.types.unknown["task_struct.tasks"] = "there are too few kernel threads"
        elif self.tasks(init, family):
            self.members(init)

    def members(self, init: Task) -> None:
        self.state("task_struct", "comm", self.comm, COMM_LENGTH)
        self.identity()
        self.flags()
        self.memory()
        self.page_tables(init)
        self.credentials()
        self.start_times()
        self.exit_fields()
        self.threads()

    def family(self, init: Task) -> Family | None:
        """``real_parent``, ``parent``, ``children``, ``sibling``, ``group_leader`` follow each other."""

        def fits(offset: int) -> bool:
            family = Family(offset, self.word)
            if not init.word(offset) == init.word(family.parent) == init.word(family.group_leader) == init.gva:
                return False
            sibling = init.gva + family.sibling  # of nobody, so it points to itself
            alone = init.word(family.sibling) == init.word(family.sibling + self.word) == sibling
            return alone or bool(self.reader.children(init.gva, family))

        last = self.comm - 7 * self.word
        offset = self.only("task_struct.real_parent", self.where(0, last, self.word, fits))
        if offset is None:
            return None
        family = Family(offset, self.word)
        for name in ("real_parent", "parent", "group_leader"):
            self.state("task_struct", name, getattr(family, name), self.word)
        for name in ("children", "sibling"):
            self.state("task_struct", name, getattr(family, name), 2 * self.word)
        return family

    def tasks(self, init: Task, family: Family) -> bool:
        """``tasks`` links group leaders only, ``init_task`` among them."""
        tasks = [*self.sample.kernel_threads, *self.sample.users]

        def is_leader(gva: int) -> bool:
            return self.reader.pointer(gva + family.group_leader) == gva

        def linked(task: Task, offset: int) -> bool:
            """Say whether a neighbour on either side links back: one bad pointer breaks one side of two tasks."""
            node = task.gva + offset
            sides = (task.word(offset), self.word), (task.word(offset + self.word), 0)
            return any(
                other != node
                and self.reader.is_address(other)
                and self.reader.pointer(other + back) == node
                and is_leader(other - offset)
                for other, back in sides
            )

        def neighbours(offset: int) -> bool:
            """Say whether any task says that it is next to ``init_task``; on a list of sched_ext none does."""
            sides = offset, offset + self.word
            return any(task.word(side) == init.gva + offset for task in tasks for side in sides)

        def fits(offset: int) -> bool:
            in_ring = linked(init, offset) or (self.quorum.low and neighbours(offset))
            return in_ring and self.all_agree(lambda task: linked(task, offset))

        offset = self.clearly("task_struct.tasks", 0, family.real_parent, self.word, fits)
        if offset is not None:
            self.state("task_struct", "tasks", offset, 2 * self.word)
        return offset is not None

    def all_agree(self, test: Callable[[Task], bool]) -> bool:
        return self.quorum.agrees(self.sample.kernel_threads, test) and self.quorum.agrees(self.sample.users, test)

    def identity(self) -> None:
        """``pid`` and ``tgid``: equal for leaders, different between them; 1 and 2 are the eldest's."""
        kthreadd, users = self.sample.kernel_threads[0], self.sample.users

        def fits(offset: int) -> bool:
            return (
                self.all_agree(lambda task: task.u32(offset) == task.u32(offset + 4) in range(1, PID_MAX_LIMIT))
                and self.quorum.differ(self.sample.kernel_threads, lambda task: task.u32(offset))
                and self.quorum.differ(users, lambda task: task.u32(offset))
                and (self.quorum.low or kthreadd.u32(offset) == 2 or any(task.u32(offset) == 1 for task in users[:1]))
            )

        offset = self.clearly("task_struct.pid", self.offset("tasks"), self.offset("real_parent"), 4, fits)
        if offset is not None:
            self.state("task_struct", "pid", offset, 4, signed=True)
            self.state("task_struct", "tgid", offset + 4, 4, signed=True)

    def flags(self) -> None:
        """``void *stack; refcount_t usage; unsigned int flags;``: kernel threads have PF_KTHREAD, programs do not.

        On 32-bit Arm since 5.16 saved registers lie at the front of the task: pointers may have that bit by chance.
        """
        kernel_threads, users = self.sample.kernel_threads, self.sample.users

        def is_kernel(task: Task, offset: int) -> bool:
            flags = task.u32(offset)
            return bool(flags & PF_KTHREAD) and not self.reader.is_address(flags)

        def fits(offset: int) -> bool:
            stack = offset - 4 - self.word
            return self.quorum.agrees(kernel_threads, lambda task: is_kernel(task, offset)) and self.are_stacks(stack)

        def tells(offset: int) -> bool:
            if not fits(offset):
                return False
            programs = sum(not is_kernel(task, offset) for task in users)
            return programs > 0 if self.quorum.low else enough(programs, len(users))

        first, last = self.word + 4, self.offset("tasks")
        offset = self.clearly("task_struct.flags", first, last, 4, tells)
        if offset is None:
            with self.quorum.lowered():
                self.types.booting = any(self.where(first, last, 4, fits)) and not any(
                    self.where(first, last, 4, tells)
                )
            return
        # A helper of the kernel in user mode (core_pattern's, say) is a child of kthreadd, too.
        users += [task for task in kernel_threads if not is_kernel(task, offset)]
        kernel_threads[:] = [task for task in kernel_threads if is_kernel(task, offset)]
        self.state("task_struct", "flags", offset, 4)
        self.state("task_struct", "stack", offset - 4 - self.word, self.word)
        self.find_state(offset - 4 - self.word)

    def are_stacks(self, offset: int) -> bool:
        """Say whether the words at ``offset`` are page-aligned kernel addresses, each task's own (``stack``)."""
        if offset < 0 or offset % self.word:
            return False

        def is_stack(task: Task) -> bool:
            stack = task.word(offset)
            return bool(stack) and stack & 0xFFF == 0 and self.reader.is_address(stack)

        return (
            self.quorum.agrees(self.sample.kernel_threads, is_stack)
            and self.quorum.differ(self.sample.kernel_threads, lambda task: task.word(offset))
            and self.quorum.agrees(
                self.sample.users, lambda task: not task.word(offset) or is_stack(task)
            )  # a zombie's is freed
        )

    def find_state(self, stack: int) -> None:
        """``__state`` (``state`` before 5.14) lies just before ``stack``; ``saved_state`` may lie between."""

        def fits(offset: int) -> bool:
            return self.quorum.agrees(
                self.sample.kernel_threads, lambda task: task.u32(offset) in SLEEPING
            ) and self.all_agree(lambda task: task.u32(offset) <= STATE_BITS)

        offset = self.clearly("task_struct.__state", max(0, stack - 8), stack, 4, fits)
        if offset is not None:
            self.state("task_struct", "__state", offset, 4)

    def memory(self) -> None:
        """``mm`` is NULL for kernel threads and for what has ended; ``active_mm`` equals it for all others.

        Process 1 is among those: it never ends. From 3.15 (615d6e8756c8) to 6.0 ``vmacache`` follows, in which two
        neighbours may be equal, too.
        """

        def is_mm(task: Task, offset: int) -> bool:
            mm = task.word(offset)
            return bool(mm) and mm == task.word(offset + self.word) and self.reader.is_address(mm)

        def fits(offset: int) -> bool:
            return (
                self.quorum.agrees(self.sample.kernel_threads, lambda task: not task.word(offset))
                and self.quorum.agrees(self.sample.users, lambda task: not task.word(offset) or is_mm(task, offset))
                and any(is_mm(task, offset) for task in self.sample.users[: None if self.quorum.low else 1])
            )

        first, last = self.offset("tasks"), self.offset("real_parent")
        mm = self.clearly("task_struct.mm", first, last, self.word, fits, echoes=VMACACHE_WORDS * self.word)
        if mm is not None:
            self.state("task_struct", "mm", mm, self.word)
            self.state("task_struct", "active_mm", mm + self.word, self.word)

    def page_tables(self, init: Task) -> None:
        """``mm->pgd``: each program's table maps the kernel, too; not so where the halves have roots of their own."""
        mm = self.types.member("task_struct", "mm")
        if mm is None:
            return
        space = self.reader.space
        if not any(space.geometry.user_tables(PhysicalLoads(space.memory), space.root, init.gva)):
            return  # none of them does
        objects = [task for task in self.sample.users if task.word(mm.offset)]
        image = space.translate(GVA(init.gva)).gpa

        def leads_to_kernel(task: Task, offset: int) -> bool:
            table = self.reader.pointer(task.word(mm.offset) + offset)
            if not table or table % space.geometry.root_alignment or not self.reader.is_address(table):
                return False
            try:
                own = AddressSpace(space.memory, space.geometry, GPA(space.translate(GVA(table)).gpa))
                return own.translate(GVA(init.gva)).gpa == image
            except Fault:
                return False

        def fits(offset: int) -> bool:
            return enough(sum(leads_to_kernel(task, offset) for task in objects), len(objects))

        offset = self.only("mm_struct.pgd", self.where(0, MM_REACH, self.word, fits))
        if offset is not None:
            self.state("mm_struct", "pgd", offset, self.word)

    def credentials(self) -> None:
        """``real_cred`` and ``cred`` are the pair before ``comm`` (one ``CONFIG_KEYS`` pointer may lie between)."""
        last = self.comm // self.word * self.word
        found = {offset: uid for offset in (last - 2 * self.word, last - 3 * self.word) if (uid := self.ids(offset))}
        place = self.only("task_struct.real_cred", found)
        if place is None:
            return
        self.state("task_struct", "real_cred", place, self.word)
        self.state("task_struct", "cred", place + self.word, self.word)
        usage = found[place] if found[place] == self.word else 4  # atomic_long_t, or atomic_t
        self.state("cred", "usage.counter", 0, usage, signed=True)
        for index, name in enumerate(IDS):
            self.state("cred", name, found[place] + 4 * index, 4)

    def ids(self, offset: int) -> int | None:
        """Return where ``uid`` lies in what the pairs of pointers at ``offset`` lead to, if those are credentials."""
        kernel_threads = self.sample.kernel_threads
        if not self.quorum.agrees(kernel_threads, lambda task: task.word(offset) == task.word(offset + self.word)):
            return None
        objects = (self.reader.read(task.word(offset), CRED_REACH) for task in kernel_threads)
        found = Counter(ids_of_root(cred, self.word) for cred in objects if cred)
        uid, votes = found.most_common(1)[0] if found else (None, 0)
        return uid if enough(votes, len(kernel_threads)) else None

    def start_times(self) -> None:
        """``start_time`` and ``start_boottime`` (``real_start_time`` before 5.5): they grow with order of birth.

        Both were ``struct timespec`` of two words, ``tv_sec`` and ``tv_nsec``, before 3.17 (ccbf62d8a284).
        """
        pair, first = 2 * self.word, self.offset("group_leader")
        simple = list(self.where(first, self.comm - 15, 8, lambda at: self.are_births(at, 8, nanoseconds)))
        pairs = self.where(first, self.comm - 2 * pair + 1, self.word, lambda at: self.are_births(at, pair, timespec))
        if simple:
            # Half of a number of nanoseconds, behind a 32-bit zero, looks like a timespec in the first second.
            tasks = [*self.sample.kernel_threads, *self.sample.users]
            pairs = (at for at in list(pairs) if all(timespec(task, at) >= 0 for task in tasks))
        offset = self.only("task_struct.start_boottime", [*simple, *pairs])
        if offset is None:
            return
        if simple:
            self.state("task_struct", "start_time", offset, 8)
            self.state("task_struct", "start_boottime", offset + 8, 8)
            return
        self.state("task_struct", "start_time", offset, pair)
        self.state("task_struct", "real_start_time", offset + pair, pair)
        self.state("task_struct", "real_start_time.tv_sec", offset + pair, self.word)
        self.state("task_struct", "real_start_time.tv_nsec", offset + pair + self.word, self.word)

    def are_births(self, offset: int, size: int, read: Callable[[Task, int], int]) -> bool:
        kernel_threads, users = (
            [(read(task, offset), read(task, offset + size)) for task in tasks]
            for tasks in (self.sample.kernel_threads, self.sample.users)
        )
        return are_births(kernel_threads, users)

    def exit_fields(self) -> None:
        """``exit_state``, ``exit_code``, ``exit_signal``: the last is SIGCHLD for nearly every kernel thread."""

        def fits(offset: int) -> bool:
            return self.quorum.agrees(
                self.sample.kernel_threads, lambda task: task.u32(offset + 8) == SIGCHLD
            ) and self.all_agree(lambda task: task.u32(offset) in EXIT_STATES)

        first, last = self.offset("tasks"), self.offset("real_parent")
        offset = self.clearly("task_struct.exit_state", first, last, 4, fits)
        if offset is not None:
            for index, name in enumerate(("exit_state", "exit_code", "exit_signal")):
                self.state("task_struct", name, offset + 4 * index, 4, signed=True)

    def threads(self) -> None:
        """``signal->thread_head`` and ``thread_node``: a ring of two for each process with one thread."""
        word, tasks = self.word, self.sample.kernel_threads
        pairs = []
        for node in self.offsets(self.offset("group_leader") + word, self.comm, word):
            heads = {task: head for task in tasks if (head := self.ring_of_two(task, node))}
            if not enough(len(heads), len(tasks)):
                continue
            for offset in self.offsets(self.comm, self.comm + BEHIND_COMM - word, word):
                distances = Counter(head - task.word(offset) for task, head in heads.items())
                distance, votes = distances.most_common(1)[0]
                if enough(votes, len(heads)) and 0 <= distance < 128:
                    pairs.append((node, offset, distance))
        place = self.only("task_struct.thread_node", (node for node, _, _ in pairs))
        if place is not None:
            _, signal, head = pairs[0]
            self.state("task_struct", "thread_node", place, 2 * word)
            self.state("task_struct", "signal", signal, word)
            self.state("signal_struct", "thread_head", head, 2 * word)
        elif not pairs:
            self.thread_group()

    def thread_group(self) -> None:
        """``thread_group`` of kernels before 3.14 (0c740d0afc3b): a ring of the threads, which share ``group_leader``.

        It follows ``struct pid_link pids[PIDTYPE_MAX]``: three times ``hlist_node`` and ``struct pid *``.
        """
        word, leader = self.word, self.offset("group_leader")

        def is_linked(task: Task, offset: int) -> bool:
            links = range(offset - 9 * word, offset, 3 * word)
            if not all(task.word(at + place) and self.reader.is_address(task.word(at + place))
                       for at in links for place in (word, 2 * word)):  # fmt: skip
                return False
            node, after = task.gva + offset, task.word(offset)
            if after == node:
                return task.word(offset + word) == node
            same = self.reader.pointer(after - offset + leader) == task.word(leader)
            return same and self.reader.pointer(after + word) == node

        first = leader + 14 * word  # behind ptraced, ptrace_entry and the links
        offset = self.only(
            "task_struct.thread_group",
            self.where(first, self.comm, word, lambda at: self.all_agree(lambda task: is_linked(task, at))),
        )
        if offset is not None:
            self.state("task_struct", "thread_group", offset, 2 * word)

    def ring_of_two(self, task: Task, offset: int) -> int | None:
        """Return the head whose only member is the node at ``offset`` in ``task``."""
        node, head = task.gva + offset, task.word(offset)
        if head != task.word(offset + self.word) or head == node or not self.reader.is_address(head):
            return None
        return head if self.reader.pointer(head) == self.reader.pointer(head + self.word) == node else None

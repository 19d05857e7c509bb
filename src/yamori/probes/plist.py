"""``ids plist``: every process and thread that the kernel's own list of tasks holds.

``for_each_process`` and ``for_each_thread`` of ``include/linux/sched/signal.h``: group leaders hang on
``init_task.tasks``; the threads of a group on ``signal->thread_head`` since 3.14 (0c740d0afc3b), on ``thread_group``
before.
"""

from __future__ import annotations

from collections.abc import Iterator

from yamori.errors import Fault
from yamori.kernel.kernel import Kernel, Struct
from yamori.probes.lists import for_each_entry, reachable, still_linked
from yamori.records import Process, escape

MEMBERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "task_struct": (
        ("tasks",),
        ("pid",),
        ("tgid",),
        ("real_parent",),
        ("comm",),
        ("flags",),
        ("__state", "state"),
        ("exit_state",),
        ("real_cred",),
        ("start_boottime", "real_start_time"),
        ("signal",),
        ("thread_node", "thread_group"),
    ),
    "cred": (("uid",), ("gid",), ("euid",), ("egid",)),
    "signal_struct": (("thread_head",),),
}
"""What this probe reads; the names of one member over time stand together. ``signal`` and what follows it serve threads
only."""

OPTIONAL: dict[str, tuple[tuple[str, ...], ...]] = {
    "state": (("task_struct", "__state", "state"), ("task_struct", "exit_state")),
    "uid and gid": (("task_struct", "real_cred"), ("cred", "uid")),
    "start time": (("task_struct", "start_boottime", "real_start_time"),),
}
"""What rows do without where the kernel's layout is not known: structure, then names of the member over time."""

PF_KTHREAD = 0x0020_0000  # include/linux/sched.h
NANOSECONDS = 1_000_000_000

STATES = "RSDTtXZP"
"""By the number of the highest state bit, ``task_state_array`` of ``fs/proc/array.c`` since 4.14 (8ef9925b02c2)."""
TASK_REPORT = 0x7F
TASK_IDLE = 0x402  # TASK_UNINTERRUPTIBLE | TASK_NOLOAD: shown as I since 4.14 (06eb61844d84)
TASK_FROZEN = 0x8000  # since 6.1 (f5d39b020809); shown as D
TASK_RTLOCK_WAIT = 0x1000  # since 5.15; shown as D


def plist(kernel: Kernel, *, threads: bool = False) -> Iterator[Process]:
    """Yield every process, oldest first; with ``threads`` every thread of each, the leader first."""
    for what, names in OPTIONAL.items():
        if not all(any(kernel.knows(struct, name) for name in group) for struct, *group in names):
            kernel.trouble(f"{what} cannot be shown: `yamori doctor` tells what is not known; give --vmlinux")
    pids: set[int] = set()
    for row in _tasks(kernel, threads=threads):
        # The kernel gives a number to one task at a time, and none below 1 to what is on its list (alloc_pid).
        if row.pid < 1 or row.pid in pids:
            wrong = "appears twice" if row.pid in pids else "is none that a process can have"
            kernel.trouble(f"pid {row.pid} {wrong}: somebody may have changed it")
        pids.add(row.pid)
        yield row
    if not pids:  # every kernel that runs has init and kthreadd
        kernel.trouble("there is no process at all: the guest is booting, or its list of tasks was cut")


def _tasks(kernel: Kernel, *, threads: bool) -> Iterator[Process]:
    for leader, row in _listed(kernel, kernel.init_task.address("tasks"), "tasks"):
        yield row
        if threads:
            yield from _other_threads(kernel, leader)


def _other_threads(kernel: Kernel, leader: Struct) -> Iterator[Process]:
    """Yield the threads of the leader's group without the leader."""
    if kernel.knows("task_struct", "thread_node"):
        try:
            signal = leader.follow("signal", "signal_struct")
        except Fault as fault:
            kernel.trouble(f"{leader}: threads: {fault}")
            return
        if signal is None:
            return  # the whole group is being released
        head, member = signal.address("thread_head"), "thread_node"
    else:
        head, member = leader.address("thread_group"), "thread_group"
    yield from (row for _, row in _listed(kernel, head, member, leader))


def _listed(kernel: Kernel, head: int, member: str, leader: Struct | None = None) -> Iterator[tuple[Struct, Process]]:
    """Yield each task on a list with its row, but not the leader, and not those that ended meanwhile.

    What is read of a task being freed means nothing; only of one that is still on its list does it matter that
    something could not be read. One whose neighbours do not point back to it has ended if the list no longer leads to
    it; otherwise somebody hides it from those who trust ``prev``, and it comes last.
    """
    doubtful: list[tuple[Struct, Process | None, list[str]]] = []
    for task in for_each_entry(kernel, head, "task_struct", member):
        if task == leader:
            continue
        problems: list[str] = []
        row = _row(task, problems)
        if not still_linked(kernel, task.address(member)):
            doubtful.append((task, row, [*problems, "its neighbours do not link back to it"]))
            continue
        for problem in problems:
            kernel.trouble(f"{task}: {problem}")
        if row:
            yield task, row
    there = reachable(kernel, head, "task_struct", member) if doubtful else set()
    for task, row, problems in doubtful:
        if task.gva in there:
            kernel.trouble(f"{task}: {', '.join(problems)}")
            if row:
                yield task, row


def _row(task: Struct, problems: list[str]) -> Process | None:
    """Return one task's row; ``None`` where not even its identity can be read. ``problems`` says what could not."""
    try:
        pid, tgid = task.load("pid"), task.load("tgid")
        comm = escape(task.text("comm"))
        kthread = _is_kernel_thread(task)
        state = _state(task)
        start = _start_time(task)
    except Fault as fault:
        problems.append(str(fault))
        return None
    ppid = _parent(task, problems)
    uid, gid, euid, egid = _credentials(task, problems)
    return Process(
        pid=pid,
        tgid=tgid,
        ppid=ppid,
        uid=uid,
        gid=gid,
        euid=euid,
        egid=egid,
        comm=comm,
        state=state,
        kthread=kthread,
        start_time=start,
        task=task.gva,
    )


def _parent(task: Struct, problems: list[str]) -> int:
    """Return ``tgid`` of ``real_parent``, which is what ``/proc`` shows; 0 where there is none or it is no task."""
    try:
        parent = task.follow("real_parent", "task_struct")
        return parent.load("tgid") if parent else 0
    except Fault as fault:
        problems.append(f"real_parent: {fault}")
        return 0


def _state(task: Struct) -> str | None:
    """Return what ``get_task_state`` of ``fs/proc/array.c`` returns; ``__state`` was ``state`` before 5.14.

    ``None`` where it is not known where the states lie.
    """
    kernel = task.kernel
    if not kernel.knows("task_struct", "__state", "state") or not kernel.knows("task_struct", "exit_state"):
        return None
    if ended := task.load("exit_state") & 0xFF:
        # EXIT_ZOMBIE was 16 and EXIT_DEAD 32 before 3.15 (ad86622b478e); thread_node came a release earlier.
        dead = 0x10 if kernel.knows("task_struct", "thread_node") else 0x20
        return "X" if ended & 0x30 == dead else "Z"
    state = task.load("__state", "state") & 0xFFFF_FFFF
    if state & TASK_IDLE == TASK_IDLE:
        return "I"
    if state & (TASK_FROZEN | TASK_RTLOCK_WAIT):
        return "D"
    return STATES[(state & TASK_REPORT).bit_length()]


def _start_time(task: Struct) -> float | None:
    """Return seconds since boot: ``start_boottime`` since 5.5 (cf25e24db61c), ``real_start_time`` before."""
    kernel = task.kernel
    if not kernel.knows("task_struct", "start_boottime", "real_start_time"):
        return None
    member = kernel.member("task_struct", "start_boottime", "real_start_time")
    if member.size == 8 and not kernel.knows("task_struct", "real_start_time.tv_sec"):
        return kernel.load(task.gva, member) / NANOSECONDS
    word = kernel.profile.init.word_size  # struct timespec before 3.17 (ccbf62d8a284): tv_sec, tv_nsec
    at = task.gva + member.offset
    return kernel.pointer(at) + kernel.pointer(at + word) / NANOSECONDS


def _is_kernel_thread(task: Struct) -> bool:
    """Return what the flags say, or, where it is not known where they lie, whether it has no memory of its own."""
    if task.kernel.knows("task_struct", "flags") or not task.kernel.knows("task_struct", "mm"):
        return bool(task.load("flags") & PF_KTHREAD)
    return not task.load("mm")


def _credentials(task: Struct, problems: list[str]) -> tuple[int | None, int | None, int | None, int | None]:
    """Return uid, gid, euid, egid of ``real_cred``, which is what ``/proc`` shows (``__task_cred``)."""
    if not task.kernel.knows("task_struct", "real_cred") or not task.kernel.knows("cred", "uid"):
        return None, None, None, None
    try:
        cred = task.follow("real_cred", "cred")
        if cred is not None:
            return cred.load("uid"), cred.load("gid"), cred.load("euid"), cred.load("egid")
        problems.append("real_cred is NULL")
    except Fault as fault:
        problems.append(f"credentials: {fault}")
    return None, None, None, None

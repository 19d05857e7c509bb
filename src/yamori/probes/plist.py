"""``ids plist``: every process and thread that the kernel's own list of tasks holds.

``for_each_process`` and ``for_each_thread`` of ``include/linux/sched/signal.h``: group leaders hang on
``init_task.tasks``; the threads of a group on ``signal->thread_head`` since 3.14 (0c740d0afc3b), on ``thread_group``
before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from yamori.kernel.kernel import Kernel as KernelView
from yamori.llview.faults import MOST_TROUBLES
from yamori.llview.language import (
    NULL,
    CharArray,
    Kernel,
    Ptr,
    Struct,
    address_of,
    attempt,
    emit,
    exists,
    helper,
    named,
    probe,
    s32,
    slong,
    stop,
    torn,
    trouble,
    u8,
    u32,
    u64,
    ulong,
)
from yamori.llview.structures.lists import for_each_entry, holds, list_head
from yamori.probes.run import run_probe
from yamori.records import Process, Result

PF_KTHREAD = 0x0020_0000  # include/linux/sched.h
NANOSECONDS = 1_000_000_000

RUNNING, SLEEPING, WAITING, STOPPED, TRACED, DEAD, ZOMBIE, PARKED, IDLE = (ord(letter) for letter in "RSDTtXZPI")
"""``task_state_array`` of ``fs/proc/array.c``, by the highest bit of the state, since 4.14 (8ef9925b02c2)."""

# include/linux/sched.h
TASK_INTERRUPTIBLE = 0x01
TASK_UNINTERRUPTIBLE = 0x02
TASK_STOPPED = 0x04
TASK_TRACED = 0x08
EXIT_DEAD = 0x10
EXIT_ZOMBIE = 0x20
TASK_PARKED = 0x40
TASK_REPORT = 0x7F
TASK_IDLE = 0x402  # TASK_UNINTERRUPTIBLE | TASK_NOLOAD: shown as I since 4.14 (06eb61844d84)
TASK_FROZEN = 0x8000  # since 6.1 (f5d39b020809); shown as D
MOST_USERS = 1 << 28
"""References to one ``struct cred`` that are believed: each task has two, each open file one."""

TASK_RTLOCK_WAIT = 0x1000  # since 5.15; shown as D


class cred(Struct):  # noqa: N801  a name of the kernel, as all here
    """``include/linux/cred.h``."""

    usage: slong = named("usage.counter")  # atomic_t, atomic_long_t since 6.7 (f8fa5d769205)
    uid: u32
    gid: u32
    euid: u32
    egid: u32


class signal_struct(Struct):  # noqa: N801
    """``include/linux/sched/signal.h``."""

    thread_head: list_head


class task_struct(Struct):  # noqa: N801
    """``include/linux/sched.h``."""

    tasks: list_head
    thread_node: list_head
    thread_group: list_head
    pid: s32
    tgid: s32
    comm: CharArray
    flags: u32
    mm: ulong
    __state: slong  # since 5.14 (2f064a59a11f)
    state: slong
    exit_state: s32
    real_parent: Ptr[task_struct]
    real_cred: Ptr[cred]
    signal: Ptr[signal_struct]
    start_boottime: u64  # since 5.5 (cf25e24db61c)
    real_start_time: u64
    real_start_sec: slong = named("real_start_time.tv_sec")  # struct timespec before 3.17 (ccbf62d8a284)
    real_start_nsec: slong = named("real_start_time.tv_nsec")


class Tasks(Kernel):
    """The kernel's variables that this probe starts from."""

    init_task: task_struct


@helper
def state_of(task: task_struct) -> u8:
    """Return the letter of ``get_task_state`` of ``fs/proc/array.c``; 0 where it is not known where the states lie."""
    if not exists(task.exit_state):
        return 0
    ended = u32(task.exit_state)
    if ended & (EXIT_DEAD | EXIT_ZOMBIE):
        # EXIT_ZOMBIE was 16 and EXIT_DEAD 32 before 3.15 (ad86622b478e); thread_node came a release earlier.
        dead: u32 = EXIT_ZOMBIE
        if exists(task.thread_node):
            dead = EXIT_DEAD
        return DEAD if ended & (EXIT_DEAD | EXIT_ZOMBIE) == dead else ZOMBIE
    if exists(task.__state):
        return letter(u32(task.__state))
    if exists(task.state):
        return letter(u32(task.state))
    return 0


@helper
def letter(state: u32) -> u8:
    """Return the letter of a task that has not ended."""
    if state & TASK_IDLE == TASK_IDLE:
        return IDLE
    if state & (TASK_FROZEN | TASK_RTLOCK_WAIT):
        return WAITING
    if state & TASK_PARKED:
        return PARKED
    if state & EXIT_ZOMBIE:
        return ZOMBIE
    if state & EXIT_DEAD:
        return DEAD
    if state & TASK_TRACED:
        return TRACED
    if state & TASK_STOPPED:
        return STOPPED
    if state & TASK_UNINTERRUPTIBLE:
        return WAITING
    return SLEEPING if state & TASK_INTERRUPTIBLE else RUNNING


@helper
def start_time(task: task_struct) -> u64:
    """Return nanoseconds since boot."""
    if exists(task.start_boottime):
        return task.start_boottime
    if exists(task.real_start_sec) and exists(task.real_start_nsec):
        return u64(task.real_start_sec) * NANOSECONDS + u64(task.real_start_nsec)
    return task.real_start_time


@helper
def is_kernel_thread(task: task_struct) -> bool:
    """Return what the flags say, or, where it is not known where they lie, whether it has no memory of its own."""
    if exists(task.flags):
        return task.flags & PF_KTHREAD != 0
    return task.mm == 0


@helper
def reaches(head: list_head, wanted: list_head) -> bool:
    """Say whether a list leads to a node now."""
    node = head.next
    while node != head:
        if node == wanted:
            return True
        node = node.next
    return False


@helper
def is_listed(head: list_head, node: list_head) -> bool:
    """Say whether a task is still on its list: its neighbours link back to it, or at least the list leads to it."""
    if holds(node):
        return True
    found = False
    with attempt() as unknown:
        found = reaches(head, node)
    return found or unknown


@helper
def has_ids(task: task_struct) -> bool:
    """Say whether it is known where the credentials lie."""
    return exists(task.real_cred) and exists(task.real_cred.uid)


@helper
def check_use(task: task_struct, ids: cred) -> None:
    """Fault unless credentials are somebody's: what was freed or overwritten has no sensible number of users."""
    if exists(ids.usage):
        usage = ids.usage
        if usage <= 0 or usage >= MOST_USERS:
            torn("the credentials of a task were replaced, or are overwritten", task)
            stop("nobody uses them", address_of(ids))


@helper
def has_start(task: task_struct) -> bool:
    """Say whether it is known where the time of the start lies."""
    timespec = exists(task.real_start_sec) and exists(task.real_start_nsec)
    return exists(task.start_boottime) or exists(task.real_start_time) or timespec


@helper
def has_threads(task: task_struct) -> bool:
    """Say whether it is known which list links the threads of a group; ``thread_group`` is older than 3.14."""
    node = exists(task.thread_node) and exists(task.signal) and exists(task.signal.thread_head)
    return node or exists(task.thread_group)


@helper
def show(task: task_struct, head: list_head, node: list_head) -> None:
    """Give out one task of a list.

    What is read of one that ends meanwhile means nothing. One whose neighbours do not point back to it has ended if the
    list no longer leads to it; otherwise somebody hides it from those who trust ``prev``.
    """
    pid: s32 = 0
    tgid: s32 = 0
    kthread = False
    state: u8 = 0
    start: u64 = 0
    with attempt() as unreadable:
        pid = task.pid
        tgid = task.tgid
        kthread = is_kernel_thread(task)
        state = state_of(task)
        if has_start(task):
            start = start_time(task)
        comm = task.comm
    if unreadable:
        if is_listed(head, node):
            trouble("a task cannot be read", task, faulted=True)
        return
    ppid: s32 = 0
    with attempt() as orphaned:
        parent = task.real_parent
        if parent != NULL:
            ppid = parent.tgid
    if orphaned and is_listed(head, node):
        trouble("real_parent of a task cannot be read", task, faulted=True)
    uid: u32 = 0
    gid: u32 = 0
    euid: u32 = 0
    egid: u32 = 0
    anonymous = True
    with attempt() as unknown:
        if has_ids(task):
            ids = task.real_cred  # once: commit_creds() puts another in its place
            if ids != NULL:
                check_use(task, ids)
                uid = ids.uid
                gid = ids.gid
                euid = ids.euid
                egid = ids.egid
                anonymous = False
    if has_ids(task) and anonymous and is_listed(head, node):
        if unknown:
            trouble("the credentials of a task cannot be read", task, faulted=True)
        else:
            trouble("real_cred of a task is NULL", task)
    if not holds(node):
        if not is_listed(head, node):
            return
        trouble("the neighbours of a task do not link back to it", task)
    emit(
        pid=pid,
        tgid=tgid,
        ppid=ppid,
        uid=uid if not anonymous else None,
        gid=gid if not anonymous else None,
        euid=euid if not anonymous else None,
        egid=egid if not anonymous else None,
        comm=comm,
        state=state if state != 0 else None,
        kthread=kthread,
        start_time=start if has_start(task) else None,
        task=address_of(task),
    )


@helper
def show_threads(leader: task_struct) -> None:
    """Give out the threads of a group but its leader."""
    if exists(leader.thread_node):
        signal = leader.signal
        if signal == NULL:
            return  # the whole group is being released
        for thread in for_each_entry(signal.thread_head, task_struct, "thread_node"):
            if thread != leader:
                show(thread, signal.thread_head, thread.thread_node)
    elif exists(leader.thread_group):
        for thread in for_each_entry(leader.thread_group, task_struct, "thread_group"):
            show(thread, leader.thread_group, thread.thread_group)


@probe(row=Process)
def tasks(kernel: Tasks, threads: u32 = 0) -> None:
    """List every process, oldest first; with ``threads`` every thread of each, the leader first."""
    init = kernel.init_task
    if not exists(init.exit_state) or not (exists(init.__state) or exists(init.state)):
        trouble("state cannot be shown: `yamori doctor` tells what is not known; give --vmlinux")
    if not has_ids(init):
        trouble("uid and gid cannot be shown: `yamori doctor` tells what is not known; give --vmlinux")
    if not has_start(init):
        trouble("start time cannot be shown: `yamori doctor` tells what is not known; give --vmlinux")
    if threads != 0 and not has_threads(init):
        trouble("threads cannot be listed: `yamori doctor` tells what is not known; give --vmlinux")
    for task in for_each_entry(init.tasks, task_struct, "tasks"):
        show(task, init.tasks, task.tasks)
        if threads != 0:
            with attempt() as broken:
                show_threads(task)
            if broken and is_listed(init.tasks, task.tasks):
                trouble("the threads of a task cannot be listed", task, faulted=True)


def plist(kernel: KernelView, *, threads: bool = False) -> Result[Process]:
    """List every process, oldest first; with ``threads`` every thread of each, the leader first."""
    result = run_probe(kernel, tasks, (int(threads),))
    reasons = [*_impossible(result.rows)]
    if not result.rows:  # every kernel that runs has init and kthreadd
        reasons.append("there is no process at all: the guest is booting, or its list of tasks was cut")
    return replace(
        result, complete=result.complete and not reasons, reasons=[*result.reasons, *reasons][:MOST_TROUBLES]
    )


def _impossible(rows: Iterable[Process]) -> Iterator[str]:
    """Yield what is wrong with process ids.

    The kernel gives a number to one task at a time, and none below 1 to what is on its list (``alloc_pid``).
    """
    pids: set[int] = set()
    for row in rows:
        if row.pid < 1 or row.pid in pids:
            wrong = "appears twice" if row.pid in pids else "is none that a process can have"
            yield f"pid {row.pid} {wrong}: somebody may have changed it"
        pids.add(row.pid)

"""The table of process ids: what ``/proc`` and ``kill`` find processes by, another structure than the list of tasks.

``struct pid_namespace.idr`` holds the ``struct pid`` of each number (since 4.15, 95846ecf9dac; a hash table before,
which is not read), and each leads to the task whose id it is (``pid_task`` of ``kernel/pid.c``). The first namespace is
that of ``init_task``: ``init_task.thread_pid->numbers[0].ns`` (since 4.19, 2c4704756cab).
"""

from __future__ import annotations

from yamori.errors import ProfileError
from yamori.kernel.kernel import Kernel as KernelView
from yamori.llview.language import (
    NULL,
    Array,
    Kernel,
    Ptr,
    Struct,
    address_of,
    at,
    attempt,
    container_of,
    emit,
    helper,
    named,
    probe,
    s32,
    trouble,
    ulong,
)
from yamori.llview.structures.hlist import hlist_head, hlist_node
from yamori.llview.structures.xarray import for_each_xa_entry, xarray
from yamori.probes.run import run_probe
from yamori.records import Address, Result, Row


class pid_namespace(Struct):  # noqa: N801  a name of the kernel, as all here
    """``include/linux/pid_namespace.h``."""

    ids: xarray = named("idr.idr_rt")


class upid(Struct):  # noqa: N801
    """``include/linux/pid.h``."""

    nr: s32
    ns: Ptr[pid_namespace]


class pid_(Struct, c_name="pid"):  # noqa: N801
    """``include/linux/pid.h``."""

    tasks: Array[hlist_head]
    numbers: Array[upid]


class task_struct(Struct):  # noqa: N801
    """``include/linux/sched.h``."""

    thread_pid: Ptr[pid_]
    pid_links: Array[hlist_node]


class Tasks(Kernel):
    """The kernel's variables that this probe starts from."""

    init_task: task_struct


class Numbered(Row, frozen=True):
    """One process id.

    Attributes:
        nr: The number.
        task: Address of the ``task_struct`` whose id it is; 0 for one that only a group or session still uses.
    """

    nr: int
    task: Address


@helper
def task_of(one: pid_) -> ulong:
    """Return the task whose id it is: the first on the list of ``PIDTYPE_PID``, which is the first link of tasks."""
    node = one.tasks[0].first
    if node == NULL:
        return 0
    return address_of(container_of(node, task_struct, "pid_links"))


@probe(row=Numbered)
def numbers(kernel: Tasks) -> None:
    """Give out every process id of the first namespace."""
    first = kernel.init_task.thread_pid
    for index, entry in for_each_xa_entry(first.numbers[0].ns.ids):
        task: ulong = 0
        with attempt() as unreadable:
            task = task_of(at(pid_, entry))
        if unreadable:
            trouble("a process id cannot be read", entry, faulted=True)
        if task != 0:
            emit(nr=index, task=task)


def pids(kernel: KernelView) -> Result[Numbered] | None:
    """Return every task that has an id, threads among them, or ``None`` where this kernel's table is not known."""
    try:
        return run_probe(kernel, numbers)
    except ProfileError:
        return None

"""The probe of the speed comparison: the four fields that every way of reading has to give."""

from __future__ import annotations

from yamori.llview.language import CharArray, Kernel, Ptr, Struct, emit, probe, s32, u32
from yamori.llview.structures.lists import for_each_entry, list_head
from yamori.records import Row


class cred(Struct):  # noqa: N801  a name of the kernel, as all here
    """``include/linux/cred.h``."""

    uid: u32


class task_struct(Struct):  # noqa: N801
    """``include/linux/sched.h``."""

    tasks: list_head
    pid: s32
    tgid: s32
    comm: CharArray
    real_cred: Ptr[cred]


class Start(Kernel):
    """Where the walk begins."""

    init_task: task_struct


class Who(Row, frozen=True):
    """One process."""

    pid: int
    tgid: int
    comm: str
    uid: int


@probe(row=Who)
def who(kernel: Start) -> None:
    """List every process."""
    for task in for_each_entry(kernel.init_task.tasks, task_struct, "tasks"):
        emit(pid=task.pid, tgid=task.tgid, comm=task.comm, uid=task.real_cred.uid)

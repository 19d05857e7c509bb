"""``ids plist --wide``: which file each process runs, and with which arguments.

``proc_exe_link`` and ``get_mm_cmdline`` of ``fs/proc/base.c``.
"""

from __future__ import annotations

import msgspec

from yamori.address import GVA
from yamori.errors import Fault
from yamori.kernel.kernel import Kernel as KernelView
from yamori.llview.faults import MOST_TROUBLES
from yamori.llview.language import (
    NULL,
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
    trouble,
    ulong,
)
from yamori.llview.structures.lists import for_each_entry, list_head
from yamori.probes.paths import Paths
from yamori.probes.plist import plist
from yamori.probes.run import run_probe
from yamori.records import Address, Process, Program, Result, Row, escape

MOST_ARGUMENTS = 4096
"""Bytes of a command line that are shown: as many as ``/proc/PID/cmdline`` showed before 4.2."""


class file(Struct):  # noqa: N801
    """``include/linux/fs.h``."""

    dentry: ulong = named("f_path.dentry")
    mnt: ulong = named("f_path.mnt")


class mm_struct(Struct):  # noqa: N801
    """``include/linux/mm_types.h``."""

    pgd: ulong
    arg_start: ulong
    arg_end: ulong
    exe_file: Ptr[file]


class task_struct(Struct):  # noqa: N801
    """``include/linux/sched.h``."""

    tasks: list_head
    mm: Ptr[mm_struct]


class Tasks(Kernel):
    """The kernel's variables that this probe starts from."""

    init_task: task_struct


class Running(Row, frozen=True):
    """What one process runs.

    Attributes:
        task: Address of the ``task_struct``.
        dentry: Of the executable; 0 for a process without one.
        mnt: Of the executable.
        pgd: ``mm->pgd``.
        arg_start: ``mm->arg_start``.
        arg_end: ``mm->arg_end``.
    """

    task: Address
    dentry: Address
    mnt: Address
    pgd: Address
    arg_start: Address
    arg_end: Address


@helper
def give(task: task_struct, mm: mm_struct, entry: ulong, mnt: ulong) -> None:
    """Give out one process."""
    emit(
        task=address_of(task),
        dentry=entry,
        mnt=mnt,
        pgd=mm.pgd,
        arg_start=mm.arg_start if exists(mm.arg_start) else 0,
        arg_end=mm.arg_end if exists(mm.arg_end) else 0,
    )


@probe(row=Running)
def executables(kernel: Tasks) -> None:
    """Give out the executables of all processes that have memory of their own."""
    for task in for_each_entry(kernel.init_task.tasks, task_struct, "tasks"):
        with attempt() as unreadable:
            mm = task.mm
            if mm != NULL:
                opened = mm.exe_file
                if opened != NULL:
                    give(task, mm, opened.dentry, opened.mnt)
                else:
                    give(task, mm, 0, 0)
        if unreadable:
            trouble("the executable of a process cannot be read", task, faulted=True)


def programs(kernel: KernelView) -> Result[Program]:
    """List every process with its executable and arguments.

    Raises:
        ProfileError: Something that it needs is not known of this kernel.
    """
    listed = plist(kernel)
    found, paths = run_probe(kernel, executables), Paths(kernel)
    running = {one.task: one for one in found.rows}
    rows = [_program(kernel, row, running.get(row.task), paths) for row in listed.rows]
    missing = sum(not row.kthread and row.state != "Z" and row.arguments is None for row in rows)
    notes = [f"the arguments of {missing} processes are not in memory"] if missing else []
    return Result(
        rows=rows,
        complete=listed.complete and found.complete and not paths.reasons,
        reasons=[*listed.reasons, *found.reasons, *paths.reasons][:MOST_TROUBLES],
        faults=listed.faults + found.faults + paths.faults,
        loads=listed.loads + found.loads + paths.loads,
        elapsed_s=listed.elapsed_s + found.elapsed_s,
        notes=[*listed.notes, *notes],
    )


def _program(kernel: KernelView, row: Process, running: Running | None, paths: Paths) -> Program:
    path = paths.find(running.dentry, running.mnt) if running and running.dentry else None
    return Program(
        **msgspec.structs.asdict(row),
        executable="/" + path.text.removeprefix("/") if path else None,
        deleted=path.deleted if path else None,
        arguments=_arguments(kernel, running) if running and not row.kthread else None,
    )


def _arguments(kernel: KernelView, running: Running) -> str | None:
    """Return a command line as a shell would show it, or ``None`` where its first page is not in memory."""
    size = min(running.arg_end - running.arg_start, MOST_ARGUMENTS)
    if size <= 0:
        return None
    try:
        space = kernel.user_space(GVA(running.pgd))
        first = min(size, space.geometry.page_size - running.arg_start % space.geometry.page_size)
        data = space.read(GVA(running.arg_start), first)
    except Fault:
        return None
    try:
        data += space.read(GVA(running.arg_start + first), size - first)
        if data[-1]:  # a title that is longer than the arguments goes on over the environment: get_mm_proctitle()
            data = space.string(GVA(running.arg_start), MOST_ARGUMENTS)
    except Fault:
        data += b"..."
    return " ".join(escape(word) for word in data.rstrip(b"\0").split(b"\0"))

"""``ids plist --wide``: which file each process runs, and with which arguments.

``proc_exe_link`` and ``get_mm_cmdline`` of ``fs/proc/base.c``; ``d_path`` of ``fs/d_path.c``: from ``mm->exe_file``
upwards over ``d_parent``, and from the root of a mounted filesystem on from where it is mounted.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter

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
    container_of,
    emit,
    exists,
    helper,
    named,
    probe,
    text,
    trouble,
    ulong,
)
from yamori.llview.structures.lists import for_each_entry, list_head
from yamori.probes.plist import plist
from yamori.probes.run import run_probe
from yamori.records import Address, Process, Program, Result, Row, escape

DEEPEST = 128
"""Names in a path; PATH_MAX has room for more, an executable's path has not."""

LONGEST_NAME = 256  # NAME_MAX and a NUL

MOST_ARGUMENTS = 4096
"""Bytes of a command line that are shown: as many as ``/proc/PID/cmdline`` showed before 4.2."""


class dentry(Struct):  # noqa: N801  a name of the kernel, as all here
    """``include/linux/dcache.h``."""

    d_parent: Ptr[dentry]
    name: ulong = named("d_name.name")
    hashed: ulong = named("d_hash.pprev")


class vfsmount(Struct):  # noqa: N801
    """``include/linux/mount.h``."""

    mnt_root: Ptr[dentry]


class mount(Struct):  # noqa: N801
    """``fs/mount.h``."""

    mnt_parent: Ptr[mount]
    mnt_mountpoint: Ptr[dentry]
    mnt: vfsmount


class file(Struct):  # noqa: N801
    """``include/linux/fs.h``."""

    dentry: Ptr[dentry] = named("f_path.dentry")
    mnt: Ptr[vfsmount] = named("f_path.mnt")


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


class Part(Row, frozen=True):
    """One name of an executable's path, the last one first; a process without a file gives one without a name.

    Attributes:
        task: Address of the ``task_struct``.
        name: The name.
        deleted: Whether the path's end is no longer in its directory.
        pgd: ``mm->pgd``.
        arg_start: ``mm->arg_start``.
        arg_end: ``mm->arg_end``.
    """

    task: Address
    name: str | None
    deleted: bool | None
    pgd: Address
    arg_start: Address
    arg_end: Address


@helper
def give(task: task_struct, mm: mm_struct, entry: dentry, deleted: bool) -> None:
    """Give out one name."""
    emit(
        task=address_of(task),
        name=text(entry.name, LONGEST_NAME) if entry != NULL else None,
        deleted=deleted if entry != NULL else None,
        pgd=mm.pgd,
        arg_start=mm.arg_start if exists(mm.arg_start) else 0,
        arg_end=mm.arg_end if exists(mm.arg_end) else 0,
    )


@helper
def climb(task: task_struct, mm: mm_struct, opened: file) -> None:
    """Give out the names of a path, the last one first."""
    entry = opened.dentry
    around = container_of(opened.mnt, mount, "mnt")
    deleted = entry.hashed == 0 and entry.d_parent != entry  # d_unlinked()
    named = False
    for _ in range(DEEPEST):
        parent = entry.d_parent
        root = around.mnt.mnt_root
        if entry == root or entry == parent:  # noqa: PLR1714, SIM109  `in` is no word here
            above = around.mnt_parent
            if above == around:
                if not named:
                    give(task, mm, entry, deleted)  # of what is on no filesystem (memfd_create), the root has the name
                return
            entry = around.mnt_mountpoint
            around = above
        else:
            give(task, mm, entry, deleted)
            named = True
            entry = parent
    trouble("the path of a process's executable has no end", task)


@probe(row=Part)
def executables(kernel: Tasks) -> None:
    """Give out the executables of all processes that have memory of their own."""
    for task in for_each_entry(kernel.init_task.tasks, task_struct, "tasks"):
        with attempt() as unreadable:
            mm = task.mm
            if mm != NULL:
                opened = mm.exe_file
                if opened != NULL:
                    climb(task, mm, opened)
                else:
                    give(task, mm, NULL, deleted=False)
        if unreadable:
            trouble("the executable of a process cannot be read", task, faulted=True)


def programs(kernel: KernelView) -> Result[Program]:
    """List every process with its executable and arguments.

    Raises:
        ProfileError: Something that it needs is not known of this kernel.
    """
    listed = plist(kernel)
    found = run_probe(kernel, executables)
    parts = {task: list(names) for task, names in groupby(found.rows, attrgetter("task"))}
    rows = [_program(kernel, row, parts.get(row.task, [])) for row in listed.rows]
    missing = sum(not row.kthread and row.state != "Z" and row.arguments is None for row in rows)
    notes = [f"the arguments of {missing} processes are not in memory"] if missing else []
    return Result(
        rows=rows,
        complete=listed.complete and found.complete,
        reasons=[*listed.reasons, *found.reasons][:MOST_TROUBLES],
        faults=listed.faults + found.faults,
        loads=listed.loads + found.loads,
        elapsed_s=listed.elapsed_s + found.elapsed_s,
        notes=[*listed.notes, *notes],
    )


def _program(kernel: KernelView, row: Process, parts: list[Part]) -> Program:
    names = [part.name for part in reversed(parts) if part.name]
    return Program(
        **msgspec.structs.asdict(row),
        executable="/" + "/".join(names) if names else None,
        deleted=parts[0].deleted if parts else None,
        arguments=_arguments(kernel, parts[0]) if parts and not row.kthread else None,
    )


def _arguments(kernel: KernelView, part: Part) -> str | None:
    """Return a command line as a shell would show it, or ``None`` where its first page is not in memory."""
    size = min(part.arg_end - part.arg_start, MOST_ARGUMENTS)
    if size <= 0:
        return None
    try:
        space = kernel.user_space(GVA(part.pgd))
        first = min(size, space.geometry.page_size - part.arg_start % space.geometry.page_size)
        data = space.read(GVA(part.arg_start), first)
    except Fault:
        return None
    try:
        data += space.read(GVA(part.arg_start + first), size - first)
        if data[-1]:  # a title that is longer than the arguments goes on over the environment: get_mm_proctitle()
            data = space.string(GVA(part.arg_start), MOST_ARGUMENTS)
    except Fault:
        data += b"..."
    return " ".join(escape(word) for word in data.rstrip(b"\0").split(b"\0"))

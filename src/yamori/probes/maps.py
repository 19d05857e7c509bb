"""``ids maps``: what processes have mapped into their memory, as ``/proc/PID/maps`` shows it.

``show_map_vma`` of ``fs/proc/task_mmu.c``. The mappings of a process are a list (``mm->mmap``) until 6.0, and a maple
tree (``mm->mm_mt``) since 6.1 (763ecb035029).
"""

from __future__ import annotations

from yamori.kernel.kernel import Kernel as KernelView
from yamori.llview.faults import MOST_TROUBLES
from yamori.llview.language import (
    NULL,
    Kernel,
    Ptr,
    Struct,
    address_of,
    at,
    attempt,
    emit,
    exists,
    helper,
    named,
    probe,
    text,
    torn,
    trouble,
    u32,
    ulong,
)
from yamori.llview.structures.lists import for_each_entry, list_head
from yamori.llview.structures.maple import for_each_mt_entry, maple_tree
from yamori.probes.paths import Paths
from yamori.probes.run import run_probe
from yamori.records import Address, Mapping, Result, Row

MOST_MAPPINGS = 1 << 17
"""Mappings of one process that are looked at: twice the usual ``vm.max_map_count``."""

LONGEST_NAME = 64
"""Bytes of the name of a special mapping that are read."""

READ, WRITE, EXECUTE, SHARED = 1, 2, 4, 8  # VM_READ and others of include/linux/mm.h


class file(Struct):  # noqa: N801  a name of the kernel, as all here
    """``include/linux/fs.h``."""

    dentry: ulong = named("f_path.dentry")
    mnt: ulong = named("f_path.mnt")


class vm_special_mapping(Struct):  # noqa: N801
    """``include/linux/mm_types.h``."""

    name: ulong


class vm_area_struct(Struct):  # noqa: N801
    """``include/linux/mm_types.h``."""

    vm_start: ulong
    vm_end: ulong
    vm_next: Ptr[vm_area_struct]
    vm_mm: ulong
    vm_flags: ulong
    vm_pgoff: ulong
    vm_file: Ptr[file]
    vm_ops: ulong
    vm_private_data: Ptr[vm_special_mapping]


class mm_struct(Struct):  # noqa: N801
    """``include/linux/mm_types.h``."""

    mmap: Ptr[vm_area_struct]
    mm_mt: maple_tree
    start_brk: ulong
    brk: ulong
    start_stack: ulong


class task_struct(Struct):  # noqa: N801
    """``include/linux/sched.h``."""

    tasks: list_head
    tgid: u32
    mm: Ptr[mm_struct]


class Tasks(Kernel):
    """The kernel's variables that this probe starts from."""

    init_task: task_struct
    special_mapping_vmops: ulong


class Area(Row, frozen=True):
    """One mapping, in numbers."""

    pid: int
    start: Address
    end: Address
    flags: int
    pages: int
    dentry: Address
    mnt: Address
    heap: bool
    stack: bool
    special: str | None


@helper
def give(kernel: Tasks, task: task_struct, mm: mm_struct, area: vm_area_struct) -> None:
    """Give out one mapping."""
    if area.vm_mm != address_of(mm):
        torn("a mapping is of another process", area)
    elif area.vm_start < area.vm_end:
        start = area.vm_start
        end = area.vm_end
        opened = area.vm_file
        heap = start < mm.brk and end > mm.start_brk  # vma_is_initial_heap(); before 6.6 the bounds may be equal, too
        stack = start <= mm.start_stack and end >= mm.start_stack
        special: ulong = 0
        if exists(kernel.special_mapping_vmops) and area.vm_ops == address_of(kernel.special_mapping_vmops):
            special = area.vm_private_data.name
        emit(
            pid=task.tgid,
            start=start,
            end=end,
            flags=area.vm_flags,
            pages=area.vm_pgoff,
            dentry=opened.dentry if opened != NULL else 0,
            mnt=opened.mnt if opened != NULL else 0,
            heap=heap,
            stack=stack,
            special=text(special, LONGEST_NAME) if special != 0 else None,
        )


@helper
def look(kernel: Tasks, task: task_struct, mm: mm_struct) -> None:
    """Give out the mappings of a process."""
    if exists(mm.mmap):
        area = mm.mmap
        count: u32 = 0
        while area != NULL:
            give(kernel, task, mm, area)
            area = area.vm_next
            count += 1
            if count == MOST_MAPPINGS:
                trouble("a process has more mappings than are looked at", task)
                area = NULL
    else:
        for entry in for_each_mt_entry(mm.mm_mt):
            give(kernel, task, mm, at(vm_area_struct, entry))


@probe(row=Area)
def areas(kernel: Tasks) -> None:
    """Give out the mappings of all processes."""
    for task in for_each_entry(kernel.init_task.tasks, task_struct, "tasks"):
        with attempt() as unreadable:
            mm = task.mm
            if mm != NULL:
                look(kernel, task, mm)
        if unreadable:
            trouble("the mappings of a process cannot be read", task, faulted=True)


def maps(kernel: KernelView) -> Result[Mapping]:
    """List what processes have mapped.

    Raises:
        ProfileError: Something that it needs is not known of this kernel.
    """
    found, paths = run_probe(kernel, areas), Paths(kernel)
    page = kernel.profile.root.geometry.page_size
    rows = [_mapping(row, paths, page) for row in found.rows]
    reasons = [*found.reasons, *paths.reasons][:MOST_TROUBLES]
    loads, faults = found.loads + paths.loads, found.faults + paths.faults
    return Result(rows, not reasons, reasons, faults, loads, found.elapsed_s, found.notes)


def _mapping(row: Area, paths: Paths, page: int) -> Mapping:
    path = paths.find(row.dentry, row.mnt) if row.dentry else None
    letters = zip("rwx", (READ, WRITE, EXECUTE), strict=True)
    mode = "".join(letter if row.flags & bit else "-" for letter, bit in letters)
    return Mapping(
        pid=row.pid,
        start=row.start,
        end=row.end,
        mode=mode + ("s" if row.flags & SHARED else "p"),
        offset=row.pages * page if row.dentry else 0,
        deleted=bool(path and path.deleted),
        path=(f"/{path.text.removeprefix('/')}" if path else None) if row.dentry else _name(row),
    )


def _name(row: Area) -> str:
    """Return what memory of no file is."""
    if row.special is not None:
        return row.special
    return "[heap]" if row.heap else "[stack]" if row.stack else ""

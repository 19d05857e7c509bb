"""``ids files``: what processes have open, as ``ls -l /proc/PID/fd`` and ``lsof`` show it.

``proc_fd_link`` of ``fs/proc/fd.c``; names of what lies on no filesystem as ``pipefs_dname`` (``fs/pipe.c``),
``sockfs_dname`` (``net/socket.c``) and ``anon_inodefs_dname`` (``fs/anon_inodes.c``) make them.
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
    helper,
    named,
    probe,
    s64,
    trouble,
    u16,
    u32,
    ulong,
)
from yamori.llview.structures.lists import for_each_entry, list_head
from yamori.probes.descriptors import files_struct, for_each_descriptor
from yamori.probes.paths import Path, Paths
from yamori.probes.run import run_probe
from yamori.records import Address, File, Result, Row

KIND = 0o170000  # S_IFMT
KINDS = {0o010000: "fifo", 0o020000: "char", 0o040000: "dir", 0o060000: "block", 0o100000: "file", 0o120000: "link",
         0o140000: "socket"}  # fmt: skip
"""``S_IFIFO`` and others of ``include/uapi/linux/stat.h``."""
READ, WRITE = 1, 2
"""``FMODE_READ``, ``FMODE_WRITE`` of ``include/linux/fs.h``."""


class inode(Struct):  # noqa: N801  a name of the kernel, as all here
    """``include/linux/fs.h``."""

    i_mode: u16
    i_ino: ulong


class file(Struct):  # noqa: N801
    """``include/linux/fs.h``."""

    f_mode: u32
    f_pos: s64
    f_inode: Ptr[inode]
    dentry: ulong = named("f_path.dentry")
    mnt: ulong = named("f_path.mnt")


class task_struct(Struct):  # noqa: N801
    """``include/linux/sched.h``."""

    tasks: list_head
    tgid: u32
    files: Ptr[files_struct]


class Tasks(Kernel):
    """The kernel's variables that this probe starts from."""

    init_task: task_struct


class Opened(Row, frozen=True):
    """One descriptor, in numbers."""

    pid: int
    fd: int
    kind: int
    mode: int
    position: int
    inode: int
    dentry: Address
    mnt: Address
    file: Address


@helper
def give(task: task_struct, fd: u32, opened: file) -> None:
    """Give out one descriptor."""
    node = opened.f_inode
    emit(
        pid=task.tgid,
        fd=fd,
        kind=node.i_mode if node != NULL else 0,
        mode=opened.f_mode,
        position=opened.f_pos,
        inode=node.i_ino if node != NULL else 0,
        dentry=opened.dentry,
        mnt=opened.mnt,
        file=address_of(opened),
    )


@probe(row=Opened)
def open_files(kernel: Tasks) -> None:
    """Give out the descriptors of all processes."""
    for task in for_each_entry(kernel.init_task.tasks, task_struct, "tasks"):
        with attempt() as unreadable:
            for fd, opened in for_each_descriptor(task.files):
                give(task, fd, at(file, opened))
        if unreadable:
            trouble("the files of a process cannot be read", task, faulted=True)


def files(kernel: KernelView) -> Result[File]:
    """List what processes have open.

    Raises:
        ProfileError: Something that it needs is not known of this kernel.
    """
    found, paths = run_probe(kernel, open_files), Paths(kernel)
    rows = [_file(row, paths.find(row.dentry, row.mnt)) for row in found.rows]
    reasons = [*found.reasons, *paths.reasons][:MOST_TROUBLES]
    loads, faults = found.loads + paths.loads, found.faults + paths.faults
    return Result(rows, not reasons, reasons, faults, loads, found.elapsed_s, found.notes)


def _file(row: Opened, path: Path | None) -> File:
    kind = KINDS.get(row.kind & KIND, "anon")
    if path and not path.mounted and kind in {"file", "anon"} and path.text.startswith("["):
        kind = "anon"  # which says that it is a file since 6.16 (cfd86ef7e8e7)
    return File(
        pid=row.pid,
        fd=row.fd,
        kind=kind,
        mode=("r" if row.mode & READ else "") + ("w" if row.mode & WRITE else ""),
        position=row.position,
        inode=row.inode,
        deleted=bool(path and path.deleted),
        path=_name(kind, row.inode, path),
        file=row.file,
    )


def _name(kind: str, inode: int, path: Path | None) -> str | None:
    """Return what ``/proc/PID/fd`` links to."""
    if path is None or path.mounted:
        return path.text if path else None
    if kind == "socket":
        return f"socket:[{inode}]"
    if kind == "fifo" and not path.text:
        return f"pipe:[{inode}]"
    return f"anon_inode:{path.text}" if kind == "anon" else f"/{path.text}"

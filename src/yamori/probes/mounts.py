"""``ids mounts``: what is mounted where, as ``/proc/PID/mountinfo`` shows it, in every mount namespace.

``struct mnt_namespace`` holds its mounts on a list, since 6.8 in a tree by their number (2eea9ce4310d). Each tells
where it is mounted, from which device, as what; ``show_mountinfo`` of ``fs/proc_namespace.c``.
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
    probe,
    s32,
    text,
    trouble,
    u32,
    ulong,
)
from yamori.llview.structures.lists import for_each_entry, list_head
from yamori.llview.structures.rbtree import for_each_rb_entry, rb_node, rb_root
from yamori.probes.paths import Paths
from yamori.probes.run import run_probe
from yamori.records import Address, Mount, Result, Row

LONGEST = 256
"""Bytes of a device's and a filesystem's name that are read."""

FLAGS = {0x01: "nosuid", 0x02: "nodev", 0x04: "noexec", 0x08: "noatime", 0x10: "nodiratime", 0x20: "relatime"}
"""``MNT_NOSUID`` and others of ``include/linux/mount.h``."""
MNT_READONLY, SB_RDONLY = 0x40, 1
MNT_CURSOR = 0x1000_0000
"""A reader's place on the list, from 5.8 (9f6c61f96f2d) to 6.7; no mount."""


class dentry(Struct):  # noqa: N801  a name of the kernel, as all here
    """``include/linux/dcache.h``."""

    d_parent: ulong


class file_system_type(Struct):  # noqa: N801
    """``include/linux/fs.h``."""

    name: ulong


class super_block(Struct):  # noqa: N801
    """``include/linux/fs.h``."""

    s_flags: ulong
    s_type: Ptr[file_system_type]


class vfsmount(Struct):  # noqa: N801
    """``include/linux/mount.h``."""

    mnt_root: ulong
    mnt_sb: Ptr[super_block]
    mnt_flags: u32


class mount(Struct):  # noqa: N801
    """``fs/mount.h``."""

    mnt_parent: Ptr[mount]
    mnt_mountpoint: ulong
    mnt: vfsmount
    mnt_devname: ulong
    mnt_list: list_head
    mnt_node: rb_node
    mnt_id: s32


class mnt_namespace(Struct):  # noqa: N801
    """``fs/mount.h``."""

    list: list_head
    mounts: rb_root


class nsproxy(Struct):  # noqa: N801
    """``include/linux/nsproxy.h``."""

    mnt_ns: ulong


class task_struct(Struct):  # noqa: N801
    """``include/linux/sched.h``."""

    tasks: list_head
    tgid: u32
    nsproxy: Ptr[nsproxy]


class Tasks(Kernel):
    """The kernel's variables that this probe starts from."""

    init_task: task_struct


class Lives(Row, frozen=True):
    """Which mount namespace a process lives in."""

    pid: int
    ns: Address


class Mounted(Row, frozen=True):
    """One mount, its mount point as a ``struct path``."""

    id: int
    parent: int
    device: str
    type: str
    flags: int
    sb_flags: int
    dentry: Address
    mnt: Address
    root: Address
    mount: Address


@probe(row=Lives)
def namespaces(kernel: Tasks) -> None:
    """Give out the mount namespace of each process; one that has ended has none."""
    for task in for_each_entry(kernel.init_task.tasks, task_struct, "tasks"):
        with attempt() as unreadable:
            if task.nsproxy != NULL:
                emit(pid=task.tgid, ns=task.nsproxy.mnt_ns)
        if unreadable:
            trouble("the namespaces of a process cannot be read", task, faulted=True)


@helper
def give(one: mount) -> None:
    """Give out one mount."""
    with attempt() as unreadable:
        if one.mnt.mnt_flags & MNT_CURSOR == 0:
            top = one.mnt_parent == one
            emit(
                id=one.mnt_id,
                parent=one.mnt_parent.mnt_id,
                device=text(one.mnt_devname, LONGEST),
                type=text(one.mnt.mnt_sb.s_type.name, LONGEST),
                flags=one.mnt.mnt_flags,
                sb_flags=one.mnt.mnt_sb.s_flags,
                dentry=0 if top else one.mnt_mountpoint,
                mnt=address_of(one.mnt_parent.mnt),
                root=one.mnt.mnt_root,
                mount=address_of(one),
            )
    if unreadable:
        trouble("a mount cannot be read", one, faulted=True)


@probe(row=Mounted)
def mounted(kernel: Kernel, namespace: ulong) -> None:  # noqa: ARG001  every probe has it
    """Give out the mounts of one namespace."""
    ns = at(mnt_namespace, namespace)
    if exists(ns.list):
        for one in for_each_entry(ns.list, mount, "mnt_list"):
            give(one)
    else:
        for one in for_each_rb_entry(ns.mounts, mount, "mnt_node"):
            give(one)


def mounts(kernel: KernelView) -> Result[Mount]:
    """List the mounts of every mount namespace that a process lives in.

    Raises:
        ProfileError: Something that it needs is not known of this kernel.
    """
    lives, paths = run_probe(kernel, namespaces), Paths(kernel)
    firsts: dict[int, int] = {}
    for one in lives.rows:
        firsts.setdefault(one.ns, one.pid)
    rows: list[Mount] = []
    runs: list[Result[Mounted]] = []
    for ns, pid in firsts.items():
        runs.append(run_probe(kernel, mounted, (ns,)))
        rows += [_mount(row, ns, pid, paths) for row in runs[-1].rows]
    reasons = [*lives.reasons, *(reason for run in runs for reason in run.reasons), *paths.reasons][:MOST_TROUBLES]
    loads = lives.loads + paths.loads + sum(run.loads for run in runs)
    faults = lives.faults + paths.faults + sum(run.faults for run in runs)
    elapsed = lives.elapsed_s + sum(run.elapsed_s for run in runs)
    return Result(rows, not reasons, reasons, faults, loads, elapsed, lives.notes)


def _mount(row: Mounted, ns: int, pid: int, paths: Paths) -> Mount:
    point = paths.find(row.dentry, row.mnt) if row.dentry else None
    read_only = row.flags & MNT_READONLY or row.sb_flags & SB_RDONLY
    words = ["ro" if read_only else "rw", *(word for bit, word in FLAGS.items() if row.flags & bit)]
    return Mount(
        pid=pid,
        id=row.id,
        parent=row.parent,
        device=row.device,
        path=(point.text if point else None) if row.dentry else "/",
        type=row.type,
        options=",".join(words),
        namespace=ns,
        mount=row.mount,
    )

"""Paths of open files, mounts and mappings: ``d_path`` of ``fs/d_path.c``.

From a dentry upwards over ``d_parent``, and from the root of a mounted filesystem on from where it is mounted. The path
is that of the guest's first root, whatever root a process has chosen for itself.
"""

from __future__ import annotations

from typing import NamedTuple

from yamori.kernel.kernel import Kernel as KernelView
from yamori.llview.language import (
    Kernel,
    Ptr,
    Struct,
    at,
    container_of,
    emit,
    helper,
    named,
    probe,
    text,
    trouble,
    ulong,
)
from yamori.probes.run import run_probe
from yamori.records import Row

DEEPEST = 128
"""Names in a path; PATH_MAX has room for more, a path that somebody opens has not."""

LONGEST_NAME = 256  # NAME_MAX and a NUL


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


class Name(Row, frozen=True):
    """One name of a path, the last one first.

    Attributes:
        name: The name.
        deleted: Whether the path's end is no longer in its directory.
        mounted: Whether it lies on a filesystem; the files of ``memfd_create``, pipes and the like do not.
    """

    name: str
    deleted: bool
    mounted: bool


@helper
def give(entry: dentry, deleted: bool, mounted: bool) -> None:
    """Give out one name."""
    emit(name=text(entry.name, LONGEST_NAME), deleted=deleted, mounted=mounted)


@probe(row=Name)
def names(kernel: Kernel, entry_at: ulong, mnt_at: ulong) -> None:  # noqa: ARG001  every probe has it
    """Give out the names of the path of a ``struct path``, the last one first; of a root there are none."""
    entry = at(dentry, entry_at)
    around = container_of(at(vfsmount, mnt_at), mount, "mnt")
    deleted = entry.hashed == 0 and entry.d_parent != entry  # d_unlinked()
    found = False
    for _ in range(DEEPEST):
        parent = entry.d_parent
        root = around.mnt.mnt_root
        if entry == root or entry == parent:  # noqa: PLR1714, SIM109  `in` is no word here
            above = around.mnt_parent
            if above == around:
                if not found and entry != root:
                    give(entry, deleted, mounted=False)
                return
            entry = around.mnt_mountpoint
            around = above
        else:
            give(entry, deleted, mounted=True)
            found = True
            entry = parent
    trouble("a path has no end", entry_at)


class Path(NamedTuple):
    """A path.

    Attributes:
        text: From the guest's first root on; the bare name of a file that lies on no filesystem.
        deleted: Whether its end is no longer in its directory.
        mounted: Whether it lies on a filesystem.
    """

    text: str
    deleted: bool
    mounted: bool


class Paths:
    """Finds paths, each once.

    Args:
        kernel: The guest's kernel.

    Attributes:
        reasons: Why some are not whole, one sentence each.
        loads: Guest loads done.
        faults: Loads that the guest's memory did not allow.
    """

    def __init__(self, kernel: KernelView) -> None:
        self._kernel = kernel
        self._known: dict[tuple[int, int], Path | None] = {}
        self.reasons: list[str] = []
        self.loads = self.faults = 0

    def find(self, entry: int, mnt: int) -> Path | None:
        """Return the path of a ``struct path``.

        Args:
            entry: Address of its ``struct dentry``.
            mnt: Address of its ``struct vfsmount``.

        Returns:
            The path; ``None`` where it cannot be told.

        Raises:
            ProfileError: Something that it needs is not known of this kernel.
        """
        if (entry, mnt) not in self._known:
            self._known[entry, mnt] = self._look(entry, mnt)
        return self._known[entry, mnt]

    def _look(self, entry: int, mnt: int) -> Path | None:
        found = run_probe(self._kernel, names, (entry, mnt))
        self.loads += found.loads
        self.faults += found.faults
        self.reasons += found.reasons
        if not found.complete:
            return None
        rows: list[Name] = found.rows
        mounted = all(row.mounted for row in rows)
        whole = "/".join(row.name for row in reversed(rows))
        return Path(f"/{whole}" if mounted else whole, bool(rows) and rows[0].deleted, mounted)

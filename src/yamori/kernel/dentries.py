"""The shape of ``struct dentry`` and ``struct mount``, told by what their pointers must lead to.

Since before 3.10 ``struct dentry`` (``include/linux/dcache.h``) has ``d_hash`` (two words), ``d_parent``, ``d_name``
(hash, length, pointer), ``d_inode`` and the short name in this order. Where 64-bit numbers are aligned to 8 on a 32-bit
machine, as on Arm, ``d_name`` has a word of padding on either side. ``struct mount`` (``fs/mount.h``) begins with
``mnt_hash`` (two words), ``mnt_parent``, ``mnt_mountpoint`` and ``mnt``, of which the first is ``mnt_root``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from yamori.kernel.deferred import Place
from yamori.kernel.sample import Object, Reader
from yamori.kernel.types import Member

DENTRY_BYTES = 256
LONGEST_INLINE = 64
"""Bytes of ``d_iname``: 24 to 56, with the NUL."""

LONGEST_NAME = 255  # NAME_MAX
DEEPEST = 64
"""Parents that are followed: a path of PATH_MAX may have more, an executable's has not."""

DENTRY_MEMBERS = (
    ("dentry", "d_parent"), ("dentry", "d_name.name"), ("dentry", "d_name.len"), ("dentry", "d_inode"),
    ("dentry", "d_hash.pprev"),
)  # fmt: skip
MOUNT_MEMBERS = (("mount", "mnt_parent"), ("mount", "mnt_mountpoint"), ("mount", "mnt"), ("vfsmount", "mnt_root"))


class Shape(NamedTuple):
    """Where a ``dentry`` keeps its members: offsets in bytes."""

    parent: int
    name: int
    inode: int

    def members(self, word: int) -> dict[Place, Member]:
        """Return them as members."""
        return {
            ("dentry", "d_parent"): Member(self.parent, word),
            ("dentry", "d_name.name"): Member(self.name, word),
            ("dentry", "d_name.len"): Member(self.name - 4, 4),
            ("dentry", "d_inode"): Member(self.inode, word),
            ("dentry", "d_hash.pprev"): Member(self.parent - word, word),
        }


class Dentries:
    """Tries shapes.

    Args:
        reader: Reads objects.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.word = reader.word_size
        self._objects: dict[int, Object | None] = {}

    def at(self, gva: int) -> Object | None:
        """Return what lies at ``gva``, if that can be a kernel address (remembered)."""
        if gva not in self._objects:
            sound = gva != 0 and self.reader.is_address(gva)
            self._objects[gva] = self.reader.object(gva, DENTRY_BYTES) if sound else None
        return self._objects[gva]

    def shapes(self, gva: int) -> Iterator[Shape]:
        """Yield the shapes under which the object at ``gva`` is a dentry with a short name, with all its parents."""
        entry, word = self.at(gva), self.word
        if entry is None:
            return
        for padding in (0, word):
            for name in range(3 * word + padding, DENTRY_BYTES - LONGEST_INLINE, word):
                inline = name + 2 * word + padding
                if entry.word(name) != gva + inline:
                    continue
                shape = Shape(name - 8 - word - (8 - word and padding), name, inline - word)
                if self.is_dentry(gva, shape):
                    yield shape

    def is_dentry(self, gva: int, shape: Shape) -> bool:
        """Say whether an object, its parents, and theirs have names as long as they say, up to a root."""
        for _ in range(DEEPEST):
            entry = self.at(gva)
            if entry is None or not self._is_named(entry, shape):
                return False
            parent = entry.word(shape.parent)
            if parent == gva:
                return True
            gva = parent
        return False

    def is_path(self, file: Object, offset: int, shape: Shape) -> bool:
        """Say whether a file has a ``struct path`` with its dentry at ``offset``, and that dentry's inode as its own.

        ``f_inode`` has been there since 3.9 (dd37978c50bc).
        """
        entry = self.at(file.word(offset))
        if entry is None or not self.reader.is_address(file.word(offset - self.word)):
            return False
        inode = entry.word(shape.inode)
        words = (file.word(at) for at in range(0, len(file.data), self.word))
        return inode != 0 and inode in words and self.is_dentry(entry.gva, shape)

    def is_mount(self, vfsmount: int, shape: Shape) -> bool:
        """Say whether a ``struct vfsmount`` is the one inside of a ``struct mount``, and so are its parents'."""
        mount = vfsmount - 4 * self.word
        for _ in range(DEEPEST):
            found = self.at(mount)
            if found is None or not all(self.is_dentry(found.word(at * self.word), shape) for at in (3, 4)):
                return False
            parent = found.word(2 * self.word)
            if parent == mount:
                return True
            mount = parent
        return False

    def _is_named(self, entry: Object, shape: Shape) -> bool:
        length = entry.u32(shape.name - 4)
        if not 0 < length <= LONGEST_NAME:
            return False
        name = self.reader.read(entry.word(shape.name), length + 1)
        return name is not None and name.find(0) == length

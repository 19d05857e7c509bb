"""What the kernel keeps of programs, without debug info: the bounds of their memory, page tables, and executables.

Everything starts at ``task->mm`` of the programs below process 1 and has to hold of three quarters of them:

* ``start_code`` to ``env_end`` are eleven neighbours of ``mm_struct`` with an order of their own;
* ``pgd`` maps the addresses that these name;
* ``exe_file`` leads to a ``struct file``, that to a ``dentry``: one whose short name lies inside of it, where
  ``d_name.name`` points, is as long as ``d_name.len`` says, and whose parents, of the same shape, end in a root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from yamori.address import GVA
from yamori.kernel.deferred import Finder, Found, Place
from yamori.kernel.dentries import DENTRY_MEMBERS, MOUNT_MEMBERS, Dentries, Shape
from yamori.kernel.init_task import InitTask
from yamori.kernel.invariants import enough
from yamori.kernel.sample import Family, Object, Reader, translated
from yamori.kernel.types import Member
from yamori.translation.space import AddressSpace

BOUNDS = (
    "start_code", "end_code", "start_data", "end_data", "start_brk", "brk", "start_stack",
    "arg_start", "arg_end", "env_start", "env_end",
)  # fmt: skip
"""Neighbours in ``struct mm_struct`` (``include/linux/mm_types.h``) since before 3.10."""

MM_BYTES = 2048
PGD_REACH = 256
"""Bytes of ``mm_struct`` among which ``pgd`` is: it is among the first members."""

FILE_BYTES = 384
MOST_ARGUMENTS = 1 << 23
"""Bytes between ``start_stack`` and ``env_end``: MAX_ARG_STRINGS is no limit, a quarter of an 8 MB stack is."""

MM_MEMBERS = (*(("mm_struct", name) for name in BOUNDS), ("mm_struct", "pgd"), ("mm_struct", "exe_file"))
FILE_MEMBERS = (("file", "f_path.mnt"), ("file", "f_path.dentry"))

Lookup = Callable[[str, str], Member | None]


def programs(space: AddressSpace, init: InitTask, known: Lookup) -> Finder:
    """Return what finds these members.

    Args:
        space: The kernel's address space.
        init: ``init_task``.
        known: Where members lie by other sources: where ``task_struct.mm`` does, at least.
    """
    members = (*MM_MEMBERS, *FILE_MEMBERS, *DENTRY_MEMBERS, *MOUNT_MEMBERS)
    return Finder(members, (), lambda: _Programs(Reader(space, init), known).find())


class _Programs:
    def __init__(self, reader: Reader, known: Lookup) -> None:
        self.reader = reader
        self.known = known
        self.word = reader.word_size
        self.found = Found({}, {}, {})
        self.dentries = Dentries(reader)

    def find(self) -> Found:
        mms = self.memories()
        if not mms:
            self.found.unknown["mm_struct"] = "no program is known"
            return self.found
        bounds = self.lowest(
            "mm_struct.start_code", self.where(mms, range(0, MM_BYTES // 2, self.word), self.are_bounds)
        )
        if bounds is not None:
            for index, name in enumerate(BOUNDS):
                self.state("mm_struct", name, bounds + index * self.word)
            maps = partial(self.maps, bounds=bounds)
            pgd = self.lowest("mm_struct.pgd", self.where(mms, range(0, PGD_REACH, self.word), maps))
            if pgd is not None:
                self.state("mm_struct", "pgd", pgd)
            self.executables(mms, bounds + len(BOUNDS) * self.word)
        return self.found

    def state(self, struct: str, name: str, offset: int) -> None:
        self.found.members[struct, name] = Member(offset, self.word)

    def lowest(self, what: str, offsets: Iterable[int]) -> int | None:
        """Return the first offset that passes: where few objects were read, their neighbours in the slab pass, too."""
        found = next(iter(offsets), None)
        if found is None:
            self.found.unknown[what] = "no offset passes"
        return found

    def memories(self) -> list[Object]:
        """Return the ``mm_struct`` of each program, once."""
        mm, parent = self.known("task_struct", "mm"), self.known("task_struct", "real_parent")
        if mm is None or parent is None:
            return []
        users = self.reader.gather(Family(parent.offset, self.word)).users
        places = dict.fromkeys(task.word(mm.offset) for task in users)
        return [found for place in places if place and (found := self.reader.object(place, MM_BYTES))]

    @staticmethod
    def where(mms: Sequence[Object], offsets: Iterable[int], test: Callable[[Object, int], bool]) -> Iterator[int]:
        return (offset for offset in offsets if enough(sum(test(mm, offset) for mm in mms), len(mms)))

    def are_bounds(self, mm: Object, offset: int) -> bool:
        values = [mm.word(offset + index * self.word) for index in range(len(BOUNDS))]
        if not all(map(self.is_user, values)):
            return False
        code, end_code, data, end_data, heap, brk, stack, *arguments = values
        # prctl(PR_SET_MM) lets a program say where its arguments are; few use it, for a longer title.
        return (
            code < end_code <= end_data
            and data <= end_data
            and heap <= brk
            and [stack, *arguments] == sorted([stack, *arguments])
            and arguments[-1] - stack < MOST_ARGUMENTS
        )

    def is_user(self, value: int) -> bool:
        """Say whether ``value`` can be a program's address: of 32-bit Arm it is not known where the kernel's begin."""
        below = self.word == 4 or not self.reader.space.geometry.canonical(GVA(value))
        return 0 < value < self.reader.init and below

    def maps(self, mm: Object, offset: int, *, bounds: int) -> bool:
        """Say whether the table at ``offset`` maps any of what the bounds name.

        Not all of it need be there: 32-bit Arm takes a page that was not used for a while out of the table that the
        hardware reads, to see whether it is used again (``L_PTE_YOUNG`` of ``pgtable-2level.h``).
        """
        table = mm.word(offset)
        geometry = self.reader.space.geometry
        if not self.reader.is_address(table) or table % geometry.root_alignment:
            return False
        root = translated(self.reader.space, table)
        if root is None:
            return False
        own = AddressSpace(self.reader.space.memory, geometry, root, user=True)
        return any(translated(own, mm.word(bounds + index * self.word)) is not None for index in range(len(BOUNDS)))

    def executables(self, mms: Sequence[Object], first: int) -> None:
        """``exe_file`` comes behind the bounds; the file's ``f_path`` is (mount, dentry)."""
        offsets = [
            offset
            for offset in range(first, MM_BYTES, self.word)
            if enough(sum(bool(mm.word(offset)) and self.reader.is_address(mm.word(offset)) for mm in mms), len(mms))
        ]
        passing = next((found for offset in offsets if (found := self.executable(mms, offset))), None)
        if passing is None:
            self.found.unknown["mm_struct.exe_file"] = "no offset passes"
            return
        exe, path, shape = passing
        self.state("mm_struct", "exe_file", exe)
        self.state("file", "f_path.mnt", path - self.word)
        self.state("file", "f_path.dentry", path)
        self.found.members.update(shape.members(self.word))
        files = (self.reader.object(mm.word(exe), FILE_BYTES) for mm in mms)
        mounts = dict.fromkeys(file.word(path - self.word) for file in files if file)
        if enough(sum(self.dentries.is_mount(mount, shape) for mount in mounts), len(mounts)):
            self.found.members.update(self.mounts())
        else:
            self.found.unknown["mount"] = "what files lie on does not have the shape of mounts"

    def mounts(self) -> dict[Place, Member]:
        word = self.word
        places = {("mount", "mnt_parent"): 2, ("mount", "mnt_mountpoint"): 3, ("mount", "mnt"): 4}
        return {place: Member(at * word, word) for place, at in {**places, ("vfsmount", "mnt_root"): 0}.items()}

    def executable(self, mms: Sequence[Object], offset: int) -> tuple[int, int, Shape] | None:
        """Return ``offset``, that of ``f_path.dentry`` and the shape of dentries, if files are there."""
        places = dict.fromkeys(mm.word(offset) for mm in mms)
        files = [file for place in places if (file := self.reader.object(place, FILE_BYTES))]
        if not enough(len(files), len(places)):
            return None
        for path in range(self.word, FILE_BYTES, self.word):
            shapes = {shape for file in (files[0], files[-1]) for shape in self.dentries.shapes(file.word(path))}
            fits = [
                shape
                for shape in shapes
                if enough(sum(self.dentries.is_path(file, path, shape) for file in files), len(files))
            ]
            if len(fits) == 1:
                return offset, path, fits[0]
        return None

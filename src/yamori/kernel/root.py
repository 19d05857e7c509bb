"""The kernel's own translation root, ``init_mm.pgd``, from memory alone, and the geometry of its page tables.

A vCPU register is no help: in user mode under KPTI it points at a trampoline, otherwise at the table of some process,
and every process's table maps the kernel too and goes stale when the process ends. So the root is taken from what
names it (VMCOREINFO, kallsyms, the ``init_mm`` structure), or else searched for within the kernel's image, and then
*proved*: it must translate things that were found independently of it back to the places where they were found, and
lists that leave the image must lead back to ``init_task``. A geometry is whatever passes, never a configuration number:
an arm64 kernel that says VA_BITS=52 may run with 48.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from yamori.address import GPA, GVA
from yamori.errors import Fault, MemoryFault
from yamori.kernel.init_task import LOWEST_KERNEL_GVA, InitTask
from yamori.memory.physical import PhysicalMemory
from yamori.translation.format import Geometry, Mapping
from yamori.translation.formats import geometries
from yamori.translation.loads import PhysicalLoads
from yamori.translation.space import AddressSpace

IMAGE_REACH = 96 << 20
"""How far from ``init_task`` the kernel's image may extend; the largest distribution kernels have 60 MB."""

LEAST_ANCHORS = 3
LEAST_LEAVES = 2
"""Leaf entries that what proves a root must come from, the members of lists too: a small kernel may be mapped by one
block of 2 MiB. That all comes from one is what random bytes look like that happen to be a block of 1 GiB."""

HEAD_TEXT = 16 << 20  # the most that .head.text and init text take before _stext
MM_STRUCT_REACH = 1024  # bytes from mm_struct.pgd to start_code; 200 to 500 seen
PAGE = 4096
PIECE = 1 << 20
LARGEST_TABLE = 0x4000
"""The largest first-level table: that of Arm's short descriptors. Its first page, which is the user's, is empty."""

MOST_TABLES = 256
"""Different pages that are tried as ``init_mm.pgd``. What looks like ``init_mm`` may be planted a million times."""

MOST_EQUALS = 4096
"""Roots that prove equally well and are compared: one for each process."""

DATA_REACH = 4 << 20
"""How far from ``init_task`` ``init_mm`` is looked for; 660 KB seen."""

LIST_WINDOW = 4096
"""Bytes of ``init_task`` in which lists are tried; ``tasks``, ``children`` and their like lie within 3 KB."""


class Anchor(NamedTuple):
    """Something of the kernel's image whose place in guest physical memory was found without page tables.

    Attributes:
        name: What it is.
        gpa: Where it was found.
    """

    name: str
    gpa: int


class Named(NamedTuple):
    """What somebody says the root is.

    Attributes:
        source: Who says so.
        gva: Address of the table.
    """

    source: str
    gva: int


class Root(NamedTuple):
    """The kernel's own translation root, proved.

    Attributes:
        gpa: The table.
        geometry: How to walk it.
        source: Where it was learnt.
        anchors: Names of the anchors that it translates to where they were found.
        lists: How many lists of ``init_task`` lead out and back through it.
    """

    gpa: int
    geometry: Geometry
    source: str
    anchors: tuple[str, ...]
    lists: int

    @property
    def architecture(self) -> str:
        """The page-table format's architecture: ``arm``, ``aarch64``, ``riscv64`` or ``x86_64``."""
        name = self.geometry.format
        return "arm" if name.startswith("arm-") else name.replace("-", "_")

    @property
    def score(self) -> tuple[int, int]:
        """More is surer."""
        return len(self.anchors), self.lists


class Evidence(NamedTuple):
    """What a root is judged by.

    Attributes:
        memory: The guest's RAM.
        init: ``init_task``: always the first anchor.
        anchors: Further things of the image, found independently.
    """

    memory: PhysicalMemory
    init: InitTask
    anchors: Sequence[Anchor]


def find_root(evidence: Evidence, named: Iterable[Named], texts: Sequence[range] = ()) -> Root | None:
    """Return the kernel's own root where something leads to it, or ``None`` where nothing can be proved.

    Args:
        evidence: What to judge by.
        named: What names the root, the most trusted first. The first that can be proved is returned.
        texts: From ``_stext`` to whatever may be ``_etext``, as far as known: these lead to ``init_mm``.
    """
    for source, gva in named:
        if root := best_root(evidence, [gva - evidence.init.image_offset], source):
            return root
    for table in init_mm_tables(evidence, texts):
        if root := best_root(evidence, [table], "init_mm.pgd"):
            return root
    return None


def search_root(evidence: Evidence) -> Root | None:
    """Return the best root among all pages near ``init_task``, which takes seconds; ``None`` where none is proved."""
    return best_root(evidence, image_tables(evidence), "search of the kernel's image")


def best_root(evidence: Evidence, tables: Iterable[int], source: str) -> Root | None:
    """Return the best proved root among tables.

    Those of processes map the kernel too. Of equals it is one whose address stands near ``init_task``, as that of
    ``init_mm.pgd`` does in the same ``.data``: those of processes that have ended stand nowhere, or by chance. Then it
    is one that maps no program: where the image is small, ``mm->pgd`` of a process may stand there, too. Then it is
    the one whose address stands nearest.
    """
    best: list[Root] = []
    options = list(geometries(evidence.init.word_size))
    for table in tables:
        for geometry in options:
            if table < 0 or table % geometry.root_alignment:
                continue
            root = prove(evidence, table, geometry, source)
            if root and (not best or root.score >= best[0].score):
                best = [*best[: MOST_EQUALS - 1], root] if best and root.score == best[0].score else [root]
    if len(best) < 2:
        return best[0] if best else None
    nearby = _nearby(evidence)

    def key(root: Root) -> tuple[bool, bool, int]:
        distance = _distance(evidence.init, nearby, root.gpa)
        return distance >= DATA_REACH, _maps_programs(evidence, root), distance

    return min(best, key=key)


def _maps_programs(evidence: Evidence, root: Root) -> bool:
    """Say whether a root maps anything at addresses of programs, which that of ``init_mm`` never does."""
    memory, init, _ = evidence
    try:
        parts = root.geometry.user_tables(PhysicalLoads(memory), GPA(root.gpa), init.gva)
        return any(any(memory.read(GPA(gpa), size)) for gpa, size in parts)
    except MemoryFault:
        return True


def _nearby(evidence: Evidence) -> bytes:
    """Return the bytes around ``init_task``, aligned, as many as there are before and behind it."""
    memory, init, _ = evidence
    region = next((region for region in memory.regions if region.gpa <= init.gpa < region.end), None)
    if region is None:
        return b""
    reach = min(DATA_REACH, init.gpa - region.gpa, region.end - init.gpa) & -PAGE
    try:
        return memory.read(GPA(init.gpa - reach), 2 * reach)
    except MemoryFault:
        return b""


def _distance(init: InitTask, nearby: bytes, table: int) -> int:
    """Return how far from ``init_task`` the nearest word lies that holds the address of ``table``."""
    size = init.word_size
    needle = ((table + init.image_offset) % (1 << 8 * size)).to_bytes(size, "little")
    nearest, seen = DATA_REACH, 0
    at = nearby.find(needle)
    while at >= 0 and seen < MOST_TABLES:
        if at % size == 0:  # other places are chance: a pointer is aligned, and so is init_task in the middle
            nearest = min(nearest, abs(at - len(nearby) // 2))
        seen += 1
        at = nearby.find(needle, at + 1)
    return nearest


def prove(evidence: Evidence, table: int, geometry: Geometry, source: str) -> Root | None:
    """Return the root if ``table`` translates ``init_task`` and at least two more anchors, and a list leads back."""
    init = evidence.init
    space = AddressSpace(evidence.memory, geometry, GPA(table))
    task = _maps(space, init.gva, init.gpa)
    if task is None or not task.writable:
        return None
    proven = ["init_task"]
    leaves = {_leaf(init.gva, task)}
    for name, gpa in evidence.anchors:
        if mapping := _maps(space, gpa + init.image_offset, gpa):
            proven.append(name)
            leaves.add(_leaf(gpa + init.image_offset, mapping))
    if len(set(proven)) < LEAST_ANCHORS:
        return None
    lists = [_leaf_of_list(space, head, node + init.word_size) for head, node in _list_heads(evidence)]
    back = [leaf for leaf in lists if leaf is not None]
    if not back or len(leaves.union(back)) < LEAST_LEAVES:
        return None
    return Root(table, geometry, source, tuple(proven), len(back))


def _leaf(gva: int, mapping: Mapping) -> int:
    """Return the first GVA of what a leaf entry maps."""
    return gva & -mapping.page_size


def _maps(space: AddressSpace, gva: int, gpa: int) -> Mapping | None:
    """Return the mapping if ``space`` maps ``gva`` to ``gpa``."""
    try:
        mapping = space.translate(GVA(gva))
    except Fault:
        return None
    return mapping if mapping.gpa == gpa else None


def _list_heads(evidence: Evidence) -> Iterator[tuple[int, int]]:
    """Yield (address, next) of whatever in ``init_task`` may be a list with members elsewhere."""
    memory, init, _ = evidence
    size = init.word_size
    try:
        words = array("Q" if size == 8 else "I", memory.read(GPA(init.gpa), LIST_WINDOW))
    except MemoryFault:
        return
    for index, word in enumerate(words):
        if word >= LOWEST_KERNEL_GVA[size] and word % size == 0 and abs(word - init.gva) > LIST_WINDOW:
            yield init.gva + index * size, word


def _leaf_of_list(space: AddressSpace, head: int, prev: int) -> int | None:
    """Return the leaf through which ``prev`` of a list's member leads back to ``head``, ``None`` where it does not.

    The member lies outside the kernel's image or far from the head.
    """
    try:
        return _leaf(prev, space.translate(GVA(prev))) if space.pointer(GVA(prev)) == head else None
    except Fault:
        return None


def init_mm_tables(evidence: Evidence, texts: Sequence[range]) -> Iterator[int]:
    """Yield the GPAs that ``init_mm.pgd`` may lead to, each once.

    ``setup_initial_init_mm`` (``kernel/fork.c``; before 5.14 each architecture's ``setup_arch``) stores ``_text`` or
    ``_stext`` in ``init_mm.start_code`` and ``_etext`` right behind it in ``end_code``, and leaves ``start_data`` 0
    before ``end_data``; ``pgd`` lies before them.
    """
    init = evidence.init
    size = init.word_size
    seen: set[int] = set()
    for _, data in _image(evidence, before=PAGE) if texts else ():
        for at in (at for text in texts for at in _ends_of_code(data, text, size)):
            for word in array(_CODES[size], data[max(0, at - MM_STRUCT_REACH) // size * size : at]):
                if word >= LOWEST_KERNEL_GVA[size] and word & 0xFFF == 0 and word not in seen:
                    if len(seen) >= MOST_TABLES:
                        return
                    seen.add(word)
                    yield word - init.image_offset


_CODES = {4: "I", 8: "Q"}


def _ends_of_code(data: bytes, text: range, size: int) -> Iterator[int]:
    """Yield where ``end_code`` of an ``init_mm`` may lie: with the right neighbours, a few of each piece."""
    needle = struct.pack(f"<{_CODES[size]}", text.stop)
    found = 0
    at = data.find(needle)
    while at >= 0 and found < MOST_TABLES:
        if at % size == 0 and size <= at <= len(data) - 3 * size:
            start, _, start_data, end_data = array(_CODES[size], data[at - size : at + 3 * size])
            if text.start - HEAD_TEXT <= start <= text.start and not start_data and end_data >= text.stop:
                found += 1
                yield at
        at = data.find(needle, at + 1)


def image_tables(evidence: Evidence) -> Iterator[int]:
    """Yield the GPA of every page near ``init_task`` at which a table may start that is not empty."""
    for gpa, data in _image(evidence):
        for at in range(0, len(data), PAGE):
            end = min(len(data), at + (PAGE if (gpa + at) % LARGEST_TABLE else LARGEST_TABLE))
            if data.count(0, at, end) != end - at:
                yield gpa + at


def _image(evidence: Evidence, before: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield (GPA, bytes) of the RAM around ``init_task``, a piece at a time, the nearest first.

    Args:
        evidence: Where to look.
        before: Bytes in front of each piece to read with it, for what lies across two pieces.
    """
    memory, init, _ = evidence
    pieces = []
    for region in memory.regions:
        if region.gpa <= init.gpa < region.end:
            first = max(region.gpa, (init.gpa - IMAGE_REACH) // PIECE * PIECE)
            last = min(region.end, init.gpa + IMAGE_REACH)
            pieces = [
                (max(region.gpa, gpa - before), min(gpa + PIECE, region.end)) for gpa in range(first, last, PIECE)
            ]
    for start, end in sorted(pieces, key=lambda piece: abs(sum(piece) // 2 - init.gpa)):
        try:
            yield start, memory.read(GPA(start), end - start)
        except MemoryFault:
            continue

"""``init_task`` from memory alone: the one object of the kernel's image that says where it is itself.

``init/init_task.c`` sets up the first ``task_struct`` by hand: ``real_parent``, ``parent`` and ``group_leader``
point to the task itself and unused list heads point to themselves, just before ``comm`` = ``"swapper"`` (on SMP kernels
``"swapper/0"``, ``init_idle`` of ``kernel/sched/core.c``). A list head that points to itself gives away its own GVA;
with the GPA it was found at, that is the offset of the kernel's image, which is contiguous in both.
"""

from __future__ import annotations

import operator
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import compress, count, islice
from typing import NamedTuple

from yamori.address import GPA
from yamori.errors import MemoryFault
from yamori.memory.physical import PhysicalMemory

NEEDLE = b"swapper"
COMM_LENGTH = 16  # TASK_COMM_LEN, include/linux/sched.h, unchanged since 2.6
COMMS = frozenset(name.ljust(COMM_LENGTH, b"\0") for name in (b"swapper", b"swapper/0"))
REACH = 8192
"""Bytes of ``task_struct`` looked at on either side of ``comm``; the largest seen is 13.5 KB with everything debugged,
its ``comm`` always within 4 KB of the parents."""

LOWEST_KERNEL_GVA = {4: 0x4000_0000, 8: 1 << 63}
"""By word size. 32 bit: the 1G/3G split of ``CONFIG_VMSPLIT_1G``; 64 bit: the upper half on every architecture."""

PARENTS_REACH = 2048  # bytes before comm in which real_parent lies; 324 to 544 seen
LEADER_WORDS = 6
"""Words from ``real_parent`` to ``group_leader``: ``parent``, ``children`` and ``sibling`` lie between."""

MOST_PARENTS = 8
MOST_SHUFFLED = 256
LEAST_HEADS = 3  # list heads of a task that point to themselves; 14 to 117 seen
SELVES = 3  # real_parent, parent, group_leader
PAGE_MASK = 0xFFF  # every granule and the image's alignment are multiples of 4 KiB


PATIENCE = 10.0
"""Seconds for looking at all the places. Whoever fills pages with names, and more around them, can make each cost two
milliseconds."""

BLOCK = 1 << 18
"""Places are looked at in rounds, one in each block of so many bytes: no program's pages lie between the kernel's data,
so the real one is among the first of its block, however many names there are elsewhere."""


class InitTask(NamedTuple):
    """A candidate for ``init_task``.

    Attributes:
        gva: Address of ``init_task``, as its own parent pointers say.
        gpa: Where it was found.
        image_offset: GVA minus GPA for everything in the kernel's image.
        comm: GPA of ``comm``.
        word_size: Bytes of a pointer: 4 or 8.
        votes: How many list heads agree on ``image_offset``.
    """

    gva: int
    gpa: int
    image_offset: int
    comm: int
    word_size: int
    votes: int


def candidates(
    memory: PhysicalMemory, hits: Iterable[int], doubt: Callable[[str], object] | None = None
) -> list[InitTask]:
    """Return what looks like ``init_task`` among the places where ``NEEDLE`` was seen, in order of address.

    At least three self-pointing list heads have to agree with the pointers to the task. More than one candidate means
    that somebody planted one, or that an earlier kernel's memory is still there; the caller decides.

    Args:
        memory: The guest's RAM.
        hits: Where ``NEEDLE`` was seen, in order of address.
        doubt: Told in a sentence if the time was up before all of them were looked at.
    """
    deadline = time.monotonic() + PATIENCE
    found: list[InitTask] = []
    places = _in_rounds(hits)
    for number, hit in enumerate(places):
        if time.monotonic() > deadline:
            if doubt:
                doubt(
                    f"{number} of {len(places)} places that may be init_task were looked at: "
                    "somebody may be planting decoys"
                )
            break
        found += _at(memory, hit)
    return sorted(found, key=lambda init: init.comm)


def _in_rounds(hits: Iterable[int]) -> list[int]:
    """Return the places so that the first ones of all blocks come first, then the second ones, and so on."""
    rounds: dict[int, count[int]] = {}
    return sorted(hits, key=lambda hit: next(rounds.setdefault(hit // BLOCK, count())))


def _at(memory: PhysicalMemory, hit: int) -> list[InitTask]:
    try:
        if memory.read(GPA(hit), COMM_LENGTH) not in COMMS:
            return []
        tasks = {size: _parents(memory, hit, size) for size in (8, 4) if hit % size == 0}
    except MemoryFault:
        return []
    found = (_examine(memory, hit, size, parents) for size, parents in tasks.items() if parents)
    return [init for init in found if init]


def _parents(memory: PhysicalMemory, comm: int, word_size: int) -> list[tuple[int, int]]:
    """Return (GPA, value) of what may be ``real_parent``: ``parent`` and ``group_leader`` are equal to it.

    A first look of some 20 microseconds: whoever plants names only, however many, costs little.
    """
    start = comm - PARENTS_REACH
    words = array("Q" if word_size == 8 else "I", memory.read(GPA(start), PARENTS_REACH))
    lowest = LOWEST_KERNEL_GVA[word_size]
    twice = compress(range(len(words) - LEADER_WORDS), map(operator.eq, words, islice(words, 1, None)))
    found = (i for i in twice if words[i] == words[i + LEADER_WORDS] >= lowest and words[i] % word_size == 0)
    return [(start + index * word_size, words[index]) for index in islice(found, MOST_PARENTS)]


def _examine(memory: PhysicalMemory, comm: int, word_size: int, parents: list[tuple[int, int]]) -> InitTask | None:
    start, words = _window(memory, comm, word_size)
    lowest = LOWEST_KERNEL_GVA[word_size]
    twice = compress(range(len(words)), map(operator.eq, words, islice(words, 1, None)))
    pairs = ((start + index * word_size, words[index]) for index in twice if words[index] >= lowest)
    heads = Counter(value - place for place, value in pairs if not (value - place) & PAGE_MASK)
    for image_offset, votes in heads.most_common(4):
        for place, value in parents:
            if votes >= 3 and comm - REACH < value - image_offset < place:
                return InitTask(value, value - image_offset, image_offset, comm, word_size, votes)
    return None


def is_shuffled(memory: PhysicalMemory, hits: Iterable[int]) -> bool:
    """Say whether there is an ``init_task`` whose members are in another order than in every kernel without RANDSTRUCT.

    Its list heads point to themselves and its three pointers to the task itself are there, but nowhere as neighbours
    (``CONFIG_RANDSTRUCT_FULL``, a plugin of gcc since 4.13, 313dd1b62921).

    Args:
        memory: The guest's RAM.
        hits: Where ``NEEDLE`` was seen; a few hundred of them are looked at.
    """
    for hit in _in_rounds(hits)[:MOST_SHUFFLED]:
        try:
            named = memory.read(GPA(hit), COMM_LENGTH) in COMMS
        except MemoryFault:
            continue
        if named and any(_is_self(memory, hit & -size, size) for size in (8, 4)):  # comm may lie anywhere now
            return True
    return False


def _is_self(memory: PhysicalMemory, comm: int, word_size: int) -> bool:
    start, words = _window(memory, comm, word_size)
    lowest = LOWEST_KERNEL_GVA[word_size]
    twice = compress(range(len(words)), map(operator.eq, words, islice(words, 1, None)))
    pairs = ((start + index * word_size, words[index]) for index in twice if words[index] >= lowest)
    heads = Counter(value - place for place, value in pairs if not (value - place) & PAGE_MASK)
    if not heads or heads.most_common(1)[0][1] < LEAST_HEADS:
        return False
    image_offset = heads.most_common(1)[0][0]
    tasks = Counter(word for word in words if comm - REACH < word - image_offset <= comm)
    own = Counter(value for place, value in _heads(start, words, word_size, image_offset))
    return any(count - own[word] >= SELVES and word % word_size == 0 for word, count in tasks.items())


def _heads(start: int, words: array[int], word_size: int, image_offset: int) -> Iterator[tuple[int, int]]:
    """Yield (GPA, value) of both words of list heads that point to themselves."""
    for index, word in enumerate(words):
        place = start + index * word_size
        if word - image_offset in {place, place - word_size}:
            yield place, word


def _window(memory: PhysicalMemory, comm: int, word_size: int) -> tuple[int, array[int]]:
    """Return the words around ``comm`` and the GPA of the first, clipped to the RAM region."""
    for region in memory.regions:
        if region.gpa <= comm < region.end:
            start = max(region.gpa, comm - REACH)
            end = min(region.end, comm + REACH)
            try:
                data = memory.read(GPA(start), (end - start) // word_size * word_size)
            except MemoryFault:
                break
            return start, array("Q" if word_size == 8 else "I", data)
    return comm, array("Q")

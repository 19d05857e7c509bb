"""Which of many candidates for ``init_task`` to prove first: what an image's own parts agree on.

Whoever can write memory, be it as an ordinary user of the guest, can fill pages with things that look like
``init_task``. To prove one takes about a millisecond, to search the image for its root takes seconds; so the candidates
that other finds speak for come first. A wrong order costs time and nothing else: the proof decides.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence

from yamori.address import GPA
from yamori.errors import MemoryFault
from yamori.kernel.init_task import InitTask
from yamori.kernel.kallsyms import Tables
from yamori.kernel.uts import NSPROXY_REACH, NSPROXY_WORDS, UTS_NS_REACH
from yamori.kernel.vmcoreinfo import VmCoreInfo
from yamori.memory.physical import PhysicalMemory, read_some

PATIENCE = 5.0
"""Seconds that ranking may take; what is not looked at by then comes last."""

FEW = 8
"""So many candidates are taken as they come."""


def ranked(
    memory: PhysicalMemory,
    candidates: Sequence[InitTask],
    tables: Iterable[Tables],
    infos: Iterable[VmCoreInfo],
    uts: Collection[int],
) -> list[InitTask]:
    """Return the candidates, those first that most other finds agree with.

    Args:
        memory: The guest's RAM.
        candidates: What looks like ``init_task``.
        tables: Where kallsyms lie.
        infos: Copies of VMCOREINFO; since 6.0 (f09bddbd8661) they say where the tables of kallsyms are mapped.
        uts: GPAs of what looks like ``init_uts_ns.name``.
    """
    if len(candidates) <= FEW:
        return list(candidates)
    offsets = {
        info.symbols["kallsyms_token_table"] - found.token_table
        for info in infos
        if "kallsyms_token_table" in info.symbols
        for found in tables
    }
    places = sorted(uts)
    deadline = time.monotonic() + PATIENCE

    def key(init: InitTask) -> tuple[bool, bool]:
        unlikely = init.image_offset not in offsets
        known = unlikely and time.monotonic() < deadline and _names_the_host(memory, init, places)
        return unlikely, not known

    return sorted(candidates, key=key)


def spoken_for(memory: PhysicalMemory, candidates: Sequence[InitTask], uts: Collection[int]) -> Sequence[InitTask]:
    """Return the candidates whose pointers lead to what looks like ``init_uts_ns``; all of them where none's do.

    Copies of the kernel's pages, which anybody can make who sees its image, have pointers to where the others were.

    Args:
        memory: The guest's RAM.
        candidates: What looks like ``init_task``.
        uts: GPAs of what looks like ``init_uts_ns.name``.
    """
    places = sorted(uts)
    deadline = time.monotonic() + PATIENCE
    found = [one for one in candidates if time.monotonic() < deadline and _names_the_host(memory, one, places)]
    return found or candidates


def _names_the_host(memory: PhysicalMemory, init: InitTask, uts: Sequence[int]) -> bool:
    """Say whether ``init_task->nsproxy->uts_ns`` is one of ``uts``, all three being parts of the image.

    ``uts`` is in ascending order.
    """
    size = init.word_size
    code = "Q" if size == 8 else "I"
    pointers = array(code, _whole_words(read_some(memory, init.comm & -size, NSPROXY_REACH), size))
    for pointer in set(pointers):
        gpa = pointer - init.image_offset
        if gpa % size == 0 and gpa >= 0:
            try:
                words = array(code, memory.read(GPA(gpa), NSPROXY_WORDS * size))
            except MemoryFault:
                continue
            for word in words:
                index = bisect_left(uts, word - init.image_offset)
                if index < len(uts) and uts[index] - (word - init.image_offset) <= UTS_NS_REACH:
                    return True
    return False


def _whole_words(data: bytes, size: int) -> bytes:
    return data[: len(data) // size * size]

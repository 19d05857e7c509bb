"""Tasks searched for in all of RAM, for detectors: whatever lists they were taken off, they lie somewhere.

A process's first thread is its own ``group_leader`` (``copy_process`` of ``kernel/fork.c``), so its ``task_struct``
holds its own address at a known offset. That is looked for wherever a task can begin, in what the kernel's linear map
shows of the memory that is populated; holes are left alone, since the host would have to fill what is read there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from yamori.kernel.kernel import Kernel as KernelView
from yamori.llview.language import Kernel, attempt, emit, probe, u32, ulong, word_at
from yamori.probes.run import run_probe
from yamori.records import Address, Row

PAGE = 4096
PAGES = 1024
"""Pages of one run."""
MOST_ALIGNED = 64
"""Tasks are objects of a cache of their own, on lines of the CPU's cache of at least as many bytes (``fork_init``)."""


class Carved(Row, frozen=True):
    """What may be a task.

    Attributes:
        task: Its address.
    """

    task: Address


class Nothing(Kernel):
    """No variable is needed."""


@probe(row=Carved)
def leaders(  # noqa: PLR0917  a probe's arguments have no names
    kernel: Nothing,  # noqa: ARG001  the language wants it
    first: ulong,
    pages: u32,
    begin: u32,
    places: u32,
    step: u32,
    back: ulong,
) -> None:
    """Give out what points to itself.

    Args:
        kernel: Of no use.
        first: GVA of a page.
        pages: How many follow each other.
        begin: Bytes before the first word of a page that is looked at.
        places: How many words of a page are looked at.
        step: Bytes from one to the next.
        back: Bytes from the start of a task to its ``group_leader``.
    """
    for page in range(pages):
        with attempt():  # a page that is not mapped is left out
            place = first + ulong(page) * PAGE + ulong(begin)
            for _ in range(places):
                task = place - back
                if word_at(place) == task:
                    emit(task=task)
                place = place + ulong(step)


def carve(kernel: KernelView, offset: int, known: Collection[int]) -> Iterator[int]:
    """Yield what may be a ``task_struct`` of a process: every address that holds itself as its ``group_leader``.

    Args:
        kernel: The guest's kernel.
        offset: GVA minus GPA of the linear map.
        known: Addresses of tasks, two at least: they tell where tasks can begin.

    Raises:
        ProfileError: It is not known where tasks keep their leader.
    """
    back = kernel.profile.require("task_struct", "group_leader").offset
    step, begin = _grid(known, kernel.profile.init.word_size)
    arguments = ((begin + back) % step, PAGE // step, step, back)
    top = 1 << 8 * kernel.profile.init.word_size
    for extent in kernel.memory.populated():
        for gpa in range(extent.gpa // PAGE * PAGE, extent.end, PAGES * PAGE):
            pages = min(PAGES, -(-(extent.end - gpa) // PAGE))
            if 0 <= gpa + offset <= top - pages * PAGE:  # 32-bit kernels map no more than its beginning
                yield from (row.task for row in run_probe(kernel, leaders, (gpa + offset, pages, *arguments)).rows)


def _grid(known: Collection[int], word_size: int) -> tuple[int, int]:
    """Return how many bytes lie between places where tasks can begin, and where the first is in each page."""
    first = min(known)
    differing = 0
    for task in known:
        differing |= task ^ first
    step = min(differing & -differing or MOST_ALIGNED, MOST_ALIGNED)
    return max(step, word_size), first % max(step, word_size)

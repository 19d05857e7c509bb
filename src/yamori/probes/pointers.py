"""Pointers in the kernel's data that lead neither to its text nor to its map of all RAM: a scan, for detectors."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.kernel.kernel import Kernel as KernelView
from yamori.llview.language import Kernel, attempt, emit, helper, probe, sizeof, u32, ulong, word_at
from yamori.probes.run import run_probe
from yamori.records import Address, Row

PAGE = 4096
PAGES = 256
"""Pages of one run."""


class Pointer(Row, frozen=True):
    """A word that could be a pointer.

    Attributes:
        place: Where it lies.
        word: What it is.
    """

    place: Address
    word: Address


class Nothing(Kernel):
    """No variable is needed."""


@helper
def leads_somewhere(word: ulong) -> bool:
    """Say whether something is mapped at an address."""
    with attempt() as nowhere:
        word_at(word - word % sizeof(ulong))
    return not nowhere


@probe(row=Pointer)
def words(  # noqa: PLR0917  a probe's arguments have no names
    kernel: Nothing,  # noqa: ARG001  the language wants it
    first: ulong,
    pages: u32,
    lowest: ulong,
    highest: ulong,
    text: ulong,
    etext: ulong,
    linear: ulong,
    end: ulong,
) -> None:
    """Give out the words of pages that lead somewhere in a range of addresses, but not to text or the linear map."""
    for page in range(pages):
        with attempt():  # a page that is not mapped is left out
            start = first + ulong(page) * PAGE
            for index in range(PAGE // sizeof(ulong)):
                place = start + ulong(index) * sizeof(ulong)
                word = word_at(place)
                inside = word >= lowest and word <= highest
                kept = inside and (word < text or word >= etext) and (word < linear or word >= end)
                if kept and leads_somewhere(word):
                    emit(place=place, word=word)


def pointers(kernel: KernelView, where: range, bounds: range, but: tuple[range, range]) -> Iterator[Pointer]:
    """Yield the words of a range of GVAs.

    Args:
        kernel: The guest's kernel.
        where: What is looked through, whole pages.
        bounds: Values that are looked for.
        but: Two ranges of values that are not.
    """
    text, linear = but
    ends = (bounds.start, bounds.stop - 1, text.start, text.stop, linear.start, linear.stop)
    for start in range(where.start // PAGE * PAGE, where.stop, PAGES * PAGE):
        pages = min(PAGES, -(-(where.stop - start) // PAGE))
        yield from run_probe(kernel, words, (start, pages, *ends)).rows

"""Where exceptions and interrupts enter the kernel: the table or the code that the CPU itself goes to."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from yamori.address import GVA
from yamori.detectors.branches import READERS
from yamori.detectors.detector import NotChecked, detector
from yamori.detectors.hooks import image_of
from yamori.detectors.view import View
from yamori.errors import Fault
from yamori.records import Finding

GATES, PRESENT = 256, 0x80
VECTORS = 0xFFFF_0000
"""Where Linux has the vectors of 32-bit Arm: the high ones, of every kernel with an MMU (``CONFIG_VECTORS_BASE``)."""
PAGE = 4096
SLOTS, SLOT = 16, 128
"""AArch64's vectors: Arm ARM (DDI 0487) D1.10.2."""
TABLES = ("vectors", "tramp_vectors", "__bp_harden_el1_vectors")
"""``arch/arm64/kernel/entry.S``: the kernel's, those of KPTI, those against Spectre-BHB, in which KPTI's lie, too."""


class Entry(NamedTuple):
    """Where the CPU, or code that it begins with, goes.

    Attributes:
        what: Which entry, in words: what the finding is about.
        place: GVA of what leads there.
        target: GVA that it leads to.
    """

    what: str
    place: int
    target: int


@detector(
    title="Entries of exceptions that lead out of the kernel",
    needs="the bounds of the kernel's text; on x86-64 the symbol idt_table, on 64-bit Arm vectors",
    misses="registers that say where entries are (IDTR, LSTAR, VBAR, STVEC), entries that lead elsewhere in the "
    "kernel, and RISC-V's table, which foreign-code looks at",
    attack=["T1014"],
)
def exception_entries(view: View) -> Iterator[Finding]:
    """Follow every entry."""
    own = image_of(view)
    kind = view.profile.root.geometry.format
    if kind == "x86-64":
        found = _gates(view)
    elif kind == "aarch64":
        found = _slots(view)
    elif kind.startswith("arm"):
        found = _vectors(view, kind)
    else:
        return
    seen: set[str] = set()
    for entry in found:
        if entry.target not in own and entry.what not in seen:
            seen.add(entry.what)
            yield _finding(view, entry)


def _gates(view: View) -> Iterator[Entry]:
    """Yield the gates of the IDT: Intel SDM volume 3, 6.14.1."""
    table = view.profile.address("idt_table")
    if table is None:
        raise NotChecked("the kernel does not name idt_table", hint="give --symbols")
    data = _read(view, table, 16 * GATES)
    for number in range(GATES):
        low, _, _, kind, middle, high = struct.unpack_from("<HHBBHI", data, 16 * number)
        if kind & PRESENT:
            yield Entry(f"exception {number:#x}", table + 16 * number, low | middle << 16 | high << 32)


def _slots(view: View) -> Iterator[Entry]:
    """Yield where the branches of AArch64's vectors lead."""
    known = [(name, address) for name in TABLES if (address := view.profile.address(name)) is not None]
    if "vectors" not in dict(known):
        raise NotChecked("the kernel does not name its vectors", hint="give --symbols")
    for name, table in known:
        for number in range(SLOTS):
            place = table + SLOT * number
            for target in READERS["aarch64"].targets(_read(view, place, SLOT), place):
                if view.executable(target):
                    yield Entry(f"exception vector {number} of {name}", place, target)


def _vectors(view: View, kind: str) -> Iterator[Entry]:
    """Yield where 32-bit Arm's vectors lead, and the pointers in their stubs: ``arch/arm/kernel/entry-armv.S``.

    The stubs lie in the page behind the vectors, before 3.11 (b9b32bf70f2f) in the same.
    """
    data = _read(view, VECTORS, PAGE)
    with suppress(Fault):  # there may be one page only
        data += view.kernel.space.read(GVA(VECTORS + PAGE), PAGE)
    both = range(VECTORS, VECTORS + len(data))
    targets = [*READERS[kind].targets(data, VECTORS)]
    if sum(target in both for target in targets) < 4:
        raise NotChecked("the vectors are not made of Arm's instructions, or not there")
    words = [*struct.unpack(f"<{len(data) // 4}I", data)]
    linear = view.linear()
    for number, word in enumerate(words):
        if word not in both and word not in linear and view.executable(word):
            place = VECTORS + 4 * number
            yield Entry(f"exception vectors, the word at {place:#x}", place, word)
    for target in targets:
        if target not in both and target not in words and view.executable(target):
            yield Entry("exception vectors", VECTORS, target)


def _read(view: View, place: int, size: int) -> bytes:
    try:
        return view.kernel.space.read(GVA(place), size)
    except Fault as fault:
        raise NotChecked(f"the entries of exceptions cannot be read: {fault}") from fault


def _finding(view: View, entry: Entry) -> Finding:
    return Finding(
        subject=entry.what,
        severity="critical",
        confidence="likely",
        title=f"The kernel is entered elsewhere: {entry.what} leads out of it",
        why=[
            "Expected: exceptions and interrupts enter the kernel's own text.",
            f"Found: the entry at {entry.place:#x} leads to {entry.target:#x}, {view.owner(entry.target)}.",
        ],
        remedy="Treat the device as taken over: preserve its memory, isolate it, and reinstall it.",
    )

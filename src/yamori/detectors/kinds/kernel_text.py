"""Page tables: the kernel's text cannot be written, and programs cannot run it."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.address import GVA
from yamori.detectors.detector import NotChecked, detector
from yamori.detectors.view import View
from yamori.errors import Fault
from yamori.records import Finding

PAGE = 4096


@detector(
    title="Kernel text that can be written",
    needs="the bounds of the kernel's text",
    misses="text that was changed through another address, or protected again afterwards",
    attack=["T1014"],
)
def kernel_text(view: View) -> Iterator[Finding]:
    """Look at the page-table entries of the kernel's text."""
    text = view.profile.text
    if text is None:
        raise NotChecked("the bounds of the kernel's text are not known")
    writable: list[range] = []
    users: list[range] = []
    mapped = 0
    gva = text.start // PAGE * PAGE
    while gva < text.stop:
        size = PAGE
        try:
            page = view.kernel.space.translate(GVA(gva))
        except Fault:
            pass  # text of the boot may be gone
        else:
            size = page.page_size - (page.gpa & (page.page_size - 1)) & -PAGE or PAGE
            mapped += size
            part = range(gva, min(gva + size, text.stop))
            writable += [part] if page.writable else []
            users += [part] if page.user and page.executable else []
        gva += size
    if not mapped:
        raise NotChecked("the kernel's text is not mapped where its symbols say")
    open_bytes = sum(map(len, writable))
    if open_bytes >= mapped // 2:
        raise NotChecked("this kernel does not protect its own code: it was built without CONFIG_STRICT_KERNEL_RWX")
    for part in _joined(writable):
        yield _finding(view, part, "can be written", "read-only")
    for part in _joined(users):
        yield _finding(view, part, "can be run by programs", "the kernel's alone")


def _joined(parts: list[range]) -> list[range]:
    joined: list[range] = []
    for part in parts:
        if joined and joined[-1].stop == part.start:
            joined[-1] = range(joined[-1].start, part.stop)
        else:
            joined.append(part)
    return joined


def _finding(view: View, part: range, what: str, expected: str) -> Finding:
    return Finding(
        subject=f"kernel text at {part.start:#x}",
        severity="high",
        confidence="likely",
        title=f"A part of the kernel's code {what}",
        why=[
            f"Expected: all of the kernel's text is {expected}, as most of it is.",
            f"Found: {part.start:#x} to {part.stop:#x} ({view.owner(part.start)}) {what}.",
        ],
        remedy="Compare the functions there with the maker's image; preserve the memory.",
    )

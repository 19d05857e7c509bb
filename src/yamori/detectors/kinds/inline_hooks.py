"""Functions of the kernel whose first instructions lead out of it: code that was patched in place."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from yamori.address import GVA
from yamori.detectors.branches import READERS, WINDOW, branches
from yamori.detectors.detector import NotChecked, detector
from yamori.detectors.hooks import image_of, trampolines
from yamori.detectors.view import View
from yamori.errors import Fault
from yamori.records import Finding

CHUNK = 1 << 20
MOST_TEXT = 128 << 20


@detector(
    title="Patched functions",
    needs="the bounds of the kernel's text, and symbols of its functions",
    misses="patches behind a function's first instructions, those that stay in the kernel's image, and Thumb code",
    attack=["T1014", "T1056.004"],
)
def inline_hooks(view: View) -> Iterator[Finding]:
    """Follow the branches at the start of every function."""
    text = view.profile.text
    reader = READERS.get(view.profile.root.geometry.format)
    if text is None or reader is None or len(text) > MOST_TEXT:
        raise NotChecked("the bounds of the kernel's text are not known")
    own = image_of(view)
    entries = sorted({address for symbols in view.profile.symbols for address in symbols.addresses(text)})
    known = trampolines(view)
    seen = 0
    for data, start, some in _code(view, text, entries):
        seen += len(some)
        for entry in some:
            for target in branches(reader, data, entry - start, entry):
                traced = any(target in one for one in known)  # which ftrace-hooks tells of
                if target not in own and not traced and view.executable(target):
                    yield _finding(view, entry, target)
    if not seen:
        raise NotChecked("no function of the kernel is known by name, or its text cannot be read")


def _code(view: View, text: range, entries: list[int]) -> Iterator[tuple[bytes, int, list[int]]]:
    """Yield text in parts: its bytes, the GVA of the first, and the functions that begin there."""
    for start in range(text.start, text.stop, CHUNK):
        stop = min(start + CHUNK, text.stop)
        try:
            data = view.kernel.space.read(GVA(start), min(stop + WINDOW, text.stop) - start)
        except Fault:
            continue  # a part that is not mapped
        yield data, start, entries[bisect_left(entries, start) : bisect_left(entries, stop)]


def _finding(view: View, entry: int, target: int) -> Finding:
    symbol = view.profile.symbol_at(entry)
    name = symbol[0] if symbol else f"{entry:#x}"
    return Finding(
        subject=f"function {name}",
        severity="critical",
        confidence="likely",
        title=f"The kernel's function {name} was patched to lead elsewhere",
        why=[
            "Expected: the first instructions of the kernel's functions stay in its text.",
            f"Found: {name} at {entry:#x} branches to {target:#x}, {view.owner(target)}.",
            "Tracing tools (ftrace, kprobes, BPF) patch functions, too, while their owner uses them.",
        ],
        remedy="If nobody traces the device, preserve its memory and isolate it.",
    )

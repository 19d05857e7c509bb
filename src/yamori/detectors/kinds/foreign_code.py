"""Pointers in the kernel's own data that lead to code which is neither the kernel's nor a module's.

Whatever hooks a call through data leaves one: an entry of a table, ``file_operations`` of a file in ``/proc``,
``seq_operations`` such as ``tcp4_seq_ops``, a hook of a security module, an exception vector's table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from yamori.address import GVA
from yamori.detectors.detector import NotChecked, detector
from yamori.detectors.hooks import Hooks
from yamori.detectors.view import View
from yamori.kernel.modules import BELOW_LINEAR
from yamori.probes.pointers import pointers
from yamori.records import Finding

BEHIND = 16 << 20
"""Bytes behind the kernel's text that are looked at: its data, read-only and not."""
PAGE = 4096
VECTORS = 0xFFFF_0000
"""Where 32-bit Arm has its exception vectors, which can be executed; negative numbers look like addresses there."""
MANY = 64
"""Pages after which it is how the kernel was built: one that lets all memory be executed."""


@detector(
    title="Hooks that lead out of the kernel",
    needs="the bounds of the kernel's text, on 32-bit Arm of its image, and the list of modules",
    misses="hooks in objects that are allocated (netfilter, for one), those that lead into a module on the list, and "
    "those to the first byte of a page in no table of functions",
    attack=["T1014", "T1056.004"],
)
def foreign_code(view: View) -> Iterator[Finding]:
    """Look through the kernel's data for pointers to code that belongs to nobody."""
    text = view.profile.text
    if text is None:
        raise NotChecked("the bounds of the kernel's text are not known")
    image = view.kernel.image
    if not image and view.profile.init.word_size == 4:  # programs' memory is mapped beside it
        raise NotChecked("where the kernel's image ends is not known")
    image = image or (range(text.start, text.stop + BEHIND),)
    judge = Hooks(view)
    foreign: dict[int, bool] = {}
    hooks: dict[int, list[tuple[int, int]]] = {}
    for place, word in _words(view, text, image):
        page = word // PAGE
        if page not in foreign:
            foreign[page] = _is_foreign(view, word)
        if not foreign[page] or (not word % PAGE and not _among_functions(view, text, place)):
            continue
        if judge.module_of(word) is None:
            hooks.setdefault(page, []).append((place, word))
            if len(hooks) > MANY:
                raise NotChecked("this kernel lets its data be executed, so that pointers to data look like hooks")
    for page, found in hooks.items():
        yield _finding(view, page * PAGE, found)


def _finding(view: View, page: int, found: list[tuple[int, int]]) -> Finding:
    place, word = found[0]
    symbol = view.profile.symbol_at(place)
    where = f"{symbol[0]}+{symbol[1]:#x} ({place:#x})" if symbol else f"{place:#x}"
    more = f"; {len(found) - 1} more lead to that page" if len(found) > 1 else ""
    return Finding(
        subject=f"code at {page:#x}",
        severity="critical",
        confidence="likely",
        title="The kernel was made to call code that is neither its own nor a module's",
        why=[
            "Expected: pointers to code in the kernel's data lead to the kernel or to a module on its list.",
            f"Found: {where} leads to {word:#x}, which can be executed and belongs to nothing{more}.",
            "Tracing tools (ftrace, kprobes, BPF) make such code, too, while their owner uses them.",
        ],
        remedy="If nobody traces the device, preserve its memory and isolate it.",
    )


def _among_functions(view: View, text: range, place: int) -> bool:
    """Say whether a word has a pointer into the kernel's text beside it, as in a table of functions.

    An address of a whole page is mostly one of the places that the kernel keeps for code (``execmem_info``,
    ``mod_tree``), but it is also that of a small module's first function.
    """
    size = view.profile.init.word_size
    return any(view.reader().pointer(place + step) in text for step in (-size, size))


def _is_foreign(view: View, word: int) -> bool:
    """Say whether something can be executed and is not mapped where the kernel's image is."""
    if not view.executable(word):
        return False
    return view.kernel.space.translate(GVA(word)).gpa != word - view.profile.init.image_offset


def _words(view: View, text: range, image: Sequence[range]) -> Iterator[tuple[int, int]]:
    """Yield (GVA, word) of what could be a pointer to code, but not to the kernel's image or the map of all RAM."""
    lowest, highest = view.profile.root.geometry.kernel
    linear = view.linear()
    if view.profile.init.word_size == 4:  # modules lie below the linear map
        lowest, highest = max(lowest, linear.start - BELOW_LINEAR), VECTORS - 1
    own = range(text.start, text.stop if view.kernel.image == () else image[-1].stop)
    for part in image:
        where = range(max(part.start, text.stop), min(part.stop, text.stop + BEHIND))
        for pointer in pointers(view.kernel, where, range(lowest, highest + 1), (own, linear)):
            yield pointer.place, pointer.word

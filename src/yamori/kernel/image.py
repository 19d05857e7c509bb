"""Where the kernel's image ends: behind it lies memory that belongs to anybody.

``_end`` says so where kallsyms has all symbols. Elsewhere the kernel's own table of resources does, from which
``/proc/iomem`` is made: ``setup_arch`` enters the part that holds data as ``Kernel data``, on 32-bit Arm up to ``_end``
(``arch/arm/kernel/setup.c``).
"""

from __future__ import annotations

from collections.abc import Iterator

from yamori.address import GPA
from yamori.errors import MemoryFault
from yamori.kernel.kernel import Kernel

REACH = 64 << 20
"""Bytes from ``init_task`` within which the image's parts lie."""
CHUNK = 1 << 20
NAME = b"\0Kernel data\0"
MOST_NAMES = 8


def image_end(kernel: Kernel) -> int | None:
    """Return the GVA behind the kernel's image, or ``None`` where nothing tells it."""
    profile = kernel.profile
    end = profile.address("_end")
    if end is not None and profile.init.gva < end <= profile.init.gva + REACH:
        return end
    # Who plants another one plants it behind the image's true end, which it then has to claim, too.
    last = min((end for name in _names(kernel) for end in _ends(kernel, name)), default=None)
    return last + profile.init.image_offset if last is not None else None


def _names(kernel: Kernel) -> list[int]:
    """Return the GPAs of the resource's name: a string of its own, of which there are few."""
    found: list[int] = []
    for gpa, data in _chunks(kernel, len(NAME)):
        at = data.find(NAME)
        while at >= 0 and len(found) < MOST_NAMES:
            found.append(gpa + at + 1)
            at = data.find(NAME, at + 1)
    return [*dict.fromkeys(found)]


def _ends(kernel: Kernel, name: int) -> Iterator[int]:
    """Yield the ends of what may be ``struct resource`` of a name: ``start`` and ``end`` lie before its pointer.

    Both are ``resource_size_t``, which is wider than a word on 32-bit kernels with LPAE. The part that they bound holds
    ``init_task``, and them.
    """
    init = kernel.profile.init
    needle = (name + init.image_offset).to_bytes(init.word_size, "little")
    for gpa, data in _chunks(kernel, 16):
        at = data.find(needle)
        while at >= 0:
            for width in (4, 8):
                pair = data[max(0, at - 2 * width) : at]
                first, last = (int.from_bytes(half, "little") for half in (pair[:width], pair[width:]))
                if len(pair) == 2 * width and first <= init.gpa < last and first <= gpa + at < last < init.gpa + REACH:
                    yield last + 1
            at = data.find(needle, at + 1)


def _chunks(kernel: Kernel, overlap: int) -> Iterator[tuple[int, bytes]]:
    """Yield (GPA, bytes) of what lies around ``init_task``, each with some bytes of the one before."""
    init = kernel.profile.init
    tail = b""
    for gpa in range(max(0, init.gpa - REACH) // CHUNK * CHUNK, init.gpa + REACH, CHUNK):
        try:
            data = kernel.memory.read(GPA(gpa), CHUNK)
        except MemoryFault:
            tail = b""
            continue
        yield gpa - len(tail), tail + data
        tail = data[-overlap:]

"""What of the kernel's image the kernel keeps: what lies behind it, and its freed init sections, are anybody's memory.

Symbols say so where kallsyms has all of them. Elsewhere the kernel's own table of resources does, from which
``/proc/iomem`` is made: ``setup_arch`` of each architecture enters the parts of the image as ``Kernel code``, ``Kernel
data``, and some as ``Kernel rodata`` and ``Kernel bss``, without the init sections.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from yamori.address import GPA
from yamori.errors import MemoryFault
from yamori.kernel.profile import Profile
from yamori.memory.physical import PhysicalMemory

REACH = 64 << 20
"""Bytes from the start of the kernel's text within which its image ends."""
CHUNK = 1 << 20
NAMES = (b"Kernel code\0", b"Kernel rodata\0", b"Kernel data\0", b"Kernel bss\0")
DATA = NAMES[2]
MOST_NAMES = 32
MOST_RESOURCES = 256


class _Resource(NamedTuple):
    """``struct resource`` of ``include/linux/ioport.h``: its name, where it lies, its first and last GPA."""

    name: bytes
    place: int
    first: int
    last: int

    def holds(self, gpa: int) -> bool:
        return self.first <= gpa <= self.last


def kept(memory: PhysicalMemory, profile: Profile) -> tuple[range, ...]:
    """Return the GVAs of the kernel's image that stay the kernel's, in ascending order; none where nothing tells."""
    text = profile.text
    if text is None:
        return ()
    begin, end, last = (profile.address(name) for name in ("__init_begin", "__init_end", "_end"))
    if begin and end and last and text.start < begin <= end < last <= text.start + REACH:
        return range(text.start, begin), range(end, last)
    offset = profile.init.image_offset
    found = _parts(memory, profile, text.start - offset)
    return tuple(range(part.first + offset, part.last + 1 + offset) for part in found)


def _parts(memory: PhysicalMemory, profile: Profile, start: int) -> list[_Resource]:
    init = profile.init
    names = {
        (gpa + init.image_offset).to_bytes(init.word_size, "little"): name
        for gpa, name in _named(memory, start)
        if 0 <= gpa + init.image_offset < 1 << 8 * init.word_size
    }
    resources = [one for _, one in zip(range(MOST_RESOURCES), _resources(memory, start, names), strict=False)]
    own = [one for one in resources if one.name == DATA and one.holds(init.gpa) and one.holds(one.place)]
    # Who plants another one plants it behind the image's true end, which it then has to claim, too.
    data = min(own, key=lambda one: one.last, default=None)
    if data is None:
        return []
    rest = [one for one in resources if one.name != DATA and data.holds(one.place) and not _overlap(one, data)]
    return sorted([data, *rest], key=lambda one: one.first)


def _overlap(one: _Resource, other: _Resource) -> bool:
    return one.first <= other.last and other.first <= one.last


def _named(memory: PhysicalMemory, start: int) -> list[tuple[int, bytes]]:
    """Return where the names lie: strings of their own."""
    found: dict[int, bytes] = {}
    for gpa, data in _chunks(memory, start, max(map(len, NAMES))):
        at = data.find(b"\0Kernel ")
        while at >= 0 and len(found) < MOST_NAMES:
            name = next((name for name in NAMES if data.startswith(name, at + 1)), None)
            if name:
                found[gpa + at + 1] = name
            at = data.find(b"\0Kernel ", at + 1)
    return [*found.items()]


def _resources(memory: PhysicalMemory, start: int, names: dict[bytes, bytes]) -> Iterator[_Resource]:
    """Yield what may be resources: ``start`` and ``end`` lie before the pointer to the name.

    Both are ``resource_size_t``, which is wider than a word on 32-bit kernels with LPAE.
    """
    for gpa, data in _chunks(memory, start, 16):
        for needle, name in names.items():
            at = data.find(needle)
            while at >= 0:
                for width in (4, 8):
                    pair = data[max(0, at - 2 * width) : at]
                    first, last = (int.from_bytes(half, "little") for half in (pair[:width], pair[width:]))
                    if len(pair) == 2 * width and start - REACH <= first < last < start + REACH:
                        yield _Resource(name, gpa + at, first, last)
                at = data.find(needle, at + 1)


def _chunks(memory: PhysicalMemory, start: int, overlap: int) -> Iterator[tuple[int, bytes]]:
    """Yield (GPA, bytes) of the image's neighbourhood, each with some bytes of the one before."""
    tail = b""
    for gpa in range(max(0, start) // CHUNK * CHUNK, start + REACH, CHUNK):
        try:
            data = memory.read(GPA(gpa), CHUNK)
        except MemoryFault:
            tail = b""
            continue
        yield gpa - len(tail), tail + data
        tail = data[-overlap:]

"""Where the kernel image is mapped, inferred from the pointers that it holds itself.

Since Linux 7.0 (a081b5789255) kallsyms stores how far each symbol is from its entry, and no address. The image's own
read-only data still hold addresses: tables of functions, with the KASLR slide applied. Each pointer, together with
each function that could be its target, votes for one place of the image; the true place gets several times the votes
of any other (measured on arm64 and x86-64 kernels of 6.12 and 7.2: three to five times).
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable

from yamori.address import GPA, GVA
from yamori.errors import MemoryFault
from yamori.kernel.kallsyms_tables import Tables
from yamori.memory.physical import PhysicalMemory

_PAGE = 4096
_PIECE = 1 << 16
_MAX_REACH = 1 << 24
_POINTERS = 256
_POINTERS_OF_PIECE = 32
_ENOUGH_VOTES = 32
_LEAD = 2
_KERNEL_HALF = range(0xFF << 56, (1 << 64) - _PIECE)  # errors as pointers (ERR_PTR) lie above


def infer_gva_of_offsets(memory: PhysicalMemory, tables: Tables, functions: Iterable[int]) -> GVA | None:
    """Infer at which GVA ``kallsyms_offsets`` is mapped, for the PC-relative format on 64-bit kernels.

    A guess with evidence, to be confirmed through the guest's page tables: whoever can write kernel memory can write
    pointers too.

    Args:
        memory: The guest's physical memory.
        tables: PC-relative tables.
        functions: Distances of functions from ``kallsyms_offsets``, in bytes.

    Returns:
        The GVA, or ``None`` where the pointers do not clearly agree on one place.
    """
    targets: defaultdict[int, list[int]] = defaultdict(list)
    # The image is mapped in whole pages: a function's offset in its page is the same in GVA and GPA.
    for distance in set(functions):
        targets[(tables.addresses + distance) % _PAGE].append(distance)
    votes: Counter[int] = Counter()
    for pointer in _pointers(memory, min(tables.names, tables.addresses)):
        votes.update([pointer - distance for distance in targets[pointer % _PAGE]])
    (place, most), (_, next_most), *_ = [*votes.most_common(2), (0, 0), (0, 0)]
    return GVA(place) if most >= max(_ENOUGH_VOTES, _LEAD * next_most) else None


def _pointers(memory: PhysicalMemory, end: int) -> list[int]:
    """Return different pointers from the read-only data before ``end``, a few of each piece."""
    found: dict[int, None] = {}
    end &= -_PIECE
    for start in range(end - _PIECE, max(end - _MAX_REACH, -1), -_PIECE):
        try:
            words = array("Q", memory.read(GPA(start), _PIECE))
        except MemoryFault:
            break
        fresh = [word for word in words if word in _KERNEL_HALF and not word & 3 and word not in found]
        found.update(dict.fromkeys(list(dict.fromkeys(fresh))[:_POINTERS_OF_PIECE]))
        if len(found) >= _POINTERS:
            break
    return list(found)

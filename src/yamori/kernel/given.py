"""What the maker of a kernel gives: a ``vmlinux`` with debug info, a ``System.map``; held against the guest."""

from __future__ import annotations

from dataclasses import dataclass

from yamori.errors import ProfileError
from yamori.kernel.init_task import LOWEST_KERNEL_GVA, InitTask
from yamori.kernel.symbols import Symbols
from yamori.kernel.types import Types
from yamori.kernel.vmcoreinfo import VmCoreInfo

PROBES = 64
"""Symbols that are compared to tell whether the maker's file is of the kernel that runs."""


@dataclass(frozen=True)
class Given:
    """What the maker of the kernel gives.

    Attributes:
        symbols: From ``System.map`` or ``vmlinux``, at link-time addresses.
        types: From ``vmlinux``.
        build_id: Of ``vmlinux``, in hexadecimal; empty where not known.
        source: The file, for messages.
        banner: ``linux_banner`` without its line feed; empty where not known.
    """

    symbols: Symbols | None = None
    types: Types | None = None
    build_id: str = ""
    source: str = ""
    banner: str = ""

    def at(self, slide: int | None) -> Symbols | None:
        """Return the symbols at the addresses where they run; ``None`` where there are none."""
        if self.symbols is None or slide is None:
            return None
        if slide == 0:
            return self.symbols
        rows = list(self.symbols)
        lowest = LOWEST_KERNEL_GVA[8 if any(row.address >> 32 for row in rows) else 4]
        return Symbols.from_columns(
            # Per-CPU symbols of x86-64 and constants do not move with the image.
            [(row.address + slide) % (1 << 64) if row.address >= lowest else row.address for row in rows],
            "".join(row.kind for row in rows),
            [row.name for row in rows],
            self.symbols.provenance,
        )


def of_another_kernel(given: Given) -> ProfileError:
    """Return the error that says so."""
    return ProfileError(
        "this is not of the kernel that runs in the guest", where=given.source, hint="give the file of the same build"
    )


def link_slide(given: Given, init: InitTask, kallsyms: Symbols | None, info: VmCoreInfo | None) -> int:
    """Return the KASLR slide: where ``init_task`` runs minus where it was linked.

    Raises:
        ProfileError: The file is of another kernel.
    """
    assert given.symbols  # noqa: S101  # the caller's condition
    wrong = of_another_kernel(given)
    if info and info.build_id and given.build_id and info.build_id != given.build_id:
        raise wrong
    linked = given.symbols.address("init_task")
    if linked is not None:
        slide = init.gva - linked
    elif kallsyms and (shared := _shared(given.symbols, kallsyms)):
        slide = shared[0]
    else:
        raise ProfileError("it has no init_task, and the guest has no kallsyms to compare with", where=given.source)
    if slide % 0x1000 or (kallsyms and any(other != slide for other in _shared(given.symbols, kallsyms))):
        raise wrong
    return slide


def _shared(symbols: Symbols, kallsyms: Symbols) -> list[int]:
    """Return the slides that unique functions of both tables say; per-CPU symbols do not move and are left out."""
    slides: list[int] = []
    step = max(1, len(kallsyms) // (4 * PROBES))
    for index, row in enumerate(kallsyms):
        if index % step == 0 and row.kind == "T" and (same := symbols.find(row.name)):
            slides.append(row.address - same.address)
        if len(slides) == PROBES:
            break
    return slides

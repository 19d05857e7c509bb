"""Why a load of guest memory, or a whole run, ended: the codes that all ways of running a program share."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

TLB_ENTRIES = 256
"""Entries of the direct-mapped cache of translations; a power of two.

The entry of (root, GVA) is ``((gva >> page_shift) ^ (root >> page_shift)) & (TLB_ENTRIES - 1)``. It holds the root,
the page (``gva >> page_shift``) and the GPA of the page's first byte, and is emptied before each run.
"""

MOST_TROUBLES = 100
"""Troubles that a run keeps; more are only counted."""


class Code(IntEnum):
    """What went wrong."""

    NONE = 0
    MISALIGNED = 1
    """The address is not a multiple of the load's size. ``address``, ``value`` is the size."""
    SIZE = 2
    """A member of this size is no integer. ``address``, ``value`` is the size."""
    NOT_KERNEL = 3
    """The kernel's root was meant, and the address is none of the kernel's. ``address``, ``value`` 0."""
    UNMAPPED = 4
    """The page tables do not map it. ``address``; ``message`` and ``value`` are what the walker says."""
    OUTSIDE = 5
    """Outside the guest's RAM. ``address`` is the GPA, ``value`` the size."""
    INDEX = 6
    """Outside a local array or buffer. ``address`` is the index, ``value`` the length."""
    PROGRAM = 7
    """The program itself gave up: ``message`` and ``value``; ``address`` 0."""
    BUDGET = 8
    """Too much was read: all ticks are spent. ``address`` and ``value`` 0."""
    ROWS = 9
    """No room for another row. Native code is given more room and runs again, up to ``unit.most_rows``."""
    GONE = 10
    """The host no longer gives the guest's memory. ``address`` is the GPA, ``value`` the size."""


class FaultRecord(NamedTuple):
    """One fault; all numbers are unsigned 64-bit.

    Attributes:
        code: What went wrong.
        address: GVA, GPA or index; see the code.
        value: See the code.
        message: Number of the program's (or the walker's) message, or 0.
    """

    code: Code
    address: int
    value: int
    message: int = 0


class TroubleRecord(NamedTuple):
    """One trouble of a run.

    Attributes:
        message: Number of the program's message.
        value: The value that goes with it, as unsigned 64-bit.
        fault: The fault taken last, where the program said it belongs to it.
        torn: Whether the guest changed what was read.
    """

    message: int
    value: int
    fault: FaultRecord | None = None
    torn: bool = False

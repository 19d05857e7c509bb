"""What a run of the interpreter consists of: the cache of translations, loads, events, faults and the budget.

``runtime.h`` is the same in C.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, cast

from yamori.errors import MemoryFault, TargetError
from yamori.llview.faults import MOST_TROUBLES, TLB_ENTRIES, Code, FaultRecord, TroubleRecord
from yamori.llview.machine import Event, Machine, SlotFill, Value

_WORD = (1 << 64) - 1
_SIZES = frozenset({1, 2, 4, 8})


class Stop(Exception):
    """A fault on its way to the ``Attempt`` that takes it.

    Attributes:
        path: Label of that attempt; ``None`` for the innermost.
    """

    path: str | None = None


class End(Exception):
    """The end of the run, whatever attempt is around."""


class Run:
    """One run of a program.

    Args:
        machine: The guest.
        walk: The compiled walker of its page tables.
        slots: The program's.
        budget: Ticks.
        trace: Record every load.
    """

    def __init__(
        self, machine: Machine, walk: Callable[..., tuple[int, ...]], slots: list[SlotFill], budget: int, *, trace: bool
    ) -> None:
        self.machine = machine
        self.walk = walk
        self.slots = slots
        self.ticks = budget
        self.events: list[Event] | None = [] if trace else None
        self.loads = 0
        self.faults = 0
        self.last: FaultRecord | None = None
        self.ended: FaultRecord | None = None
        self.troubles: list[TroubleRecord] = []
        self.rows: list[tuple[Value, ...]] = []
        self.rows_append = self.rows.append
        self._read = cast("Callable[[int, int], bytes]", machine.memory.read)
        self._shift = machine.page_shift
        self._mask = (1 << machine.page_shift) - 1
        self._root = machine.root
        self._salt = machine.root >> machine.page_shift
        # A page of the kernel's own root is an int, of another root a pair: one comparison tells both.
        self._tags: list[Any] = [None] * TLB_ENTRIES
        self._bases = [0] * TLB_ENTRIES

    # --- faults

    def fault(self, code: Code, address: int, value: int, message: int = 0) -> NoReturn:
        """Fault."""
        self.faults += 1
        self.last = FaultRecord(code, address & _WORD, value & _WORD, message)
        raise Stop

    def end(self, code: Code, address: int = 0, value: int = 0) -> NoReturn:
        """End the run."""
        self.faults += 1
        self.last = self.ended = FaultRecord(code, address & _WORD, value & _WORD)
        raise End

    def fail(self, message: int, value: int) -> NoReturn:
        """``Raise`` of a probe."""
        self.fault(Code.PROGRAM, 0, value, message)

    def index(self, at: int, length: int, size: int) -> int:
        """Return an index of a local array or buffer, if ``size`` elements fit behind it."""
        if at < 0 or at + size > length:
            self.fault(Code.INDEX, at, length)
        return at

    def tick(self) -> None:
        """Spend one of the budget."""
        if not self.ticks:
            self.end(Code.BUDGET)
        self.ticks -= 1

    def trouble(self, message: int, value: int, faulted: bool, torn: bool) -> None:
        """Note a trouble."""
        if len(self.troubles) < MOST_TROUBLES:
            fault = (self.last or FaultRecord(Code.NONE, 0, 0)) if faulted else None
            self.troubles.append(TroubleRecord(message, value, fault, torn))

    # --- loads

    def load(self, gva: int, size: int) -> int:
        """Load ``size`` bytes by the kernel's root: a look into the cache and a read."""
        page = gva >> self._shift
        at = (page ^ self._salt) & (TLB_ENTRIES - 1)
        if gva & (size - 1):
            self.fault(Code.MISALIGNED, gva, size)
        if self._tags[at] != page:
            self._bases[at] = self.translate(self._root, gva)
            self._tags[at] = page
        return self._load(self._bases[at] + (gva & self._mask), gva, size)

    def load_user(self, gva: int, size: int, root: int) -> int:
        """Load ``size`` bytes by another root."""
        if root == self._root:
            return self.load(gva, size)
        page = gva >> self._shift
        at = (page ^ (root >> self._shift)) & (TLB_ENTRIES - 1)
        if gva & (size - 1):
            self.fault(Code.MISALIGNED, gva, size)
        if self._tags[at] != (root, page):
            self._bases[at] = self.translate(root, gva)
            self._tags[at] = (root, page)
        return self._load(self._bases[at] + (gva & self._mask), gva, size)

    def load_slot(self, gva: int, slot: int) -> int:
        """Load the member that a slot describes, at its address."""
        fill = self.slots[slot]
        if fill.size not in _SIZES:
            self.fault(Code.SIZE, gva, fill.size)
        return extract(self.load(gva, fill.size), fill)

    def load_user_slot(self, gva: int, slot: int, root: int) -> int:
        """Load a member by another root."""
        fill = self.slots[slot]
        if fill.size not in _SIZES:
            self.fault(Code.SIZE, gva, fill.size)
        return extract(self.load_user(gva, fill.size, root), fill)

    def _load(self, gpa: int, gva: int, size: int) -> int:
        value = self.read(gpa, size)
        if self.events is not None:
            self.events.append(("V", gva, size))
        self.loads += 1
        return value

    def read(self, gpa: int, size: int) -> int:
        """Read guest physical memory once."""
        try:
            return int.from_bytes(self._read(gpa, size), "little")
        except MemoryFault:
            self.fault(Code.OUTSIDE, gpa, size)
        except TargetError:
            self.end(Code.GONE, gpa, size)

    # --- translation

    def translate(self, root: int, gva: int) -> int:
        """Walk the page tables for the page of an address, and return its GPA."""
        if root == self._root and not self.machine.kernel[0] <= gva <= self.machine.kernel[1]:
            self.fault(Code.NOT_KERNEL, gva, 0)
        page = gva & ~self._mask

        def stop(message: int, value: int) -> NoReturn:
            self.fault(Code.UNMAPPED, page, value, message)

        return self.walk(self.phys4, self.phys8, stop, self.tick, root, page, *self.machine.geometry)[0]

    def phys4(self, gpa: int) -> int:
        """Load an entry of 4 bytes of a page table."""
        return self._phys(gpa, 4)

    def phys8(self, gpa: int) -> int:
        """Load an entry of 8 bytes of a page table."""
        return self._phys(gpa, 8)

    def _phys(self, gpa: int, size: int) -> int:
        if gpa & (size - 1):
            self.fault(Code.MISALIGNED, gpa, size)
        value = self.read(gpa, size)
        if self.events is not None:
            self.events.append(("P", gpa, size))
        return value


def extract(value: int, fill: SlotFill) -> int:
    """Return a member's value: a bit-field cut out of its storage unit, a signed one extended."""
    width = fill.size * 8
    if fill.bits:
        width = min(fill.bits, 64)
        value = value >> fill.shift & (1 << width) - 1
    if fill.signed and value >> (width - 1) & 1:
        return value - (1 << width)
    return value

"""What a run of the interpreter consists of: the cache of translations, loads, events, faults, the budget.

``runtime.h`` is the same in C. All of it belongs to one run, so that any number of threads may run programs at once.
Translations are remembered, what was loaded never is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import NoReturn, cast

from yamori.errors import Fault, MemoryFault, YamoriError
from yamori.llview.faults import MOST_TROUBLES, TLB_ENTRIES, Code, FaultRecord, TroubleRecord
from yamori.llview.machine import Event, Machine, SlotFill, Value

WORD = (1 << 64) - 1
"""The greatest number of 64 bits; as a mask it cuts to them."""

_SIZES = frozenset({1, 2, 4, 8})


class Taken(Fault):
    """A fault that an ``Attempt`` takes, or that ends the run.

    Args:
        record: What went wrong.
    """

    def __init__(self, record: FaultRecord) -> None:
        super().__init__(record.code.name)
        self.record = record


class Full(Exception):
    """There are more rows than a run may give: no ``Attempt`` takes that."""


class Gone(Exception):
    """The host no longer gives the guest's memory: no ``Attempt`` takes that."""


def counter(budget: int) -> Callable[[], None]:
    """Return a function that spends a tick.

    It raises ``StopIteration`` once ``budget`` ticks are spent, and costs a third of what one written in Python does.
    """
    return repeat(None, max(0, min(budget, sys.maxsize))).__next__


def refuse(code: Code, address: int, value: int, message: int = 0) -> NoReturn:
    """Fault, where no run counts it.

    Raises:
        Taken: Always.
    """
    raise Taken(FaultRecord(code, address & WORD, value & WORD, message))


def member(value: int, fill: SlotFill) -> int:
    """Return a member's value as 64 bits: a bit-field cut out of its storage unit, a signed one extended."""
    bits = fill.size * 8
    if fill.bits:
        bits = min(fill.bits, 64)
        value = value >> fill.shift & ((1 << bits) - 1)
    if fill.signed and value >> (bits - 1):
        value -= 1 << bits
    return value & WORD


def text(buffer: bytearray) -> bytes:
    """Return a buffer up to its first NUL."""
    return bytes(buffer).partition(b"\0")[0]


class Run:
    """One run of a program.

    The functions that programs call for each load are closures, not methods: that saves a fifth of their time.

    Args:
        machine: The guest.
        walk: The compiled walker of its page tables.
        slots: The program's.
        budget: Ticks.
        rows: How many there may be.
        trace: Record every load.

    Attributes:
        emit: Takes a row; ``Full`` where there are too many.
        tick: Spends one of the budget; ``StopIteration`` where nothing is left.
        page: ``(gva, size)`` → where the kernel's own tables have it in guest physical memory.
        page_in: ``(gva, size, root)`` → where the tables at ``root`` have it.
        load: ``(gpa, gva, size)`` → the bytes there, as an unsigned number.
        slots: Of the program, their numbers cut to 64 bits.
        rows: What was emitted.
        troubles: What was noted, the first ones.
        loads: Loads by virtual address.
        faults: Faults, those taken by an ``Attempt`` too.
        last: The last one.
        events: All loads, where they are recorded.
    """

    def __init__(
        self,
        machine: Machine,
        walk: Callable[..., tuple[int, ...]],
        slots: Sequence[SlotFill],
        budget: int,
        rows: int,
        *,
        trace: bool,
    ) -> None:
        self.slots = [SlotFill(*(int(value) & WORD for value in fill)) for fill in slots]  # type: ignore[arg-type]
        self.rows: list[tuple[Value, ...]] = []
        self.troubles: list[TroubleRecord] = []
        self.loads = 0
        self.faults = 0
        self.last = FaultRecord(Code.NONE, 0, 0)
        self.events: list[Event] = []
        self._memory = machine.memory
        self.tick = counter(budget)
        self.emit = self._emitter(rows)
        self.load = self._loader(trace=trace)
        entries = [self._table_loader(size, trace=trace) for size in (4, 8)]

        geometry = [number & WORD for number in machine.geometry]

        def translate(root: int, gva: int) -> int:
            return walk(*entries, self.tick, self.fault, root, gva, *geometry)[0]

        first, last = machine.kernel
        self.page, self.page_in = translation(
            machine.page_shift & 63, machine.root & WORD, (first & WORD, last & WORD), translate, self.fault
        )

    def _emitter(self, most: int) -> Callable[[tuple[Value, ...]], None]:
        rows, append = self.rows, self.rows.append

        def emit(row: tuple[Value, ...]) -> None:
            if len(rows) >= most:
                raise Full
            append(row)

        return emit

    # --- faults and troubles

    def fault(self, code: Code, address: int, value: int, message: int = 0) -> NoReturn:
        """Count a fault, and raise it.

        Raises:
            Taken: Always.
        """
        raise Taken(self.record(code, address, value, message))

    def record(self, code: Code, address: int = 0, value: int = 0, message: int = 0) -> FaultRecord:
        """Count a fault, which becomes the last one."""
        self.faults += 1
        self.last = FaultRecord(code, address & WORD, value & WORD, message)
        return self.last

    def trouble(self, message: int, value: int, faulted: bool, torn: bool) -> None:
        """Note a trouble."""
        if len(self.troubles) < MOST_TROUBLES:
            self.troubles.append(TroubleRecord(message, value, self.last if faulted else None, torn))

    # --- loads

    def sized(self, fill: SlotFill, page: Callable[..., int]) -> Callable[..., int]:
        """Return ``page`` for a slot; one that always faults where no integer has the slot's size."""
        return page if fill.size in _SIZES else self._odd_size

    def _odd_size(self, gva: int, size: int, _root: int = 0) -> NoReturn:
        self.fault(Code.SIZE, gva, size)

    def _loader(self, *, trace: bool) -> Callable[[int, int, int], int]:
        read = cast("Callable[[int, int], bytes]", self._memory.read)
        from_bytes, record = int.from_bytes, self.events.append

        def load(gpa: int, gva: int, size: int) -> int:
            try:
                data = read(gpa, size)
            except YamoriError as error:
                if gpa > WORD:  # the guest's tables led to the very end: it goes on at the start, as in C
                    return load(gpa & WORD, gva, size)
                self._unread(gpa, size, error)
            self.loads += 1
            if trace:
                record(("V", gva, size))
            return from_bytes(data, "little")

        return load

    def _table_loader(self, size: int, *, trace: bool) -> Callable[[int], int]:
        """Return the function by which walkers load entries of a size."""
        read = cast("Callable[[int, int], bytes]", self._memory.read)

        def load(gpa: int) -> int:
            if gpa & (size - 1):
                self.fault(Code.MISALIGNED, gpa, size)
            try:
                data = read(gpa, size)
            except YamoriError as error:
                self._unread(gpa, size, error)
            if trace:
                self.events.append(("P", gpa, size))
            return int.from_bytes(data, "little")

        return load

    def _unread(self, gpa: int, size: int, error: YamoriError) -> NoReturn:
        """Say why a read failed: there is no such RAM, or the host no longer gives any.

        A hole in a VMM's memory is no RAM either, for native code and here.

        Raises:
            Taken: There is none.
            Gone: The host failed.
        """
        if not isinstance(error, MemoryFault):
            self.record(Code.GONE, gpa, size)
            raise Gone from error
        self.fault(Code.OUTSIDE, gpa, size)


def translation(
    shift: int,
    own: int,
    kernel: tuple[int, int],
    translate: Callable[[int, int], int],
    fault: Callable[[Code, int, int], NoReturn],
) -> tuple[Callable[[int, int], int], Callable[[int, int, int], int]]:
    """Return ``page`` and ``page_in`` of a ``Run``, which share an empty cache of translations.

    Args:
        shift: log2 of the smallest page.
        own: GPA of the kernel's own table.
        kernel: First and last GVA of what that table is asked for.
        translate: ``(root, gva)`` → where the page lies, by the guest's tables.
        fault: Raises.
    """
    first, last = kernel
    inside, most = (1 << shift) - 1, TLB_ENTRIES - 1
    own_bits = own >> shift
    # What an entry is for: the page, and above it the root, less the kernel's own. So that is a small number.
    tags: list[int | None] = [None] * TLB_ENTRIES
    bases = [0] * TLB_ENTRIES

    def miss(entry: int, tag: int, gva: int, root: int) -> None:
        if root == own and not first <= gva <= last:
            fault(Code.NOT_KERNEL, gva, 0)
        bases[entry] = translate(root, gva & ~inside)
        tags[entry] = tag

    def page(gva: int, size: int) -> int:
        if gva & (size - 1):
            fault(Code.MISALIGNED, gva, size)
        number = gva >> shift
        entry = (number ^ own_bits) & most
        if tags[entry] != number:
            miss(entry, number, gva, own)
        return bases[entry] + (gva & inside)

    def page_in(gva: int, size: int, root: int) -> int:
        if gva & (size - 1):
            fault(Code.MISALIGNED, gva, size)
        number = gva >> shift
        entry = (number ^ (root >> shift)) & most
        tag = number | (root ^ own) << 64
        if tags[entry] != tag:
            miss(entry, tag, gva, root)
        return bases[entry] + (gva & inside)

    return page, page_in

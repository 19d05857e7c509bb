"""The engine that runs compiled units in this process, by ``ctypes``, without the interpreter's lock."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, Final

from yamori.errors import YamoriError
from yamori.llview import layout
from yamori.llview.faults import MOST_TROUBLES, Code, FaultRecord, TroubleRecord
from yamori.llview.ir import Program
from yamori.llview.machine import DEFAULT_BUDGET, Event, Machine, Outcome, SlotFill
from yamori.llview.packed_rows import columns
from yamori.llview.unit import RowLayout, Unit, most_rows, row_layout
from yamori.memory.physical import HostExtent, PhysicalMemory, host_extents

_WORD = (1 << 64) - 1
_FIRST_ROWS = 1024
_FIRST_EVENTS = 1 << 14
_SHORT = 1 << 13
"""Ticks that take milliseconds at most, or half a second where every load is a system call."""


class NativeError(YamoriError):
    """An object, or a memory, that native code cannot run with."""


def words(values: Sequence[int]) -> array[int]:
    """Return integers as 64-bit words, cut to them; never empty, so that it has an address."""
    return array("Q", [int(value) & _WORD for value in values] or [0])


def readable(memory: PhysicalMemory) -> Sequence[HostExtent] | None:
    """Return where the host keeps a guest's RAM, in ascending order; ``None`` where native code cannot read it."""
    known = host_extents(memory)
    if known is None:
        return None
    extents = sorted(known, key=lambda extent: extent.gpa)
    seams = [extent.gpa + extent.size for extent in extents[:-1] if (extent.gpa + extent.size) % 8]
    # A load may not cross a seam of two extents inside of one region of RAM.
    if any(region.gpa < seam < region.end for seam in seams for region in memory.regions):
        return None
    return extents


class Native:
    """A loaded unit; an ``Engine`` for its probes.

    Any number of threads may run it at once: each run has a context of its own.

    Args:
        unit: What the object was built from.
        path: The object. It is loaded and run, so it must come from a place that only its user can write to.

    Raises:
        NativeError: It is no object of this unit, for this machine and this version.
    """

    def __init__(self, unit: Unit, path: Path) -> None:
        self._unit = unit
        try:
            library = ctypes.CDLL(str(path))
            version = ctypes.c_uint64.in_dll(library, "ll_layout").value
            self._entries = {probe.name: library[f"ll_run_{probe.name}"] for probe in unit.probes}
        except (OSError, ValueError, AttributeError) as error:
            raise NativeError(f"the object cannot be loaded: {error}", where=str(path)) from None
        if version != layout.VERSION or sys.byteorder != "little":
            raise NativeError("the object was built for another version", where=str(path))
        for entry in self._entries.values():
            entry.argtypes, entry.restype = [ctypes.c_void_p], ctypes.c_uint64
        self._layouts = {probe.name: row_layout(probe) for probe in unit.probes}
        self._capacities: dict[str, int] = {}
        self._long: set[str] = set()

    def serves(self, program: Program, machine: Machine) -> bool:
        """Say whether ``run`` can be asked for this program on this machine."""
        return (
            program in self._unit.probes
            and machine.walker in self._unit.walkers
            and readable(machine.memory) is not None
        )

    def run(
        self,
        program: Program,
        machine: Machine,
        slots: list[SlotFill],
        arguments: tuple[int, ...] = (),
        *,
        budget: int = DEFAULT_BUDGET,
        trace: bool = False,
    ) -> Outcome:
        """Run a probe once, with an empty cache of translations; again, where its rows found no room.

        Args:
            program: One of the unit's probes.
            machine: The guest; its walker is one of the unit's.
            slots: One for each of the program's slots.
            arguments: One for each of its parameters.
            budget: Ticks.
            trace: Record every load.

        Raises:
            NativeError: The program, the walker or the memory is none that this unit serves.
        """
        extents = readable(machine.memory)
        if extents is None or program not in self._unit.probes or machine.walker not in self._unit.walkers:
            raise NativeError(f"{program.name}: not compiled, or not for this memory")
        if len(slots) != len(program.slots) or len(arguments) != len(program.parameters):
            raise NativeError(f"{program.name}: slots or arguments are missing")
        given = [local.type.wrap(value) for local, value in zip(program.parameters, arguments, strict=True)]
        most = most_rows(program)
        rows = min(self._capacities.get(program.name, _FIRST_ROWS), most)
        events = _FIRST_EVENTS if trace else 0
        with _regions(extents) as regions:
            run = _Run(machine, self._unit.walkers.index(machine.walker), regions, slot_words(slots), words(given))
            while True:
                ticks = budget if program.name in self._long else min(budget, _SHORT)
                run.prepare(self._layouts[program.name], rows, events, ticks)
                status = self._call(program, run.context)
                code = run.context.fault.code if status else Code.NONE
                if code == Code.BUDGET and ticks < budget:
                    self._long.add(program.name)
                elif code == Code.ROWS and rows < most:
                    rows = min(rows * 4, most)
                elif run.context.event_count > events and trace:
                    events = run.context.event_count * 2
                else:
                    break
        self._capacities[program.name] = max(_FIRST_ROWS, run.context.row_count * 5 // 4)
        return run.outcome(program, ended=bool(status))

    def _call(self, program: Program, context: Any) -> int:
        """Run once. What may take long runs in a thread of its own, so that Ctrl-C is heard meanwhile."""
        entry = self._entries[program.name]
        if context.budget <= _SHORT:
            return int(entry(ctypes.addressof(context)))
        status: list[int] = []
        thread = Thread(target=lambda: status.append(entry(ctypes.addressof(context))), daemon=True)
        thread.start()
        try:
            thread.join()
        except BaseException:
            context.stop = 1
            while thread.is_alive():  # for moments: it has the context and the guest's memory
                with suppress(KeyboardInterrupt):
                    thread.join()
            raise
        return status[0]


class _Run:
    """A context, and everything that it points to."""

    def __init__(
        self, machine: Machine, walker: int, regions: array[int], slots: array[int], arguments: array[int]
    ) -> None:
        self.context = context = new_context(machine, walker)
        self._kept = (regions, slots, arguments)
        context.regions, context.region_count = address_of(regions), len(regions) // layout.words("region")
        context.slots, context.arguments = address_of(slots), address_of(arguments)
        context.pread = _PREAD
        self._troubles = (layout.STRUCTURES["trouble"] * MOST_TROUBLES)()
        context.troubles, context.trouble_capacity = ctypes.addressof(self._troubles), MOST_TROUBLES
        self._rows = ctypes.create_string_buffer(8)
        self._events = ctypes.create_string_buffer(8)

    def prepare(self, row: RowLayout, rows: int, events: int, budget: int) -> None:
        """Make room, and set all that a run changes back to its start."""
        if ctypes.sizeof(self._rows) != rows * row.stride:
            self._rows = ctypes.create_string_buffer(rows * row.stride)
        if events and ctypes.sizeof(self._events) != events * 8 * layout.words("event"):
            self._events = ctypes.create_string_buffer(events * 8 * layout.words("event"))
        context = self.context
        context.rows, context.row_capacity, context.row_stride = ctypes.addressof(self._rows), rows, row.stride
        context.events, context.event_capacity = ctypes.addressof(self._events), events
        context.stop = context.row_count = context.event_count = context.trouble_count = context.loads = (
            context.faults
        ) = 0
        context.fault = layout.STRUCTURES["fault"]()
        context.budget = max(0, min(budget, _WORD))

    def outcome(self, program: Program, *, ended: bool) -> Outcome:
        """Return what the run left."""
        return read_outcome(program, self.context, self._rows, self._events, self._troubles, ended=ended)


def new_context(machine: Machine, walker: int) -> Any:
    """Return a ``struct ll_context`` with what is known of the guest, without any address.

    Args:
        machine: The guest.
        walker: Number of its walker in the unit.
    """
    context: Any = layout.STRUCTURES["context"]()
    context.root = machine.root & _WORD
    context.page_shift = machine.page_shift
    context.kernel_first, context.kernel_last = (address & _WORD for address in machine.kernel)
    context.walker = walker
    for number, (local, value) in enumerate(zip(machine.walker.parameters[2:], machine.geometry, strict=True)):
        context.geometry[number] = local.type.wrap(value) & _WORD
    return context


def read_outcome(program: Program, context: Any, rows: Any, events: Any, troubles: Any, *, ended: bool) -> Outcome:
    """Return what a run left.

    Args:
        program: It.
        context: Its context.
        rows: Buffer of the rows.
        events: Buffer of the events.
        troubles: Array of ``struct ll_trouble``.
        ended: Whether a fault ended it.
    """
    row = row_layout(program)
    row_bytes = memoryview(rows).cast("B")[: context.row_count * row.stride]
    event_bytes = memoryview(events).cast("B")[: context.event_count * 8 * layout.words("event")]
    return Outcome(
        columns=columns(program.row, row, row_bytes),
        count=context.row_count,
        loads=context.loads,
        faults=context.faults,
        troubles=[_trouble(troubles[i]) for i in range(min(context.trouble_count, MOST_TROUBLES))],
        ended=_fault(context.fault) if ended else None,
        events=list(_events(event_bytes)),
    )


def slot_words(slots: Sequence[SlotFill]) -> array[int]:
    """Return the words of ``struct ll_slot[]``; its fields stand in the order of ``SlotFill``."""
    return words([value for slot in slots for value in slot])


def _fault(record: Any) -> FaultRecord:
    return FaultRecord(Code(record.code), record.address, record.value, record.message)


def _trouble(record: Any) -> TroubleRecord:
    fault = _fault(record.fault) if record.faulted else None
    return TroubleRecord(record.message, record.value, fault, bool(record.torn))


def _events(data: memoryview) -> Iterator[Event]:
    for kind, address, size in struct.iter_unpack("<QQQ", data):
        yield ("V" if kind == layout.VIRTUAL else "P", address, size)


# --- What C needs addresses of ------------------------------------------------------------------------------------


class _Buffer(ctypes.Structure):
    """``Py_buffer`` (CPython, Include/cpython/object.h or pybuffer.h): part of the stable ABI since 3.11."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int]
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_Buffer)]
_release_buffer.restype = None


def address_of(values: array[int]) -> int:
    """Return where an array lies; it must live, and keep its length, as long as that is used."""
    return values.buffer_info()[0]


@contextmanager
def _regions(extents: Sequence[HostExtent]) -> Iterator[array[int]]:
    """Give the words of ``struct ll_region[]``, and keep mappings and files open meanwhile: others may close them."""
    files: dict[int, int] = {}
    with ExitStack() as held:
        flat: list[int] = []
        for extent in extents:
            host = fd = 0
            if extent.buffer is not None:
                host = _hold(extent, held) + extent.offset
            else:
                fd = files[extent.fd] = files.get(extent.fd) or _duplicate(extent.fd, held)
            flat += [extent.gpa, extent.size, host, fd, extent.offset, extent.holes]
        yield array("Q", flat)


def _duplicate(fd: int, held: ExitStack) -> int:
    try:
        own = os.dup(fd)
    except OSError as error:
        raise NativeError(f"the guest's memory was closed: {error.strerror}") from None
    held.callback(os.close, own)
    return own


def _hold(extent: HostExtent, held: ExitStack) -> int:
    view = _Buffer()
    _get_buffer(extent.buffer, ctypes.byref(view), 0)
    held.callback(_release_buffer, ctypes.byref(view))
    if view.len < extent.offset + extent.size:
        raise NativeError("a mapping is shorter than its RAM")
    return int(view.buf or 0)


def _pread_address() -> int:
    library = ctypes.CDLL(None)
    # glibc's pread has 32-bit offsets on 32-bit machines; musl has 64-bit ones only, and no other name.
    function = library.pread64 if hasattr(library, "pread64") else library.pread
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


_PREAD: Final = _pread_address()

"""The C of ``limit.c``, compiled as our objects are, as ways to read the rows of ``who.py``."""

from __future__ import annotations

import ctypes
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.ours import ROOM, Ours
from benchmarks.timing import Way
from yamori.address import GVA
from yamori.guest import Guest
from yamori.llview import layout, native, objects
from yamori.llview.machine import DEFAULT_BUDGET
from yamori.llview.unit import row_layout

LIMIT, FIXED, UNCHECKED = "C by hand, same work", "C by hand, one kernel", "C by hand, unchecked"
ENTRIES = 256
ROW = struct.Struct("<Qqq64sQ")
"""``struct row`` of ``limit.c``."""
RAM = ("host", "gpa", "size", "root", "first", "last", "init", "image", "linear")
MEMBERS = ("tasks", "pid", "pid_size", "tgid", "tgid_size", "comm", "comm_size", "cred", "uid", "uid_size")
TABLES = ("page_shift", "bits", "shift", "pa_bits", "largest", "address")
RUN = ("rows", "capacity", "budget", "loads", "misses", "fault")


class State(ctypes.Structure):
    """``struct guest`` of ``limit.c``."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in (*RAM, *MEMBERS, *TABLES, *RUN)),
        ("cache", ctypes.c_uint64 * (4 * ENTRIES)),
    ]


class ByHand:
    """What was written by hand, for one guest.

    Args:
        guest: It.
        ours: Our probe on it: the loads and the size of the rows must be the same.
    """

    def __init__(self, guest: Guest, ours: Ours) -> None:
        self._ours = ours
        self._state = state = State()
        known = {**_members(guest), **_tables(guest)}
        for name, value in {**known, **_ram(guest)}.items():
            setattr(state, name, value % (1 << 64))
        word = [f"-DWORD={guest.kernel.machine.word_size}"]
        constants = [f"-DKNOWN_{name}=UINT64_C({value})" for name, value in known.items()]
        self._any = build(word)
        self._one = build([*word, "-DONE_KERNEL", *constants])
        assert row_layout(ours.program).stride == ROW.size, "limit.c writes rows of another size"
        state.capacity = len(ours.outcome.rows) + ROOM
        self._rows = ctypes.create_string_buffer(ROW.size * state.capacity)
        state.rows = ctypes.addressof(self._rows)

    def ways(self) -> list[Way]:
        """Return all three."""
        return [
            self._way(UNCHECKED, self._any.unchecked),
            self._way(FIXED, self._one.limit),
            self._way(LIMIT, self._any.limit),
        ]

    def flush(self) -> Any:
        """Return the function that empties the CPU's caches."""
        return self._any.flush

    def _way(self, name: str, call: Any) -> Way:
        call.argtypes, call.restype = [ctypes.c_void_p], ctypes.c_int64
        state, where = self._state, ctypes.addressof(self._state)

        def prepare() -> None:
            state.budget = DEFAULT_BUDGET

        def rows() -> list[tuple[Any, ...]]:
            prepare()
            count = call(where)
            assert count >= 0, f"{name} gave up at {state.fault:#x}"
            if name != UNCHECKED:
                assert state.loads == self._ours.outcome.loads, (state.loads, self._ours.outcome.loads)
            whole = memoryview(self._rows).cast("B")[: count * ROW.size]
            return [(pid, tgid, comm.rstrip(b"\0"), uid) for _, pid, tgid, comm, uid in ROW.iter_unpack(whole)]

        return Way(name, lambda: call(where), rows, prepare)


def build(flags: list[str]) -> ctypes.CDLL:
    """Compile ``limit.c`` with the flags that our objects are compiled with, and load it."""
    source = Path(__file__).with_name("limit.c")
    ours = [flag for flag in objects.FLAGS if flag != "-fvisibility=hidden"]
    # A path of its own each time: what is loaded must not be written over. It stays loaded when its file is gone.
    with tempfile.TemporaryDirectory(prefix="yamori-bench-") as folder:
        path = Path(folder, "limit.so")
        subprocess.run(["cc", *ours, *flags, *objects.LINK_FLAGS, "-o", str(path), str(source)], check=True)
        return ctypes.CDLL(str(path))


def linear_map(guest: Guest) -> int:
    """Return GVA less GPA of the linear map, in which the tasks lie."""
    first = next(row for row in guest.plist() if row.pid == 2)
    return first.task - guest.kernel.space.translate(GVA(first.task)).gpa


def _ram(guest: Guest) -> dict[str, int]:
    machine, init = guest.kernel.machine, guest.profile.init
    (extent,) = native.readable(machine.memory) or ()
    assert extent.buffer is not None, "RAM is not mapped"
    return {
        "host": _host(extent),
        "gpa": extent.gpa,
        "size": extent.size,
        "root": machine.root,
        "first": machine.kernel[0],
        "last": machine.kernel[1],
        "init": init.gva,
        "image": init.image_offset,
        "linear": linear_map(guest),
    }


def _members(guest: Guest) -> dict[str, int]:
    member = guest.profile.require
    found = {"tasks": member("task_struct", "tasks").offset, "cred": member("task_struct", "real_cred").offset}
    for owner, name in (("task_struct", "pid"), ("task_struct", "tgid"), ("task_struct", "comm"), ("cred", "uid")):
        found[name], found[f"{name}_size"] = member(owner, name)[:2]
    return found


def _tables(guest: Guest) -> dict[str, int]:
    machine = guest.kernel.machine
    if machine.word_size == 4:
        return {"page_shift": machine.page_shift}
    bits, _, shift, _, _, pa_bits, largest, address = machine.geometry
    return {
        "page_shift": machine.page_shift,
        "bits": bits,
        "shift": shift,
        "pa_bits": pa_bits,
        "largest": largest,
        "address": address,
    }


def _host(extent: Any) -> int:
    """Return where the first byte of an extent lies: what native code is given."""
    with native._regions([extent]) as regions:  # noqa: SLF001  to load from where it loads
        names = [field[0] for field in layout.STRUCTURES["region"]._fields_]
        return int(regions[names.index("host")])

"""One probe on one live guest, by every way to read it: ``python -m benchmarks.probes [--processes N] [--json FILE]``.

The guest is arm64 with a shared RAM that is mapped. All ways read pid, tgid, comm and uid of every process:

* *interpreter* and *native*: the probe of ``who.py``; *native call* is the C alone, rows left in its buffer;
* *limit*: ``limit.c``, the same walk by hand for one kernel, with the same cache and checks; its rows are 32 bytes,
ours
  96, and it counts no loads;
* *unchecked*: the linear map's constant instead of page tables, and no checks;
* *drgn*, where it is installed (``pip install drgn``): its memory API on the guest's RAM through a segment that Python
  serves, for it has no types of this kernel. That is not its fastest way; with debug info it would read a core
  natively.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yamori
from benchmarks.__main__ import device
from benchmarks.who import who
from yamori.address import GVA
from yamori.guest import Guest
from yamori.kernel.binding import bind
from yamori.llview import layout, native, objects
from yamori.llview.engine import choose
from yamori.llview.interpreter import Interpreter
from yamori.llview.machine import DEFAULT_BUDGET
from yamori.memory.physical import host_extents
from yamori.probes.run import run_probe, unit_of

RUNS = 15
FIELDS = ("root", "init", "image", "linear", "rows", "capacity", "budget", "misses")
ENTRIES = 256


class ByHand(ctypes.Structure):
    """``struct guest`` of ``limit.c``."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("host", "gpa", "size", *FIELDS)),
        ("cache", ctypes.c_uint64 * (4 * ENTRIES)),
    ]


def timed(work: Callable[[], object], runs: int = RUNS) -> float:
    """Return the median of seconds."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def by_hand(guest: Guest, folder: Path, count: int) -> dict[str, float]:
    """Time ``limit`` and ``unchecked``, and hold their rows against ours."""
    machine, profile = guest.kernel.machine, guest.profile
    extent = (host_extents(machine.memory) or ())[0]
    assert extent.buffer is not None, "RAM is not mapped"
    names = {"TASKS": "tasks", "PID": "pid", "TGID": "tgid", "COMM": "comm", "CRED": "real_cred"}
    offsets = {name: profile.require("task_struct", path).offset for name, path in names.items()}
    constants = {
        **offsets,
        "UID": profile.require("cred", "uid").offset,
        "WORD": machine.word_size,
        "BITS": machine.geometry[0],
        "SHIFT": machine.geometry[2],
        "FIRST": f"UINT64_C({machine.kernel[0]})",
        "IMAGE_ROOM": "UINT64_C(67108864)",
    }
    source, path = Path(__file__).with_name("limit.c"), folder / "limit.so"
    defines = [f"-D{name}={value}" for name, value in constants.items()]
    flags = [flag for flag in objects.FLAGS if flag != "-fvisibility=hidden"]
    subprocess.run(["cc", *flags, *defines, *objects.LINK_FLAGS, "-o", str(path), str(source)], check=True)
    library = ctypes.CDLL(str(path))
    first = next(row for row in guest.plist() if row.pid == 2)
    rows = ctypes.create_string_buffer(32 * (count + 100))
    state = ByHand(host=host_of(extent), gpa=extent.gpa, size=extent.size, root=machine.root)
    state.init = profile.init.gva
    state.image = profile.init.image_offset % (1 << 64)
    state.linear = (first.task - guest.kernel.space.translate(GVA(first.task)).gpa) % (1 << 64)
    state.rows, state.capacity = ctypes.addressof(rows), count + 100
    found = {}
    for name in ("limit", "unchecked"):
        call = library[name]
        call.argtypes, call.restype = [ctypes.c_void_p], ctypes.c_int64

        def once(call: Any = call) -> None:
            ctypes.memset(ctypes.addressof(state) + ByHand.cache.offset, 0, 32 * ENTRIES)
            state.budget, state.misses = DEFAULT_BUDGET, 0
            given = call(ctypes.addressof(state))
            assert given == count, (given, count)

        found[name] = timed(once, 50)
    return found


def host_of(extent: Any) -> int:
    """Return where the first byte of an extent lies: what native code is given."""
    with native._regions([extent]) as regions:  # noqa: SLF001  to time what it does, with what it has
        names = [field[0] for field in layout.STRUCTURES["region"]._fields_]
        return int(regions[names.index("host")])


def by_drgn(guest: Guest) -> float | None:
    """Time drgn's memory API, or return ``None`` where it is not installed."""
    if importlib.util.find_spec("drgn") is None:
        return None
    import drgn  # noqa: PLC0415  only where it is installed

    program = drgn.Program(drgn.Platform(drgn.Architecture.AARCH64))
    space, profile = guest.kernel.space, guest.profile
    program.add_memory_segment(0, (1 << 64) - 1, lambda at, size, _, __: space.read(GVA(at), size), physical=False)
    tasks, pid, tgid, comm, cred = (
        profile.require("task_struct", name).offset for name in ("tasks", "pid", "tgid", "comm", "real_cred")
    )
    uid, head = profile.require("cred", "uid").offset, profile.init.gva + tasks

    def walk() -> list[tuple[int, int, bytes, int]]:
        rows = []
        node = program.read_u64(head)
        while node != head:
            task = node - tasks
            name = program.read(task + comm, 16).partition(b"\0")[0]
            owner = program.read_u32(program.read_u64(task + cred) + uid)
            rows.append((program.read_u32(task + pid), program.read_u32(task + tgid), name, owner))
            node = program.read_u64(node)
        return rows

    return timed(walk, 5)


def measure(guest: Guest, folder: Path) -> dict[str, Any]:
    """Measure every way on one guest."""
    kernel = guest.kernel
    unit = unit_of(who, kernel.machine.word_size)
    program = unit.probes[0]
    engine, machine, why = choose(unit, program, kernel.machine, compiling=True)
    assert not isinstance(engine, Interpreter), why
    slots = bind(program, guest.profile)
    result = run_probe(kernel, who)
    count = len(result)
    seconds = {
        "interpreter": timed(lambda: Interpreter().run(program, kernel.machine, slots), 5),
        "native, to tuples": timed(lambda: engine.run(program, machine, slots)),
        "native, to records": timed(lambda: run_probe(kernel, who)),
        **by_hand(guest, folder, count),
    }
    assert isinstance(engine, native.Native)
    extents = native.readable(machine.memory) or ()
    with native._regions(extents) as regions:  # noqa: SLF001  to time the call alone
        run = native._Run(  # noqa: SLF001
            machine, unit.walkers.index(machine.walker), regions, native.slot_words(slots), native.words([])
        )
        entry = engine._entries[program.name]  # noqa: SLF001
        times = []
        for _ in range(50):
            run.prepare(engine._layouts[program.name], count + 100, 0, DEFAULT_BUDGET)  # noqa: SLF001
            ctypes.memset(ctypes.addressof(run.context.cache), 0, ctypes.sizeof(run.context.cache))
            started = time.perf_counter()
            entry(ctypes.addressof(run.context))
            times.append(time.perf_counter() - started)
        seconds["native call"] = statistics.median(times)
    drgn = by_drgn(guest)
    if drgn is not None:
        seconds["drgn, memory API"] = drgn
    return {"rows": count, "loads": result.loads, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        device("arm64", {"memory": "512M"}, options.processes) as target,
        yamori.open(target) as guest,
    ):
        figures = measure(guest, Path(folder))
    rows, base = figures["rows"], figures["seconds"]["native call"]
    print(f"{rows} rows, {figures['loads']} loads of guest memory; medians")
    for name, value in sorted(figures["seconds"].items(), key=lambda pair: pair[1]):
        print(
            f"{name:<22}{value * 1e6:>12.1f} us{value / rows * 1e6:>10.3f} us a row{value / base:>10.2f} x native call"
        )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

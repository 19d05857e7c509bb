"""The comparison: one probe on one guest by every way to read it, warm and cold; three places; growth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yamori
from benchmarks import by_drgn
from benchmarks.by_hand import ByHand, linear_map
from benchmarks.guests import copy, ram_of, still, write_core
from benchmarks.ours import BUFFER, Ours
from benchmarks.timing import Flusher, Times, Way, in_turns
from yamori import lab
from yamori.guest import Guest
from yamori.hypervisors.process import mappings
from yamori.hypervisors.vm import RamSegment
from yamori.kernel.kernel import Kernel
from yamori.lab.qemu import QMP
from yamori.llview.unit import row_layout
from yamori.memory.host import HostMemory
from yamori.memory.physical import BytesMemory, PhysicalMemory

Figures = dict[str, Any]


@contextmanager
def ways(vm: lab.Machine, guest: Guest, folder: Path) -> Iterator[tuple[list[Way], ByHand, Ours]]:
    """Give all ways to read the guest, which stands still meanwhile; drgn's where it is installed."""
    program = None
    if by_drgn.installed() and by_drgn.reads_live(guest):
        program = by_drgn.live(guest, vm.directory / QMP)  # it asks QEMU, which must run
    with ExitStack() as stack:
        stack.enter_context(still(vm))
        ours = Ours(guest.kernel)
        hand = ByHand(guest, ours)
        found = [*hand.ways(), stack.enter_context(ours.buffer()), ours.tuples(), ours.records(), ours.interpreter()]
        if by_drgn.installed():
            found += _drgn_core(guest, folder)
        if program is not None:
            found += by_drgn.ways(program, guest, (by_drgn.TASKS_LIVE, "", by_drgn.MEMORY_LIVE))
        yield found, hand, ours


def _drgn_core(guest: Guest, folder: Path) -> list[Way]:
    ram, init = ram_of(guest), guest.profile.init
    path = folder / "ram.core"
    top = 1 << 8 * guest.kernel.machine.word_size
    # The image's map is a part of the linear one on 32-bit Arm.
    maps = dict.fromkeys((ram.gpa + slide) % top for slide in (linear_map(guest), init.image_offset))
    write_core(guest, path, [(gva, ram.gpa) for gva in maps])
    program = by_drgn.core(path)
    return by_drgn.ways(program, guest, (by_drgn.TASKS_CORE, by_drgn.LIST_CORE, by_drgn.MEMORY_CORE))


def agree(ways: list[Way], ours: Ours) -> None:
    """Make sure that every way gives the same rows, in whatever order."""
    wanted = sorted(map(_plain, ours.outcome.rows))
    for way in ways:
        assert sorted(map(_plain, way.rows())) == wanted, f"{way.name} gives other rows"


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    pid, tgid, comm, uid = row
    # What is not checked is not cut at its NUL; records are escaped already.
    return pid, tgid, escaped(comm) if isinstance(comm, bytes) else comm, uid


def escaped(comm: bytes) -> str:
    """Return a name as records have it."""
    return yamori.records.escape(comm.partition(b"\0")[0])


def compare(vm: lab.Machine, folder: Path, rounds: int) -> Figures:
    """Measure every way on one guest, warm and cold; ratios are those to the native call."""
    with yamori.open(vm.target) as guest, ways(vm, guest, folder) as (found, hand, ours):
        agree(found, ours)
        flush = Flusher(hand.flush())
        times = {"warm": in_turns(found, rounds), "cold": in_turns(found, rounds, flush)}
        return {
            "kernel": guest.profile.banner,
            "ram_mb": ram_of(guest).size >> 20,
            "rows": len(ours.outcome.rows),
            "loads": ours.outcome.loads,
            "row_bytes": row_layout(ours.program).stride,
            "ways": {
                way.name: {
                    state: {**found[way.name].to_json(), "ratio": found[way.name].over(found[BUFFER])}
                    for state, found in times.items()
                }
                for way in found
            },
        }


def places(vm: lab.Machine, folder: Path, rounds: int) -> list[Figures]:
    """Run the probe on the same guest's RAM from three places."""
    with yamori.open(vm.target) as guest, still(vm), ExitStack() as stack:
        ram = ram_of(guest)
        image = folder / "ram.raw"
        copy(guest.kernel.memory, image, ram.gpa)
        start = next(m.start for m in mappings(vm.pid) if m.shared and m.size == ram.size and "memfd" in m.path)
        memories: dict[str, PhysicalMemory] = {"mapped RAM": guest.kernel.memory}
        for name, segment in (
            ("the process's memory", RamSegment(ram.gpa, ram.size, f"/proc/{vm.pid}/mem", start, "process")),
            ("an image file", RamSegment(ram.gpa, ram.size, str(image), 0, "image")),
        ):
            memories[name] = stack.enter_context(HostMemory((segment,)))
        probes = {name: Ours(Kernel(memory, guest.profile)) for name, memory in memories.items()}
        wanted = probes["mapped RAM"].outcome
        assert all(probe.outcome == wanted for probe in probes.values()), "they do not hold the same"
        native = in_turns([probe.tuples()._replace(name=name) for name, probe in probes.items()], rounds)
        slow = in_turns([probe.interpreter()._replace(name=name) for name, probe in probes.items()], rounds)
        return [
            {"place": name, "native, to tuples": native[name].to_json(), "interpreter": slow[name].to_json()}
            for name in memories
        ]


def grown(vm: lab.Machine, folder: Path, rounds: int, cut: int = 0) -> Figures:
    """Measure every way on a guest as it is now; with ``cut`` on a copy of it whose list of tasks ends early."""
    with yamori.open(vm.target) as guest:
        if cut:
            with still(vm):
                return _grown_copy(guest, rounds, cut)
        with ways(vm, guest, folder) as (found, _, ours):
            agree(found, ours)
            return _growth(len(ours.outcome.rows), in_turns(found, rounds), source="guest")


def _growth(rows: int, times: dict[str, Times], source: str) -> Figures:
    return {"rows": rows, "source": source, "ways": {name: found.to_json() for name, found in times.items()}}


def _grown_copy(guest: Guest, rounds: int, cut: int) -> Figures:
    """Measure on a copy of RAM in which the list of tasks is closed behind its first entries."""
    memory, kernel, ram = guest.kernel.memory, guest.kernel, ram_of(guest)
    data = bytearray(ram.size)
    for part in memory.populated():
        data[part.gpa - ram.gpa : part.end - ram.gpa] = memory.read(yamori.address.GPA(part.gpa), part.size)
    word, tasks = kernel.machine.word_size, guest.profile.require("task_struct", "tasks").offset
    head = guest.profile.init.gva + tasks

    def place(gva: int) -> int:
        return kernel.space.translate(yamori.address.GVA(gva)).gpa - ram.gpa

    node = head
    for _ in range(cut):
        node = int.from_bytes(data[place(node) : place(node) + word], "little")
    data[place(node) : place(node) + word] = head.to_bytes(word, "little")
    data[place(head) + word : place(head) + 2 * word] = node.to_bytes(word, "little")
    ours = Ours(Kernel(BytesMemory({ram.gpa: data}), guest.profile))
    assert len(ours.outcome.rows) == cut
    with ours.buffer() as buffer:
        found = [buffer, ours.tuples(), ours.records(), ours.interpreter()]
        agree(found, ours)
        return _growth(cut, in_turns(found, rounds), source="copy of the guest, its list cut short")

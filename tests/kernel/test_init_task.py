"""``init_task`` among decoys that are costly to look at."""

from __future__ import annotations

import struct

import pytest
from tests.kernel.synthetic import ARM, MACHINES, RAM_SIZE, X86, Guest, Machine, build

from yamori.kernel import init_task
from yamori.kernel.init_task import InitTask
from yamori.memory.physical import BytesMemory

machines = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def costly_page(word: int) -> bytes:
    """Return a page with eight names, the pointers before each, and nothing but pairs that may be list heads."""
    code, high = ("Q", 0xFFFF_8880_0000_0000) if word == 8 else ("I", 0xC000_0000)
    words = [high - 8192 + (index & ~1) * word for index in range(4096 // word)]
    page = bytearray(struct.pack(f"<{len(words)}{code}", *words))
    for at in range(496, 4096, 512):
        page[at : at + 16] = b"swapper/0".ljust(16, b"\0")
        parent = (0xFFFF_C000_0000_0000 if word == 8 else 0xD000_0000) + 16 * at
        page[at - 8 * word : at - word] = struct.pack(f"<7{code}", parent, parent, 1, 2, 3, 4, parent)
    return bytes(page)


def hits(ram: bytes | bytearray, base: int) -> list[int]:
    found, at = [], ram.find(init_task.NEEDLE)
    while at >= 0:
        found.append(base + at)
        at = ram.find(init_task.NEEDLE, at + 1)
    return found


def flooded(machine: Machine, pages: int) -> tuple[Guest, BytesMemory, list[int]]:
    """Return a guest whose first pages, and as many behind the usual RAM, are decoys."""
    guest = build(machine)
    page = costly_page(machine.word)
    guest.ram[0x10000 : 0x10000 + 0x1000 * min(pages, 64)] = page * min(pages, 64)
    behind = page * pages
    memory = BytesMemory({machine.base: guest.ram, machine.base + RAM_SIZE: behind})
    return guest, memory, hits(guest.ram, machine.base) + hits(behind, machine.base + RAM_SIZE)


@machines
def test_candidates_are_in_order_of_address(machine: Machine) -> None:
    guest = build(machine)
    copied = guest.read(guest.init, 0x2000)
    guest.ram[RAM_SIZE - 0x4000 : RAM_SIZE - 0x2000] = copied
    guest.ram[0x4000:0x6000] = copied
    places = hits(guest.ram, machine.base)
    found = init_task.candidates(guest.memory(), places)
    assert [init.comm for init in found] == sorted(init.comm for init in found)
    assert guest.init in {init.gva for init in found}


@machines
def test_time_that_is_up_is_a_doubt(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    _, memory, places = flooded(machine, 4)
    doubts: list[str] = []
    monkeypatch.setattr(init_task, "PATIENCE", -1.0)
    assert init_task.candidates(memory, places, doubts.append) == []
    assert init_task.candidates(memory, places) == []
    assert doubts == [
        f"0 of {len(places)} places that may be init_task were looked at: somebody may be planting decoys"
    ]


@pytest.mark.parametrize("machine", [X86, ARM], ids=lambda machine: machine.name)
def test_decoys_come_after_the_kernels_own(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of decoys in a few blocks: the real one is looked at in the first rounds, by count and not by clock."""
    guest, memory, places = flooded(machine, 512)
    assert len(places) > 4000
    looked: list[int] = []
    examine = init_task._at

    def counted(memory: BytesMemory, hit: int) -> list[InitTask]:
        looked.append(hit)
        return examine(memory, hit)

    monkeypatch.setattr(init_task, "_at", counted)
    monkeypatch.setattr(init_task, "_examine", lambda *_: None)  # costly, and nothing here depends on it
    init_task.candidates(memory, places)
    assert sorted(looked) == places
    comm = machine.base + guest.at(guest.member(guest.init, "comm"))
    assert looked.index(comm) < 100


@machines
def test_nothing_is_doubted_in_time(machine: Machine) -> None:
    guest, memory, places = flooded(machine, 2)
    doubts: list[str] = []
    found = init_task.candidates(memory, places, doubts.append)
    assert guest.init in {init.gva for init in found}
    assert doubts == []

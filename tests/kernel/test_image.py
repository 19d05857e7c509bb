"""What of its image the kernel keeps, by symbol or by the kernel's own table of resources."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.kernel.synthetic import ARM, DATA_AT, IMAGE_AT, IMAGE_SIZE, MACHINES, RODATA_AT, Guest, Machine
from tests.kernel.synthetic import build as made

from yamori.address import GVA
from yamori.kernel.discovery import discover
from yamori.kernel.kernel import Kernel
from yamori.kernel.symbols import Symbol, Symbols

INIT = DATA_AT - 0x8000
"""Where the init sections begin: behind read-only data, up to the rest of the data."""
END = IMAGE_AT + IMAGE_SIZE - 0x1000
PLACE, OTHER = IMAGE_AT + 0x2F0000, IMAGE_AT + 0x2F0100
NAME, OTHER_NAME = RODATA_AT + 0xF0000, RODATA_AT + 0xF0040
BEHIND = IMAGE_AT + IMAGE_SIZE + 0x200000

machines = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def build(machine: Machine) -> Guest:
    guest = made(machine)
    resource(guest, OTHER, b"code", IMAGE_AT, INIT, machine.word, OTHER_NAME)
    return guest


def resource(guest: Guest, at: int, name: bytes, start: int, end: int, width: int, name_at: int) -> None:
    """Write ``struct resource``: start, end, name."""
    base = guest.machine.base
    pair = (base + start).to_bytes(width, "little") + (base + end - 1).to_bytes(width, "little")
    gva = guest.image(name_at) if name_at < IMAGE_AT + IMAGE_SIZE else guest.linear(name_at)
    data = pair + gva.to_bytes(guest.machine.word, "little")
    guest.ram[at : at + len(data)] = data
    text = b"\0Kernel %b\0" % name
    guest.ram[name_at - 1 : name_at - 1 + len(text)] = text


def data(guest: Guest, at: int, end: int, width: int) -> None:
    resource(guest, at, b"data", DATA_AT, end, width, NAME)


def kept(guest: Guest) -> list[range]:
    found = Kernel(guest.memory(), discover(guest.memory()).profile).image
    return [*found]


def expected(guest: Guest) -> list[range]:
    return [range(guest.image(IMAGE_AT), guest.image(INIT)), range(guest.image(DATA_AT), guest.image(END))]


@machines
@pytest.mark.parametrize("width", [4, 8])
def test_resources(machine: Machine, width: int) -> None:
    guest = build(machine)
    assert kept(guest) == []
    data(guest, PLACE, END, width)
    assert kept(guest) == expected(guest)


def test_resource_across_two_reads() -> None:
    guest = build(ARM)
    data(guest, DATA_AT - 8, END, 4)
    assert kept(guest) == expected(guest)


def test_what_a_program_planted_is_not_taken() -> None:
    guest = build(ARM)
    data(guest, PLACE, END, 4)
    data(guest, BEHIND, BEHIND + 0x100000, 4)
    assert kept(guest) == expected(guest)
    data(guest, BEHIND, END - 0x1000, 4)
    assert kept(guest) == expected(guest)
    resource(guest, BEHIND, b"code", INIT, DATA_AT, 4, BEHIND + 0x40)
    assert kept(guest) == expected(guest)


def test_resource_that_does_not_hold_init_task_is_none() -> None:
    guest = build(ARM)
    data(guest, PLACE, guest.at(guest.init) - 0x10, 4)
    resource(guest, PLACE, b"data", DATA_AT + 0x8000, END, 4, NAME)
    assert kept(guest) == []


@machines
def test_symbols(machine: Machine) -> None:
    guest = made(machine)
    known = discover(guest.memory())
    rows = {"__init_begin": guest.image(INIT), "__init_end": guest.image(DATA_AT), "_end": guest.image(END)}
    named = Symbols([Symbol(GVA(address), "B", name) for name, address in rows.items()], "kallsyms")
    profile = replace(known.profile, symbols=[*known.profile.symbols, named])
    (first, second) = Kernel(guest.memory(), profile).image
    assert (first.stop, second) == (guest.image(INIT), range(guest.image(DATA_AT), guest.image(END)))
    wrong = Symbols(
        [Symbol(GVA(address), "B", name) for address, name in zip(rows.values(), reversed(rows), strict=True)],
        "kallsyms",
    )
    assert Kernel(guest.memory(), replace(known.profile, symbols=[wrong])).image == ()

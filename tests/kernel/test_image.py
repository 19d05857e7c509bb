"""Where the kernel's image ends, by symbol or by the kernel's own table of resources."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.kernel.synthetic import ARM, IMAGE_AT, IMAGE_SIZE, MACHINES, Guest, Machine, Shape, build

from yamori.address import GVA
from yamori.kernel.discovery import discover
from yamori.kernel.image import image_end
from yamori.kernel.kernel import Kernel
from yamori.kernel.symbols import Symbol, Symbols

END = IMAGE_AT + IMAGE_SIZE - 0x1000
PLACE = IMAGE_AT + 0x2F0000
NAME = IMAGE_AT + 0x1F0000

machines = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def resource(guest: Guest, at: int, end: int, width: int, name: int = NAME) -> None:
    """Write ``struct resource``: start, end, name."""
    base = guest.machine.base
    pair = (base + IMAGE_AT + 0x100000).to_bytes(width, "little") + (base + end - 1).to_bytes(width, "little")
    name_gva = guest.image(name) if name < IMAGE_AT + IMAGE_SIZE else guest.linear(name)
    data = pair + name_gva.to_bytes(guest.machine.word, "little")
    guest.ram[at : at + len(data)] = data
    guest.ram[name - 1 : name + 12] = b"\0Kernel data\0"


def end_of(guest: Guest) -> int | None:
    return image_end(Kernel(guest.memory(), discover(guest.memory()).profile))


@machines
@pytest.mark.parametrize("width", [4, 8])
def test_resource(machine: Machine, width: int) -> None:
    guest = build(machine)
    assert end_of(guest) is None
    resource(guest, PLACE, END, width)
    assert end_of(guest) == guest.image(END)


def test_resource_across_two_reads() -> None:
    guest = build(ARM)
    resource(guest, IMAGE_AT + (2 << 20) - 8, END, 4, IMAGE_AT - 4)
    assert end_of(guest) == guest.image(END)


def test_what_a_program_planted_behind_the_image_is_not_taken() -> None:
    guest = build(ARM)
    resource(guest, PLACE, END, 4)
    resource(guest, IMAGE_AT + IMAGE_SIZE + 0x200000, IMAGE_AT + IMAGE_SIZE + 0x300000, 4)
    assert end_of(guest) == guest.image(END)
    resource(guest, IMAGE_AT + IMAGE_SIZE + 0x200000, END - 0x1000, 4)
    assert end_of(guest) == guest.image(END)


def test_resource_that_does_not_hold_init_task_is_none() -> None:
    guest = build(ARM)
    resource(guest, PLACE, guest.at(guest.init) - 0x1000, 4)
    assert end_of(guest) is None


@machines
def test_symbol(machine: Machine) -> None:
    guest = build(machine, Shape())
    known = discover(guest.memory())
    end = guest.image(END)
    assert known.profile.symbols[0].address("_end") is None
    named = Symbols([Symbol(GVA(end), "B", "_end")], "kallsyms")
    assert image_end(Kernel(guest.memory(), replace(known.profile, symbols=[named]))) == end

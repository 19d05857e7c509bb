"""Which of several roots that prove equally well is taken: every process's table maps the kernel, too."""

from __future__ import annotations

import pytest
from tests.kernel import synthetic
from tests.kernel.synthetic import ARM, MIB, X86, Guest, Machine, build

from yamori.address import GPA
from yamori.kernel import init_task
from yamori.kernel.root import Anchor, Evidence, prove, search_root
from yamori.memory.physical import BytesMemory
from yamori.translation.arm_lpae import ArmLpae
from yamori.translation.loads import PhysicalLoads

TABLE = 0x4000
OTHER_AT = synthetic.DATA_AT + 0x1_0000
HEARSAY_AT = synthetic.DATA_AT - 0x100
"""Nearer to ``init_task``, which is at ``DATA_AT``, than ``init_mm``."""

machines = pytest.mark.parametrize("machine", [X86, ARM], ids=lambda machine: machine.name)


def evidence(guest: Guest) -> Evidence:
    base = guest.machine.base
    (init,) = init_task.candidates(guest.memory(), [base + guest.ram.find(init_task.NEEDLE)])
    uts = Anchor("uts", base + guest.at(guest.symbols["init_uts_ns"]))
    return Evidence(guest.memory(), init, [Anchor("banner", base + guest.ram.find(b"Linux version ")), uts])


def with_copy(machine: Machine, *, program: bool) -> Guest:
    """Return a guest with a copy of the root as a process has it, which may map a program at the lowest addresses."""
    guest = build(machine)
    guest.ram[OTHER_AT : OTHER_AT + TABLE] = guest.ram[machine.root_at : machine.root_at + TABLE]
    if program:
        guest.ram[OTHER_AT : OTHER_AT + 8] = (machine.base + 0x1000 | 0x67).to_bytes(8, "little")
    return guest


def searched(guest: Guest) -> int:
    found = search_root(evidence(guest))
    assert found
    return found.gpa - guest.machine.base


@machines
def test_root_that_maps_a_program_is_not_taken_though_its_address_stands_nearest(machine: Machine) -> None:
    guest = with_copy(machine, program=True)
    guest.words(guest.image(HEARSAY_AT), guest.image(OTHER_AT))
    assert searched(guest) == machine.root_at


@machines
def test_root_of_a_program_that_has_ended_is_not_taken(machine: Machine) -> None:
    """Its user's half is empty again, and nothing points to it."""
    assert searched(with_copy(machine, program=False)) == machine.root_at


@machines
def test_nearest_address_decides_where_no_root_maps_a_program(machine: Machine) -> None:
    guest = with_copy(machine, program=False)
    guest.words(guest.linear(synthetic.HEAP_AT + 0x3000), guest.image(OTHER_AT))
    assert searched(guest) == machine.root_at
    guest.words(guest.image(HEARSAY_AT), guest.image(OTHER_AT))
    assert searched(guest) == OTHER_AT


@machines
def test_address_at_a_place_where_no_pointer_can_be_is_chance(machine: Machine) -> None:
    guest = with_copy(machine, program=False)
    guest.words(guest.image(HEARSAY_AT + 2), guest.image(OTHER_AT))
    assert searched(guest) == machine.root_at


@machines
def test_root_that_nothing_points_to_is_not_taken_though_it_maps_no_program(machine: Machine) -> None:
    """As where vectors lie at address 0, which each table maps until its program has ended."""
    guest = with_copy(machine, program=False)
    guest.ram[machine.root_at : machine.root_at + 8] = (machine.base + 0x1000 | 0x67).to_bytes(8, "little")
    assert searched(guest) == machine.root_at


def lpae(at: int, *, program: bool) -> dict[int, bytes]:
    """Return the table of four entries at ``at`` and its second-level tables: all RAM at 0xC0000000, and modules."""
    tables = [at + 0x1000 * number for number in range(1, 5)]
    second = [bytearray(0x1000) for _ in tables]
    for block in range(synthetic.RAM_SIZE >> 21):
        second[3][8 * block : 8 * block + 8] = (ARM.base + (block << 21) | 0x701).to_bytes(8, "little")
    second[2][8 * 504 : 8 * 505] = (ARM.base | 0x701).to_bytes(8, "little")  # 0xBF000000
    if program:
        second[0][:8] = (ARM.base + 0x9000 | 3).to_bytes(8, "little")
    first = b"".join((ARM.base + table | 3).to_bytes(8, "little") for table in tables)
    return {at: first, **{table: bytes(data) for table, data in zip(tables, second, strict=True)}}


def test_long_descriptors_lead_over_second_level_tables_to_programs() -> None:
    """The kernel's own table has all four of them (``arch/arm/kernel/head.S``), and the user's are empty."""
    guest = build(ARM)
    guest.ram[ARM.root_at : ARM.root_at + TABLE] = bytes(TABLE)
    for at, data in (lpae(0x1_0000, program=False) | lpae(7 * MIB, program=True)).items():
        guest.ram[at : at + len(data)] = data
    guest.words(guest.symbols["init_mm"] + 0x48, guest.linear(0x1_0000))
    guest.words(guest.image(HEARSAY_AT), guest.linear(7 * MIB))
    proof = evidence(guest)
    assert prove(proof, ARM.base + 7 * MIB, ArmLpae(), "")
    assert searched(guest) == 0x1_0000


def test_tables_outside_ram_are_taken_for_those_of_programs() -> None:
    guest = build(ARM)
    guest.ram[ARM.root_at : ARM.root_at + TABLE] = bytes(TABLE)
    outside = {
        at: data.replace((ARM.base + at + 0x1000 | 3).to_bytes(8, "little"), (1 << 39 | 3).to_bytes(8, "little"))
        for at, data in lpae(7 * MIB, program=False).items()
    }
    for at, data in (lpae(0x1_0000, program=False) | outside).items():
        guest.ram[at : at + len(data)] = data
    guest.words(guest.symbols["init_mm"] + 0x48, guest.linear(0x1_0000))
    guest.words(guest.image(HEARSAY_AT), guest.linear(7 * MIB))
    assert searched(guest) == 0x1_0000


def test_split_with_a_root_of_its_own_for_programs_has_none_of_their_tables() -> None:
    loads = PhysicalLoads(BytesMemory({}))
    assert list(ArmLpae(2).user_tables(loads, GPA(0), 0xC010_0000)) == []

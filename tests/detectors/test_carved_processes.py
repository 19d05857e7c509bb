"""Processes that no structure of the kernel's has: found in memory, and what has ended is none."""

from __future__ import annotations

import pytest
from tests.kernel.synthetic import ARM, ARM64, X86, Guest, Machine, TaskTruth, build

from yamori.detectors.check import Report, check, chosen
from yamori.kernel.discovery import discover
from yamori.kernel.kernel import Kernel

MACHINES = pytest.mark.parametrize("machine", [X86, ARM64, ARM], ids=lambda machine: machine.name)


def unlink(guest: Guest, node: int) -> None:
    after, before = guest.word(node), guest.word(node + guest.machine.word)
    guest.words(before, after)
    guest.words(after + guest.machine.word, before)


def report(guest: Guest, changed: Guest) -> Report:
    known = discover(guest.memory()).profile
    return check(Kernel(changed.memory(), known), chosen(["carved-processes"], []))


def hidden(machine: Machine) -> tuple[Guest, TaskTruth]:
    guest = build(machine)
    victim = guest.by_pid(121)
    for name in ("tasks", "sibling"):
        unlink(guest, guest.member(victim.gva, name))
    return guest, victim


@MACHINES
def test_clean(machine: Machine) -> None:
    found = report(build(machine), build(machine))
    assert found.findings == []
    assert found.complete


@MACHINES
def test_hidden(machine: Machine) -> None:
    guest, victim = hidden(machine)
    found = report(build(machine), guest)
    assert [one.subject for one in found.findings] == ["process 121"]
    assert victim.comm in found.findings[0].title
    assert f"{victim.gva:#x}" in found.findings[0].why[1]


@MACHINES
def test_what_has_ended_is_no_process(machine: Machine) -> None:
    guest, victim = hidden(machine)
    guest.ints(guest.member(victim.gva, "exit_state"), 16)
    assert report(build(machine), guest).findings == []
    guest, victim = hidden(machine)
    guest.words(guest.member(victim.gva, "stack"), 0)
    assert report(build(machine), guest).findings == []


@MACHINES
def test_what_leads_nowhere_is_no_process(machine: Machine) -> None:
    for member in ("real_cred", "real_parent", "group_leader"):
        guest, victim = hidden(machine)
        guest.words(guest.member(victim.gva, member), 0x1238)
        assert report(build(machine), guest).findings == []


@MACHINES
def test_other_places_are_searched_where_tasks_can_be(machine: Machine) -> None:
    """A copy of a task in memory, as the page cache may hold one, does not point to itself."""
    guest = build(machine)
    task = guest.by_pid(121).gva
    copy = task + 0x40_0000 if guest.at(task) + 0x40_0000 < len(guest.ram) - 0x4000 else task + 0x20_0000
    guest.write(copy, guest.read(task, 0x1000))
    assert report(build(machine), guest).findings == []

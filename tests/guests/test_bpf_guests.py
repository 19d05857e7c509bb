"""``bpf`` against what the guest's own /proc says, and programs that are hidden from the host."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.guests.poke import Poker

import yamori
from yamori import lab
from yamori.guest import Guest
from yamori.lab.attacks import attack
from yamori.probes.bpf import hidden
from yamori.records import BpfProgram

pytestmark = pytest.mark.guest

SYMBOL = re.compile(r"^([0-9a-f]+) t bpf_prog_([0-9a-f]{16})_(\w+)\t\[bpf\]$", re.MULTILINE)
HELD = re.compile(r"^prog_tag:\t([0-9a-f]{16})\n(?:(?!prog_id).*\n)*prog_id:\t(\d+)$", re.MULTILINE)


@pytest.fixture(scope="module", params=["arm64", "x86-64"])
def vm(request: pytest.FixtureRequest) -> Iterator[lab.Machine]:
    with lab.machine(request.param) as machine:
        attack(machine, "bpf-program")
        yield machine


@pytest.fixture(scope="module")
def guest(vm: lab.Machine) -> Iterator[Guest]:
    with yamori.open(vm.target) as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(guest: Guest) -> list[BpfProgram]:
    result = guest.listing("bpf")
    assert result.complete
    return result.rows


def test_numbers_and_tags(vm: lab.Machine, rows: list[BpfProgram]) -> None:
    said = vm.run("cat /proc/[0-9]*/fdinfo/* 2> /dev/null").output
    truth = {(int(number), tag) for tag, number in HELD.findall(said)}
    assert truth
    assert {(row.id, row.tag) for row in rows} == truth


def test_code_and_names(vm: lab.Machine, rows: list[BpfProgram]) -> None:
    """The kernel names each function of a program; that which it begins with has the program's name."""
    named = SYMBOL.findall(vm.run("grep -F '[bpf]' /proc/kallsyms").output)
    assert len(named) > len(rows)
    truth = {(int(address, 16), tag, name) for address, tag, name in named}
    assert {(row.address, row.tag, row.name) for row in rows} <= truth
    assert {(row.type, row.uid, row.overrides) for row in rows} == {("raw_tracepoint", 0, False)}


def test_functions_of_a_program_are_not_hidden(guest: Guest) -> None:
    result = hidden(guest.kernel)
    assert result.complete
    assert result.rows == []


def test_hidden_program(guest: Guest, rows: list[BpfProgram]) -> None:
    """Its slot of ``prog_idr`` is emptied, as by a module of an intruder: it still runs."""
    poker = Poker(guest)
    head = guest.profile.address("prog_idr")
    assert head is not None
    node = poker.pointer(head + poker.offset("idr", "idr_rt.xa_head")) & ~3
    slot = node + poker.offset("xa_node", "slots") + rows[0].id * poker.word
    assert poker.pointer(slot) == rows[0].prog
    with poker.changed((slot, 0)):
        report = guest.check(only=["bpf-programs"])
        assert guest.listing("bpf").rows == rows[1:]
    critical = [one for one in report.findings if one.severity == "critical"]
    assert any(one.subject == f"BPF program at {rows[0].address:#x}" for one in critical)
    assert not [one for one in guest.check(only=["bpf-programs"]).findings if one.severity == "critical"]

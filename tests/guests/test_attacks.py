"""The attacks of the lab: each has its effect in the guest and is found by its detector; without it nothing is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.guests.stock_modules import load

import yamori
from yamori import lab
from yamori.errors import LabError
from yamori.guest import Guest
from yamori.lab.attacks import ImpossibleError, attack, attacks, undo

pytestmark = pytest.mark.guest

DEVICES = ("armv7", "arm64", "x86-64")
NOTED = {"foreign-modules", "foreign-code"}
"""That the attack's own module did not come with the kernel is noted, too; a hidden one's code is nobody's."""


@pytest.fixture(scope="module", params=DEVICES)
def vm(request: pytest.FixtureRequest) -> Iterator[lab.Machine]:
    with lab.machine(request.param) as machine:
        load(machine, "crc7")
        yield machine


@pytest.fixture(scope="module")
def guest(vm: lab.Machine) -> Iterator[Guest]:
    with yamori.open(vm.target) as opened:
        yield opened


@pytest.mark.parametrize("name", list(attacks()))
def test_found(vm: lab.Machine, guest: Guest, name: str) -> None:
    chosen = attacks()[name]
    assert guest.check().findings == []
    try:
        effect = attack(vm, name)
    except ImpossibleError as error:
        pytest.skip(str(error))
    try:
        report = guest.check()
    finally:
        undo(vm, name)
    assert effect.proof
    unchecked = {detector for detector, _ in report.not_checked}
    if chosen.detector in unchecked:
        without_btf = all(types.provenance != "btf" for types in guest.profile.types)
        assert without_btf
        return
    found = {(finding.detector, finding.subject) for finding in report.findings}
    assert (chosen.detector, effect.subject) in found
    assert {detector for detector, _ in found} <= {chosen.detector, *chosen.also.split(), *NOTED}
    assert guest.check().findings == []


def test_nothing_is_done_elsewhere(vm: lab.Machine) -> None:
    """A guest whose command line has another word refuses: the script, and the module itself."""
    attack(vm, "hidden-process")
    undo(vm, "hidden-process")
    vm.run("echo other > /run/line; mount -o bind /run/line /proc/cmdline")
    try:
        with pytest.raises(LabError, match="no guest of the lab"):
            attack(vm, "hidden-process")
        assert vm.run("insmod /run/hide_task.ko pid=1").status != 0
    finally:
        vm.run("umount /proc/cmdline")
    with pytest.raises(LabError, match="no such attack"):
        attack(vm, "nothing")

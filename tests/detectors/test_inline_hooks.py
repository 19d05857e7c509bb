"""Functions that were patched in place, on synthetic kernels."""

from __future__ import annotations

import pytest
from tests.kernel.synthetic import ARM, ARM64, MODULES, X86, Guest, Machine, Shape, build

from yamori.detectors.check import Report, check, chosen
from yamori.kernel.discovery import discover
from yamori.kernel.kernel import Kernel

MACHINES = pytest.mark.parametrize("machine", [X86, ARM64, ARM], ids=lambda machine: machine.name)


def looked(guest: Guest) -> Report:
    known = discover(build(guest.machine).memory())
    return check(Kernel(guest.memory(), known.profile), chosen(["inline-hooks"], []))


def jump(machine: Machine, at: int, target: int) -> bytes:
    if machine is X86:
        return b"\xf3\x0f\x1e\xfa\xe9" + (target - at - 9).to_bytes(4, "little", signed=True)
    if machine is ARM64:
        return (0x5800_0050).to_bytes(4, "little") + (0xD61F_0200).to_bytes(4, "little") + target.to_bytes(8, "little")
    return (0xE51F_F004).to_bytes(4, "little") + target.to_bytes(4, "little")


@MACHINES
def test_patched(machine: Machine) -> None:
    guest = build(machine)
    place = guest.symbols["helper7"]
    guest.write(place, jump(machine, place, MODULES[machine.name] + 0x40))
    (found,) = looked(guest).findings
    assert found.subject == "function helper7"
    assert f"{MODULES[machine.name] + 0x40:#x}" in found.why[1]


@MACHINES
def test_branches_that_stay_or_lead_nowhere_are_none(machine: Machine) -> None:
    guest = build(machine)
    for name, target in (("helper7", guest.symbols["helper9"]), ("helper8", guest.image(0x300000) + 0x123000)):
        place = guest.symbols[name]
        guest.write(place, jump(machine, place, target))
    report = looked(guest)
    assert report.findings == []
    assert report.complete


def test_without_symbols_nothing_is_checked() -> None:
    guest = build(X86, Shape(kallsyms=False))
    report = check(Kernel(guest.memory(), discover(guest.memory()).profile), chosen(["inline-hooks"], []))
    assert [name for name, _ in report.not_checked] == ["inline-hooks"]

"""Modules: what Yamori reads from outside is what the guest's own /proc/modules says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.guests.devices import DEVICES
from tests.guests.stock_modules import NAMES, load

import yamori
from yamori import lab
from yamori.guest import Guest
from yamori.kernel import modules
from yamori.kernel.types import Types

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module", params=DEVICES)
def vm(request: pytest.FixtureRequest) -> Iterator[lab.Machine]:
    with lab.machine(request.param) as machine:
        load(machine, *NAMES)
        yield machine


@pytest.fixture(scope="module")
def guest(vm: lab.Machine) -> Iterator[Guest]:
    with yamori.open(vm.target) as opened:
        yield opened


def truth(vm: lab.Machine) -> list[tuple[str, int, int]]:
    """Return (name, size, address) of each module; no address where the guest tells none."""
    words = [line.split() for line in vm.run("cat /proc/modules").output.splitlines()]
    return [(name, int(size), int(address, 16)) for name, size, _, _, _, address, *_ in words]


def test_modules(vm: lab.Machine, guest: Guest) -> None:
    result = guest.listing("modules")
    assert result.complete, result.reasons
    assert [(row.name, row.size, row.base) for row in result] == truth(vm)
    assert {row.state for row in result} == {"L"}
    assert set(NAMES) <= {row.name for row in result}
    vm.run("rmmod dummy")
    assert [row.name for row in guest.listing("modules")] == [name for name, _, _ in truth(vm)]
    load(vm, "dummy")


def test_no_symbol_is_needed(vm: lab.Machine, guest: Guest) -> None:
    profile = guest.profile
    found = modules.modules(guest.kernel.space, profile.init, lambda _: None).find()
    first = guest.listing("modules").rows[0].module
    head = guest.kernel.space.pointer(first + profile.require("module", "list").offset + profile.init.word_size)
    assert found.addresses == {"modules": head}
    assert found.unknown == {}
    source: Types
    for source in profile.types[:-2]:
        for (struct, name), member in found.members.items():
            other = source.member(struct, name)
            assert other is None or other.offset == member.offset, (struct, name)


def test_kernel_without_loaded_modules(vm: lab.Machine, guest: Guest) -> None:
    for name in NAMES:
        vm.run(f"rmmod {name}")
    try:
        with yamori.open(vm.target, cache=False) as again:
            result = again.listing("modules")
        assert result.rows == []
        assert result.complete  # symbols name the list, or the code of functions that use it
    finally:
        load(vm, *NAMES)

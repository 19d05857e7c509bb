"""Attaching by what the maker gives alone: the kernel that a whole search finds, with a few reads, or an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.kernel.synthetic import ARM, ARM64, BANNER, MACHINES, Guest, Machine, build, shown

from yamori.address import GPA
from yamori.errors import NoKernelError, ProfileError
from yamori.kernel import portable, sparse
from yamori.kernel.discovery import discover
from yamori.kernel.given import Given
from yamori.memory.physical import BytesMemory, Region
from yamori.probes.plist import plist

OTHER = {
    ARM64.name: replace(ARM64, image=ARM64.image + 0x3_5560_0000, linear=0xFFFF_0A00_0000_0000, base=0x8000_0000),
    ARM.name: replace(ARM, base=0x8000_0000),
}


class Counting:
    """Memory that counts what is read, and cannot be read whole."""

    def __init__(self, memory: BytesMemory) -> None:
        self.memory, self.read_bytes = memory, 0
        self.regions = memory.regions

    def read(self, gpa: GPA, size: int) -> bytes:
        self.read_bytes += size
        return self.memory.read(gpa, size)

    def populated(self) -> Iterator[Region]:
        raise AssertionError("nobody asks for all of RAM")


def maker(guest: Guest) -> Given:
    profile = discover(guest.memory()).profile
    assert profile.uts
    return portable.of_profile(profile, {"init_uts_ns": guest.symbols["init_uts_ns"]}).given("kernel.profile")


@pytest.mark.parametrize("machine", [ARM64, ARM], ids=lambda machine: machine.name)
@pytest.mark.parametrize("other", [False, True], ids=["same boot", "other boot"])
def test_kernel_is_that_of_a_whole_search(machine: Machine, other: bool) -> None:
    given = maker(build(machine))
    guest = build(OTHER[machine.name] if other else machine)
    memory = Counting(guest.memory())
    kernel = sparse.attach(memory, given)
    whole = discover(guest.memory()).profile
    assert (kernel.profile.init, kernel.profile.root.gpa) == (whole.init, whole.root.gpa)
    assert (kernel.profile.banner, kernel.profile.uts) == (BANNER, whole.uts)
    assert kernel.profile.doubts == []
    assert shown(plist(kernel)) == guest.rows()
    assert memory.read_bytes < 1 << 20


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_profile_of_a_running_kernel_says_where_to_look(machine: Machine) -> None:
    guest = build(machine)
    symbols = maker(guest).symbols
    assert symbols
    for name in ("init_task", "linux_banner", "swapper_pg_dir"):
        assert symbols.address(name) == guest.symbols[name]


def test_no_such_kernel() -> None:
    given = maker(build(ARM64))
    with pytest.raises(NoKernelError, match="no kernel of these files"):
        sparse.attach(BytesMemory({0x4000_0000: bytes(8 << 20)}), given)
    with pytest.raises(ProfileError, match=r"another kernel|not of the kernel"):
        sparse.attach(build(ARM64).memory(), replace(given, banner="Linux version 9.9"))


@pytest.mark.parametrize("lacking", ["symbols", "types"])
def test_half_a_profile_is_not_enough(lacking: str) -> None:
    whole = maker(build(ARM64))
    given = replace(whole, symbols=None) if lacking == "symbols" else replace(whole, types=None)
    with pytest.raises(ProfileError, match="profile export"):
        sparse.attach(build(ARM64).memory(), given)


def test_decoy_in_front_does_not_hide_the_kernel() -> None:
    """A copy of another boot's memory lies at lower addresses, and its tables lead nowhere."""
    guest, decoy = build(ARM64), build(OTHER[ARM64.name])
    blocks: dict[int, bytes | bytearray] = {0x3000_0000: decoy.ram, 0x4000_0000: guest.ram}
    kernel = sparse.attach(BytesMemory(blocks), maker(guest))
    assert kernel.profile.init.gpa == discover(guest.memory()).profile.init.gpa


def test_copy_of_the_kernel_is_not_taken_for_it() -> None:
    guest, twin = build(ARM64), build(ARM64)
    blocks: dict[int, bytes | bytearray] = {0x4000_0000: guest.ram, 0x4100_0000: twin.ram}
    kernel = sparse.attach(BytesMemory(blocks), maker(guest))
    assert kernel.profile.init.gpa == discover(guest.memory()).profile.init.gpa

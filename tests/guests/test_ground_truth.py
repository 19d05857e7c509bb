"""Every device of the lab: what Yamori reads from outside is what the guest's own /proc says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.guests.devices import DEVICES

import yamori
from yamori import lab
from yamori.address import GVA
from yamori.guest import Guest
from yamori.kernel import witnesses
from yamori.kernel.functions import Functions
from yamori.kernel.types import Member
from yamori.kernel.variables import VARIABLES, Variables
from yamori.lab.compare import Difference, lasting_differences, wrong_symbols
from yamori.records import Process

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module", params=DEVICES)
def vm(request: pytest.FixtureRequest) -> Iterator[lab.Machine]:
    """A device with a crowd of 40 processes of several users, and one process with 8 threads."""
    with lab.machine(request.param) as machine:
        assert machine.run(["spawn", "40"]).status == 0
        assert machine.run(["threads", "8"]).status == 0
        yield machine


@pytest.fixture(scope="module")
def guest(vm: lab.Machine) -> Iterator[Guest]:
    with yamori.open(vm.target) as opened:
        yield opened


def lasting(vm: lab.Machine, guest: Guest, *, threads: bool) -> list[Difference]:
    """Return what differs in look after look."""

    def look() -> list[Process]:
        result = guest.plist(threads=threads)
        assert result.complete, result.reasons
        return result.rows

    return lasting_differences(vm, look)


def test_processes(vm: lab.Machine, guest: Guest) -> None:
    assert lasting(vm, guest, threads=False) == []
    assert len(guest.plist()) > 80


def test_threads(vm: lab.Machine, guest: Guest) -> None:
    assert lasting(vm, guest, threads=True) == []
    groups = [row.tgid for row in guest.plist(threads=True)]
    assert max(map(groups.count, groups)) == 8


def test_banner(vm: lab.Machine, guest: Guest) -> None:
    row = guest.banner().rows[0]
    assert row.banner == vm.run("cat /proc/version").output.strip()
    assert row.release == vm.run("uname -r").output.strip()
    assert row.machine == vm.run("uname -m").output.strip()
    assert guest.profile.doubts == []


def test_system_calls(vm: lab.Machine, guest: Guest) -> None:
    kallsyms = vm.run("grep sys_ /proc/kallsyms", timeout=300).output
    tables = ["native", "compat"] if guest.profile.architecture == "aarch64" else ["native"]
    for table in tables:
        result = guest.syscall(table)
        assert result.complete
        assert 400 < len(result) < 600
        assert wrong_symbols(result, kallsyms) == []
        assert all(row.in_kernel_text for row in result)


def test_kallsyms_is_the_guests_own(vm: lab.Machine, guest: Guest) -> None:
    """A sample over the whole table: /proc/kallsyms has tens of thousands of lines and the console is slow."""
    lines = vm.run("awk 'NR % 97 == 1 && NF == 3' /proc/kallsyms", timeout=300).output.splitlines()
    symbols = guest.profile.symbols[0]
    assert len(lines) > 400
    for line in lines:
        address, kind, name = line.split()
        assert (int(address, 16), kind, name) in symbols.aliases(int(address, 16))


def test_inference_agrees_with_btf(guest: Guest) -> None:
    """Where the kernel has BTF, all that inference says is true: it may know less, never something else."""
    if guest.profile.architecture == "arm":
        pytest.skip("Debian's armmp kernel has no BTF")
    btf, _, inferred = guest.profile.types
    members = dict(inferred.members)  # type: ignore[attr-defined]  # the last source is always inference
    assert len(members) >= 30
    for (struct, path), member in members.items():
        known = btf.member(struct, path)
        assert known is not None, path
        assert (member.offset, member.size) == (known.offset, known.size), path


def test_code_of_the_kernel_agrees(guest: Guest) -> None:
    """What functions use is where it is thought to be; and were it elsewhere, they would not say so of most."""
    profile = guest.profile

    def said(by: int) -> int:
        def known(struct: str, path: str) -> Member | None:
            member = profile.member(struct, path)
            return member and member._replace(offset=member.offset + by)

        return len(witnesses.testimony(guest.kernel.space, profile.architecture, profile.symbols, known))

    assert said(0) >= 25
    assert all(said(by) < said(0) / 2 for by in (-16, -8, -4, 4, 8, 16))


def test_code_of_the_kernel_tells_variables(vm: lab.Machine, guest: Guest) -> None:
    """Where symbols name a variable, its address is that which code tells; elsewhere it holds what the guest says."""
    profile, space = guest.profile, guest.kernel.space
    told = Variables(space, profile.init, Functions(space, profile.architecture, profile.symbols))
    found = {one.name: address for one in VARIABLES if (address := told.address(one.name))}
    assert found.keys() >= {
        "modules",
        "module_kset",
        "modprobe_path",
        "core_pattern",
        "kprobe_table",
        "ftrace_ops_list",
    }
    assert "sys_call_table" in found or profile.architecture != "aarch64"
    for name, address in found.items():
        assert profile.symbols[0].address(name) in {None, address}, name
    for name, file in {"modprobe_path": "modprobe", "core_pattern": "core_pattern"}.items():
        said = vm.run(f"cat /proc/sys/kernel/{file}").output.strip()
        assert space.string(GVA(found[name]), 128).decode() == said


@pytest.mark.parametrize("device", ["armv7", "arm64", "x86-64"])
def test_busy_on_every_vcpu(device: str) -> None:
    """A user-mode loop on each of two vCPUs: under KPTI their registers point at a trampoline all the time."""
    with lab.machine(device, smp=2, append="pti=on") as vm:
        assert vm.run(["busy", "2"]).status == 0
        with yamori.open(vm.target) as guest:
            assert lasting(vm, guest, threads=True) == []
            running = [row for row in guest.plist() if row.state == "R"]
            assert len(running) >= 2


@pytest.mark.parametrize("ram", ["file", "private"])
def test_other_ways_to_the_memory(ram: str) -> None:
    """RAM in a file, and RAM that only the QEMU process has."""
    with lab.machine("arm64", ram=ram) as vm, yamori.open(vm.target) as guest:
        assert lasting(vm, guest, threads=True) == []


def test_two_thousand_processes() -> None:
    with lab.machine("arm64", memory="512M") as vm:
        assert vm.run(["spawn", "2000"], timeout=300).status == 0
        with yamori.open(vm.target) as guest:
            assert lasting(vm, guest, threads=False) == []
            assert len(guest.plist()) > 2000


def test_only_memory_can_have_told(tmp_path: Path) -> None:
    """The kernel's file is gone while Yamori looks; KASLR is on."""
    with lab.machine("arm64") as donor:
        original = Path(donor.record.kernel)
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(original.read_bytes())
    with lab.machine("arm64", kernel=kernel) as vm:
        kernel.unlink()
        with yamori.open(vm.target) as guest:
            assert lasting(vm, guest, threads=False) == []
            assert guest.profile.slide


def test_early_boot_and_end() -> None:
    """Before the kernel is up there is a clear word; after the VM has ended there is another."""
    vm = lab.up("armv7", "early", wait=False)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                yamori.open(vm.target).close()
            except yamori.TargetError as error:
                assert "just starting" in str(error)  # noqa: PT017  QEMU has not mapped the RAM yet
            except yamori.NoKernelError as error:
                assert "no Linux kernel is running yet" in str(error)  # noqa: PT017
                break
        else:
            pytest.fail("the kernel was never seen before it was up")
    finally:
        vm.down()
    with pytest.raises(yamori.TargetError, match="no such lab VM"):
        yamori.open(vm.target)


def test_a_vm_that_dies_while_it_is_read() -> None:
    with lab.machine("armv7", ram="private") as vm, yamori.open(vm.target) as guest:
        vm.down()
        with pytest.raises(yamori.TargetError, match="has ended"):
            guest.plist()

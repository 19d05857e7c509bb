"""Translation on real guests, held against QEMU's own walk of the same tables."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest
from tests.guests.devices import DEVICES
from tests.guests.monitor import Monitor

import yamori
from yamori import lab
from yamori.address import GVA
from yamori.errors import Fault
from yamori.guest import Guest
from yamori.translation.space import AddressSpace

pytestmark = pytest.mark.guest

LOOKUPS = 3000
PROGRAM_COUNTERS = {"arm": "R15", "aarch64": "PC", "x86_64": "RIP"}


@pytest.fixture(scope="module", params=DEVICES)
def vm(request: pytest.FixtureRequest) -> Iterator[lab.Machine]:
    with lab.machine(request.param) as machine:
        machine.run(["spawn", "20"])
        yield machine


@pytest.fixture(scope="module")
def guest(vm: lab.Machine) -> Iterator[Guest]:
    with yamori.open(vm.target) as opened:
        yield opened


def stopped_in_the_kernel(monitor: Monitor, guest: Guest) -> None:
    """Stop the vCPU where it runs the kernel: in user mode under KPTI its register's root maps no kernel."""
    text = guest.profile.text
    assert text
    register = PROGRAM_COUNTERS[guest.profile.architecture]
    for _ in range(200):
        monitor.execute("stop")
        match = re.search(rf"\b{register}=([0-9a-f]+)", monitor.hmp("info registers"))
        assert match
        if int(match[1], 16) in text:
            return
        monitor.execute("cont")
    pytest.fail("the vCPU was never in the kernel's text")


def pointer(guest: Guest, gva: int, struct: str, member: str) -> GVA:
    return guest.kernel.space.pointer(GVA(gva + guest.profile.require(struct, member).offset))


def addresses(guest: Guest) -> list[GVA]:
    """Kernel addresses of every kind: image, linear map, stacks, modules' and vmalloc's surroundings, and holes."""
    chance = random.Random(2026)
    kernel = guest.kernel
    interesting = [kernel.profile.init.gva, kernel.profile.root.gpa + kernel.profile.init.image_offset]
    for task in guest.plist():
        members = [pointer(guest, task.task, "task_struct", name) for name in ("stack", "real_cred", "signal", "mm")]
        interesting += [task.task, *filter(None, members)]
    interesting += [symbol.address for symbol in chance.sample(list(kernel.profile.symbols[0]), 500)]
    found: list[GVA] = []
    while len(found) < LOOKUPS:
        distance = chance.choice((0, 1, 4096, 1 << 16, 1 << 20, 1 << 24, 1 << 28))
        gva = chance.choice(interesting) + chance.randint(-distance, distance)
        if kernel.space.geometry.canonical(GVA(gva)):
            found.append(GVA(gva))
    return found


def translated(space: AddressSpace, gva: GVA) -> int | None:
    try:
        return space.translate(gva).gpa
    except Fault:
        return None


def test_gva_to_gpa_is_what_qemu_says(vm: lab.Machine, guest: Guest) -> None:
    chosen = addresses(guest)
    with Monitor(vm.directory / "qmp.sock") as monitor:
        stopped_in_the_kernel(monitor, guest)
        try:
            mapped = 0
            for gva in chosen:
                said = monitor.hmp(f"gva2gpa {gva:#x}")
                match = re.match(r"gpa: (0x[0-9a-f]+)", said)
                theirs = int(match[1], 16) if match else None
                ours = translated(guest.kernel.space, gva)
                if theirs is None and ours is not None and guest.profile.architecture == "arm":
                    continue  # the present process's table need not have every vmalloc entry of the kernel's own yet
                assert ours == theirs, (hex(gva), said)
                mapped += ours is not None
        finally:
            monitor.execute("cont")
    assert mapped > LOOKUPS // 3
    assert mapped < LOOKUPS


def test_user_addresses(vm: lab.Machine, guest: Guest) -> None:
    """Through mm->pgd, every program starts where its own /proc/PID/maps says, with an ELF header."""
    own = vm.run("for m in /proc/[0-9]*/maps; do read l < $m && echo ${m#/proc/} $l; done 2>/dev/null").output
    kernel = guest.kernel
    tasks = {row.pid: row.task for row in guest.plist()}
    checked = 0
    for line in own.splitlines():
        match = re.match(r"(\d+)/maps ([0-9a-f]+)-[0-9a-f]+ r\S+ 0+ \S+ [1-9]", line)
        if not match or int(match[1]) not in tasks:
            continue
        mm = pointer(guest, tasks[int(match[1])], "task_struct", "mm")
        assert mm
        assert kernel.user_space(pointer(guest, mm, "mm_struct", "pgd")).read(GVA(int(match[2], 16)), 4) == b"\x7fELF"
        checked += 1
    assert checked >= 10


def test_a_kernel_address_is_no_user_address(guest: Guest) -> None:
    """User addresses are refused by the kernel's space: on Arm they would be looked up in the wrong table."""
    with pytest.raises(Fault):
        guest.kernel.space.read(GVA(0x8000), 4)

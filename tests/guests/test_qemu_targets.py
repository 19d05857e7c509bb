"""Attach to real QEMU processes and compare with what QEMU itself says; they stand at reset and need no kernel."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.guests.monitor import Monitor

from yamori.address import GPA
from yamori.errors import TargetError
from yamori.hypervisors import qemu
from yamori.memory import image
from yamori.memory.host import HostMemory

MIB = 1 << 20
GIB = 1 << 30

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(not shutil.which("qemu-system-aarch64"), reason="needs QEMU"),
]


class Machine:
    """A running QEMU and its QMP socket; ``ask`` takes the one client place while it runs."""

    def __init__(self, process: subprocess.Popen[bytes], qmp: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.qmp = qmp

    def connected(self) -> Monitor:
        return Monitor(self.qmp)

    def execute(self, command: str, **arguments: Any) -> Any:
        with self.connected() as monitor:
            return monitor.execute(command, **arguments)

    def hva(self, gpa: int) -> int:
        with self.connected() as monitor:
            said = monitor.hmp(f"gpa2hva {gpa:#x}")
        match = re.search(r" is (0x[0-9a-f]+)", said)
        assert match, said
        return int(match[1], 16)


numbers = itertools.count()


@contextmanager
def running(directory: Path, program: str, *options: str, qmp: bool = True) -> Iterator[Machine]:
    path = directory / f"qmp{next(numbers)}"
    words = [f"qemu-system-{program}", "-S", "-display", "none", "-nodefaults", *options]
    words += ["-chardev", f"socket,id=q,path={path},server=on,wait=off", "-mon", "chardev=q,mode=control"]
    if not qmp:  # a human monitor in its place, which only the tests use
        words[-1] = "chardev=q,mode=readline"
    process = subprocess.Popen(words, stderr=subprocess.PIPE, cwd=directory)
    try:
        until = time.monotonic() + 20
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(20)
                    client.connect(str(path))
                    client.recv(1)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < until
                time.sleep(0.02)
        machine = Machine(process, path)
        if qmp:
            machine.execute("query-status")  # is answered once the machine is complete; a greeting comes earlier
        yield machine
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


LIBVIRT = """-name guest=lib,debug-threads=on -machine virt,usb=off,memory-backend=mach-virt.ram -m size=98304k
-object {"qom-type":"memory-backend-memfd","id":"mach-virt.ram","share":true,"size":100663296}
-overcommit mem-lock=off -smp 2,sockets=2,cores=1,threads=1 -no-user-config -boot strict=on"""
BACKEND = "-M virt,memory-backend=m -m 96M -object memory-backend"
NUMA = "-M virt -m 128 -numa node,nodeid=1,memdev=b -numa node,nodeid=0,cpus=0,memdev=a -object memory-backend"
MEMFD = "-object memory-backend-memfd"
RAM = "-object memory-backend-ram"

CASES = {
    "private": ("arm", "-M virt -m 96M", 96 * MIB),
    "as large as the flash": ("arm", "-M virt -m 64", 64 * MIB),
    "default size": ("arm", "-M vexpress-a9", 128 * MIB),
    "machine option": ("aarch64", f"-machine virt -machine memory-backend=m -m 96 {MEMFD},id=m,size=96M", 96 * MIB),
    "file": ("aarch64", BACKEND + "-file,id=m,size=96M,mem-path=ram,share=on", 96 * MIB),
    "file, private": ("aarch64", BACKEND + "-file,id=m,size=96M,mem-path=ram", 96 * MIB),
    "mem-path": ("aarch64", "-M virt -m size=96M,slots=2,maxmem=1G -mem-path .", 96 * MIB),
    "shared without a file": ("aarch64", BACKEND + "-ram,id=m,size=96M,share=on", 96 * MIB),
    "as libvirt writes it": ("aarch64", LIBVIRT, 96 * MIB),
    "two nodes": ("aarch64", NUMA + f"-memfd,id=b,size=96M {RAM},id=a,size=32M", 128 * MIB),
    "two equal nodes": ("aarch64", NUMA + f"-memfd,id=b,size=64M {MEMFD},id=a,size=64M", 128 * MIB),
    "two equal nodes, private": ("aarch64", NUMA + f"-ram,id=b,size=64M {RAM},id=a,size=64M", 128 * MIB),
    "large": ("aarch64", "-M virt,highmem=on -cpu cortex-a57 -m 8G", 8 * GIB),
    "raspi": ("arm", "-M raspi2b", GIB),
    "sabrelite": ("arm", "-M sabrelite -m 512M", 512 * MIB),
    "versatile": ("arm", "-M versatilepb", 128 * MIB),
    "bmc": ("arm", "-M ast2600-evb", GIB),
    "old bmc": ("arm", "-M palmetto-bmc", 256 * MIB),
    "allwinner": ("arm", "-M cubieboard", GIB),
    "zynqmp": ("aarch64", "-M xlnx-zcu102 -m 3G", 3 * GIB),
    "q35": ("x86_64", "-M q35 -m 4G", 4 * GIB),
    "q35, small": ("x86_64", "-M q35 -m 2560", 2560 * MIB),
    "pc": ("x86_64", "-M pc -m 4G", 4 * GIB),
    "pc, fits": ("x86_64", "-m 3G", 3 * GIB),
    "pc, split moved": ("x86_64", "-M pc,max-ram-below-4g=1G -m 3G", 3 * GIB),
    "old pc": ("x86_64", "-M pc-i440fx-1.7 -m 3600M", 3600 * MIB),
    "microvm": ("x86_64", "-M microvm -m 4G", 4 * GIB),
    "q35, nodes, memfd": (
        "x86_64",
        f"-M q35 -smp 2 -m 4G {MEMFD},id=a,size=1G {MEMFD},id=b,size=3G -numa node,memdev=a -numa node,memdev=b",
        4 * GIB,
    ),
}  # fmt: skip


def mapped_at(pid: int, hva: int) -> tuple[int, int]:
    """Where an HVA lies in a file: inode and offset."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        bounds, _, offset, _, inode = line.split()[:5]
        start, end = (int(bound, 16) for bound in bounds.split("-"))
        if start <= hva < end:
            return int(inode), int(offset, 16) + hva - start
    pytest.fail(f"{hva:#x} is not mapped")


@pytest.mark.parametrize("case", CASES)
def test_layout_is_what_qemu_says_and_bytes_are_where_it_put_them(case: str, tmp_path: Path) -> None:
    program, options, total = CASES[case]
    with running(tmp_path, program, *options.split()) as first:  # without loaders, to learn where RAM ends
        layout = qemu.attach(str(first.pid)).layouts[0]
    probes = {segment.gpa + 0x50_0000 for segment in layout} | {segment.gpa + segment.size - 16 for segment in layout}
    loaders = [
        word
        for number, gpa in enumerate(sorted(probes))
        for word in ("-device", f"loader,addr={gpa:#x},data={0x59414D4F52490000 + number:#x},data-len=8")
    ]
    if program == "x86_64":
        loaders = []  # firmware writes there at reset
    with running(tmp_path, program, *options.split(), *loaders) as machine:
        vm = qemu.attach(str(machine.pid))
        assert vm.base_known
        assert vm.lacks == ()
        assert sum(segment.size for segment in vm.layouts[0]) == total
        for segment in vm.layouts[0]:
            for skip in (0x1000, segment.size - 4096):
                hva = machine.hva(segment.gpa + skip)
                if segment.kind == "process":
                    assert segment.path == f"/proc/{machine.pid}/mem"
                    assert hva == segment.offset + skip
                else:
                    assert mapped_at(machine.pid, hva) == (Path(segment.path).stat().st_ino, segment.offset + skip)
        if loaders:
            with HostMemory(vm.layouts[0], pid=vm.pid) as memory:
                for number, gpa in enumerate(sorted(probes)):
                    assert memory.read(GPA(gpa), 8) == (0x59414D4F52490000 + number).to_bytes(8, "little")
                    assert any(region.gpa <= gpa < region.end for region in memory.populated())
                memory.check_alive()


def test_find_lists_it_and_attach_takes_its_name(tmp_path: Path) -> None:
    with running(tmp_path, "arm", "-M", "virt", "-name", "guest=yam,,ori test,process=x", "-m", "32M") as machine:
        (found,) = [vm for vm in qemu.find() if vm.pid == machine.pid]
        assert found.target == "qemu:yam,ori test"
        assert found.name == "yam,ori test"
        assert found.machine == "qemu-system-arm virt"
        assert found.lacks == ()
        assert qemu.attach("yam,ori test").layouts == found.layouts
        with running(tmp_path, "arm", "-M", "virt", "-name", "yam,,ori test", "-m", "32M"):
            with pytest.raises(TargetError, match=rf"2 VMs have this name.*qemu:{machine.pid}"):
                qemu.attach("yam,ori test")
            assert f"qemu:{machine.pid}" in {vm.target for vm in qemu.find()}
        with pytest.raises(TargetError, match=r"no QEMU VM has this name.*yam,ori test"):
            qemu.attach("nobody")


def test_ram_base_from_the_user_wins(tmp_path: Path) -> None:
    with running(tmp_path, "arm", "-M", "virt", "-m", "32M") as machine:
        vm = qemu.attach(str(machine.pid), ram_base=0x1234_0000)
        assert [(segment.gpa, segment.size) for segment in vm.layouts[0]] == [(0x1234_0000, 32 * MIB)]


def test_a_child_that_looks_like_it_is_not_a_second_vm(tmp_path: Path) -> None:
    with running(tmp_path, "arm", "-M", "virt", "-m", "32M", "-name", "torn", "-async-teardown") as machine:
        children = Path(f"/proc/{machine.pid}/task/{machine.pid}/children").read_text().split()
        assert children
        assert qemu.attach("torn").pid == machine.pid


def test_looking_around_says_nothing_to_a_vm(tmp_path: Path) -> None:
    with running(tmp_path, "arm", "-M", "virt", "-m", "64M") as machine:
        (found,) = [vm for vm in qemu.find() if vm.pid == machine.pid]
        assert len(found.layouts) == 3
        assert not any("QMP" in note for note in found.notes)


def test_qmp_decides_where_several_mappings_fit(tmp_path: Path) -> None:
    with running(tmp_path, "arm", "-M", "virt", "-m", "64M") as machine:
        vm = qemu.attach(str(machine.pid))
        assert len(vm.layouts) == 1
        assert any("QMP gave the RAM map" in note for note in vm.notes)
        assert vm.layouts[0][0].offset == machine.hva(0x4000_0000)  # its place is free again
        assert machine.execute("query-status")["status"] == "prelaunch"


def test_a_taken_place_means_fallback_and_never_a_hang(tmp_path: Path) -> None:
    with running(tmp_path, "arm", "-M", "virt", "-m", "64M") as machine:
        truth = machine.hva(0x4000_0000)
        with machine.connected():
            start = time.monotonic()
            vm = qemu.attach(str(machine.pid))
            named = qemu.attach(str(machine.qmp))
            queue = []
            for _ in range(4):  # until not even a connection is possible
                waiting = socket.socket(socket.AF_UNIX)
                waiting.settimeout(0)
                waiting.connect_ex(str(machine.qmp))
                queue.append(waiting)
            full = qemu.attach(str(machine.qmp))
            assert time.monotonic() - start < 4
            for waiting in queue:
                waiting.close()
        assert vm.layouts == named.layouts == full.layouts
        assert truth in {layout[0].offset for layout in vm.layouts}
        assert vm.layouts[0][0].offset == truth
        assert any("its one place is taken" in note for note in vm.notes)
        assert machine.execute("query-status")["status"] == "prelaunch"


def test_the_place_is_given_back_each_time(tmp_path: Path) -> None:
    with running(tmp_path, "arm", "-M", "virt", "-m", "64M") as machine:
        for _ in range(10):
            assert len(qemu.attach(str(machine.qmp)).layouts) == 1
        assert machine.execute("query-name") == {}


def test_memory_that_is_plugged_in_is_found_by_qmp(tmp_path: Path) -> None:
    dimm = "-object memory-backend-ram,id=d,size=128M -device pc-dimm,memdev=d"
    with running(tmp_path, "x86_64", *f"-M q35 -m 128M,slots=2,maxmem=2G {dimm}".split()) as machine:
        (data,) = machine.execute("query-memory-devices")
        vm = qemu.attach(str(machine.pid))
        assert [(segment.gpa, segment.size) for segment in vm.layouts[0]] == [
            (0, 128 * MIB),
            (data["data"]["addr"], 128 * MIB),
        ]
        assert vm.layouts[0][1].offset == machine.hva(data["data"]["addr"])


@pytest.mark.parametrize(
    "options", [["-serial", "unix:other,server=on,wait=off"], ["-gdb", "unix:other,server=on,wait=off"]]
)
def test_another_socket_of_the_vm_is_told_apart(tmp_path: Path, options: list[str]) -> None:
    with running(tmp_path, "arm", "-M", "virt", "-m", "32M", *options) as machine:
        with pytest.raises(TargetError, match=r"not (its )?QMP|does not speak QMP"):
            qemu.attach(str(tmp_path / "other"))
        assert machine.process.poll() is None


def test_the_human_monitor_is_not_qmp(tmp_path: Path) -> None:
    with (
        running(tmp_path, "arm", "-M", "virt", "-m", "32M", qmp=False) as machine,
        pytest.raises(TargetError, match="human monitor"),
    ):
        qemu.attach(str(machine.qmp))


@pytest.mark.parametrize("backend", ["", "-M memory-backend=m -object memory-backend-memfd,id=m,size=32M"])
def test_a_vm_that_ends_while_it_is_read(tmp_path: Path, backend: str) -> None:
    with running(tmp_path, "arm", "-M", "virt", "-m", "32M", *backend.split()) as machine:
        vm = qemu.attach(str(machine.pid))
        with HostMemory(vm.layouts[0], pid=vm.pid) as memory:
            assert len(memory.read(GPA(0x4000_0000), 64)) == 64
            memory.check_alive()
            os.kill(machine.pid, signal.SIGKILL)
            machine.process.wait()
            with pytest.raises(TargetError, match="the VM has ended"):
                memory.check_alive()
            if not backend:
                with pytest.raises(TargetError, match="the VM has ended"):
                    memory.read(GPA(0x4000_0000), 64)
            list(memory.populated())
        with pytest.raises(TargetError, match="the VM has ended"):
            HostMemory(vm.layouts[0], pid=vm.pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="has to become somebody else")
def test_somebody_elses_vm_is_listed_with_what_it_lacks(tmp_path: Path) -> None:
    with running(tmp_path, "arm", "-M", "virt", "-m", "32M") as machine:
        os.seteuid(65534)
        try:
            (found,) = [vm for vm in qemu.find() if vm.pid == machine.pid]
            with pytest.raises(TargetError, match="no permission to read its memory"):
                qemu.attach(str(machine.pid))
            with pytest.raises(TargetError, match=r"no permission to (connect|reach).*run as root"):
                qemu.attach(str(machine.qmp))
        finally:
            os.seteuid(0)
    assert found.layouts == ()
    assert found.machine == "qemu-system-arm virt"
    (lacks,) = found.lacks
    assert "no permission to read its memory" in lacks
    assert "run as root" in lacks


@pytest.mark.parametrize(
    ("program", "options", "gpas", "machine_name", "paging"),
    [
        ("arm", "-M virt -m 32M", [0x4050_0000, 0x41FF_FFF0], "Arm", False),
        ("aarch64", "-M virt -cpu cortex-a53 -m 32M", [0x4050_0000, 0x4100_0010], "AArch64", False),
        # A PC stands in real mode at reset.
        ("x86_64", "-M pc,max-ram-below-4g=64M -m 96M", [0x10_0000, 0x1_0000_0000, 0x1_01FF_FFF0], "i386", False),
        ("x86_64", "-M pc,max-ram-below-4g=64M -m 96M", [0x10_0000, 0x1_0000_0000, 0x1_01FF_FFF0], "i386", True),
    ],
)
def test_dump_guest_memory_is_read(
    tmp_path: Path, program: str, options: str, gpas: list[int], machine_name: str, *, paging: bool
) -> None:
    loaders = [
        word for gpa in gpas for word in ("-device", f"loader,addr={gpa:#x},data={gpa ^ 0x5A5A5A5A5A5A:#x},data-len=8")
    ]
    core = tmp_path / "core"
    with running(tmp_path, program, *options.split(), *loaders) as machine:
        machine.execute("dump-guest-memory", paging=paging, protocol=f"file:{core}")
    vm = image.attach(str(core))
    assert vm.machine == f"ELF core ({machine_name})"
    assert vm.base_known
    with HostMemory(vm.layouts[0]) as memory:
        for gpa in gpas:
            assert memory.read(GPA(gpa), 8) == (gpa ^ 0x5A5A5A5A5A5A).to_bytes(8, "little")
            assert any(region.gpa <= gpa < region.end for region in memory.populated())

"""The exported core on memory of real guests: made in one boot, it lists another, as code of the device's own CPU."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.exports.building import CROSS, ERROR, FLAGS, OK, has, program, ran
from tests.exports.test_core import calls, processes
from tests.guests.frozen import PAUSE
from tests.guests.monitor import Monitor

import yamori
from yamori import lab
from yamori.address import GPA
from yamori.detectors.baseline import Allowed, Baseline
from yamori.exports.core import core_source
from yamori.kernel.kernel import Kernel
from yamori.lab.attacks import ImpossibleError, attack, undo
from yamori.memory.physical import BytesMemory
from yamori.probes.plist import plist

pytestmark = pytest.mark.guest

CPUS = {"arm64": ("aarch64", "qemu-aarch64"), "armv7": ("armv7l", "qemu-arm"), "armv7-lpae": ("armv7l", "qemu-arm")}
SPAWNED = 20


class Boots(NamedTuple):
    """A core made in one boot of a device, and the memory of a second one.

    Attributes:
        device: Which device.
        text: The core.
        again: The core as the second boot gives it.
        kernel: The second boot's kernel, as it was at one moment.
        files: Its RAM by GPA.
    """

    device: str
    text: str
    again: str
    kernel: Kernel
    files: dict[int, Path]


@pytest.fixture(scope="module", params=CPUS)
def boots(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boots]:
    device: str = request.param
    work = tmp_path_factory.mktemp("boots")
    with lab.machine(device) as vm, yamori.open(vm.target) as guest:
        text = core_source(guest.kernel)
    with lab.machine(device) as vm:
        assert vm.run(["spawn", str(SPAWNED)]).status == 0
        with yamori.open(vm.target) as guest:
            again = core_source(guest.kernel)
            time.sleep(PAUSE)
            with Monitor(vm.directory / "qmp.sock") as monitor:
                monitor.execute("stop")
                memory = guest.kernel.memory
                blocks = {r.gpa: bytearray(memory.read(GPA(r.gpa), r.size)) for r in memory.regions}
                monitor.execute("cont")
            kernel = Kernel(BytesMemory(dict(blocks)), guest.profile)
    files = {gpa: work / f"{gpa:x}" for gpa in blocks}
    for gpa, data in blocks.items():
        files[gpa].write_bytes(data)
    yield Boots(device, text, again, kernel, files)
    for path in files.values():
        path.unlink()


def test_two_boots_give_the_same_text(boots: Boots) -> None:
    assert boots.text == boots.again


@pytest.mark.parametrize("emulated", [False, True], ids=["this machine", "the device's"])
def test_rows_are_those_of_the_host(boots: Boots, emulated: bool, tmp_path: Path) -> None:
    cpu, emulator = CPUS[boots.device]
    prefix, flags = CROSS[cpu]
    if emulated and not (shutil.which(emulator) and has(prefix)):
        pytest.skip(f"{emulator} or {prefix}gcc is not installed")
    given = (prefix, (*FLAGS, *flags)) if emulated else ()
    made = program(boots.text, tmp_path / "core", *given)
    started = [emulator] if emulated else []
    listed = ran(made, "plist", boots.files, window=2 << 20, windows=8, emulator=started)
    assert listed.result == OK
    assert listed.processes() == processes(plist(boots.kernel).rows)
    assert len(listed.processes()) > SPAWNED
    table = ran(made, "syscall", boots.files, window=2 << 20, windows=8, emulator=started)
    assert [row[:3] for row in table.rows("S")] == calls(boots.kernel)
    assert {row[3] for row in table.rows("S")} == {"1"}
    info = ran(made, "info", boots.files, emulator=started)
    init = boots.kernel.profile.init
    assert info.rows("K") == [[f"{place:#x}" for place in (init.gpa, boots.kernel.profile.root.gpa, init.gva)]]


def test_check_is_silent_on_another_boot(boots: Boots, tmp_path: Path) -> None:
    made = ran(program(boots.text, tmp_path / "core"), "check", boots.files, window=2 << 20, windows=8)
    assert made.result == OK
    assert made.rows("F") == []
    assert made.lines[0] == "N process"


@pytest.mark.parametrize("device", ["armv7", "arm64"])
def test_check_finds_a_redirected_system_call(device: str, tmp_path: Path) -> None:
    with lab.machine(device) as vm, yamori.open(vm.target) as guest:
        made = program(core_source(guest.kernel, Baseline(version=1, process=[Allowed("*")])), tmp_path / "core")

        def found() -> list[list[str]]:
            memory = guest.kernel.memory
            files = {region.gpa: tmp_path / f"{region.gpa:x}" for region in memory.regions}
            for region in memory.regions:
                files[region.gpa].write_bytes(memory.read(GPA(region.gpa), region.size))
            ended = ran(made, "check", files, window=2 << 20, windows=8)
            assert ended.lines[-1].startswith("= "), ended.lines
            return ended.rows("F")

        assert found() == []
        try:
            attack(vm, "syscall-entry")
        except ImpossibleError as error:
            pytest.skip(str(error))
        try:
            entries = [(row.nr, row.address) for row in guest.syscall() if not row.in_kernel_text]
            assert [(row[0], int(row[1]), int(row[2], 16)) for row in found()] == [
                ("syscall", nr, address) for nr, address in entries
            ]
            assert entries
        finally:
            undo(vm, "syscall-entry")
        assert found() == []


def test_another_kernel_is_refused(boots: Boots, tmp_path: Path) -> None:
    other = boots.text.replace("Linux version 6", "Linux version 7")
    refused = ran(program(other, tmp_path / "core"), "plist", boots.files)
    assert refused.result == ERROR
    assert len(refused.lines) == 1
    assert "not the kernel that these commands were made for: Linux version 6" in refused.lines[0]

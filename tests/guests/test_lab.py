"""The lab with real kernels: every device boots, obeys, tells the truth, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.guests.devices import DEVICES

from yamori import lab
from yamori.errors import LabError
from yamori.hypervisors import lab as registry
from yamori.lab import Machine, Task, packages
from yamori.lab.devices import device
from yamori.lab.initramfs import Entry, cpio

pytestmark = pytest.mark.guest

KERNEL_NAMES = {"armv7": "armv7l", "armv7-lpae": "armv7l", "arm64": "aarch64", "x86-64": "x86_64"}


@pytest.fixture(scope="module", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the tests' VMs apart from the user's."""
    root = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(root))
        yield root
        for vm in lab.running():
            vm.down()


@pytest.fixture(scope="module", params=DEVICES)
def vm(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with lab.machine(request.param) as started:
        yield started


def qemus(state: Path) -> list[int]:
    """Return the processes that name a state directory on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if words.startswith(b"qemu") and os.fsencode(state) in words:
            found.append(int(path.parent.name))
    return found


def states(state: Path) -> list[str]:
    return [path.name for path in (state / "yamori" / "lab").iterdir() if path.name != ".lock"]


def people(tasks: list[Task]) -> Counter[tuple[str, int, int, int, str]]:
    return Counter((task.comm, task.uid, task.euid, task.gid, task.state) for task in tasks if not task.kthread)


def test_output_and_status(vm: Machine) -> None:
    assert vm.run("uname -m") == (KERNEL_NAMES[vm.record.device] + "\n", 0)
    assert vm.run("echo out; echo err >&2; exit 7") == ("out\nerr\n", 7)
    assert vm.run(["printf", "%s|", "a b", "it's", "$HOME", "\\"]) == ("a b|it's|$HOME|\\|", 0)
    output, status = vm.run(r"printf '\000\003\r\n\033\377'")
    assert (output.encode("utf-8", "surrogateescape"), status) == (b"\0\x03\r\n\x1b\xff", 0)
    word = "x" * 10_000
    assert vm.run(["echo", word]).output == word + "\n"


def test_long_output(vm: Machine) -> None:
    assert vm.run("seq 90000").output == "".join(f"{number}\n" for number in range(1, 90001))


def test_kernel_messages_in_between(vm: Machine) -> None:
    noisy = "dmesg -n 8; for i in $(seq 200); do echo line $i; echo noise > /dev/kmsg; done; exit 5"
    output, status = vm.run(noisy)
    assert status == 5
    assert "line 200" in output
    assert vm.run("echo calm") == ("calm\n", 0)


def test_resynchronises(vm: Machine) -> None:
    with pytest.raises(LabError, match="no end of the command within 2 s"):
        vm.run("while :; do echo noise; done", timeout=2)
    assert vm.run("echo calm") == ("calm\n", 0)
    with pytest.raises(LabError, match="no end of the command within 2 s"):
        vm.run("sleep 1000", timeout=2)
    assert vm.run("pidof sleep") == ("", 1)


def test_many_commands_queue(vm: Machine) -> None:
    outputs: list[str] = []

    def one(number: int) -> None:
        outputs.append(vm.run(f"echo {number}").output)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(outputs) == Counter(f"{number}\n" for number in range(20))


def test_truth(vm: Machine) -> None:
    tasks = {task.tid: task for task in vm.truth()}
    assert tasks[1][:6] == (1, 1, 0, 0, 0, 0)
    assert (tasks[1].comm, tasks[1].kthread, tasks[2].comm, tasks[2].kthread) == ("init", False, "kthreadd", True)
    assert all(task.ppid in {0, *tasks} for task in tasks.values())
    assert all(task.kthread for task in tasks.values() if task.ppid == 2)
    listed = vm.run("for p in /proc/[0-9]*; do echo ${p#/proc/}; done").output.split()
    assert abs(len(listed) - len(tasks)) <= 4
    assert vm.run("awk '$3 == \"schedule\" { print $1 }' /proc/kallsyms").output.strip("0\n")


def test_spawn(vm: Machine) -> None:
    before = people(vm.truth())
    assert vm.run(["spawn", "40"]) == ("", 0)
    new = people(vm.truth()) - before
    assert new == {
        ("daemon", 1000, 1000, 100, "S"): 3,
        ("daemon", 1001, 1001, 1001, "S"): 3,
        ("daemon", 65534, 65534, 65534, "S"): 3,
        ("setuid", 1000, 0, 100, "S"): 3,
        ("two words", 0, 0, 0, "S"): 3,
        ("a) R (b", 0, 0, 0, "S"): 3,
        ("back\\slash", 0, 0, 0, "S"): 3,
        ("new\nline", 1001, 1001, 1001, "S"): 3,
        ("\x1b[31mred", 0, 0, 0, "S"): 3,
        ("\udcff\udcfebytes", 1000, 1000, 100, "S"): 3,
        ("longer-than-fif", 0, 0, 0, "S"): 3,
        ("sleeper", 0, 0, 0, "S"): 7,
    }
    assert vm.run(["spawn", "1"]) == ("", 0)
    assert sum((people(vm.truth()) - before).values()) == 41


def test_threads(vm: Machine) -> None:
    before = {task.tid for task in vm.truth()}
    assert vm.run(["threads", "12"]) == ("", 0)
    new = [task for task in vm.truth() if task.tid not in before and task.comm == "threaded"]
    assert len(new) == 12
    assert len({task.tgid for task in new}) == 1
    assert new[0].tgid in {task.tid for task in new}


def test_busy(vm: Machine) -> None:
    assert vm.run(["busy", "2"]) == ("", 0)
    try:
        spinners = [task.tid for task in vm.truth() if task.comm == "spinner"]
        assert len(spinners) == 2
        usage = f"awk '{{ print $14, $15 }}' /proc/{spinners[0]}/stat"
        user, system = map(int, vm.run(usage).output.split())
        time.sleep(2)
        user_later, system_later = map(int, vm.run(usage).output.split())
        assert user_later - user >= 20
        assert system_later - system <= (user_later - user) / 4  # ticks are charged by sampling, interrupts included
    finally:
        vm.run("killall spinner")


def test_record(vm: Machine) -> None:
    assert vm.alive
    assert vm.record in [other.record for other in lab.running()]
    assert Path(vm.record.kernel).is_file()
    meminfo = int(vm.run("awk '/MemTotal/ { print $2 }' /proc/meminfo").output)
    assert 0.6 * vm.record.memory < meminfo / 1024 < vm.record.memory


def test_a_killed_vm_is_noticed(state: Path) -> None:
    vm = lab.up("armv7", "victim", wait=False)
    with pytest.raises(LabError, match="victim: a VM of this name is running already"):
        lab.up("armv7", "victim")
    os.kill(vm.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while vm.alive and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "victim" not in [other.name for other in lab.running()]
    assert "victim" not in states(state)
    with pytest.raises(LabError, match="no such VM"):
        vm.run("true")


@pytest.mark.parametrize("moment", [0.0, 0.5, 2.0])
def test_ctrl_c_leaves_nothing(state: Path, moment: float) -> None:
    code = "from yamori import lab; lab.up('armv7', 'interrupted')"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    directory = registry.directory("interrupted")
    deadline = time.monotonic() + 30
    while not directory.exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(moment)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    assert "interrupted" not in states(state)
    assert [pid for pid in qemus(state / "yamori/lab/interrupted") if registry.start_ticks(pid) is not None] == []


def test_a_kernel_that_panics_says_so(state: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "initrd"
    nothing.write_bytes(cpio([Entry("init", 0o100755, b"no program")]))
    with pytest.raises(LabError, match=r"panicked: ended while it booted: .*Kernel panic"):
        lab.up("armv7", "panicked", initrd=nothing)
    assert "panicked" not in states(state)
    with pytest.raises(LabError, match=r"silent: did not reach a shell"):
        lab.up("armv7", "silent", timeout=1)
    assert "silent" not in states(state)


def test_a_kernel_that_is_none_says_so(state: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "kernel"
    nothing.write_bytes(b"")
    with pytest.raises(LabError, match=r"broken: (ended|did not reach)"):
        lab.up("x86-64", "broken", kernel=nothing, timeout=10)
    with pytest.raises(LabError, match=r"broken: ended while it booted: qemu.*CPU"):
        lab.up("armv7", "broken", smp=99)
    assert "broken" not in states(state)


def test_a_guest_that_the_user_brings(tmp_path: Path) -> None:
    kind = device("arm64")
    busybox = packages.busybox(packages.unpacked(kind.architecture, "busybox-static"))
    script = b"#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\nexec setsid cttyhack sh\n"
    initrd = tmp_path / "their initrd"
    initrd.write_bytes(
        cpio(
            [
                *(Entry(name, 0o40755) for name in ("bin", "dev", "proc", "sys")),
                Entry("dev/console", 0o20600, device=(5, 1)),
                Entry("bin/busybox", 0o100755, busybox.read_bytes()),
                Entry("init", 0o100755, script),
            ]
        )
    )
    kernel = tmp_path / "their kernel"
    shutil.copyfile(packages.kernel_image(packages.unpacked(kind.architecture, kind.kernel)), kernel)
    with lab.machine("arm64", memory="300M", smp=2, kernel=kernel, initrd=initrd, append="extra=word") as vm:
        assert vm.run("mount -t proc p /proc; grep -c ^processor /proc/cpuinfo") == ("2\n", 0)
        assert "extra=word" in vm.run("cat /proc/cmdline").output
        kernel.unlink()
        assert vm.run("echo $((6 * 7))") == ("42\n", 0)


def open_files(pid: int) -> list[str]:
    """Return the names of what a process has open; it may open and close files meanwhile."""
    names = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.append(path.readlink().name)
    return names


@pytest.mark.parametrize("ram", ["file", "private"])
def test_where_ram_lies(ram: lab.Ram) -> None:
    with lab.machine("armv7", ram=ram) as vm:
        files = open_files(vm.pid)
        assert ("ram" in files) == (ram == "file")
        assert not any("memfd" in name for name in files)
        assert vm.run("echo here") == ("here\n", 0)


def test_a_state_directory_with_a_long_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ("d" * 100) / "with, comma"))
    with lab.machine("armv7") as vm:
        assert vm.run("echo far") == ("far\n", 0)
    assert not vm.directory.exists()


def test_two_thousand_processes() -> None:
    with lab.machine("arm64", memory="512M") as vm:
        assert vm.run(["spawn", "2000"], timeout=200) == ("", 0)
        assert len(vm.truth(timeout=200)) > 2000

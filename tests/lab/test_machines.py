"""State of VMs without any QEMU: other processes stand in for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from yamori import lab
from yamori.errors import LabError, TargetError
from yamori.hypervisors import lab as registry
from yamori.lab import machines, qemu
from yamori.lab.devices import DEVICES, device
from yamori.lab.qemu import Settings


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-cache"))
    return tmp_path / "yamori" / "lab"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        yield sleeper
        sleeper.kill()


def note(root: Path, name: str, pid: int, started: int | None) -> registry.Record:
    record = registry.Record(name, "armv7", pid, -1 if started is None else started, "/boot/k", 96, 1)
    (root / name).mkdir(parents=True)
    (root / name / registry.RECORD_FILE).write_bytes(msgspec.json.encode(record))
    return record


def test_living_and_dead(root: Path, process: subprocess.Popen[bytes]) -> None:
    assert lab.running() == []
    started = registry.start_ticks(process.pid)
    assert started is not None
    living = note(root, "living", process.pid, started)
    note(root, "recycled", process.pid, started - 1)
    note(root, "gone", 2**22 + 1, started)
    (root / "halfway").mkdir()
    (root / "garbage").mkdir()
    (root / "garbage" / registry.RECORD_FILE).write_bytes(b'{"name": "\xff')
    assert registry.records() == [living]
    assert [vm.record for vm in lab.running()] == [living]
    assert sorted(path.name for path in root.iterdir()) == [".lock", "living"]
    vm = lab.find("living")
    assert (vm.name, vm.target, vm.pid, vm.alive) == ("living", "lab:living", process.pid, True)
    process.kill()
    assert not vm.alive or process.wait()  # a zombie has ended, too
    with pytest.raises(LabError, match="living: no such VM is running"):
        lab.find("living")
    assert [path.name for path in root.iterdir()] == [".lock"]


def test_down(root: Path, process: subprocess.Popen[bytes]) -> None:
    note(root, "vm", process.pid, registry.start_ticks(process.pid))
    lab.find("vm").down()
    assert process.poll() is not None
    assert not (root / "vm").exists()


def test_down_kills_what_does_not_listen(root: Path) -> None:
    stubborn = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo ready; sleep 1000 & wait; wait"], stdout=subprocess.PIPE
    )
    with stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        started = registry.start_ticks(stubborn.pid)
        assert started is not None
        children = Path(f"/proc/{stubborn.pid}/task/{stubborn.pid}/children").read_text().split()
        qemu.end(stubborn.pid, started, patience=0.2)
        assert stubborn.wait() == -9
        for child in children:
            os.kill(int(child), 9)


def test_end_leaves_a_recycled_pid_alone(process: subprocess.Popen[bytes]) -> None:
    qemu.end(process.pid, 1)
    assert process.poll() is None


def test_a_name_is_used_once(root: Path, process: subprocess.Popen[bytes]) -> None:
    note(root, "armv7", process.pid, registry.start_ticks(process.pid))
    with pytest.raises(LabError, match=r"running already.*--name"):
        lab.up("armv7")
    assert (root / "armv7").is_dir()


@pytest.mark.parametrize("name", ["../x", "", ".lock", "a/b", "x" * 64, "a b", "-x", "a\n"])
def test_names(root: Path, name: str) -> None:
    with pytest.raises(TargetError, match="not a name"):
        registry.directory(name)
    if name:
        with pytest.raises(LabError, match="not a name"):
            lab.up("armv7", name)


def test_what_up_refuses(root: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"vax: no such lab device; choose from armv7, .*x86-64"):
        lab.up("vax")
    with pytest.raises(LabError, match="nowhere: no such file"):
        lab.up("armv7", initrd="nowhere")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(LabError, match="not a size of memory"):
        lab.up("armv7", initrd=file, kernel=file, memory="lots")
    assert not root.exists() or [path.name for path in root.iterdir()] in ([], [".lock"])


def test_without_qemu(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(LabError, match=r"qemu-system-arm: not installed; install qemu-system-arm"):
        lab.up("armv7", initrd=file, kernel=file)
    assert [path.name for path in root.iterdir()] == [".lock"]


def test_attach_to_nothing(root: Path, process: subprocess.Popen[bytes]) -> None:
    with pytest.raises(TargetError, match=r"lab:armv7: no such lab VM is running; start one"):
        registry.attach("armv7")
    note(root, "other", process.pid, registry.start_ticks(process.pid))
    with pytest.raises(TargetError, match="running: other"):
        registry.attach("armv7")
    (found,) = registry.find()
    assert (found.target, found.layouts) == ("lab:other", ())
    assert "not a QEMU" in found.lacks[0]


@pytest.mark.parametrize(("text", "size"), [(96, 96), ("96", 96), ("128M", 128), ("1G", 1024), ("2gib", 2048)])
def test_memory_size(text: int | str, size: int) -> None:
    assert machines.memory_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "96K", "0", "-1", "1e9", 1, "9999G", "٣٤"])
def test_no_memory_size(text: int | str) -> None:
    with pytest.raises(LabError, match="not a size"):
        machines.memory_size(text)


@pytest.mark.parametrize("ram", ["memfd", "file", "private"])
@pytest.mark.parametrize("name", DEVICES)
def test_command_line(name: str, ram: qemu.Ram) -> None:
    kind = device(name)
    settings = Settings(kind, "vm", 128, 2, Path("/k"), "quiet nokaslr", ram)
    words = qemu.command(settings, Path("/i"), "/odd,dir")
    options = dict(zip(words[1::2], words[2::2], strict=False))
    assert words[0] == kind.qemu
    assert (options["-name"], options["-m"], options["-smp"]) == ("vm", "128M", "2")
    assert words[words.index("-append") + 1].endswith("panic=-1 quiet nokaslr")
    assert "path=/odd,,dir/serial.sock" in " ".join(words)
    assert ("memory-backend=ram" in " ".join(words)) == (ram != "private")
    assert ("/odd,,dir/ram" in " ".join(words)) == (ram == "file")


def test_ram_kinds() -> None:
    assert [qemu.ram_kind(kind) for kind in ("memfd", "file", "private")] == ["memfd", "file", "private"]
    with pytest.raises(LabError, match="choose from memfd, file, private"):
        qemu.ram_kind("rom")

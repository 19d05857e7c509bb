"""The Python API on memory images, and on VMs whose layout or base is not certain."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.kernel.synthetic import ARM64, BUILD_ID, CALLS, MIB, RELEASE, X86, Guest, Shape, build, shown, usual

import yamori
from yamori import targets
from yamori.address import GPA
from yamori.errors import NoKernelError, ProfileError, TargetError
from yamori.guest import open_guest
from yamori.hypervisors.vm import Layout, RamSegment, SegmentKind, VirtualMachine


@pytest.fixture
def image(tmp_path: Path) -> tuple[Guest, Path]:
    guest = build(ARM64)
    path = tmp_path / "ram"
    path.write_bytes(guest.ram)
    return guest, path


def attach(
    monkeypatch: pytest.MonkeyPatch, *layouts: Layout, lacks: tuple[str, ...] = (), pid: int | None = None
) -> None:
    vm = VirtualMachine("qemu:x", "x", pid, "test", layouts, lacks=lacks)
    monkeypatch.setattr(targets, "attach", lambda target, ram_base=None: vm)


def segment(path: Path, gpa: int = ARM64.base, size: int = 8 * MIB, offset: int = 0) -> RamSegment:
    return RamSegment(gpa, size, str(path), offset, "image")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_api(image: tuple[Guest, Path]) -> None:
    guest, path = image
    before = open_files()
    with yamori.open(f"file:{path}") as opened:
        assert isinstance(opened, yamori.Guest)
        assert shown(opened.plist(threads=True)) == guest.rows(threads=True)
        assert len(opened.syscall()) == CALLS
        (row,) = opened.banner()
        assert (row.release, row.build_id) == (RELEASE, BUILD_ID)
        assert RELEASE in repr(opened)
        assert opened.known_trouble().caveat
        assert opened.profile.architecture == "aarch64"
        with pytest.raises(ProfileError):
            opened.syscall("x32")
    opened.close()
    assert open_files() == before


def test_run_does_not_inherit_from_the_last(image: tuple[Guest, Path]) -> None:
    guest, path = image
    with yamori.open(f"file:{path}", ram_base=ARM64.base) as opened:
        first = opened.plist()
        with path.open("r+b") as file:
            file.seek(guest.at(guest.member(guest.tasks[9].gva, "real_cred")))
            file.write(bytes(8))
        second = opened.plist()
        assert (first.complete, second.complete) == (True, False)
        with path.open("r+b") as file:
            file.write(guest.ram)
        assert opened.plist().rows == first.rows


def test_image_that_shrinks_while_it_is_open_is_one_error(image: tuple[Guest, Path]) -> None:
    guest, path = image
    with yamori.open(f"file:{path}", ram_base=ARM64.base) as opened:
        os.truncate(path, guest.at(guest.tasks[4].gva))
        with pytest.raises(TargetError, match="became shorter"):
            opened.plist()


REBOOTS: dict[str, Callable[[], bytes | bytearray]] = {
    "KASLR": lambda: build(replace(ARM64, image=ARM64.image + 0x20_0000)).ram,
    "another place in RAM": lambda: bytes(2 * MIB) + build(ARM64).ram[: -2 * MIB],
    "another architecture": lambda: build(X86).ram,
    "another kernel": lambda: bytes(build(ARM64).ram).replace(b"(2023-05-08)", b"(2024-05-08)"),
    "nothing yet": lambda: bytes(8 * MIB),
}


@pytest.mark.parametrize("kind", REBOOTS)
def test_another_boot_is_one_error(image: tuple[Guest, Path], kind: str) -> None:
    _, path = image
    with yamori.open(f"file:{path}", ram_base=ARM64.base) as opened:
        assert opened.plist().complete
        path.write_bytes(REBOOTS[kind]())
        for probe in (opened.banner, opened.plist, opened.syscall):
            with pytest.raises(TargetError, match=r"file:.*has rebooted, or its kernel is gone; attach to it again"):
                probe()


def test_boot_of_the_same_kernel_at_the_same_place_and_a_new_host_name_are_served(image: tuple[Guest, Path]) -> None:
    _, path = image
    with yamori.open(f"file:{path}", ram_base=ARM64.base) as opened:
        again = build(ARM64, plans=usual(3))
        again.write(again.symbols["init_uts_ns"] + 65, b"lizard\0")
        path.write_bytes(again.ram)
        assert shown(opened.plist()) == again.tasks
        assert opened.banner().rows[0].release == RELEASE


def test_looking_whether_the_kernel_is_there_is_cheap(image: tuple[Guest, Path]) -> None:
    _, path = image
    with yamori.open(f"file:{path}", ram_base=ARM64.base) as opened:
        reads = 0
        read = opened.kernel.memory.read

        def count(gpa: GPA, size: int) -> bytes:
            nonlocal reads
            reads += 1
            return read(gpa, size)

        opened.kernel.memory.read = count  # type: ignore[method-assign]
        opened._check()
        assert reads <= 8


def test_failure_names_the_target_and_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(MIB))
    before = open_files()
    with pytest.raises(NoKernelError) as caught:
        open_guest(f"file:{tmp_path}/zeros")
    assert caught.value.where == f"file:{tmp_path}/zeros"
    assert open_files() == before


class Process:
    """A process to stand for a VM."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(["sleep", "60"])
        self.pid = self._process.pid

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    yield process
    process.end()


@pytest.mark.parametrize("kind", ["process", "shared"])
def test_vm_that_ends_before_it_is_opened_is_named_as_the_user_did(
    monkeypatch: pytest.MonkeyPatch, process: Process, kind: SegmentKind
) -> None:
    path = f"/proc/{process.pid}/mem" if kind == "process" else f"/proc/{process.pid}/fd/7"
    attach(monkeypatch, (RamSegment(0, MIB, path, 0, kind),), pid=process.pid)
    process.end()
    with pytest.raises(TargetError) as caught:
        open_guest("qemu:x")
    assert str(caught.value) == "qemu:x: the VM has ended"


def test_vm_that_ends_while_it_is_open_is_named_as_the_user_did(
    image: tuple[Guest, Path], monkeypatch: pytest.MonkeyPatch, process: Process
) -> None:
    _, path = image
    attach(monkeypatch, (segment(path),), pid=process.pid)
    with open_guest("qemu:x") as opened:
        process.end()
        for probe in (opened.banner, opened.plist, opened.syscall):
            with pytest.raises(TargetError, match=r"^qemu:x: the VM has ended$"):
                probe()


def test_file_that_holds_the_ram_is_named_behind_the_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    attach(monkeypatch, (segment(tmp_path / "gone"),))
    with pytest.raises(TargetError) as caught:
        open_guest("qemu:x")
    assert str(caught.value) == f"qemu:x: no such file ({tmp_path}/gone)"


def test_vm_without_layout_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    attach(monkeypatch, lacks=("no permission; run as root",))
    with pytest.raises(TargetError, match="no permission; run as root"):
        open_guest("qemu:x")
    attach(monkeypatch)
    with pytest.raises(TargetError, match="RAM cannot be reached"):
        open_guest("qemu:x")


def test_first_layout_that_fits_is_taken(image: tuple[Guest, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    guest, path = image
    right = (segment(path),)
    wrong = (segment(path, gpa=0x8000_0000),)
    cut = (segment(path, size=5 * MIB + 0x50000),)
    before = open_files()
    for layouts in ((right, wrong), (wrong, right), (cut, wrong, right), (right, cut)):
        attach(monkeypatch, *layouts)
        with open_guest("qemu:x") as opened:
            assert shown(opened.plist()) == guest.tasks
    assert open_files() == before


def test_best_of_flawed_layouts_is_taken(image: tuple[Guest, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    guest, path = image
    guest.words(guest.member(guest.tasks[9].gva, "real_parent"), 0x1003)
    path.write_bytes(guest.ram)
    before = open_files()
    attach(monkeypatch, (segment(path, size=5 * MIB),), (segment(path),), (segment(path, gpa=0),))
    with open_guest("qemu:x") as opened:
        result = opened.plist()
        assert len(result) == len(guest.tasks)
        assert not result.complete
    assert open_files() == before


def test_whole_layout_with_fewer_processes_beats_a_flawed_one(
    image: tuple[Guest, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    guest, path = image
    guest.words(guest.member(guest.tasks[9].gva, "real_parent"), 0x1003)
    path.write_bytes(guest.ram)
    small = build(ARM64, plans=usual(3))
    (tmp_path / "small").write_bytes(small.ram)
    attach(monkeypatch, (segment(path),), (segment(tmp_path / "small"),), (segment(tmp_path / "missing"),))
    with open_guest("qemu:x") as opened:
        assert shown(opened.plist()) == small.tasks


def test_makers_file_of_another_kernel_leaves_nothing_open(
    image: tuple[Guest, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    guest, path = image
    (tmp_path / "System.map").write_text(f"{guest.init - 0x123:016x} D init_task\n")
    attach(monkeypatch, (segment(path, gpa=0),), (segment(path),))
    before = open_files()
    with pytest.raises(ProfileError, match="not of the kernel that runs"):
        open_guest("qemu:x", symbols=tmp_path / "System.map")
    assert open_files() == before


def test_no_layout_fits(image: tuple[Guest, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = image
    before = open_files()
    attach(monkeypatch, (segment(path, gpa=0),), (segment(path, gpa=0x8000_0000),))
    with pytest.raises(NoKernelError, match="qemu:x: no Linux kernel is running"):
        open_guest("qemu:x")
    assert open_files() == before


def test_makers_system_map(image: tuple[Guest, Path], tmp_path: Path) -> None:
    guest = build(ARM64, Shape(kallsyms=False, vmcoreinfo=False))
    (tmp_path / "bare").write_bytes(guest.ram)
    lines = [f"{address:016x} {'T' if 'sys_' in name else 'D'} {name}\n" for name, address in guest.symbols.items()]
    (tmp_path / "System.map").write_text("".join(lines))
    with open_guest(f"file:{tmp_path}/bare", symbols=tmp_path / "System.map", ram_base=ARM64.base) as opened:
        assert [row.symbol for row in opened.syscall()] == guest.calls
        assert opened.profile.slide == 0
    moved = [line.replace("init_task", "init_tusk") for line in lines]
    (tmp_path / "other.map").write_text("".join(moved))
    with pytest.raises(ProfileError, match="no init_task"):
        open_guest(f"file:{tmp_path}/bare", symbols=tmp_path / "other.map", ram_base=ARM64.base)

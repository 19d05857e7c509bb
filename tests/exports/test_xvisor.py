"""The files for Xvisor: compiled against declarations of our own, and run over a hypervisor of files."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.exports.building import CROSS, has
from tests.exports.test_core import OTHER_BOOTS, processes
from tests.kernel.synthetic import ARM, ARM64, BANNER, MIB, RAM_SIZE, X86, Guest, Machine, build

from yamori.errors import ProfileError
from yamori.exports.xvisor import xvisor_files
from yamori.kernel.discovery import discover
from yamori.probes.plist import plist

STUB = Path(__file__).with_name("stub")
HYPERVISOR = (
    *("-std=gnu11", "-nostdlib", "-fno-builtin", "-fno-strict-aliasing", "-fno-stack-protector", "-O2"),
    *("-Wall", "-Wextra", "-Werror", "-Wstack-usage=2048"),
)
PAGES = 16384
ROOM = 4 * MIB


class Said(NamedTuple):
    """What a command on the console did."""

    code: int
    lines: list[str]
    windows: int
    maps: int


def exported(machine: Machine, folder: Path) -> Path:
    folder.mkdir()
    for name, data in xvisor_files(discover(build(machine).memory())).items():
        (folder / name).write_bytes(data)
    return folder


def objects(folder: Path, prefix: str = "", flags: Sequence[str] = ()) -> list[Path]:
    made = []
    for source in sorted(folder.glob("*.c")):
        made.append(source.with_suffix(f".{prefix}o"))
        command = [f"{prefix}gcc", *HYPERVISOR, *flags, f"-I{STUB}", "-c", str(source), "-o", str(made[-1])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:4000]
    return made


@pytest.fixture(scope="module")
def hypervisor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hypervisor with the commands for the synthetic arm64 kernel."""
    folder = exported(ARM64, tmp_path_factory.mktemp("xvisor") / "ids")
    made = folder / "hypervisor"
    command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{STUB}", str(STUB / "stub.c")]
    linking = [*command, *map(str, objects(folder)), "-o", str(made)]
    done = subprocess.run(linking, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return made


@pytest.fixture
def say(hypervisor: Path, tmp_path: Path) -> Callable[..., Said]:
    def say(
        guest: Guest, *words: str, piece: int = 2 * MIB, room: int = ROOM, pages: int = PAGES, guests: int = 1
    ) -> Said:
        """Type a command, with the RAM in two regions."""
        seam, base = 3 * MIB + 0x5000, guest.machine.base
        files = []
        for start, end in ((seam, RAM_SIZE), (0, seam)):
            path = tmp_path / f"{start:x}"
            path.write_bytes(guest.ram[start:end])
            files.append(f"{base + start:#x}={path}")
        given = [str(hypervisor), *map(str, (piece, room, pages, guests)), *files, "--", *words]
        done = subprocess.run(given, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr[-500:]
        told = done.stderr.decode().split()
        return Said(int(told[1]), done.stdout.decode().splitlines(), int(told[3]), int(told[5]))

    return say


@pytest.mark.parametrize("piece", [0x1000, 0x3000, 2 * MIB, 64 * MIB])
@pytest.mark.parametrize("pages", [PAGES, 64])
def test_rows_are_those_of_the_host(piece: int, pages: int, say: Callable[..., Said]) -> None:
    guest = build(OTHER_BOOTS[ARM64.name])
    said = say(guest, "ids", "plist", "--raw", "guest0", piece=piece, pages=pages)
    assert said.code == 0
    rows = [line.split(" ")[1:] for line in said.lines if line.startswith("P ")]
    rows = [[*row[:9], str(int(row[9]) / 1e9), *row[10:]] for row in rows]
    assert rows == processes(plist(discover(guest.memory())).rows)
    assert said.windows <= 8


def test_people_and_programs_get_what_they_ask_for(say: Callable[..., Said]) -> None:
    guest = build(ARM64)
    assert say(guest, "ids", "banner").lines == [BANNER]
    assert say(guest, "ids", "--raw", "banner", "guest0").lines == [f"B {BANNER}", "= 1 0"]
    assert len(say(guest, "ids", "syscall").lines) == len(guest.calls)
    info = say(guest, "ids", "info")
    assert info.lines[:2] == [f"made for: {BANNER}", BANNER]
    assert info.lines[2].startswith(f"init_task at GPA {guest.machine.base + guest.at(guest.init):#x}, ")
    bench, raw = say(guest, "ids", "bench"), say(guest, "ids", "bench", "--raw")
    count = len(guest.tasks) + 1
    assert re.fullmatch(rf"plist: result 0, \d+ us, {bench.maps} windows mapped, {count} lines", "\n".join(bench.lines))
    assert re.fullmatch(rf"T plist 0 \d+ {bench.maps} {count}", "\n".join(raw.lines))
    assert say(guest, "ids", "help").code == 0
    assert say(guest, "ids", "help").lines[0] == "Usage:"


@pytest.mark.parametrize("words", [("ids",), ("ids", "what"), ("ids", "plist", "guest0", "more"), ("ids", "--raw")])
def test_what_is_not_understood_gets_the_usage(words: Sequence[str], say: Callable[..., Said]) -> None:
    said = say(build(ARM64), *words)
    assert said.code != 0
    assert said.lines[0] == "Usage:"
    assert said.maps == 0


@pytest.mark.parametrize(
    ("words", "options", "error"),
    [
        (("plist", "guest7"), {}, "no such guest"),
        (("plist",), {"guests": 2}, "say which guest"),
        (("plist",), {"guests": 0}, "say which guest"),
        (("plist",), {"room": 100}, "not enough memory"),
        (("plist",), {"room": 4000}, "not enough memory for the rows"),
        (("plist",), {"pages": 8}, "no room to map"),
    ],
)
def test_what_cannot_be_costs_an_error_line(
    words: Sequence[str], options: dict[str, int], error: str, say: Callable[..., Said]
) -> None:
    said = say(build(ARM64), "ids", *words, **options)
    assert said.code != 0
    assert len(said.lines) == 1
    assert said.lines[0].startswith("error: ")
    assert error in said.lines[0]


def test_a_guest_that_is_not_started_costs_an_error_line(say: Callable[..., Said]) -> None:
    guest = build(ARM64)
    guest.ram[:] = bytes(RAM_SIZE)
    said = say(guest, "ids", "plist", "--raw")
    assert said.code != 0
    assert said.lines == ["E no Linux kernel was found in the guest's RAM"]


@pytest.mark.parametrize("cpu", CROSS)
def test_cross_compilers_take_it(cpu: str, tmp_path: Path) -> None:
    prefix, flags = CROSS[cpu]
    if not has(prefix):
        pytest.skip(f"{prefix}gcc is not installed")
    objects(exported(ARM if cpu == "armv7l" else ARM64, tmp_path / "ids"), prefix, flags)


def test_same_kernel_same_bytes() -> None:
    assert xvisor_files(discover(build(ARM64).memory())) == xvisor_files(discover(build(ARM64).memory()))


def test_kernels_that_its_devices_do_not_run_are_refused() -> None:
    with pytest.raises(ProfileError, match="do not run x86_64"):
        xvisor_files(discover(build(X86).memory()))

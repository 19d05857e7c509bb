"""The helper program: its ELF headers for every machine, and what it does where this machine can run it."""

from __future__ import annotations

import os
import platform
import struct
import subprocess
import time
from pathlib import Path

import pytest

from yamori.errors import LabError
from yamori.lab import crowd


@pytest.mark.parametrize("kind", crowd.KINDS)
@pytest.mark.parametrize(
    ("elf", "machine", "wide"), [("arm", 40, 0), ("aarch64", 183, 1), ("riscv64", 243, 1), ("x86_64", 62, 1)]
)
def test_headers(elf: str, machine: int, wide: int, kind: str) -> None:
    image = crowd.program(elf, kind)
    assert image[:7] == b"\x7fELF" + bytes((1 + wide, 1, 1))
    kind_, machine_, version = struct.unpack_from("<HHI", image, 16)
    assert (kind_, machine_, version) == (2, machine, 1)
    entry, table = struct.unpack_from("<QQ" if wide else "<II", image, 24)
    load = struct.unpack_from("<IIQQQQQQ" if wide else "<IIIIIIII", image, table)
    offset, address, size, flags = (load[2], load[3], load[5], load[1]) if wide else (*load[1:3], load[4], load[6])
    assert (load[0], offset, size, flags) == (1, 0, len(image), 5)
    assert 0 < entry - address < size
    assert struct.unpack("<3I", image[-12:]) == crowd.KINDS[kind]


def test_an_unknown_machine() -> None:
    with pytest.raises(LabError, match="no helper program"):
        crowd.program("vax", "sleeper")


here = pytest.mark.skipif(platform.machine() != "x86_64", reason="this machine runs other code")


def started(tmp_path: Path, kind: str, number: int) -> subprocess.Popen[bytes]:
    path = tmp_path / kind
    path.write_bytes(crowd.program("x86_64", kind))
    path.chmod(0o755)
    return subprocess.Popen([path, str(number)], process_group=0)


def members(group: int) -> list[str]:
    """Return the states of the processes of a group."""
    states = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            states.append(fields[0])
    return states


@here
@pytest.mark.parametrize(("kind", "state"), [("sleeper", "S"), ("spinner", "R")])
def test_processes(tmp_path: Path, kind: str, state: str) -> None:
    process = started(tmp_path, kind, 12)
    try:
        assert process.wait(timeout=10) == 0
        assert members(process.pid) == [state] * 12
    finally:
        os.killpg(process.pid, 9)


@here
def test_threads(tmp_path: Path) -> None:
    process = started(tmp_path, "threaded", 25)
    try:
        tasks = Path(f"/proc/{process.pid}/task")
        deadline = time.monotonic() + 10
        while len(list(tasks.iterdir())) < 25 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(list(tasks.iterdir())) == 25
        assert members(process.pid) == ["S"]
    finally:
        process.kill()
        process.wait()

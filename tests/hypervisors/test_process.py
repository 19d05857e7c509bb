from __future__ import annotations

import mmap
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from yamori.hypervisors import process


def test_own_process() -> None:
    pid = os.getpid()
    assert pid in process.process_ids()
    assert process.owner(pid) == os.getuid()
    assert process.arguments(pid)
    assert Path(process.executable(pid)).exists()


def test_a_mapping_is_found_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a file\nwith a line end"
    path.write_bytes(bytes(4 * mmap.PAGESIZE))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 2 * mmap.PAGESIZE, offset=mmap.PAGESIZE):
        found = [m for m in process.mappings(os.getpid()) if m.inode == path.stat().st_ino]
        assert [(m.size, m.offset, m.device, m.shared) for m in found] == [
            (2 * mmap.PAGESIZE, mmap.PAGESIZE, path.stat().st_dev, True)
        ]
        assert str(path) in process.descriptors(os.getpid()).values()


def test_listeners(tmp_path: Path) -> None:
    path = tmp_path / "s o c k"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert str(path) not in {listener.path for listener in process.listeners()}
        server.listen()
        (found,) = [listener for listener in process.listeners() if listener.path == str(path)]
        assert f"socket:[{found.inode}]" in process.descriptors(os.getpid()).values()


def test_zombie() -> None:
    program = shutil.which("sleep")
    assert program
    with subprocess.Popen([program, "1000"]) as child:
        assert not process.ended(child.pid)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
        assert process.ended(child.pid)
        assert process.arguments(child.pid) == []


def test_no_such_process() -> None:
    for read in (process.arguments, process.owner, process.ended, process.mappings, process.descriptors):
        with pytest.raises(OSError, match=r"[Nn]o such"):
            read(1 << 30)
    assert process.executable(1 << 30) == ""

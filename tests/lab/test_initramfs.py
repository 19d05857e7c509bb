"""The archive is what the kernel's documentation says, and what cpio itself reads back."""

from __future__ import annotations

import gzip
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamori.lab import initramfs
from yamori.lab.initramfs import Entry, cpio


def parsed(archive: bytes) -> list[Entry]:
    """Read a newc archive by its definition."""
    entries: list[Entry] = []
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        _, mode, uid, gid, _, mtime, size, _, _, major, minor, name_size, check = fields
        assert (uid, gid, mtime, check) == (0, 0, 0, 0)
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        data = (at + 110 + name_size + 3) & ~3
        at = (data + size + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert at == len(archive)
            return entries
        entries.append(Entry(name[:-1].decode(), mode, archive[data : data + size], (major, minor)))


paths = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=40)


@settings(max_examples=50)
@given(st.lists(st.builds(Entry, paths, st.just(stat.S_IFREG | 0o644), st.binary(max_size=50)), max_size=8))
def test_round_trip(entries: list[Entry]) -> None:
    assert parsed(cpio(entries)) == entries


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"not really busybox")
    return initramfs.build(busybox, "arm")


def test_the_lab_has_what_the_guest_needs(archive: bytes) -> None:
    entries = {entry.path: entry for entry in parsed(gzip.decompress(archive))}
    assert entries["bin/busybox"].data == b"not really busybox"
    assert entries["bin/sh"] == Entry("bin/sh", stat.S_IFLNK | 0o777, b"busybox")
    assert entries["dev/console"] == Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    users = [line.split(":")[0] for line in entries["etc/passwd"].data.decode().splitlines()]
    assert users == ["root", "alice", "bob", "nobody"]
    for path in ("init", "bin/truth", "bin/spawn", "bin/busy", "bin/threads"):
        assert entries[path].data.startswith(b"#!/bin/sh\n")
        assert entries[path].mode == stat.S_IFREG | 0o755


def test_the_same_input_gives_the_same_bytes(archive: bytes, tmp_path: Path) -> None:
    assert initramfs.build(tmp_path / "busybox", "arm") == archive


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_lists_it(archive: bytes) -> None:
    done = subprocess.run(["cpio", "-t"], input=gzip.decompress(archive), capture_output=True, check=True)
    listed = done.stdout.decode().split()
    assert listed == [entry.path for entry in parsed(gzip.decompress(archive))]


@pytest.mark.parametrize(
    "script", sorted(Path(initramfs.__file__).parent.glob("guest/*.sh")), ids=lambda path: path.name
)
def test_scripts_are_shell(script: Path) -> None:
    done = subprocess.run(["sh", "-n", str(script)], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")

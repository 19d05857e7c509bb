"""What processes have open and mapped, and what is mounted: equal to the guest's own /proc."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.guests.devices import DEVICES

import yamori
from yamori import lab
from yamori.errors import ProfileError
from yamori.guest import Guest

pytestmark = pytest.mark.guest

PREPARE = """
mkdir -p /data/sub /bound && mount -t tmpfs -o ro,nosuid,nodev,noexec vendor /data && mount -o remount,rw /data
mkdir -p /data/sub && mount -t tmpfs deeper /data/sub && mount -o bind /data/sub /bound
echo some > /data/sub/kept; echo more > /data/sub/gone; echo "with space" > "/data/sub/a name"
(exec sleep 7100 < /data/sub/kept 3>> /data/sub/gone 4<> "/data/sub/a name") &
(sleep 7101 | sleep 7102) &
unshare -m sh -c 'mkdir -p /mine; mount -t tmpfs private /mine; exec sleep 7103' &
nc -l -p 7104 127.0.0.1 > /dev/null 2>&1 &
sleep 1; rm /data/sub/gone
"""
SKIPPED = {"[vsyscall]", "[uprobes]"}
"""What ``/proc/PID/maps`` shows that is no mapping of the process's."""


@pytest.fixture(scope="module", params=DEVICES)
def vm(request: pytest.FixtureRequest) -> Iterator[lab.Machine]:
    with lab.machine(request.param) as machine:
        assert machine.run(["spawn", "20"]).status == 0
        machine.run(PREPARE)
        yield machine


@pytest.fixture(scope="module")
def guest(vm: lab.Machine) -> Iterator[Guest]:
    with yamori.open(vm.target) as opened:
        if all(types.provenance != "btf" for types in opened.profile.types):
            for name in ("files", "maps", "mounts"):
                with pytest.raises(ProfileError, match="not known of this kernel"):
                    opened.listing(name)
            pytest.skip("Debian's armmp kernel has no BTF")
        yield opened


def pids(guest: Guest) -> list[int]:
    """Return the processes that stay: not the shell that is asked."""
    return sorted(row.pid for row in guest.plist() if row.comm in {"sleep", "init", "nc"} and not row.kthread)


def test_maps(vm: lab.Machine, guest: Guest) -> None:
    result = guest.listing("maps")
    assert result.complete, result.reasons
    for pid in pids(guest):
        said = []
        for line in vm.run(f"cat /proc/{pid}/maps").output.splitlines():
            place, mode, offset, _, _, *name = line.rstrip("\r").split(None, 5)
            start, end = (int(word, 16) for word in place.split("-"))
            path, deleted, _ = (*name, "")[0].partition(" (deleted)")
            if path not in SKIPPED:
                said.append((start, end, mode, int(offset, 16), path, bool(deleted)))
        seen = [
            (row.start, row.end, row.mode, row.offset, row.path, row.deleted) for row in result.rows if row.pid == pid
        ]
        assert seen == said, pid


def test_files(vm: lab.Machine, guest: Guest) -> None:
    result = guest.listing("files")
    assert result.complete, result.reasons
    found = {(row.pid, row.fd): row for row in result.rows}
    for pid in pids(guest):
        listed = vm.run(f"cd /proc/{pid}/fd && for fd in *; do echo $fd $(readlink $fd); done").output
        said = dict(line.rstrip("\r").split(" ", 1) for line in listed.splitlines())
        for fd, link in said.items():
            row = found[pid, int(fd)]
            assert (row.path or "") + (" (deleted)" if row.deleted else "") == link
            about = vm.run(f"cat /proc/{pid}/fdinfo/{fd}").output
            assert f"pos:\t{row.position}" in about
            flags = int(re.search(r"flags:\s+(\d+)", about)[1], 8)  # type: ignore[index]
            assert row.mode == {0: "r", 1: "w", 2: "rw"}[flags & 3]
        assert [fd for one, fd in found if one == pid] == sorted(map(int, said))
    assert {"file", "fifo", "socket", "char"} <= {row.kind for row in result.rows}
    assert [row.path for row in result.rows if row.deleted] == ["/data/sub/gone"]


def test_mounts(vm: lab.Machine, guest: Guest) -> None:
    result = guest.listing("mounts")
    assert result.complete, result.reasons
    private = next(row.pid for row in guest.programs() if row.arguments == "sleep 7103")
    spaces = {row.pid: row.namespace for row in result.rows}
    assert private in spaces
    for pid in (1, private):
        said = []
        for line in vm.run(f"cat /proc/{pid}/mountinfo").output.splitlines():
            number, parent, _, _, path, options, *rest = line.rstrip("\r").split(" ")
            kind, device, super_options = rest[rest.index("-") + 1 :]
            words = options.split(",")
            if "ro" in super_options.split(",") and words[0] == "rw":
                words[0] = "ro"
            said.append((int(number), int(parent), path, ",".join(words), kind, device))
        seen = [
            (row.id, row.parent, row.path, row.options, row.type, row.device)
            for row in result.rows
            if row.namespace == spaces[pid] and row.id != row.parent
        ]
        known = {row.id for row in result}
        assert sorted(seen) == sorted(one for one in said if one[0] != one[1] and one[1] in known), pid
    assert {"/data", "/data/sub", "/bound"} <= {row.path for row in result.rows}

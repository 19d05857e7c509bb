"""``sockets`` against what the guest's own /proc says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

import yamori
from yamori import lab
from yamori.errors import ProfileError
from yamori.guest import Guest
from yamori.records import Socket

pytestmark = pytest.mark.guest

START = """ip link set lo up
(sleep 1000 | nc -l -p 8080) > /dev/null 2>&1 &
(sleep 1000 | nc -l -p 8081) > /dev/null 2>&1 &
sleep 1
(sleep 1000 | nc 127.0.0.1 8081) > /dev/null 2>&1 &
udhcpc -i lo -f -n -t 1000 -T 3 > /dev/null 2>&1 &
sleep 2"""
HELD = re.compile(r"/proc/(\d+)/fd/(\d+) socket:\[(\d+)\]")


@pytest.fixture(scope="module", params=["arm64", "x86-64"])
def vm(request: pytest.FixtureRequest) -> Iterator[lab.Machine]:
    with lab.machine(request.param) as machine:
        machine.run(START)
        yield machine


@pytest.fixture(scope="module")
def guest(vm: lab.Machine) -> Iterator[Guest]:
    with yamori.open(vm.target) as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(guest: Guest) -> list[Socket]:
    result = guest.listing("sockets")
    assert result.complete
    return result.rows


def test_who_holds_which(vm: lab.Machine, rows: list[Socket]) -> None:
    said = vm.run('for f in /proc/[0-9]*/fd/*; do echo "$f $(readlink $f)"; done 2> /dev/null').output
    truth = {(int(pid), int(fd), int(inode)) for pid, fd, inode in HELD.findall(said)}
    assert len(truth) >= 4
    assert {(row.pid, row.fd, row.inode) for row in rows} == truth


@pytest.mark.parametrize("name", ["tcp", "tcp6"])
def test_ends(vm: lab.Machine, rows: list[Socket], name: str) -> None:
    truth = {}
    for line in vm.run(f"cat /proc/net/{name}").output.splitlines()[1:]:
        words = line.split()
        if words[9] != "0":  # in TIME_WAIT it is no process's any more
            truth[int(words[9])] = (*end(words[1]), *end(words[2]), int(words[3], 16))
    states = {10: "listening", 1: "established"}
    family = "inet6" if name == "tcp6" else "inet"
    found = {row.inode: (row.local, row.local_port, row.remote, row.remote_port, row.state)
             for row in rows if (row.family, row.protocol) == (family, "tcp")}  # fmt: skip
    assert found == {inode: (*ends, states[state]) for inode, (*ends, state) in truth.items()}


def end(text: str) -> tuple[str, int]:
    """Read an end as /proc/net shows it: words of an address in the machine's order, then the port."""
    address, port = text.split(":")
    data = b"".join(bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8))
    return str(IPv6Address(data) if len(data) == 16 else IPv4Address(data)), int(port, 16)


def test_packet_socket(vm: lab.Machine, guest: Guest, rows: list[Socket]) -> None:
    truth = {int(line.split()[-1]) for line in vm.run("cat /proc/net/packet").output.splitlines()[1:]}
    assert truth == {row.inode for row in rows if row.family == "packet"}
    assert guest.check(only=["packet-sockets"]).findings == []  # a DHCP client's


def test_listeners_are_held_against_a_baseline(
    vm: lab.Machine, guest: Guest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("baseline") / "device.toml"
    path.write_text("version = 1\nlistening = ['tcp 8080']\n")
    vm.run("(sleep 1000 | nc -l -p 4444) > /dev/null 2>&1 & sleep 1")
    report = guest.check(only=["unknown-listener"], baseline=path)
    assert [one.subject.partition(" at ")[2] for one in report.findings] == ["tcp 4444"]


def test_without_layouts_it_says_so() -> None:
    with (
        lab.machine("armv7") as machine,
        yamori.open(machine.target) as opened,
        pytest.raises(ProfileError, match="is not known of this kernel"),
    ):
        opened.listing("sockets")

"""Executables and arguments: what Yamori reads from outside is what the guest's own /proc says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.guests.devices import DEVICES

import yamori
from yamori import lab
from yamori.guest import Guest
from yamori.kernel.deferred import Deferred
from yamori.kernel.types import Types
from yamori.lab.compare import wrong_executables
from yamori.records import Program

pytestmark = pytest.mark.guest

LONG = "an-executable-whose-name-does-not-fit-into-its-dentry"
PREPARE = f"""
mkdir -p /opt/vendor/bin /mnt/data && mount -t tmpfs none /mnt/data && mkdir /mnt/data/bin
for file in /opt/vendor/bin/{LONG} /mnt/data/bin/agent /opt/gone /opt/moved; do cp /bin/busybox $file; done
run() {{ file=$1; shift; (exec -a sleep $file "$@") & }}
run /opt/vendor/bin/{LONG} 7001; run /mnt/data/bin/agent 7002; run /opt/gone 7003; run /opt/moved 7004
run /bin/busybox 7005 7006
sleep 1; rm /opt/gone; mv /opt/moved /opt/vendor
"""


@pytest.fixture(scope="module", params=DEVICES)
def vm(request: pytest.FixtureRequest) -> Iterator[lab.Machine]:
    with lab.machine(request.param) as machine:
        assert machine.run(["spawn", "20"]).status == 0
        assert machine.run(PREPARE).status == 0
        yield machine


@pytest.fixture(scope="module")
def guest(vm: lab.Machine) -> Iterator[Guest]:
    with yamori.open(vm.target) as opened:
        yield opened


def rows(guest: Guest) -> dict[int, Program]:
    result = guest.programs()
    assert result.complete, result.reasons
    return {row.pid: row for row in result.rows}


def test_executables(vm: lab.Machine, guest: Guest) -> None:
    assert wrong_executables(vm, lambda: rows(guest).values()) == []
    found = rows(guest)
    paths = {row.executable for row in found.values()}
    assert {f"/opt/vendor/bin/{LONG}", "/mnt/data/bin/agent", "/opt/gone", "/opt/vendor/moved"} <= paths
    assert [row.executable for row in found.values() if row.deleted] == ["/opt/gone"]


def test_kernel_threads_have_none(guest: Guest) -> None:
    threads = [row for row in rows(guest).values() if row.kthread]
    assert len(threads) > 10
    assert all(row.executable is None and row.arguments is None and row.deleted is None for row in threads)


def test_what_is_inferred_is_what_btf_says(guest: Guest) -> None:
    *trusted, deferred, _ = guest.profile.types
    assert isinstance(deferred, Deferred)
    found = {place: member for part in deferred.everything() for place, member in part.members.items()}
    assert ("mm_struct", "exe_file") in found
    assert ("mount", "mnt") in found
    assert ("mm_struct", "pgd") in found
    source: Types
    for source in trusted:
        for (struct, name), member in found.items():
            other = source.member(struct, name)
            assert other is None or other.offset == member.offset, (struct, name)

"""The target ``xvisor:`` on memory of real guests behind a console of our own, and on a running Xvisor if there is one.

``YAMORI_XVISOR`` is a target whose guest runs, such as ``xvisor:/run/console.sock?guest=guest0``;
``YAMORI_XVISOR_PROFILE`` the profile of its kernel, where memory shall be read.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.hypervisors.fake_xvisor import FakeXvisor, on_socket

import yamori
from yamori import lab
from yamori.kernel import portable
from yamori.memory.host import HostMemory
from yamori.probes.syscall import find_table

pytestmark = pytest.mark.guest


@pytest.mark.parametrize("device", ["arm64", "armv7-lpae"])
def test_rows_over_a_console_are_those_of_the_host(device: str, tmp_path: Path) -> None:
    with lab.machine(device) as vm, yamori.open(vm.target) as direct:
        profile = tmp_path / "kernel.profile"
        found = {"sys_call_table": find_table(direct.kernel, "native").gva}
        profile.write_bytes(portable.dumps(portable.of_profile(direct.profile, found)))
        fake = FakeXvisor(HostMemory(direct.vm.layouts[0], pid=direct.vm.pid))
        with on_socket(fake, tmp_path / "s") as target, yamori.open(target, vmlinux=profile) as guest:
            assert guest.profile.banner == direct.profile.banner
            rows, truth = guest.plist(), direct.plist()
            assert rows.complete, rows.reasons
            assert {(row.pid, row.ppid, row.comm, row.task) for row in rows} == {
                (row.pid, row.ppid, row.comm, row.task) for row in truth
            }
            calls = guest.syscall()
            assert [row.address for row in calls] == [row.address for row in direct.syscall()]


TARGET = os.environ.get("YAMORI_XVISOR", "")
REASON = "YAMORI_XVISOR names no running Xvisor, as in xvisor:/run/console.sock?guest=guest0"


@pytest.mark.skipif(not TARGET, reason=REASON)
def test_running_xvisor() -> None:
    profile = os.environ.get("YAMORI_XVISOR_PROFILE")
    with yamori.open(TARGET, vmlinux=profile) as guest:
        inside = guest.plist()
        assert inside.complete, inside.reasons
        assert {1, 2} <= {row.pid for row in inside}
        if not profile:
            return
        assert guest.kernel.profile.banner
        read = guest.plist()
        assert read.complete, read.reasons
        assert {(row.pid, row.comm) for row in read if row.pid < 3} == {
            (row.pid, row.comm) for row in inside if row.pid < 3
        }

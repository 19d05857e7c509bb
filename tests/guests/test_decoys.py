"""Decoys on real guests: an ordinary user fills memory with altered copies of what discovery looks for."""

from __future__ import annotations

import base64
import gzip
import time
from collections.abc import Iterator

import pytest
from tests.guests.devices import DEVICES

import yamori
from yamori import lab
from yamori.address import GPA
from yamori.guest import Guest
from yamori.kernel.discovery import NEEDLES
from yamori.kernel.scan import scan

pytestmark = pytest.mark.guest

PAGE = 4096
COPIES = 300
PATIENCE = 20.0
"""Seconds in which an attach has to come to its end on a loaded machine; what a hostile guest may cost is bounded."""


@pytest.fixture(scope="module", params=DEVICES)
def vm(request: pytest.FixtureRequest) -> Iterator[lab.Machine]:
    with lab.machine(request.param) as machine:
        assert machine.run(["spawn", "20"]).status == 0
        yield machine


def decoys(guest: Guest) -> bytes:
    """Return pages that look like the kernel's own: where each needle is, and its root, with another release."""
    memory, profile = guest.kernel.memory, guest.profile
    assert profile.uts
    places = [place // PAGE * PAGE for found in scan(memory, NEEDLES).places.values() for place in list(found)[:2]]
    places += [profile.init.gpa // PAGE * PAGE + PAGE * index for index in range(3)]
    places += [profile.root.gpa + PAGE * index for index in range(4)]
    pages = b"".join(memory.read(GPA(place), PAGE) for place in dict.fromkeys(places))
    true = profile.uts.release.encode()
    return pages.replace(true, b"9" * len(true))


def test_altered_copies(vm: lab.Machine) -> None:
    with yamori.open(vm.target, cache=False) as guest:
        before, calls, blob = guest.banner().rows[0], guest.syscall().rows, decoys(guest)
    text = base64.b64encode(gzip.compress(blob)).decode()
    for start in range(0, len(text), 2000):
        vm.run(f"echo {text[start : start + 2000]} >> /tmp/b64")
    fill = f"for i in $(seq {COPIES}); do cat /tmp/blob; done > /tmp/user/decoys"
    vm.run("base64 -d /tmp/b64 | gunzip > /tmp/blob; mkdir /tmp/user; chmod 777 /tmp /tmp/user; chmod 644 /tmp/blob")
    filled = vm.run(f"su -s /bin/sh alice -c '{fill}'; stat -c '%s %U' /tmp/user/decoys", timeout=120).output.split()
    assert filled == [str(len(blob) * COPIES), "alice"]
    started = time.monotonic()
    with yamori.open(vm.target, cache=False) as guest:
        assert time.monotonic() - started < PATIENCE
        assert guest.banner().rows[0] == before
        assert guest.syscall().rows == calls
        result = guest.plist()
        assert result.complete, result.reasons
        assert {task.tid for task in vm.truth()} >= {row.pid for row in result if not row.kthread}
        assert guest.check(only=["hidden-processes", "system-calls"]).findings == []

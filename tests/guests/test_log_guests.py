"""``log`` against the guest's own ``dmesg``."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.guests.devices import DEVICES

import yamori
from yamori import lab
from yamori.guest import Guest
from yamori.records import LogLine, escape

pytestmark = pytest.mark.guest

SAID = re.compile(r"<(\d+)>\[ *(\d+\.\d{6})\](?:\[ *[TC]\d+\])? (.*)")


@pytest.fixture(scope="module", params=DEVICES)
def vm(request: pytest.FixtureRequest) -> Iterator[lab.Machine]:
    with lab.machine(request.param) as machine:
        yield machine


@pytest.fixture(scope="module")
def guest(vm: lab.Machine) -> Iterator[Guest]:
    with yamori.open(vm.target) as opened:
        yield opened


def truth(vm: lab.Machine) -> list[tuple[int, float, str]]:
    """Return what ``dmesg`` shows: priority, seconds, text."""
    lines = [SAID.fullmatch(line.rstrip("\r")) for line in vm.run("dmesg -r").output.splitlines()]
    assert None not in lines[1:]  # the first may be cut
    return [(int(line[1]), float(line[2]), escape(line[3].encode())) for line in lines if line]


def lines(rows: list[LogLine]) -> list[tuple[int, float, str]]:
    """Return rows as ``dmesg`` shows them: it cuts a record at its line ends."""
    return [(row.facility * 8 + row.level, row.time, text) for row in rows for text in row.text.split("\\n")]


def test_log(vm: lab.Machine, guest: Guest) -> None:
    result = guest.listing("log")
    assert result.complete, result.reasons
    said, seen = truth(vm), lines(result.rows)
    assert len(said) > 100
    seen = seen[-len(said) :]
    assert [(level, text.rstrip()) for level, _, text in seen] == [(level, text.rstrip()) for level, _, text in said]
    assert all(0 <= own - other < 2e-6 for (_, own, _), (_, other, _) in zip(seen, said, strict=True))


def test_new_lines(vm: lab.Machine, guest: Guest) -> None:
    before = guest.listing("log").rows[-1]
    vm.run("for i in 1 2 3; do echo '<5>yamori says '$i > /dev/kmsg; done")
    added = [row for row in guest.listing("log") if row.seq > before.seq]
    assert [(row.facility, row.level, row.text) for row in added if "yamori" in row.text] == [
        (1, 5, f"yamori says {number}") for number in (1, 2, 3)
    ]


def test_ring_that_went_round(vm: lab.Machine, guest: Guest) -> None:
    vm.run("echo on > /proc/sys/kernel/printk_devkmsg")  # no limit of its rate
    vm.run("i=0; while [ $i -lt 9000 ]; do echo line $i of many that fill the ring; i=$((i+1)); done > /dev/kmsg")
    result = guest.listing("log")
    said, seen = truth(vm), lines(result.rows)
    assert result.rows[0].seq > 0
    assert [text for _, _, text in seen[-len(said) :]] == [text for _, _, text in said]

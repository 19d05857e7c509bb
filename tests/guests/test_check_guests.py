"""``yamori check``: silent on clean guests, and what an intruder does is found, named and explained."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.guests.devices import DEVICES
from tests.guests.poke import Poker
from tests.guests.stock_modules import NAMES, load

import yamori
from yamori import lab
from yamori.address import GVA
from yamori.detectors.check import Report
from yamori.errors import Fault
from yamori.guest import Guest
from yamori.records import Finding

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module", params=DEVICES)
def vm(request: pytest.FixtureRequest) -> Iterator[lab.Machine]:
    """A device with modules, a crowd, and a loop on its CPU."""
    with lab.machine(request.param) as machine:
        load(machine, *NAMES)
        assert machine.run(["spawn", "30"]).status == 0
        assert machine.run(["busy", "1"]).status == 0
        yield machine


@pytest.fixture(scope="module")
def guest(vm: lab.Machine) -> Iterator[Guest]:
    with yamori.open(vm.target) as opened:
        yield opened


@pytest.fixture
def poker(guest: Guest) -> Poker:
    return Poker(guest)


def found(report: Report) -> set[tuple[str, str]]:
    return {(finding.detector, finding.subject) for finding in report.findings}


def only(report: Report) -> Finding:
    assert len(report.findings) == 1, report.findings
    return report.findings[0]


def sleeper(guest: Guest) -> int:
    """Return a sleeping process of an ordinary user."""
    return next(row.pid for row in guest.plist() if row.uid and row.state == "S" and not row.kthread)


def has_btf(guest: Guest) -> bool:
    return any(types.provenance == "btf" for types in guest.profile.types)


def test_clean(guest: Guest) -> None:
    report = guest.check()
    assert report.findings == []
    unknown = set()
    if not has_btf(guest):
        unknown |= {
            "bpf-programs",
            "deferred-code",
            "foreign-modules",
            "ftrace-hooks",
            "hidden-processes",
            "kprobes",
            "netfilter-hooks",
            "packet-sockets",
            "preloaded-libraries",
        }
    assert {name for name, _ in report.not_checked} == unknown
    assert report.complete == (not unknown)


def test_hidden_process(guest: Guest, poker: Poker) -> None:
    row = next(row for row in guest.plist() if row.pid == sleeper(guest))
    with poker.unlinked(row.task + poker.offset("task_struct", "tasks")):
        assert row.pid not in {other.pid for other in guest.plist()}
        finding = only(guest.check())
    assert (finding.detector, finding.subject) == ("hidden-processes", f"process {row.pid}")
    assert (finding.severity, finding.confidence) == ("critical", "certain")
    assert f"{row.task:#x}" in finding.why[1]
    assert guest.check().findings == []


def test_redirected_system_call(guest: Guest, poker: Poker) -> None:
    rows = guest.syscall().rows
    victim = next(row for row in rows if row.symbol.endswith("sys_acct"))
    module = guest.listing("modules").rows[0]
    place = entry_of(guest, victim.nr)
    for target, severity in ((module.base + 0x40, "critical"), (rows[0].address + 8, "high")):
        with poker.changed((place, target)):
            report = guest.check()
        assert ("system-calls", f"system call {victim.nr}") in found(report)
        finding = next(finding for finding in report.findings if finding.detector == "system-calls")
        assert finding.severity == severity
    with poker.changed((place, module.base + 0x40)):
        assert f"module {module.name}" in guest.check(only=["system-calls"]).findings[0].why[1]


def entry_of(guest: Guest, nr: int) -> int:
    """Return where an entry of the table lies."""
    row = next(row for row in guest.syscall().rows if row.nr == nr)
    symbols = guest.profile.symbols[0]
    named = symbols.address("sys_call_table")
    size = guest.profile.init.word_size
    if named is not None:
        return named + nr * size
    wanted = b"".join(one.address.to_bytes(size, "little") for one in guest.syscall().rows)
    text = guest.profile.text
    assert text
    for start in range(text.start & -4096, text.stop + (16 << 20), 4096):
        try:
            data = guest.kernel.space.read(GVA(start), 1 << 14)
        except Fault:
            continue
        if (at := data.find(wanted[: 64 * size])) >= 0:
            return start + at + row.nr * size
    raise AssertionError("no table")


def test_hook_to_a_hidden_module(guest: Guest, poker: Poker) -> None:
    """An entry that leads into a module which nothing lists."""
    module = guest.listing("modules").rows[0]
    victim = next(row for row in guest.syscall().rows if row.symbol.endswith("sys_acct"))
    place = entry_of(guest, victim.nr)
    node = module.module + poker.offset("module", "list")
    with poker.unlinked(node), poker.changed((place, module.base + 0x40)):
        report = guest.check()
    detectors = {finding.detector for finding in report.findings}
    assert "system-calls" in detectors
    if guest.profile.text and place not in guest.profile.text:  # on 32-bit Arm it is among the code itself
        assert "foreign-code" in detectors
    assert ("hidden-modules", f"module {module.name}") in found(report)


def test_rights_of_another(vm: lab.Machine, guest: Guest, poker: Poker) -> None:
    pid = sleeper(guest)
    rows = {row.pid: row for row in guest.plist()}
    cred = poker.offset("task_struct", "cred")
    real = poker.offset("task_struct", "real_cred")
    init = poker.pointer(rows[1].task + cred)
    with poker.changed((rows[pid].task + cred, init), (rows[pid].task + real, init)):
        assert (vm.run(f"grep Uid /proc/{pid}/status").output.split())[1] == "0"
        finding = only(guest.check(only=["shared-credentials"]))
    assert finding.subject == f"process {pid}"
    assert guest.check(only=["shared-credentials"]).findings == []


def test_rights_changed_in_place(vm: lab.Machine, guest: Guest, poker: Poker) -> None:
    pid = sleeper(guest)
    row = next(row for row in guest.plist() if row.pid == pid)
    cred = poker.pointer(row.task + poker.offset("task_struct", "cred"))
    with poker.changed((cred + poker.offset("cred", "uid"), bytes(4))):
        assert (vm.run(f"grep Uid /proc/{pid}/status").output.split())[1] == "0"
        report = guest.check(only=["changed-credentials"])
    assert only(report).subject == f"process {pid}"


ATTACKS = {
    "deleted-executable": ("cp /bin/busybox /root/gone; run /root/gone sleep 8101; sleep 1; rm /root/gone", "high"),
    "writable-place": ("cp /bin/busybox /tmp/agent; run /tmp/agent sleep 8102", "high"),
    "kernel-thread-names": ("run /bin/sh sh -c 'printf kworker/0:1 > /proc/$$/comm; sleep 8103; :'", "high"),
}


@pytest.mark.parametrize("detector", ATTACKS)
def test_programs(vm: lab.Machine, guest: Guest, detector: str) -> None:
    """What an intruder without root can do, for real."""
    script, severity = ATTACKS[detector]
    run = 'run() { file=$1 name=$2; shift 2; (exec -a "$name" $file "$@") & echo $!; }; mkdir -p /root /tmp'
    pid = int(vm.run(f"{run}; {script}; sleep 1").output.split()[0])
    try:
        finding = only(guest.check())
        assert (finding.detector, finding.severity) == (detector, severity)
        assert finding.subject == f"process {pid}"
        assert finding.attack
    finally:
        vm.run(f"kill -9 {pid}; sleep 1")
    assert guest.check().findings == []


def test_helper_program(vm: lab.Machine, guest: Guest) -> None:
    before = vm.run("cat /proc/sys/kernel/modprobe").output.strip()
    vm.run("echo /tmp/x > /proc/sys/kernel/modprobe")
    try:
        report = guest.check(only=["helper-programs"])
    finally:
        vm.run(f"echo {before} > /proc/sys/kernel/modprobe")
    if guest.profile.address("modprobe_path") is None:
        assert [name for name, _ in report.not_checked] == ["helper-programs"]
    else:
        assert only(report).severity == "critical"
        assert "/tmp/x" in only(report).title

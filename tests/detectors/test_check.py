"""The frame that runs detectors: what lasts is reported, and what cannot be told is never called clean."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kernel.synthetic import ARM64, X86, Guest, Machine, Shape, build

from yamori.detectors import check as frame
from yamori.detectors.check import check, chosen, detectors
from yamori.detectors.detector import Detector, NotChecked, detector
from yamori.detectors.view import View
from yamori.errors import YamoriError
from yamori.kernel.discovery import discover
from yamori.kernel.kernel import Kernel
from yamori.records import Finding, Severity

MACHINES = pytest.mark.parametrize("machine", [X86, ARM64], ids=lambda machine: machine.name)


def kernel(guest: Guest) -> Kernel:
    return discover(guest.memory())


def finding(subject: str, severity: Severity = "high") -> Finding:
    return Finding(
        subject=subject, severity=severity, confidence="certain", title="title", why=["why"], remedy="remedy"
    )


def made(look: object) -> Detector:
    return detector(title="t", needs="n", misses="m", attack=["T1"])(look)  # type: ignore[arg-type]


def test_names_and_words() -> None:
    found = detectors()
    assert len({one.name for one in found}) == len(found) > 10
    for one in found:
        assert all((one.title, one.needs, one.misses, one.attack)), one.name
        assert one.look.__doc__
    assert "hidden-processes" in {one.name for one in found}


def test_choice() -> None:
    every = [one.name for one in detectors() if not one.section]
    assert [one.name for one in chosen([], [])] == every
    assert [one.name for one in chosen(["kernel-text"], [])] == ["kernel-text"]
    assert [one.name for one in chosen([], ["kernel-text"])] == [name for name in every if name != "kernel-text"]
    for only, skip in ((["nothing"], []), ([], ["nothing"])):
        with pytest.raises(YamoriError, match=r"there is no detector 'nothing'; there are .*kernel-text"):
            chosen(only, skip)


def test_only_what_lasts_is_reported() -> None:
    looks = 0

    def flickering(view: View) -> Iterator[Finding]:
        nonlocal looks
        looks += 1
        yield finding("always", "low")
        yield finding(f"look {looks}")
        yield finding("worst", "critical")

    report = check(kernel(build()), [made(flickering)])
    assert looks == 2
    assert [one.subject for one in report.findings] == ["worst", "always"]
    assert {(one.detector, *one.attack) for one in report.findings} == {("flickering", "T1")}
    assert report.complete


def test_a_detector_that_cannot_tell_costs_only_its_own_answer() -> None:
    def blind(view: View) -> Iterator[Finding]:
        yield finding("before")
        raise NotChecked("it is dark", hint="make light")

    def seeing(view: View) -> Iterator[Finding]:
        yield finding("something")

    report = check(kernel(build()), [made(blind), made(seeing)])
    assert report.not_checked == [("blind", "it is dark; make light")]
    assert {one.subject for one in report.findings} == {"before", "something"}
    assert not report.complete
    assert report.ran == ["seeing"]


def test_incomplete_rows_are_not_clean() -> None:
    guest = build()
    known = kernel(guest)
    victim = guest.tasks[5]
    guest.words(guest.member(victim.gva, "tasks"), 0)

    def reads(view: View) -> Iterator[Finding]:
        view.processes()
        yield from ()

    def reads_nothing(view: View) -> Iterator[Finding]:
        yield from ()

    report = check(Kernel(guest.memory(), known.profile), [made(reads), made(reads_nothing)])
    assert {name for name, _ in report.not_checked} == {"reads"}


def test_number_of_findings_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "MOST_FINDINGS", 5)

    def flood(view: View) -> Iterator[Finding]:
        for number in range(1 << 30):
            yield finding(str(number))

    report = check(kernel(build()), [made(flood)])
    assert len(report.findings) == 5
    assert report.not_checked == [("flood", "given up after 5 findings")]


@MACHINES
def test_synthetic_guest_is_clean(machine: Machine) -> None:
    """What is not there in it is not checked; nothing is found."""
    report = check(kernel(build(machine)), detectors())
    assert report.findings == []
    assert "system-calls" in report.ran
    assert ("hidden-processes", "where this kernel keeps its process ids is not known") in report.not_checked
    assert not report.complete


@MACHINES
@pytest.mark.parametrize("shape", [Shape(), Shape(kallsyms=False)])
def test_hidden_process(machine: Machine, shape: Shape) -> None:
    guest = build(machine, shape)
    known = kernel(guest)
    victim = guest.tasks[5]
    word, node = machine.word, guest.member(victim.gva, "tasks")
    after, before = guest.word(node), guest.word(node + word)
    guest.words(before, after)
    guest.words(after + word, before)
    report = check(Kernel(guest.memory(), known.profile), chosen(["hidden-processes"], []))
    assert [one.subject for one in report.findings] == [f"process {victim.pid}"]
    assert victim.comm in report.findings[0].title


@MACHINES
def test_shared_credentials(machine: Machine) -> None:
    guest = build(machine)
    known = kernel(guest)
    program = next(task for task in guest.tasks if not task.kthread and task.uid)
    thread = next(task for task in guest.tasks if task.kthread)
    for owner, name in ((thread.gva, f"process {thread.pid}"), (guest.init, "the kernel itself (init_task)")):
        cred = guest.word(guest.member(owner, "real_cred"))
        guest.words(guest.member(program.gva, "real_cred"), cred, cred)
        report = check(Kernel(guest.memory(), known.profile), chosen(["shared-credentials"], []))
        assert [one.subject for one in report.findings] == [f"process {program.pid}"]
        assert name in report.findings[0].why[1]


@MACHINES
def test_spoiled_guests_crash_nothing(machine: Machine) -> None:
    """Each pointer of some tasks leads away, in a circle, or to itself."""
    guest = build(machine)
    known = kernel(guest)
    victim = guest.tasks[6].gva
    for name in ("children", "sibling", "real_parent", "group_leader", "real_cred", "tasks"):
        place = guest.member(victim, name)
        before = guest.read(place, 2 * machine.word)
        for value in (0, 1, victim, place, guest.tasks[3].gva + 8, (1 << 8 * machine.word) - 8):
            guest.words(place, value)
            report = check(Kernel(guest.memory(), known.profile), detectors())
            assert all(one.detector for one in report.findings)
        guest.write(place, before)

"""``ids check`` of the exported core: silent on a sound guest, and what it finds is what the host's side would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.exports.building import INCOMPLETE, OK, Ran, program, ran
from tests.exports.test_core import OTHER_BOOTS
from tests.kernel.synthetic import ARM64, MACHINES, Guest, Machine, build

from yamori.detectors.baseline import Allowed, Baseline
from yamori.errors import ProfileError
from yamori.exports.core import core_source
from yamori.kernel.discovery import discover
from yamori.probes.plist import plist

NAMES = ("init", "sshd", "user*", "*d*n", "", "sh", "a*b*c")
ALLOWED = [
    Allowed("init", users=[0], required=True),
    Allowed("user*", users=[1000, 1001]),
    Allowed("*ou?n*t"),
    Allowed("watchdogd", required=True),
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The core for each synthetic kernel, with an allow-list, as a program of this machine."""
    folder = tmp_path_factory.mktemp("cores")
    meant = Baseline(version=1, process=ALLOWED)
    return {
        machine.name: program(core_source(discover(build(machine).memory()), meant), folder / machine.name)
        for machine in MACHINES
    }


@pytest.fixture
def check(programs: Mapping[str, Path], tmp_path: Path) -> Callable[..., Ran]:
    def check(guest: Guest, *, raw: bool = True) -> Ran:
        ram = tmp_path / "ram"
        ram.write_bytes(guest.ram)
        return ran(programs[guest.machine.name], "check", {guest.machine.base: ram}, raw=raw)

    return check


def unknown(guest: Guest, allowed: list[Allowed]) -> list[list[str]]:
    """Return what the host's side makes of the allow-list."""
    rows = [row for row in plist(discover(guest.memory())) if not row.kthread]
    strange = [row for row in rows if not any(one.covers(row) for one in allowed)]
    missing = [one for one in allowed if one.required and not any(one.covers(row) for row in rows)]
    return [
        *(["process", str(row.pid), str(row.uid), *row.comm.split(" ")] for row in strange),
        *(["missing", one.name] for one in missing),
    ]


@pytest.mark.parametrize("other", [False, True], ids=["same boot", "other boot"])
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_what_is_found_is_what_the_host_finds(machine: Machine, other: bool, check: Callable[..., Ran]) -> None:
    guest = build(OTHER_BOOTS[machine.name] if other else machine)
    made = check(guest)
    expected = unknown(guest, ALLOWED)
    assert made.result == OK
    assert made.rows("F") == expected
    assert ["missing", "watchdogd"] in expected
    assert made.lines[-1].startswith(f"= {len(expected)} ")
    said = check(guest, raw=False)
    assert said.lines == [*(f"FOUND: {' '.join(row)}" for row in expected), f"{len(expected)} found"]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_redirected_and_patched_calls_are_found(machine: Machine, check: Callable[..., Ran]) -> None:
    guest = build(machine)
    word, table = machine.word, guest.symbols["sys_call_table"]
    sound = check(guest).rows("F")
    first, second = (guest.symbols[name] for name in sorted(set(guest.calls))[:2])
    hit = [nr for nr, name in enumerate(guest.calls) if guest.symbols[name] == second]
    guest.words(table + 7 * word, guest.symbols["init_task"])
    guest.words(table + 8 * word, first)
    guest.write((second & ~3) + 12, b"\x12\x34\x56\x78")
    found = [row for row in check(guest).rows("F") if row not in sound]
    expected = {7: ["syscall", "7", f"{guest.symbols['init_task']:#x}"]}
    if guest.calls[8] != min(guest.calls):
        expected[8] = ["syscall", "8", f"{first:#x}"]
    expected |= {nr: ["code", str(nr), f"{second:#x}"] for nr in hit if nr not in {7, 8}}
    assert found == [expected[nr] for nr in sorted(expected)]


def test_without_an_allow_list_processes_are_not_judged(tmp_path: Path) -> None:
    guest = build(ARM64)
    made = program(core_source(discover(guest.memory())), tmp_path / "core")
    (tmp_path / "ram").write_bytes(guest.ram)
    lines = ran(made, "check", {ARM64.base: tmp_path / "ram"}).lines
    assert lines[0] == "N process"
    assert lines[1].startswith("= 0 ")


def test_a_list_that_is_cut_misses_nobody(check: Callable[..., Ran]) -> None:
    guest = build(ARM64)
    broken = guest.member(guest.by_pid(100).gva, "tasks")
    guest.words(broken, 0x1000)
    made = check(guest)
    assert made.result == INCOMPLETE
    assert not [row for row in made.rows("F") if row[0] == "missing"]
    assert made.lines[-1].startswith("E incomplete")


@pytest.mark.parametrize("name", ["\u00fcber", "back\\slash", "new\nline"])
def test_names_that_cannot_be_compared_are_refused(name: str) -> None:
    kernel = discover(build(ARM64).memory())
    with pytest.raises(ProfileError, match="cannot be compared"):
        core_source(kernel, Baseline(version=1, process=[Allowed(name)]))


@pytest.fixture(scope="module")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A core for each of some patterns."""
    folder = tmp_path_factory.mktemp("patterns")
    kernel = discover(build(ARM64).memory())
    return {
        name: program(core_source(kernel, Baseline(version=1, process=[Allowed(name)])), folder / str(number))
        for number, name in enumerate(NAMES)
    }


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    name=st.sampled_from(NAMES), comm=st.text("abchdinsuer*", max_size=15) | st.sampled_from(["init", "sshd", "a b"])
)
def test_patterns_mean_what_they_mean_on_the_host(
    name: str, comm: str, patterns: dict[str, Path], tmp_path: Path
) -> None:
    guest = build(ARM64)
    guest.write(guest.member(guest.by_pid(100).gva, "comm"), comm.encode().ljust(16, b"\0"))
    (tmp_path / "ram").write_bytes(guest.ram)
    made = ran(patterns[name], "check", {ARM64.base: tmp_path / "ram"})
    assert made.rows("F") == unknown(guest, [Allowed(name)])

"""The core on this machine: the rows of the host's side, whatever the boot; hostile guests cost an error line."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.exports.building import ERROR, INCOMPLETE, OK, Ran, program, ran
from tests.kernel.synthetic import (
    ARM,
    ARM64,
    BANNER,
    MACHINES,
    MIB,
    RAM_SIZE,
    RODATA_AT,
    X86,
    Guest,
    Machine,
    build,
    usual,
)

from yamori.exports.core import core_source
from yamori.kernel.discovery import discover
from yamori.kernel.kernel import Kernel
from yamori.probes.plist import plist
from yamori.probes.syscall import syscall
from yamori.records import Process

PAGE = 4096
OTHER_BOOTS = {
    X86.name: replace(X86, image=X86.image + 0x0A20_0000, linear=0xFFFF_9A40_0000_0000),
    ARM64.name: replace(ARM64, image=ARM64.image + 0x3_5560_0000, linear=0xFFFF_0A00_0000_0000, base=0x8000_0000),
    ARM.name: replace(ARM, base=0x8000_0000),
}
"""The same kernels with another KASLR slide, and RAM elsewhere; 32-bit Arm has no slide."""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The core for each synthetic kernel, as a program of this machine."""
    folder = tmp_path_factory.mktemp("cores")
    return {
        machine.name: program(core_source(discover(build(machine).memory())), folder / machine.name)
        for machine in MACHINES
    }


@pytest.fixture
def run(programs: Mapping[str, Path], tmp_path: Path) -> Callable[..., Ran]:
    def run(guest: Guest, command: str, **options: Any) -> Ran:
        ram = tmp_path / "ram"
        ram.write_bytes(guest.ram)
        return ran(programs[guest.machine.name], command, {guest.machine.base: ram}, **options)

    return run


def processes(rows: list[Process]) -> list[list[str]]:
    """Return rows as the core writes them for programs."""

    def text(value: object) -> str:
        return "-" if value is None else str(value)

    return [
        [
            *map(text, (row.pid, row.tgid, row.ppid, row.uid, row.gid, row.euid, row.egid, row.state)),
            str(int(row.kthread)),
            text(row.start_time),
            f"{row.task:#x}",
            *row.comm.split(" "),
        ]
        for row in rows
    ]


def calls(kernel: Kernel) -> list[list[str]]:
    return [[str(row.nr), f"{row.address:#x}", str(int(bool(row.in_kernel_text)))] for row in syscall(kernel).rows]


@pytest.mark.parametrize("other", [False, True], ids=["same boot", "other boot"])
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_rows_are_those_of_the_host(machine: Machine, other: bool, run: Callable[..., Ran]) -> None:
    guest = build(OTHER_BOOTS[machine.name] if other else machine)
    kernel = discover(guest.memory())
    listed, table = run(guest, "plist"), run(guest, "syscall")
    assert listed.result == table.result == OK
    assert listed.processes() == processes(plist(kernel).rows)
    assert len(listed.rows("P")) == len(guest.tasks)
    assert [row[:3] for row in table.rows("S")] == calls(kernel)
    assert {row[3] for row in table.rows("S")} == {"1"}
    assert listed.lines[-1].startswith(f"= {len(guest.tasks)} ")
    assert run(guest, "banner").lines == [f"B {BANNER}", "= 1 0"]
    places = kernel.profile.init.gpa, kernel.profile.root.gpa, kernel.profile.init.gva
    assert run(guest, "info").rows("K") == [[f"{place:#x}" for place in places]]


@pytest.mark.parametrize(("window", "windows"), [(PAGE, 2), (PAGE, 8), (2 * MIB, 2), (2 * MIB, 8), (64 * MIB, 2)])
def test_any_windows_do(window: int, windows: int, run: Callable[..., Ran]) -> None:
    guest = build(OTHER_BOOTS[ARM64.name])
    expected = processes(plist(discover(guest.memory())).rows)
    assert run(guest, "plist", window=window, windows=windows).processes() == expected


def test_ram_in_pieces_does(programs: Mapping[str, Path], tmp_path: Path) -> None:
    guest = build(ARM64)
    ends = [0, 3 * PAGE, MIB + PAGE, 5 * MIB - 3 * PAGE, RAM_SIZE]
    files = {}
    for start, end in pairwise(ends):
        files[ARM64.base + start] = tmp_path / str(start)
        files[ARM64.base + start].write_bytes(guest.ram[start:end])
    made = ran(programs[ARM64.name], "plist", dict(reversed(files.items())))
    assert made.processes() == processes(plist(discover(guest.memory())).rows)


def test_people_get_a_table(run: Callable[..., Ran]) -> None:
    guest = build(ARM64)
    lines = run(guest, "plist", raw=0).lines
    assert lines[0].split() == ["PID", "PPID", "UID", "S", "COMM"]
    assert [line.split() for line in lines[1:4]] == [
        ["1", "0", "0", "S", "init"],
        ["2", "0", "0", "S", "[kthreadd]"],
        ["3", "2", "0", "I", "[rcu_gp]"],
    ]
    assert run(guest, "banner", raw=0).lines == [BANNER]
    assert len(run(guest, "syscall", raw=0).lines) == len(guest.calls)


def test_many_processes_get_a_larger_area(run: Callable[..., Ran]) -> None:
    plans = [*usual(0), *((100 + number, 1, 0, 0, f"p{number}", "S", 2.0) for number in range(310))]
    guest = build(ARM64, plans=plans)
    made = run(guest, "plist")
    assert made.result == OK
    assert len(made.rows("P")) == 315


def test_bytes_of_the_guest_are_escaped(run: Callable[..., Ran]) -> None:
    guest = build(ARM64)
    guest.write(guest.member(guest.by_pid(100).gva, "comm"), b"\x1b[2J\n\\E \xff x")
    made = run(guest, "plist")
    assert made.processes() == processes(plist(discover(guest.memory())).rows)
    assert any(line.endswith(r" \x1b[2J\x0a\x5cE \xff x") for line in made.lines)


def test_hooked_calls_are_told(run: Callable[..., Ran]) -> None:
    guest = build(ARM64)
    table = guest.symbols["sys_call_table"]
    guest.words(table + 8 * 63, guest.symbols["helper7"])
    guest.words(table + 8 * 64, 0xFFFF_8000_0812_3000)
    made = run(guest, "syscall")
    assert [row[0] for row in made.rows("S") if row[3] == "0"] == ["63", "64"]
    assert [row[2] for row in made.rows("S") if row[3] == "0"] == ["1", "0"]
    people = run(guest, "syscall", raw=0).lines
    assert people[63].endswith(" CHANGED")
    assert people[64].endswith(" CHANGED, outside the kernel's text")


def test_credentials_that_are_missing_are_told(run: Callable[..., Ran]) -> None:
    guest = build(ARM64)
    guest.words(guest.member(guest.by_pid(100).gva, "real_cred"), 0)
    made = run(guest, "plist")
    assert made.result == INCOMPLETE
    task = guest.by_pid(100).gva
    assert made.lines[-1] == f"E incomplete, 1 times, first: real_cred of a task is NULL {task:#x}"
    assert next(row for row in made.rows("P") if row[0] == "100")[3:7] == ["-"] * 4


@pytest.mark.parametrize(("pid", "word"), [(0, "none that a process can have"), (107, "appears twice")])
def test_impossible_pids_are_told(pid: int, word: str, run: Callable[..., Ran]) -> None:
    guest = build(ARM64)
    guest.ints(guest.member(guest.by_pid(100).gva, "pid"), pid)
    made = run(guest, "plist")
    assert made.result == INCOMPLETE
    assert word in made.lines[-1]


def spoil_nothing_there(guest: Guest) -> None:
    guest.ram[:] = bytes(RAM_SIZE)


def spoil_banner(guest: Guest) -> None:
    guest.ram[RODATA_AT + 14] = ord("5")


def spoil_init(guest: Guest) -> None:
    guest.words(guest.member(guest.init, "real_parent"), 0)


def spoil_tables(guest: Guest) -> None:
    guest.ram[guest.machine.root_at : guest.machine.root_at + PAGE] = bytes(PAGE)


def spoil_list(guest: Guest) -> None:
    head = guest.member(guest.init, "tasks")
    guest.words(head, head, head)


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (spoil_nothing_there, "no Linux kernel was found"),
        (spoil_banner, r"not the kernel that these commands were made for: Linux version 5.1.0-9-test (builder@host)"),
        (spoil_init, "do not hold"),
        (spoil_tables, "do not hold"),
        (spoil_list, "do not hold"),
    ],
)
@pytest.mark.parametrize("command", ["info", "banner", "plist", "syscall"])
def test_what_is_not_the_kernel_costs_one_line(
    spoil: Callable[[Guest], None], word: str, command: str, run: Callable[..., Ran]
) -> None:
    guest = build(ARM64)
    spoil(guest)
    made = run(guest, command)
    assert made.result == ERROR
    assert len(made.lines) == 1
    assert made.lines[0].startswith("E ")
    assert word in made.lines[0]


def test_two_kernels_are_an_error_unless_a_register_decides(programs: Mapping[str, Path], tmp_path: Path) -> None:
    guests = [build(ARM64), build(OTHER_BOOTS[ARM64.name])]
    files = {guest.machine.base: tmp_path / f"{guest.machine.base:x}" for guest in guests}
    for guest in guests:
        files[guest.machine.base].write_bytes(guest.ram)
    made = ran(programs[ARM64.name], "plist", files)
    assert made.result == ERROR
    assert "two kernels" in made.lines[0]
    for guest in guests:
        hint = guest.machine.base + guest.machine.root_at
        decided = ran(programs[ARM64.name], "plist", files, hint=hint)
        assert decided.processes() == processes(plist(discover(guest.memory())).rows)
        assert ran(programs[ARM64.name], "plist", files, hint=hint + PAGE).result == ERROR
        assert ran(programs[ARM64.name], "plist", {guest.machine.base: files[guest.machine.base]}, hint=1).result == OK


def test_with_a_register_ram_is_not_searched(run: Callable[..., Ran]) -> None:
    guest = build(ARM64)
    hint = guest.machine.base + guest.machine.root_at
    expected = processes(plist(discover(guest.memory())).rows)
    quick, slow = (run(guest, "plist", window=PAGE, windows=8, hint=root) for root in (hint, hint + PAGE))
    assert quick.processes() == slow.processes() == expected
    assert quick.maps < slow.maps - RAM_SIZE // PAGE * 9 // 10
    behind = run(guest, "plist", window=PAGE, windows=8, hint=hint + (1024 - 64) * 8)
    assert behind.processes() == expected
    assert behind.maps <= quick.maps + 2
    peeked = run(guest, "plist", window=PAGE, windows=8, peek=True)
    assert peeked.processes() == expected
    assert peeked.maps == quick.maps
    for wild in (8, (1 << 64) - 8, guest.machine.base, guest.machine.base + RAM_SIZE - 8):
        assert run(guest, "plist", hint=wild).processes() == expected


def test_copies_of_the_banner_are_no_kernels(run: Callable[..., Ran]) -> None:
    guest = build(ARM64)
    for at in range(6 * MIB, 6 * MIB + 40 * PAGE, PAGE):
        guest.ram[at + RODATA_AT % PAGE :][: len(BANNER)] = b""
        guest.ram[at : at + len(BANNER) + 2] = BANNER.encode() + b"\n\0"
    del guest.ram[RAM_SIZE:]
    assert run(guest, "banner").result == OK
    for at in range(6 * MIB, RAM_SIZE, PAGE):
        guest.ram[at : at + len(BANNER) + 2] = BANNER.encode() + b"\n\0"
    made = run(guest, "banner")
    assert made.result == ERROR
    assert "full of copies" in made.lines[0]


@pytest.mark.parametrize("command", ["plist", "syscall"])
def test_a_command_that_takes_too_long_ends(command: str, run: Callable[..., Ran]) -> None:
    guest = build(ARM64, plans=[*usual(0), *((100 + number, 1, 0, 0, f"p{number}", "S", 2.0) for number in range(250))])
    scanning = RAM_SIZE // (64 << 10)
    assert run(guest, command).yields > scanning
    for limit in (1, scanning):
        made = run(guest, command, yields=limit)
        assert made.result == ERROR
        assert made.lines == ["E given up: looking for the kernel takes too long"]
    made = run(guest, command, yields=scanning + 1)
    assert made.result == INCOMPLETE
    assert made.lines[-1] == "E incomplete; ended: it takes too long, or has no end"
    assert made.lines[0][0] in "PS"


def test_a_list_without_end_ends(run: Callable[..., Ran]) -> None:
    guest = build(ARM64)
    last = guest.member(guest.tasks[-1].gva, "tasks")
    guest.words(last, guest.member(guest.tasks[2].gva, "tasks"))
    made = run(guest, "plist")
    assert made.result == INCOMPLETE
    assert made.processes() == processes(plist(discover_whole(guest)).rows)


def discover_whole(spoiled: Guest) -> Kernel:
    """Return the kernel of a guest that was spoiled, learnt from a sound one."""
    sound = build(spoiled.machine)
    kernel = discover(sound.memory())
    sound.ram[:] = spoiled.ram
    return kernel


def spoiled_at(guest: Guest, chance: random.Random, count: int) -> None:
    """Overwrite words: of tasks, of page tables, of the image, anywhere."""
    for _ in range(count):
        kind = chance.randrange(4)
        word = guest.machine.word
        near = [0, 1, guest.init, chance.choice(guest.tasks).gva, chance.getrandbits(8 * word), guest.machine.base]
        value = chance.choice([*near, guest.linear(chance.randrange(RAM_SIZE) & -word), (1 << 8 * word) - word])
        if kind < 2:
            task = chance.choice([guest.init, *(task.gva for task in guest.tasks)]) if kind else guest.init
            guest.words((task + guest.task[chance.choice(sorted(guest.task))]) & -word, value)
            continue
        at = chance.randrange(0, RAM_SIZE, word)
        if kind == 2:
            at = guest.machine.root_at + chance.randrange(0, 0x8000, word)
            value = chance.choice([value, guest.machine.base + chance.randrange(0, 2 * RAM_SIZE, PAGE) | 3])
        guest.ram[at : at + word] = value.to_bytes(word, "little")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    machine=st.sampled_from(MACHINES),
    seed=st.integers(0, 1 << 32),
    count=st.integers(1, 30),
    command=st.sampled_from(["plist", "plist", "syscall"]),
    windows=st.sampled_from([2, 3, 16]),
    hinted=st.booleans(),
    peek=st.booleans(),
)
def test_hostile_memory_costs_an_error_line(
    machine: Machine,
    seed: int,
    count: int,
    command: str,
    windows: int,
    hinted: bool,
    peek: bool,
    run: Callable[..., Ran],
) -> None:
    """Nothing outside of RAM is read, or the program would be killed; what is found is what the host finds."""
    guest = build(machine)
    spoiled_at(guest, random.Random(seed), count)
    hint = guest.machine.base + guest.machine.root_at if hinted else 0
    made = run(guest, command, window=PAGE, windows=windows, hint=hint, peek=peek)
    errors = [line for line in made.lines if line.startswith("E ")]
    assert len(errors) == (made.result != OK)
    assert errors == made.lines[-1:] or made.result == OK
    if made.result == ERROR:
        assert len(made.lines) == 1
    elif command == "plist":
        result = plist(discover_whole(guest))
        assert made.processes() == processes(result.rows)
        assert result.complete == (made.result == OK)
    else:
        assert [row[:3] for row in made.rows("S")] == calls(discover_whole(guest))

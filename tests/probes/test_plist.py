"""The list of tasks under attack: right rows, or rows so far and the reason; never another exception, never a hang."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.synthetic import ARM, MACHINES, X86, Guest, Machine, Shape, build, shown, usual

from yamori.address import GPA
from yamori.errors import NoKernelError, ProfileError, YamoriError
from yamori.kernel.discovery import discover
from yamori.kernel.inferred import InferredTypes
from yamori.kernel.kernel import Kernel
from yamori.kernel.types import Member, Types
from yamori.memory.physical import BytesMemory
from yamori.probes.plist import plist
from yamori.records import Process, Result

machines = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def look(guest: Guest) -> Kernel:
    """Learn the kernel while all is well; what is written to ``ram`` afterwards is seen."""
    return discover(guest.memory())


def with_types(kernel: Kernel, *types: Types) -> Kernel:
    return Kernel(kernel.memory, replace(kernel.profile, types=types))


def listed(kernel: Kernel, *, threads: bool = True) -> Result[Process]:
    started = time.perf_counter()
    result = plist(kernel, threads=threads)
    assert time.perf_counter() - started < 20
    assert result.complete == (not result.reasons)
    return result


def node(guest: Guest, number: int) -> int:
    return guest.member(guest.tasks[number].gva, "tasks")


@machines
def test_list_that_is_whole(machine: Machine) -> None:
    guest = build(machine)
    result = listed(look(guest))
    assert shown(result) == guest.rows(threads=True)
    assert (result.complete, result.faults) == (True, 0)
    assert result.loads > len(result)
    assert shown(listed(look(guest), threads=False)) == guest.tasks


def test_two_hundred_processes() -> None:
    guest = build(plans=usual(200))
    assert shown(listed(look(guest))) == guest.rows(threads=True)


# Each breaks the list at process 9: (what it points to, what the reason says, how many rows there are at least).
BREAKS: dict[str, tuple[Callable[[Guest], int], str]] = {
    "loops without the head": (lambda guest: node(guest, 9), "loops without"),
    "loops back to the middle": (lambda guest: node(guest, 4), "loops without"),
    "leaves RAM": (lambda guest: guest.linear(0x4000_0000 // 8), "not mapped"),
    "is a user's address": (lambda guest: 0x1000, "not an address of the kernel"),
    "is misaligned": (lambda guest: node(guest, 10) + 1, "misaligned"),
    "is NULL": (lambda guest: 0, "not an address of the kernel"),
    "is all ones": (lambda guest: (1 << 8 * guest.machine.word) - 1, "misaligned"),
    "is the last page": (lambda guest: (1 << 8 * guest.machine.word) - 0x1000, "not mapped"),
}


@machines
@pytest.mark.parametrize("name", BREAKS)
def test_broken_list_gives_rows_so_far_and_the_reason(machine: Machine, name: str) -> None:
    target, reason = BREAKS[name]
    guest = build(machine)
    kernel = look(guest)
    guest.words(node(guest, 9), target(guest))
    result = listed(kernel)
    assert not result.complete
    assert any(reason in text for text in result.reasons)
    wanted = [row for row in guest.rows(threads=True) if row.tgid in {task.pid for task in guest.tasks[:10]}]
    assert sorted(shown(result)) == sorted(wanted)


@machines
@pytest.mark.parametrize("value", [0, 0x100, -8, None], ids=["NULL", "poison", "end", "itself"])
def test_process_whose_prev_lies_is_still_shown(machine: Machine, value: int | None) -> None:
    """A rootkit that only spoils ``prev`` must not take a process off the list."""
    guest = build(machine)
    kernel = look(guest)
    hidden = node(guest, 8)
    guest.words(hidden + machine.word, hidden if value is None else value)
    result = listed(kernel)
    assert sorted(shown(result)) == sorted(guest.rows(threads=True))
    assert any("does not link back" in reason for reason in result.reasons)


@machines
def test_pid_that_is_listed_twice_is_remarked(machine: Machine) -> None:
    guest = build(machine)
    kernel = look(guest)
    twin = guest.tasks[3].pid
    guest.ints(guest.member(guest.tasks[9].gva, "pid"), twin, twin)
    result = listed(kernel, threads=False)
    assert [row.pid for row in result].count(twin) == 2
    assert result.reasons == [f"pid {twin} appears twice: somebody may have changed it"]


def test_thread_with_the_number_of_a_process_is_remarked() -> None:
    guest = build()
    kernel = look(guest)
    guest.ints(guest.member(guest.threads[0].gva, "pid"), 1)
    assert listed(kernel).reasons == ["pid 1 appears twice: somebody may have changed it"]
    assert listed(kernel, threads=False).complete


@pytest.mark.parametrize("pid", [0, -1, -(1 << 31)])
def test_pid_that_no_process_can_have_is_remarked(pid: int) -> None:
    guest = build()
    kernel = look(guest)
    guest.ints(guest.member(guest.tasks[9].gva, "pid"), pid)
    result = listed(kernel, threads=False)
    assert len(result) == len(guest.tasks)
    assert result.reasons == [f"pid {pid} is none that a process can have: somebody may have changed it"]


def test_process_that_was_unlinked_is_not_on_the_list() -> None:
    guest = build()
    kernel = look(guest)
    guest.words(node(guest, 7), node(guest, 9))
    guest.words(node(guest, 9) + 8, node(guest, 7))
    result = listed(kernel)
    assert result.complete
    assert guest.tasks[8].pid not in {row.pid for row in result}


class Changing(BytesMemory):
    """RAM in which something changes at one of the reads."""

    def __init__(self, guest: Guest, change: Callable[[], None], at: int) -> None:
        super().__init__({guest.machine.base: guest.ram})
        self.reads = 0
        self.at = at
        self.change = change

    def read(self, gpa: GPA, size: int) -> bytes:
        self.reads += 1
        if self.reads == self.at:
            self.change()
        return super().read(gpa, size)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 700), st.integers(0, 14))
def test_process_that_ends_while_the_list_is_read(at: int, number: int) -> None:
    guest = build()
    profile = look(guest).profile
    nodes = [guest.member(guest.init, "tasks"), *(node(guest, each) for each in range(len(guest.tasks)))]
    before, gone, after = (nodes[(number + step) % len(nodes)] for step in (0, 1, 2))

    def end() -> None:
        """Do what list_del_rcu does, and free the credentials."""
        guest.words(before, after)
        guest.words(after + 8, before)
        guest.words(gone + 8, 0xDEAD_0000_0000_0122)
        guest.words(guest.member(guest.tasks[number].gva, "real_cred"), 0)

    result = listed(Kernel(Changing(guest, end, at), profile))
    assert result.complete, result.reasons
    rows = shown(result)
    others = [row for row in guest.rows(threads=True) if row.tgid != guest.tasks[number].pid]
    assert [row for row in rows if row.tgid != guest.tasks[number].pid] == others
    assert all(row in guest.rows(threads=True) for row in rows)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(MACHINES), st.data())
def test_any_garbage_in_tasks_is_survived(machine: Machine, data: st.DataObject) -> None:
    guest = build(machine)
    kernel = look(guest)
    for _ in range(data.draw(st.integers(1, 6))):
        task = data.draw(st.sampled_from([*guest.tasks, *guest.threads])).gva
        member = data.draw(st.sampled_from(sorted(guest.task)))
        others = st.sampled_from([other.gva + guest.task[member] for other in guest.tasks])
        value = data.draw(st.integers(0, (1 << 8 * machine.word) - 1) | others)
        guest.words(task + guest.task[member] & -machine.word, value)
    result = listed(kernel)
    for row in result:
        assert row.comm.isascii()
        assert row.comm.isprintable()
    with suppress(YamoriError):
        listed(discover(guest.memory()))


PARENTS: dict[str, tuple[Callable[[Guest], int], int, bool]] = {
    "NULL": (lambda guest: 0, 0, True),
    "garbage": (lambda guest: 0x1234_5678, 0, False),
    "out of RAM": (lambda guest: guest.linear(0x0800_0000), 0, False),
    "itself": (lambda guest: guest.tasks[9].gva, -1, True),
}


@machines
@pytest.mark.parametrize("name", PARENTS)
def test_process_with_a_false_parent_is_shown(machine: Machine, name: str) -> None:
    value, ppid, complete = PARENTS[name]
    guest = build(machine)
    kernel = look(guest)
    victim = guest.tasks[9]
    guest.words(guest.member(victim.gva, "real_parent"), value(guest))
    result = listed(kernel)
    wanted = victim._replace(ppid=victim.pid if ppid < 0 else ppid)
    assert [row if row.pid != victim.pid else wanted for row in guest.rows(threads=True)] == shown(result)
    assert result.complete == complete


@machines
@pytest.mark.parametrize("value", [0, 3, -16], ids=["NULL", "garbage", "end"])
def test_process_with_false_credentials_is_shown_without_ids(machine: Machine, value: int) -> None:
    guest = build(machine)
    kernel = look(guest)
    victim = guest.tasks[9]
    guest.words(guest.member(victim.gva, "real_cred"), value)
    result = listed(kernel)
    row = next(row for row in result if row.pid == victim.pid)
    assert (row.uid, row.gid, row.euid, row.egid) == (None, None, None, None)
    assert len(result) == len(guest.rows(threads=True))
    assert not result.complete


@machines
@pytest.mark.parametrize("usage", [0, -1, 0x6E69_6220, -0x5A5A_5A5B], ids=["freed", "negative", "text", "poison"])
def test_overwritten_credentials_are_not_believed(machine: Machine, usage: int) -> None:
    guest = build(machine)
    kernel = look(guest)
    victim = guest.tasks[9]
    cred = guest.word(guest.member(victim.gva, "real_cred"))
    guest.write(cred, usage.to_bytes(4, "little", signed=True))
    result = listed(kernel)
    row = next(row for row in result if row.pid == victim.pid)
    assert (row.uid, row.gid, row.euid, row.egid) == (None, None, None, None)
    assert not result.complete
    assert "nobody uses them" in " ".join(result.reasons)


@pytest.mark.parametrize(
    ("comm", "text"),
    [
        (b"x" * 16, "x" * 16),
        (b"\x1b[2J\x1b]0;owned", "\\x1b[2J\\x1b]0;owned"),
        ("日本語".encode(), "\\xe6\\x97\\xa5\\xe6\\x9c\\xac\\xe8\\xaa\\x9e"),
        (b"a\nb\rc\\d", "a\\x0ab\\x0dc\\x5cd"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"", ""),
    ],
)
def test_name_is_escaped(comm: bytes, text: str) -> None:
    guest = build()
    kernel = look(guest)
    guest.write(guest.member(guest.tasks[9].gva, "comm"), comm.ljust(16, b"\0"))
    assert next(row.comm for row in listed(kernel) if row.pid == guest.tasks[9].pid) == text


@pytest.mark.parametrize(
    ("state", "exit_state", "letter"),
    [
        *((0, 0, "R"), (1, 0, "S"), (2, 0, "D"), (4, 0, "T"), (8, 0, "t"), (0, 16, "X"), (0, 32, "Z"), (0x40, 0, "P")),
        *((0x402, 0, "I"), (0x2001, 0, "S"), (0x8000, 0, "D"), (0x1000, 0, "D"), (0x102, 0, "D"), (0, 0x70, "Z")),
    ],
)
def test_state_letters(state: int, exit_state: int, letter: str) -> None:
    guest = build()
    kernel = look(guest)
    guest.ints(guest.member(guest.tasks[9].gva, "__state"), state)
    guest.ints(guest.member(guest.tasks[9].gva, "exit_state"), exit_state)
    assert next(row.state for row in listed(kernel) if row.pid == guest.tasks[9].pid) == letter


@machines
@pytest.mark.parametrize("target", ["itself", "leader", "nowhere", "user"])
def test_broken_list_of_threads_costs_only_those_threads(machine: Machine, target: str) -> None:
    guest = build(machine)
    kernel = look(guest)
    first = guest.member(guest.threads[0].gva, "thread_node")
    leader = guest.member(guest.by_pid(100).gva, "thread_node")
    value = {"itself": first, "leader": leader, "nowhere": guest.linear(0x0800_0000), "user": 16}[target]
    guest.words(first, value)
    result = listed(kernel)
    assert not result.complete
    lost = guest.threads[1]
    assert shown(result) == [row for row in guest.rows(threads=True) if row != lost]


def test_false_signal_costs_only_those_threads() -> None:
    guest = build()
    kernel = look(guest)
    guest.words(guest.member(guest.by_pid(100).gva, "signal"), 0x1003)
    result = listed(kernel)
    assert shown(result) == guest.tasks[:6] + guest.tasks[6:]
    assert any("threads" in reason or "signal" in reason or "list" in reason for reason in result.reasons)


def test_signal_that_cannot_be_read_costs_only_those_threads() -> None:
    guest = build()
    kernel = look(guest)
    types = InferredTypes()
    types.members["task_struct", "signal"] = Member(1 << 40, 8)
    result = listed(with_types(kernel, types, *kernel.profile.types))
    assert shown(result) == guest.tasks
    assert not result.complete


def test_run_that_reads_too_much_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yamori.probes.run.BUDGET", 20)
    guest = build()
    result = listed(look(guest), threads=False)
    assert 0 < len(result) < len(guest.tasks)
    assert shown(result) == guest.tasks[: len(result)]
    assert result.reasons == ["given up after 20 rounds of loops: there is too much to read, or no end of it"]


def test_one_long_list_on_every_process_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yamori.probes.run.BUDGET", 20_000)
    guest = build(ARM, plans=usual(150))
    kernel = look(guest)
    ring = [guest.linear(0x8000 + 8 * index) for index in range(4000)]
    guest.ring(*ring)
    signal = ring[0] - guest.thread_head
    for task in guest.tasks:
        guest.words(guest.member(task.gva, "signal"), signal)
    result = listed(kernel)
    assert not result.complete
    assert len(result.reasons) <= 100
    assert result.loads < 1_000_000


def test_size_of_comm_is_not_believed() -> None:
    guest = build()
    kernel = look(guest)
    types = InferredTypes()
    types.members["task_struct", "comm"] = Member(guest.task["comm"], 1 << 40)
    kernel = with_types(kernel, types, *kernel.profile.types)
    guest.write(guest.member(guest.tasks[3].gva, "comm"), b"x" * 1000)
    assert all(len(row.comm) <= 4096 for row in listed(kernel))


@pytest.mark.parametrize("member", [Member(1 << 70, 4), Member(3, 4), Member(0, 3), Member(0, 8, shift=0, bits=255)])
def test_absurd_members_are_faults(member: Member) -> None:
    kernel = look(build())
    types = InferredTypes()
    types.members["task_struct", "pid"] = member
    kernel = with_types(kernel, types, *kernel.profile.types)
    if member.size == 4:
        assert not listed(kernel).complete
    else:
        with pytest.raises(ProfileError, match=r"task_struct.pid has \d bytes on this kernel, so that it is no number"):
            plist(kernel)


def test_old_kernels_show_thread_group_and_timespec() -> None:
    """Before 3.14 threads hang on ``thread_group``; before 3.17 ``real_start_time`` is a timespec."""
    guest = build()
    kernel = look(guest)
    inferred = kernel.profile.types[-1]
    types = InferredTypes()
    names = ("tasks", "pid", "tgid", "real_parent", "comm", "flags", "exit_state", "real_cred")
    for name in names:
        types.members["task_struct", name] = inferred.member("task_struct", name) or Member(0, 4)
    for name in ("uid", "gid", "euid", "egid"):
        types.members["cred", name] = inferred.member("cred", name) or Member(0, 4)
    types.members["task_struct", "state"] = inferred.member("task_struct", "__state") or Member(0, 4)
    types.members["task_struct", "thread_group"] = Member(guest.task["thread_node"], 16)
    types.members["task_struct", "real_start_time"] = Member(guest.task["start_time"], 16)
    types.members["task_struct", "real_start_time.tv_sec"] = Member(guest.task["start_time"], 8)
    types.members["task_struct", "real_start_time.tv_nsec"] = Member(guest.task["start_time"] + 8, 8)
    for task in [*guest.tasks, *guest.threads]:
        guest.write(guest.member(task.gva, "start_time"), struct.pack("<QQ", int(task.start), 250_000_000))
    leader = guest.by_pid(100)
    for task in guest.tasks:
        guest.ring(guest.member(task.gva, "thread_node"))
    guest.ring(*(guest.member(task.gva, "thread_node") for task in (leader, *guest.threads)))
    result = listed(with_types(kernel, types))
    assert result.complete, result.reasons
    assert shown(result) == [row._replace(start=int(row.start) + 0.25) for row in guest.rows(threads=True)]
    del types.members["task_struct", "real_start_time.tv_nsec"]  # then the time is not known, and the rest is
    result = listed(with_types(kernel, types))
    assert [row.start_time for row in result] == [None] * len(guest.rows(threads=True))
    assert result.reasons == ["start time cannot be shown: `yamori doctor` tells what is not known; give --vmlinux"]


def test_layout_that_is_not_known_is_one_sentence() -> None:
    kernel = with_types(look(build()))
    with pytest.raises(ProfileError, match=r"tasks needs task_struct.tasks, .* which is not known of this kernel"):
        plist(kernel)


def test_randomised_layout_is_refused() -> None:
    guest = build()
    for task in (guest.init, *(task.gva for task in guest.tasks)):
        parents = guest.read(guest.member(task, "real_parent"), 16)
        guest.write(guest.member(task, "real_parent"), bytes(16))
        guest.write(task + guest.task["thread_node"] + 24, parents)
    with pytest.raises((NoKernelError, ProfileError)):
        listed(discover(guest.memory()))


def test_inference_says_why_it_knows_nothing() -> None:
    guest = build(X86, Shape())
    head = guest.member(guest.init, "tasks")
    guest.words(head, head, head)
    types = discover(guest.memory()).profile.types[-1]
    assert isinstance(types, InferredTypes)
    assert "task_struct.tasks" in types.unknown


def test_guest_that_is_still_booting_is_one_sentence() -> None:
    kernel = discover(build(X86, plans=usual(0)[:2]).memory())
    with pytest.raises(ProfileError, match=r"still booting: there is no user process yet; try again in a few seconds"):
        listed(kernel)


def test_threads_that_cannot_be_told_are_not_called_none() -> None:
    """Before 3.14 there is no thread_node, and inference does not find thread_group."""
    guest = build(ARM)
    kernel = look(guest)
    inferred = kernel.profile.types[-1]
    assert isinstance(inferred, InferredTypes)
    del inferred.members["task_struct", "thread_node"]
    result = listed(kernel)
    assert shown(result) == guest.tasks
    assert len(result.reasons) == 1
    assert "threads cannot be listed" in result.reasons[0]
    assert listed(kernel, threads=False).complete

"""Inference in a guest whose root alters tasks: one of them costs nothing, many cost a member, none make it wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.synthetic import (
    ARM,
    PF_KTHREAD,
    SLOT,
    X86,
    Guest,
    Machine,
    Plan,
    Shape,
    build,
    shown,
    usual,
)

from yamori.address import GPA
from yamori.errors import YamoriError
from yamori.kernel.discovery import discover
from yamori.kernel.inference import infer
from yamori.kernel.inferred import InferredTypes
from yamori.kernel.kernel import Kernel
from yamori.kernel.profile import Profile
from yamori.probes.plist import plist
from yamori.records import Process, Result
from yamori.translation.space import AddressSpace

WORDS = (X86, ARM)  # of an architecture, inference knows no more than the word size
machines = pytest.mark.parametrize("machine", WORDS, ids=lambda machine: machine.name)
NEEDED = (
    "tasks",
    "pid",
    "tgid",
    "real_parent",
    "comm",
    "flags",
    "__state",
    "exit_state",
    "real_cred",
    "start_boottime",
)


def crowd() -> list[Plan]:
    threads: list[Plan] = [(12 + at, 2, 0, 0, f"kthread{at}", "SI"[at % 2], 1 + at / 8) for at in range(24)]
    return usual(0) + threads + [(plan[0], plan[1], *plan[2:6], 9.0 + at) for at, plan in enumerate(usual(12)[5:])]


@cache
def profile(machine: Machine, shape: Shape) -> Profile:
    return discover(build(machine, shape, crowd()).memory()).profile


def look(guest: Guest) -> tuple[Kernel, InferredTypes]:
    """Infer from the altered guest; that its root and ``init_task`` are found is tested elsewhere."""
    known = profile(guest.machine, guest.shape)
    space = AddressSpace(guest.memory(), known.root.geometry, GPA(known.root.gpa))
    types = infer(space, known.init)
    return Kernel(guest.memory(), replace(known, types=[types])), types


def listed(kernel: Kernel) -> Result[Process]:
    return plist(kernel)


def assert_true(guest: Guest, types: InferredTypes) -> None:
    for (struct, name), member in types.members.items():
        wanted = guest.task.get(name) if struct == "task_struct" else guest.uid if name == "uid" else None
        assert wanted in {None, member.offset}, (struct, name)


# What the pointer to the next task, or back from it, is made to be.
POINTERS: dict[str, Callable[[Guest, int], int]] = {
    "itself": lambda guest, node: node,
    "another task": lambda guest, node: guest.member(guest.tasks[20].gva, "tasks"),
    "NULL": lambda guest, node: 0,
    "odd": lambda guest, node: node + 1,
    "outside RAM": lambda guest, node: guest.linear(0x4000_0000 // 8),
    "a user's": lambda guest, node: 0x1000,
    "poison": lambda guest, node: 0x100,
    "the last word": lambda guest, node: -guest.machine.word,
}


@machines
@pytest.mark.parametrize("target", POINTERS)
@pytest.mark.parametrize("number", [-1, 0, 1, 7], ids=lambda number: f"task {number + 1}")
def test_one_bad_pointer_to_the_next_task(machine: Machine, target: str, number: int) -> None:
    guest = build(machine, plans=crowd())
    task = guest.tasks[number].gva if number >= 0 else guest.init
    node = guest.member(task, "tasks")
    guest.words(node, POINTERS[target](guest, node))
    kernel, types = look(guest)
    assert all(types.members["task_struct", name].offset == guest.task[name] for name in NEEDED)
    assert types.members["cred", "uid"].offset == guest.uid
    result = listed(kernel)
    assert not result.complete
    assert target == "another task" or shown(result)[: number + 1] == guest.tasks[: number + 1]


@machines
@pytest.mark.parametrize("target", ["itself", "another task", "NULL", "outside RAM"])
@pytest.mark.parametrize("side", [0, 1], ids=["next", "prev"])
@pytest.mark.parametrize("name", ["children", "sibling", "tasks"])
def test_one_bad_pointer_between_kin(machine: Machine, name: str, side: int, target: str) -> None:
    for number in (-1, 1, 8):
        guest = build(machine, plans=crowd())
        node = guest.member(guest.tasks[number].gva if number >= 0 else guest.init, name)
        guest.words(node + side * machine.word, POINTERS[target](guest, node))
        kernel, types = look(guest)
        assert all(types.members["task_struct", name].offset == guest.task[name] for name in NEEDED)
        assert name == "tasks" or shown(listed(kernel)) == guest.tasks


@machines
@pytest.mark.parametrize("number", [0, 1, 9])
@pytest.mark.parametrize(
    "name", ["real_parent", "parent", "group_leader", "signal", "real_cred", "cred", "stack", "mm"]
)
def test_one_task_with_a_bad_pointer(machine: Machine, name: str, number: int) -> None:
    for value in (0, 0x1000):
        guest = build(machine, plans=crowd())
        guest.words(guest.member(guest.tasks[number].gva, name), value)
        _, types = look(guest)
        assert all(types.members["task_struct", name].offset == guest.task[name] for name in NEEDED)
        assert_true(guest, types)


@machines
@pytest.mark.parametrize("number", [0, 1, 9])
@pytest.mark.parametrize("name", ["pid", "tgid", "flags", "__state", "exit_state", "exit_signal", "start_time"])
def test_one_task_with_a_bad_number(machine: Machine, name: str, number: int) -> None:
    for value in (0, -1, 9):
        guest = build(machine, plans=crowd())
        guest.ints(guest.member(guest.tasks[number].gva, name), value)
        kernel, types = look(guest)
        assert all(types.members["task_struct", name].offset == guest.task[name] for name in NEEDED)
        assert len(listed(kernel)) == len(guest.tasks)


@machines
def test_pids_that_occur_twice(machine: Machine) -> None:
    guest = build(machine, plans=crowd())
    for task in guest.tasks[4:9]:
        guest.ints(guest.member(task.gva, "pid"), 77, 77)
    kernel, types = look(guest)
    assert types.members["task_struct", "pid"].offset == guest.task["pid"]
    assert [row.pid for row in listed(kernel)].count(77) == 5


def test_process_that_pretends_to_be_a_kernel_thread() -> None:
    guest = build(ARM, plans=crowd())
    evil = guest.tasks[-2]
    guest.ints(guest.member(evil.gva, "flags"), PF_KTHREAD)
    kernel, _ = look(guest)
    assert [row.pid for row in listed(kernel) if row.kthread and row.pid > 100] == [evil.pid]


@machines
def test_process_that_calls_itself_kthreadd(machine: Machine) -> None:
    guest = build(machine, plans=crowd())
    for task in (guest.tasks[0], guest.tasks[-1]):
        guest.write(guest.member(task.gva, "comm"), b"kthreadd".ljust(16, b"\0"))
    kernel, types = look(guest)
    assert_true(guest, types)
    assert [row.pid for row in listed(kernel)] == [task.pid for task in guest.tasks]


@machines
def test_list_of_children_that_leads_to_programs(machine: Machine) -> None:
    guest = build(machine, plans=crowd())
    child = next(task for task in guest.tasks if task.ppid == 1)
    guest.words(guest.member(guest.tasks[1].gva, "children"), guest.member(child.gva, "sibling"))
    _, types = look(guest)
    assert all(types.members["task_struct", name].offset == guest.task[name] for name in NEEDED)


def gap(guest: Guest, first: str, last: str, words: int) -> int:
    """Return the offset of free words between two members."""
    free = [at for at in guest.gaps if guest.task[first] < at < guest.task[last]]
    word = guest.machine.word
    return next(at for at in free if all(at + word * step in free for step in range(words)))


@machines
@pytest.mark.parametrize("spoilt", [0, 1, 8, 12])
@pytest.mark.parametrize("planted", [10, 16, 99])
def test_planted_pids_are_never_believed(machine: Machine, spoilt: int, planted: int) -> None:
    """The true ones fail in some kernel threads, and others are planted beside them."""
    guest = build(machine, Shape(gaps=(6,)), crowd())
    at = gap(guest, "exit_signal", "pid", 2)
    for task in guest.tasks[:planted]:
        fake = task.pid if task.pid <= 2 else 5000 - task.pid
        guest.ints(guest.member(task.gva, "exit_state") - guest.task["exit_state"] + at, fake, fake)
    for task in guest.tasks[2 : 2 + spoilt]:
        guest.ints(guest.member(task.gva, "tgid"), -1)
    _, types = look(guest)
    assert_true(guest, types)
    if planted > 30:
        assert not types.member("task_struct", "pid")
        assert "offset" in types.unknown["task_struct.pid"]


@machines
def test_planted_list_of_tasks_is_never_believed(machine: Machine) -> None:
    """A whole second list without one process, and ``init_task`` no longer in the true one."""
    guest = build(machine, Shape(gaps=(6,)), crowd())
    at = gap(guest, "tasks", "mm", 2)
    chain = [guest.init, *(task.gva for task in guest.tasks[:-1])]
    guest.ring(*(task + at for task in chain))
    guest.ring(guest.member(guest.init, "tasks"))
    _, types = look(guest)
    assert not types.member("task_struct", "tasks")
    assert "comes near" in types.unknown["task_struct.tasks"]


@machines
@pytest.mark.parametrize("spoilt", [0, 10])
def test_planted_flags_are_never_believed(machine: Machine, spoilt: int) -> None:
    guest = build(machine, Shape(gaps=(6,)), crowd())
    at = gap(guest, "flags", "tasks", 3) + machine.word
    for number, task in enumerate(guest.tasks):
        guest.words(task.gva + at, guest.linear(0x10_0000 + number * 0x2000))
        guest.ints(task.gva + at + machine.word, 2, 0 if task.pid == guest.tasks[-1].pid else PF_KTHREAD * task.kthread)
    for task in guest.tasks[2 : 2 + spoilt]:
        guest.ints(guest.member(task.gva, "flags"), 0)
    _, types = look(guest)
    assert_true(guest, types)
    assert not types.member("task_struct", "flags")
    assert not types.booting


@machines
def test_planted_credentials_do_not_move_the_ids(machine: Machine) -> None:
    guest = build(machine, plans=crowd())
    for task in guest.tasks[1:8]:
        cred = guest.linear(guest.at(task.gva) + SLOT - 0x300)
        guest.write(cred + 8, guest.read(cred, 96))
    _, types = look(guest)
    assert_true(guest, types)


@machines
def test_all_that_names_no_kernel_thread(machine: Machine) -> None:
    guest = build(machine, plans=crowd())
    kthreadd = guest.member(guest.tasks[1].gva, "children")
    guest.words(kthreadd, kthreadd, kthreadd)
    _, types = look(guest)
    assert types.unknown == {"task_struct.tasks": "there are too few kernel threads"}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(WORDS), st.data())
def test_any_lie_in_a_few_tasks_is_harmless(machine: Machine, data: st.DataObject) -> None:
    """Up to five words of up to three tasks: all that inference still says is true, and it never takes long."""
    guest = build(machine, plans=crowd())
    offsets = st.integers(0, (guest.task["sighand"] // machine.word)).map(lambda index: index * machine.word)
    numbers = [0, 1, data.draw(st.integers(2, 40)), data.draw(st.integers(2, 40))]
    for _ in range(data.draw(st.integers(1, 5))):
        task = guest.tasks[data.draw(st.sampled_from(numbers))].gva
        other = guest.tasks[data.draw(st.sampled_from(numbers))].gva
        offset = data.draw(offsets)
        if offset not in range(guest.task["comm"] - machine.word, guest.task["comm"] + 16):
            pointers = [0, -1, task + offset, other, other + offset, guest.init]
            guest.words(task + offset, data.draw(st.sampled_from(pointers) | st.integers(0, (1 << 31) - 1)))
    started = time.perf_counter()
    with suppress(YamoriError):
        kernel, types = look(guest)
        assert_true(guest, types)
        listed(kernel)
    assert time.perf_counter() - started < 10


def test_lists_of_children_that_never_end_are_cut() -> None:
    """Every process has a list of children that leads round through those of all others."""
    guest = build(X86, plans=crowd())
    for number, task in enumerate(guest.tasks):
        guest.words(guest.member(task.gva, "children"), guest.member(guest.tasks[number - 1].gva, "sibling"))
        guest.words(guest.member(task.gva, "sibling"), guest.member(guest.tasks[number - 5].gva, "sibling"))
    started = time.perf_counter()
    _, types = look(guest)
    assert time.perf_counter() - started < 10
    assert_true(guest, types)
